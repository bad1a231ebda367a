"""What steps and evaluations measured by name; accuracy is one of several things that may be measured."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "chainrule_0007"
down_revision = "chainrule_0006"


def upgrade() -> None:
    for table in ("metrics", "evaluations"):
        with op.batch_alter_table(table) as batch:
            batch.add_column(sa.Column("measured", sa.JSON(), nullable=False, server_default="{}"))
            batch.alter_column("accuracy", existing_type=sa.Float(), nullable=True)
        with op.batch_alter_table(table) as batch:  # the default was for the rows that there were
            batch.alter_column("measured", server_default=None)
