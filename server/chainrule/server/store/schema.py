"""The tables. Times are integers: microseconds since 1970 UTC.

Every change here takes a revision in `migrations/versions`, which converts the tables of databases that exist.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Float, ForeignKey, Integer, MetaData, String, Table, TypeDecorator
from sqlalchemy import Text as AnyText


class Text(TypeDecorator[str]):
    """Text of any length. PostgreSQL's has no NUL; in what processes say of themselves there may be one."""

    impl = AnyText
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:  # noqa: ARG002 — SQLAlchemy's
        return None if value is None else value.replace("\0", "\N{REPLACEMENT CHARACTER}")


metadata = MetaData()

identity = Table("identity", metadata, Column("id", String(32), primary_key=True))
"""One row: what tells this store from others, also from a copy of its tables made anew."""

models = Table(
    "models",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", String(80), nullable=False, unique=True),
    Column("family", String(80), nullable=False),
    Column("family_config", JSON, nullable=False),
    Column("weights_digest", String(64), nullable=False, index=True),
    Column("init_seed", String(20), nullable=False),  # 64 bits without a sign do not fit an SQL integer
    Column("num_parameters", BigInteger, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
)

datasets = Table(
    "datasets",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", String(80), nullable=False, unique=True),
    Column("digest", String(64), nullable=False, index=True),
    Column("num_examples", BigInteger, nullable=False),
    Column("input_shape", JSON, nullable=False),
    Column("num_classes", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("target_shape", JSON, nullable=False),
    Column("num_tokens", BigInteger, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", String(80), nullable=False, unique=True),
    Column("request_id", String(128), unique=True),
    Column("payload_digest", String(64), nullable=False),
    Column("model", ForeignKey("models.name"), nullable=False),
    Column("dataset", ForeignKey("datasets.name"), nullable=False),
    Column("config", JSON, nullable=False),
    Column("total_steps", BigInteger, nullable=False),
    Column("state", String(20), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("running_workers", Integer, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("weights_digest", String(64), nullable=False, index=True),
    Column("weights_step", BigInteger, nullable=False),
    Column("failure", JSON),
    Column("create_time_us", BigInteger, nullable=False),
    Column("start_time_us", BigInteger),
    Column("end_time_us", BigInteger),
)

job_history = Table(
    "job_history",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job", ForeignKey("jobs.name"), nullable=False, index=True),
    Column("state", String(20), nullable=False),
    Column("reason", Text, nullable=False),
    Column("time_us", BigInteger, nullable=False),
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
    Column("accuracy", Float, nullable=False),
    Column("num_examples", BigInteger, nullable=False),
    Column("time_us", BigInteger, nullable=False),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("job", ForeignKey("jobs.name"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("step", BigInteger, nullable=False),
    Column("loss", Float),  # NULL is NaN, which SQLite does not have
    Column("accuracy", Float, nullable=False),
    Column("num_examples", BigInteger, nullable=False),
    Column("time_us", BigInteger, nullable=False),
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
