"""What a job computes is a function of its configuration: batches, shards and the sequence of ticks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.server.architecture import Builtin
from chainrule.server.training.config import TrainingConfig
from chainrule.server.training.plan import AVERAGED, Plan, Tick


def plan(num_examples: int = 10, num_validation: int = 0, **config: Any) -> Plan:
    return Plan(Builtin("small_cnn"), num_examples, num_validation, TrainingConfig(**config))


plans = st.builds(
    lambda examples, validation, epochs, batch, shards: plan(
        examples, validation, epochs=epochs, batch_size=batch, shards=shards
    ),
    st.integers(1, 30),
    st.integers(0, 12),
    st.integers(1, 4),
    st.integers(1, 12),
    st.integers(1, 9),
)

# --- ticks -----------------------------------------------------------------------------------------------------


def test_steps_follow_each_other() -> None:
    found = plan(epochs=2, batch_size=4)
    assert (found.steps_per_epoch, found.total_steps, found.total_ticks) == (3, 6, 6)
    assert [found.tick(number) for number in (0, 2, 3, 5)] == [
        Tick(0, 0, 0, False),
        Tick(2, 2, 0, False),
        Tick(3, 3, 1, False),
        Tick(5, 5, 1, False),
    ]


def test_an_evaluation_follows_each_epoch() -> None:
    found = plan(num_validation=3, epochs=2, batch_size=5)
    assert (found.ticks_per_epoch, found.total_ticks) == (3, 6)
    assert [found.tick(number) for number in range(6)] == [
        Tick(0, 0, 0, False),
        Tick(1, 1, 0, False),
        Tick(2, 2, 0, True),
        Tick(3, 2, 1, False),
        Tick(4, 3, 1, False),
        Tick(5, 4, 1, True),
    ]
    assert [found.tick_after(steps) for steps in range(5)] == [0, 1, 2, 4, 5]


def test_evaluations_are_of_the_average_where_there_is_one() -> None:
    plain, averaged = (plan(num_validation=3, epochs=1, batch_size=5, ema_decay=decay) for decay in (0.0, 0.9))
    assert [plain.version(plain.tick(number)) for number in range(3)] == [0, 1, 2]
    assert [averaged.version(averaged.tick(number)) for number in range(3)] == [0, 1, AVERAGED + 2]


@given(plans)
def test_every_tick_is_found_again_from_the_steps_before_it(plan: Plan) -> None:
    done = 0
    for number in range(plan.total_ticks):
        tick = plan.tick(number)
        assert (tick.number, tick.step) == (number, done)
        if tick.evaluates:
            assert plan.ends_epoch(done)
            assert plan.tick_after(done) == number
        else:
            assert plan.epoch_of(tick.step) == tick.epoch
            done += 1
            assert plan.tick_after(done) == number + 1
    assert done == plan.total_steps


def test_an_epoch_ends_with_its_last_step() -> None:
    found = plan(epochs=2, batch_size=4)
    assert [steps for steps in range(7) if found.ends_epoch(steps)] == [3, 6]
    assert [found.epoch_of(step) for step in range(6)] == [0, 0, 0, 1, 1, 1]


# --- batches ---------------------------------------------------------------------------------------------------


@given(plans)
def test_every_epoch_has_every_example_once(plan: Plan) -> None:
    for epoch in range(plan.config.epochs):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        batches = [plan.batch(step) for step in steps]
        assert [len(batch) for batch in batches] == [plan.batch_size(step) for step in steps]
        assert sorted(np.concatenate(batches)) == list(range(plan.num_examples))


@given(plans)
def test_shards_cut_a_batch_in_order_and_the_last_may_be_empty(plan: Plan) -> None:
    for number in range(plan.total_ticks):
        tick = plan.tick(number)
        if tick.evaluates:
            shards, whole = plan.validation_shards(), np.arange(plan.num_validation)
        else:
            shards, whole = plan.shards(tick.step), plan.batch(tick.step)
        np.testing.assert_array_equal(np.concatenate(shards), whole)
        sizes = [len(shard) for shard in shards]
        assert len(sizes) == plan.config.shards
        assert sizes == sorted(sizes, reverse=True)
        assert max(sizes) - min(sizes) <= 1
        assert plan.occupied_shards(tick) == sum(size > 0 for size in sizes)


def test_epochs_have_orders_of_their_own_which_the_seed_decides() -> None:
    orders = [plan(seed=seed, epochs=2, batch_size=10).batch(step).tolist() for seed in (1, 2) for step in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert plan(seed=1, batch_size=10).batch(0).tolist() == orders[0]


def test_neither_workers_nor_partitions_change_a_batch() -> None:
    one, many = plan(batch_size=7, shards=3), plan(batch_size=7, shards=3, max_workers=3, partitions=2)
    for step in range(2):
        assert [shard.tolist() for shard in one.shards(step)] == [shard.tolist() for shard in many.shards(step)]


@pytest.mark.parametrize(("shards", "sizes"), [(1, [5]), (2, [3, 2]), (4, [2, 1, 1, 1]), (7, [1, 1, 1, 1, 1, 0, 0])])
def test_a_ragged_batch_is_cut_by_the_same_rule(shards: int, sizes: list[int]) -> None:
    found = plan(num_examples=13, batch_size=8, shards=shards)
    assert [len(shard) for shard in found.shards(1)] == sizes
