"""What tells a store from others."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "chainrule_0003"
down_revision = "chainrule_0002"


def upgrade() -> None:
    op.create_table("identity", sa.Column("id", sa.String(length=32), nullable=False), sa.PrimaryKeyConstraint("id"))
    op.execute(sa.text("INSERT INTO identity (id) VALUES (:id)").bindparams(id=secrets.token_hex(16)))
