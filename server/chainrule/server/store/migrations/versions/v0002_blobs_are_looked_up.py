"""Indices for finding what refers to a blob."""

from __future__ import annotations

from alembic import op

revision = "chainrule_0002"
down_revision = "chainrule_0001"


def upgrade() -> None:
    op.create_index(op.f("ix_datasets_digest"), "datasets", ["digest"])
    op.create_index(op.f("ix_jobs_weights_digest"), "jobs", ["weights_digest"])
    op.create_index(op.f("ix_models_weights_digest"), "models", ["weights_digest"])
