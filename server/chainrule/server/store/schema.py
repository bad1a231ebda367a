"""The tables. Times are integers: microseconds since 1970 UTC.

Every change here takes a revision in `migrations/versions`, which converts the tables of databases that exist.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy import Text as AnyText


class Text(TypeDecorator[str]):
    """Text of any length. PostgreSQL's has no NUL; in what processes say of themselves there may be one."""

    impl = AnyText
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:  # noqa: ARG002 — SQLAlchemy's
        return None if value is None else value.replace("\0", "\N{REPLACEMENT CHARACTER}")


metadata = MetaData()

DEFAULT_TENANT = "default"
"""Whose everything is where the server asks for no tokens."""

identity = Table("identity", metadata, Column("id", String(32), primary_key=True))
"""One row: what tells this store from others, also from a copy of its tables made anew."""

# --- what can be trained, and on what ---------------------------------------------------------------------------

models = Table(
    "models",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String(63), nullable=False),
    Column("name", String(80), nullable=False),
    Column("family", String(80), nullable=False),
    Column("family_config", JSON, nullable=False),
    Column("weights_digest", String(64), nullable=False, index=True),
    Column("init_seed", String(20), nullable=False),  # 64 bits without a sign do not fit an SQL integer
    Column("num_parameters", BigInteger, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("description", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("last_version", Integer, nullable=False),
    Column("graph_digest", String(64), nullable=False, index=True),
    Column("class_labels", JSON, nullable=False),
    Column("inputs", JSON, nullable=False),
    Column("outputs", JSON, nullable=False),
    Column("warnings", JSON, nullable=False),
    Column("code_digest", String(64), nullable=False, index=True),
    Column("code", JSON, nullable=False),
    UniqueConstraint("tenant", "name", name="uq_models"),
)
"""An architecture is a `family` with its configuration, a graph, or code; the columns of the others are empty.
`revision` counts changes; `last_version` is the highest version number given out, also if that one was removed."""

model_versions = Table(
    "model_versions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String(63), nullable=False),
    Column("model", String(80), nullable=False),
    Column("number", Integer, nullable=False),
    Column("weights_digest", String(64), nullable=False, index=True),
    Column("job", String(80), nullable=False),  # empty: the model was created with it
    Column("parent", Integer, nullable=False),  # number of the version the job began with; 0: none
    Column("dataset", String(80), nullable=False),
    Column("dataset_digest", String(64), nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
    Column("preparation", JSON, nullable=False),
    Column("class_labels", JSON, nullable=False),  # empty: those of the model
    Column("raw_bytes", Boolean, nullable=False),
    UniqueConstraint("tenant", "model", "number", name="uq_model_versions"),
    ForeignKeyConstraint(["tenant", "model"], ["models.tenant", "models.name"], name="fk_model_versions_model"),
)

datasets = Table(
    "datasets",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String(63), nullable=False),
    Column("name", String(80), nullable=False),
    Column("digest", String(64), nullable=False, index=True),
    Column("num_examples", BigInteger, nullable=False),
    Column("input_shape", JSON, nullable=False),
    Column("num_classes", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("target_shape", JSON, nullable=False),
    Column("num_tokens", BigInteger, nullable=False),
    Column("columns", JSON, nullable=False),
    Column("statistics", JSON, nullable=False),
    Column("class_labels", JSON, nullable=False),
    Column("num_chunks", BigInteger, nullable=False),
    Column("source_uri", Text, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("description", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    UniqueConstraint("tenant", "name", name="uq_datasets"),
)

dataset_chunks = Table(
    "dataset_chunks",
    metadata,
    Column("dataset", ForeignKey("datasets.id", name="fk_dataset_chunks_dataset"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("digest", String(64), nullable=False, index=True),
)
"""The blobs that a dataset's blob names, from number 0 on."""

# --- jobs -------------------------------------------------------------------------------------------------------

jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", String(80), nullable=False, unique=True),
    Column("tenant", String(63), nullable=False, index=True),
    Column("model", String(80), nullable=False),
    Column("source_version", Integer, nullable=False),
    Column("dataset", String(80), nullable=False),
    Column("dataset_digest", String(64), nullable=False),
    Column("config", JSON, nullable=False),
    Column("total_steps", BigInteger, nullable=False),
    Column("state", String(20), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("running_workers", Integer, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("weights_digest", String(64), nullable=False, index=True),
    Column("weights_step", BigInteger, nullable=False),
    Column("result_version", Integer, nullable=False),
    Column("failure", JSON),
    Column("create_time_us", BigInteger, nullable=False),
    Column("start_time_us", BigInteger),
    Column("end_time_us", BigInteger),
    Column("labels", JSON, nullable=False),
    Column("description", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("class_labels", JSON, nullable=False),  # of the version that it makes
)
"""Names are drawn at random: no two tenants have the same. Model and dataset may be removed once the job has ended."""

job_history = Table(
    "job_history",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job", ForeignKey("jobs.name"), nullable=False, index=True),
    Column("state", String(20), nullable=False),
    Column("reason", Text, nullable=False),
    Column("time_us", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("cause", String(20), nullable=False),  # empty: not known
)

job_events = Table(
    "job_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job", ForeignKey("jobs.name"), nullable=False, index=True),
    Column("kind", String(20), nullable=False),
    Column("message", Text, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("seconds_lost", Float, nullable=False),
    Column("time_us", BigInteger, nullable=False),
)

metrics = Table(
    "metrics",
    metadata,
    Column("job", ForeignKey("jobs.name"), primary_key=True),
    Column("step", BigInteger, primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("loss", Float),  # NULL is NaN, which SQLite does not have
    Column("accuracy", Float),  # NULL: not measured
    Column("num_examples", BigInteger, nullable=False),
    Column("time_us", BigInteger, nullable=False),
    Column("measured", JSON, nullable=False),  # by name, besides
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("job", ForeignKey("jobs.name"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("step", BigInteger, nullable=False),
    Column("loss", Float),  # NULL is NaN, which SQLite does not have
    Column("accuracy", Float),  # NULL: not measured
    Column("num_examples", BigInteger, nullable=False),
    Column("time_us", BigInteger, nullable=False),
    Column("measured", JSON, nullable=False),  # by name, besides
)

receipts = Table(
    "receipts",
    metadata,
    Column("job", ForeignKey("jobs.name"), primary_key=True),
    Column("step", BigInteger, primary_key=True),
    Column("state_digest", String(64), nullable=False),
    Column("chain_digest", String(64), nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("job", ForeignKey("jobs.name"), primary_key=True),
    Column("step", BigInteger, primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("manifest_digest", String(64), nullable=False, index=True),
    Column("state_digest", String(64), nullable=False, index=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
)

job_logs = Table(
    "job_logs",
    metadata,
    Column("job", ForeignKey("jobs.name"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("time_us", BigInteger, nullable=False),
    Column("severity", Integer, nullable=False),  # as the numbers of `logging`
    Column("source", String(40), nullable=False),
    Column("node", String(64), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("message", Text, nullable=False),
)

# --- who asks, and what was asked -------------------------------------------------------------------------------

requests = Table(
    "requests",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("request_id", String(128), primary_key=True),
    Column("payload_digest", String(64), nullable=False),
    Column("resource", String(80), nullable=False),
    Column("time_us", BigInteger, nullable=False, index=True),
)
"""What a request id has made. The payload's digest tells a repeated request from another one."""

tokens = Table(
    "tokens",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", String(80), nullable=False, unique=True),
    Column("tenant", String(63), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("secret_digest", String(64), nullable=False, unique=True),
    Column("description", Text, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
    Column("expire_time_us", BigInteger),
    Column("revoke_time_us", BigInteger),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("time_us", BigInteger, nullable=False, index=True),
    Column("token", String(80), nullable=False),
    Column("tenant", String(63), nullable=False),
    Column("peer", String(128), nullable=False),
    Column("method", String(128), nullable=False),
    Column("resource", String(160), nullable=False),
    Column("code", String(32), nullable=False),
)

blob_grants = Table(
    "blob_grants",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("digest", String(64), primary_key=True, index=True),
    Column("time_us", BigInteger, nullable=False),
)
"""Who has uploaded a blob, and may read it without having anything yet that refers to it."""
