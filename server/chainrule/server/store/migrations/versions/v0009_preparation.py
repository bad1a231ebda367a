"""How inputs of a version are prepared, and what its classes are called. What earlier jobs did to their images is in
their configurations, and goes to the versions that they have made; whether bytes are divided follows
from their datasets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "chainrule_0009"
down_revision = "chainrule_0008"

_NEW = (("model_versions", ("preparation", "class_labels")), ("jobs", ("class_labels",)))
_ALWAYS_THE_SAME = ("resize", "normalize")
"""The transforms of that time that draw nothing."""


def upgrade() -> None:
    for table, columns in _NEW:
        with op.batch_alter_table(table) as batch:
            for column in columns:
                batch.add_column(sa.Column(column, sa.JSON(), nullable=False, server_default="[]"))
        with op.batch_alter_table(table) as batch:  # the default was for the rows that there were
            for column in columns:
                batch.alter_column(column, server_default=None)
    with op.batch_alter_table("model_versions") as batch:
        batch.add_column(sa.Column("raw_bytes", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("model_versions") as batch:
        batch.alter_column("raw_bytes", server_default=None)
    _fill_in()
    _fill_in_bytes()


def _fill_in() -> None:
    db = op.get_bind()
    jobs = sa.table("jobs", sa.column("name", sa.String), sa.column("config", sa.JSON))
    versions = sa.table("model_versions", sa.column("job", sa.String), sa.column("preparation", sa.JSON))
    for name, config in db.execute(sa.select(jobs.c.name, jobs.c.config)).all():
        transforms = config.get("augmentation", {}).get("transforms", ())
        if kept := [transform for transform in transforms if transform["kind"] in _ALWAYS_THE_SAME]:
            db.execute(versions.update().where(versions.c.job == name).values(preparation=kept))


def _fill_in_bytes() -> None:
    db = op.get_bind()
    datasets = sa.table(
        "datasets",
        sa.column("tenant", sa.String),
        sa.column("digest", sa.String),
        sa.column("name", sa.String),
        sa.column("columns", sa.JSON),
    )
    versions = sa.table(
        "model_versions",
        sa.column("tenant", sa.String),
        sa.column("dataset", sa.String),
        sa.column("dataset_digest", sa.String),
        sa.column("raw_bytes", sa.Boolean),
    )
    for tenant, digest, name, columns in db.execute(sa.select(datasets)).all():
        if columns and not any(column["dtype"] == "uint8" for column in columns):
            own = versions.c.tenant == tenant, versions.c.dataset == name, versions.c.dataset_digest == digest
            db.execute(versions.update().where(*own).values(raw_bytes=True))
