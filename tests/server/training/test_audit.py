"""Which shards are computed twice: drawn by lot, and known to all without a word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.server.training.audit import audited_shards
from chainrule.server.training.plan import Tick
from tests.server.training.bench import tiny_plan


def drawn(fraction: float, *, seed: int = 0, steps: int = 200, shards: int = 8) -> list[tuple[int, ...]]:
    plan = tiny_plan(seed=seed, audit_fraction=fraction, shards=shards, epochs=100)
    return [tuple(sorted(audited_shards(plan, plan.tick(step)))) for step in range(steps)]


def test_none_or_all_are_drawn_where_the_job_says_so() -> None:
    assert set(drawn(0.0)) == {()}
    assert set(drawn(1.0)) == {tuple(range(8))}


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_about_that_share_is_drawn(fraction: float) -> None:
    assert sum(map(len, drawn(fraction))) / 1600 == pytest.approx(fraction, abs=0.04)


def test_every_shard_has_its_turn() -> None:
    assert {shard for shards in drawn(0.1) for shard in shards} == set(range(8))


def test_the_lots_depend_on_the_seed_alone() -> None:
    assert drawn(0.3, seed=1) == drawn(0.3, seed=1)
    assert drawn(0.3, seed=1) != drawn(0.3, seed=2)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 100))
def test_a_larger_share_has_those_of_a_smaller_one_and_more(one: float, other: float, seed: int) -> None:
    few, many = (drawn(fraction, seed=seed, steps=5) for fraction in sorted((one, other)))
    assert all(set(some) <= set(more) for some, more in zip(few, many, strict=True))


def test_empty_shards_and_evaluations_are_not_audited() -> None:
    plan = tiny_plan(num_validation=10, audit_fraction=1.0, shards=7, batch_size=12)
    assert audited_shards(plan, plan.tick(2)) == frozenset(range(7))
    assert audited_shards(plan, plan.tick(3)) == frozenset(range(4))
    assert audited_shards(plan, plan.tick(4)) == frozenset()


def test_all_shards_of_a_suspicious_tick_are_audited() -> None:
    plan = tiny_plan(num_validation=10)
    assert plan.tick(3) == Tick(3, 3, 0, True)
    assert audited_shards(plan, plan.tick(2), suspects={2, 3}) == frozenset(range(4))
    assert audited_shards(plan, plan.tick(3), suspects={2, 3}) == frozenset(range(4))
    assert audited_shards(plan, plan.tick(4), suspects={2, 3}) == frozenset()
