"""Models whose architecture is a Python file."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "chainrule_0008"
down_revision = "chainrule_0007"


def upgrade() -> None:
    with op.batch_alter_table("models") as batch:
        batch.add_column(sa.Column("code_digest", sa.String(64), nullable=False, server_default=""))
        batch.create_index(op.f("ix_models_code_digest"), ["code_digest"])
        batch.add_column(sa.Column("code", sa.JSON(), nullable=False, server_default="{}"))
    with op.batch_alter_table("models") as batch:  # the defaults were for the rows that there were
        for name in ("code_digest", "code"):
            batch.alter_column(name, server_default=None)
