"""Models whose architecture is a graph, and what all of them say about their inputs, outputs and classes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "chainrule_0005"
down_revision = "chainrule_0004"

_LISTS = ("class_labels", "inputs", "outputs", "warnings")


def upgrade() -> None:
    with op.batch_alter_table("models") as batch:
        batch.add_column(sa.Column("graph_digest", sa.String(64), nullable=False, server_default=""))
        batch.create_index(op.f("ix_models_graph_digest"), ["graph_digest"])
        for name in _LISTS:
            batch.add_column(sa.Column(name, sa.JSON(), nullable=False, server_default="[]"))
    with op.batch_alter_table("models") as batch:  # the defaults were for the rows that there were
        for name in ("graph_digest", *_LISTS):
            batch.alter_column(name, server_default=None)
