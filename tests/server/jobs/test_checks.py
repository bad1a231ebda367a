"""What goes with bounded staleness, and what a job is refused with it for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chainrule.server.jobs.checks import check_config
from chainrule.server.training.config import Sgd, TrainingConfig

STALE = TrainingConfig(staleness=2, exact=False, optimizer=Sgd(lr=0.1))
IS_SET = "does not go with staleness 2, which applies every contribution by itself"


@pytest.mark.parametrize("config", [{}, {"partitions": 1}, {"shards": 4096, "batch_size": 4096}])
def test_what_can_be_applied_contribution_by_contribution_is_taken(config: dict[str, Any]) -> None:
    assert check_config(replace(STALE, **config)) == []


@pytest.mark.parametrize(
    ("config", "field", "description"),
    [
        ({"partitions": 2}, "partitions", f"is 2, which {IS_SET}; use partitions 0 or 1"),
        ({"clip_norm": 1.0}, "clip_norm", f"is 1.0, which {IS_SET}; use clip_norm 0"),
        ({"ema_decay": 0.9}, "ema_decay", f"is 0.9, which {IS_SET}; use ema_decay 0"),
        ({"non_finite": "skip"}, "non_finite", f"SKIP {IS_SET}; use FAIL"),
        ({"audit_fraction": 0.5}, "audit_fraction", f"is 0.5, which {IS_SET}; use 0"),
        ({"shards": 4097, "batch_size": 8192}, "shards", "is 4097; with staleness use at most 4,096"),
    ],
)
def test_what_needs_all_contributions_at_once_is_refused(config: dict[str, Any], field: str, description: str) -> None:
    [violation] = check_config(replace(STALE, **config))
    assert (violation.field.split(".")[-1], violation.description) == (field, description)
    assert check_config(replace(STALE, staleness=0, **config)) == []
