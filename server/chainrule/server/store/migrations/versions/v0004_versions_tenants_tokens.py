"""Versions of models, tenants and their tokens, labels, logs; and what jobs refer to may be removed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "chainrule_0004"
down_revision = "chainrule_0003"

_NAMES = {"fk": "%(table_name)s_%(column_0_name)s_fkey", "uq": "%(table_name)s_%(column_0_name)s_key"}
"""The names that PostgreSQL has given to constraints without one."""
TENANT = "default"


def upgrade() -> None:
    _new_tables()
    op.execute(
        sa.text(
            f"INSERT INTO requests (tenant, request_id, payload_digest, resource, time_us) SELECT '{TENANT}', "
            "request_id, payload_digest, name, create_time_us FROM jobs WHERE request_id IS NOT NULL"
        )
    )
    for table in ("models", "datasets"):
        with op.batch_alter_table(table, naming_convention=_NAMES) as batch:
            batch.add_column(sa.Column("tenant", sa.String(63), nullable=False, server_default=TENANT))
            _describe(batch)
            if table == "models":
                batch.add_column(sa.Column("last_version", sa.Integer(), nullable=False, server_default="1"))
    with op.batch_alter_table("jobs", naming_convention=_NAMES) as batch:
        batch.drop_constraint("jobs_model_fkey", type_="foreignkey")
        batch.drop_constraint("jobs_dataset_fkey", type_="foreignkey")
        batch.drop_constraint("jobs_request_id_key", type_="unique")
        batch.drop_column("request_id")
        batch.drop_column("payload_digest")
        batch.add_column(sa.Column("tenant", sa.String(63), nullable=False, server_default=TENANT))
        batch.create_index(op.f("ix_jobs_tenant"), ["tenant"])
        _describe(batch)
        batch.add_column(sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("source_version", sa.Integer(), nullable=False, server_default="1"))
        batch.add_column(sa.Column("result_version", sa.Integer(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("dataset_digest", sa.String(64), nullable=False, server_default=""))
    for table in ("models", "datasets"):  # no job refers to their names any more
        with op.batch_alter_table(table, naming_convention=_NAMES) as batch:
            batch.drop_constraint(f"{table}_name_key", type_="unique")
            batch.create_unique_constraint(f"uq_{table}", ["tenant", "name"])
    with op.batch_alter_table("job_history") as batch:
        batch.add_column(sa.Column("attempt", sa.Integer(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("cause", sa.String(20), nullable=False, server_default=""))
    _new_versions()
    _without_defaults()


def _describe(batch: object) -> None:
    add = batch.add_column  # type: ignore[attr-defined]
    add(sa.Column("labels", sa.JSON(), nullable=False, server_default="{}"))
    add(sa.Column("description", sa.Text(), nullable=False, server_default=""))
    add(sa.Column("revision", sa.Integer(), nullable=False, server_default="1"))


def _new_tables() -> None:
    op.create_table(
        "job_logs",
        sa.Column("job", sa.String(80), sa.ForeignKey("jobs.name"), primary_key=True),
        sa.Column("sequence", sa.BigInteger(), primary_key=True),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("severity", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(40), nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
    )
    op.create_table(
        "requests",
        sa.Column("tenant", sa.String(63), primary_key=True),
        sa.Column("request_id", sa.String(128), primary_key=True),
        sa.Column("payload_digest", sa.String(64), nullable=False),
        sa.Column("resource", sa.String(80), nullable=False),
        sa.Column("time_us", sa.BigInteger(), nullable=False, index=True),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("name", sa.String(80), nullable=False, unique=True),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("secret_digest", sa.String(64), nullable=False, unique=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("create_time_us", sa.BigInteger(), nullable=False),
        sa.Column("expire_time_us", sa.BigInteger()),
        sa.Column("revoke_time_us", sa.BigInteger()),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("time_us", sa.BigInteger(), nullable=False, index=True),
        sa.Column("token", sa.String(80), nullable=False),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("peer", sa.String(128), nullable=False),
        sa.Column("method", sa.String(128), nullable=False),
        sa.Column("resource", sa.String(160), nullable=False),
        sa.Column("code", sa.String(32), nullable=False),
    )
    op.create_table(
        "blob_grants",
        sa.Column("tenant", sa.String(63), primary_key=True),
        sa.Column("digest", sa.String(64), primary_key=True, index=True),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
    )


def _new_versions() -> None:
    """Each model has been made with its first version, and each job that has succeeded has made another one."""
    op.create_table(
        "model_versions",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("model", sa.String(80), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("weights_digest", sa.String(64), nullable=False, index=True),
        sa.Column("job", sa.String(80), nullable=False),
        sa.Column("parent", sa.Integer(), nullable=False),
        sa.Column("dataset", sa.String(80), nullable=False),
        sa.Column("dataset_digest", sa.String(64), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("create_time_us", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("tenant", "model", "number", name="uq_model_versions"),
        sa.ForeignKeyConstraint(["tenant", "model"], ["models.tenant", "models.name"], name="fk_model_versions_model"),
    )
    op.create_index("of_job", "model_versions", ["job"])  # for the update of the jobs, of which there may be many
    of_dataset = "(SELECT digest FROM datasets WHERE datasets.name = jobs.dataset)"
    columns = "(tenant, model, number, weights_digest, job, parent, dataset, dataset_digest, step, create_time_us)"
    for statement in (
        f"UPDATE jobs SET dataset_digest = {of_dataset}",
        f"INSERT INTO model_versions {columns} "
        "SELECT tenant, name, 1, weights_digest, '', 0, '', '', 0, create_time_us FROM models ORDER BY id",
        f"INSERT INTO model_versions {columns} "
        "SELECT tenant, model, 1 + row_number() OVER (PARTITION BY model ORDER BY id), weights_digest, name, 1, "
        "dataset, dataset_digest, weights_step, coalesce(end_time_us, create_time_us) "
        "FROM jobs WHERE weights_digest <> '' ORDER BY id",
        "UPDATE jobs SET result_version = (SELECT number FROM model_versions WHERE model_versions.job = jobs.name) "
        "WHERE weights_digest <> ''",
        "UPDATE models SET last_version = (SELECT max(number) FROM model_versions "
        "WHERE model_versions.tenant = models.tenant AND model_versions.model = models.name)",
    ):
        op.execute(sa.text(statement))
    op.drop_index("of_job", "model_versions")


def _without_defaults() -> None:
    """The defaults were for the rows that there were."""
    added = {
        "models": ("tenant", "labels", "description", "revision", "last_version"),
        "datasets": ("tenant", "labels", "description", "revision"),
        "jobs": (
            "tenant",
            "labels",
            "description",
            "revision",
            "priority",
            "source_version",
            "result_version",
            "dataset_digest",
        ),
        "job_history": ("attempt", "cause"),
    }
    for table, columns in added.items():
        with op.batch_alter_table(table) as batch:
            for column in columns:
                batch.alter_column(column, server_default=None)
