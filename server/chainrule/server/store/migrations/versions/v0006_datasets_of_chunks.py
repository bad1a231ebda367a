"""Datasets that are made of chunks, and what their columns are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "chainrule_0006"
down_revision = "chainrule_0005"

_ADDED = ("columns", "statistics", "class_labels", "num_chunks", "source_uri")


def upgrade() -> None:
    with op.batch_alter_table("datasets") as batch:
        for name in ("columns", "statistics", "class_labels"):
            batch.add_column(sa.Column(name, sa.JSON(), nullable=False, server_default="[]"))
        batch.add_column(sa.Column("num_chunks", sa.BigInteger(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("source_uri", sa.Text(), nullable=False, server_default=""))
    _describe_columns()
    with op.batch_alter_table("datasets") as batch:
        for name in _ADDED:
            batch.alter_column(name, server_default=None)
    op.create_table(
        "dataset_chunks",
        sa.Column("dataset", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["dataset"], ["datasets.id"], name="fk_dataset_chunks_dataset"),
        sa.PrimaryKeyConstraint("dataset", "number"),
    )
    op.create_index(op.f("ix_dataset_chunks_digest"), "dataset_chunks", ["digest"])


def _describe_columns() -> None:
    """What the datasets that there are have: inputs and targets, as their shapes say."""
    datasets = sa.table(
        "datasets",
        sa.column("id", sa.Integer()),
        sa.column("input_shape", sa.JSON()),
        sa.column("target_shape", sa.JSON()),
        sa.column("num_tokens", sa.BigInteger()),
        sa.column("columns", sa.JSON()),
    )
    db = op.get_bind()
    for row in db.execute(sa.select(datasets)).mappings().all():
        inputs = {
            "name": "inputs",
            "dtype": "int64" if row["num_tokens"] else "float32",
            "shape": row["input_shape"],
        }
        targets = {"name": "targets", "dtype": "int64", "shape": row["target_shape"]}
        db.execute(datasets.update().where(datasets.c.id == row["id"]).values(columns=[inputs, targets]))
