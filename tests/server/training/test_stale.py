"""Bounded staleness: every contribution counts when it comes, and nobody is too far ahead."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chainrule.engine import optim
from chainrule.engine.nn import functional as F
from chainrule.server.training.config import Adam, Sgd
from chainrule.server.training.contributions import HEAD, Measured
from chainrule.server.training.errors import NonFiniteError
from chainrule.server.training.memory import IN_PLACE
from chainrule.server.training.partition import Partition
from chainrule.server.training.reduction import Block
from tests.server.training.bench import Result, make_partition, push_memory, random_results, tiny_plan
from tests.server.training.runs import initial_state


def stale(**config: Any) -> Partition:
    settings: dict[str, Any] = {"staleness": 2, "optimizer": Sgd(lr=0.1), **config}
    return make_partition(tiny_plan(settings.pop("num_validation", 0), **settings))


def contribute(partition: Partition, result: Result, *, tick: int) -> bool:
    """Give one; and whether a tick is complete, with all that are complete then."""
    done = found = result.push(partition, tick=tick)
    while done:
        done = partition.goes_on()
    return found


# --- clocks ----------------------------------------------------------------------------------------------------


def test_each_shard_goes_on_by_itself() -> None:
    partition = stale()
    results = random_results(partition.layout, 4)
    assert list(partition.clocks) == [0, 0, 0, 0]
    assert partition.untouched
    assert not contribute(partition, results[0], tick=0)
    assert not contribute(partition, results[0], tick=1)
    assert not contribute(partition, results[2], tick=0)
    assert list(partition.clocks) == [2, 0, 1, 0]
    assert (partition.tick, partition.missing, partition.untouched) == (0, [1, 3], False)


def test_a_tick_is_complete_once_the_slowest_has_contributed() -> None:
    partition = stale()
    results = random_results(partition.layout, 4)
    for result in results[:3]:
        for tick in (0, 1):
            assert not contribute(partition, result, tick=tick)
    assert contribute(partition, results[3], tick=0)
    assert (partition.tick, partition.step, [m.step for m in partition.metrics]) == (1, 1, [1])
    assert contribute(partition, results[3], tick=1)
    assert (partition.tick, partition.step, [m.step for m in partition.metrics]) == (2, 2, [1, 2])


def test_one_contribution_can_complete_several_ticks() -> None:
    """Shards that are empty at the end of an epoch are ahead of the others then."""
    partition = stale(shards=2, batch_size=13, epochs=2)  # 13, 13, 13 and 1 examples
    results = random_results(partition.layout, 2)
    for tick in range(3):
        contribute(partition, results[0], tick=tick)
    contribute(partition, results[0], tick=3)
    for tick in range(2):
        contribute(partition, results[1], tick=tick)
    assert partition.tick == 2
    assert contribute(partition, results[1], tick=2)
    assert partition.tick == 4
    assert [metric.num_examples for metric in partition.metrics] == [13, 13, 13, 1]


def test_a_shard_skips_the_ticks_in_which_it_is_empty() -> None:
    partition = stale(shards=7, batch_size=12)
    for number in range(3):
        for result in random_results(partition.layout, 7, seed=number):
            contribute(partition, result, tick=number)
    assert list(partition.clocks) == [3, 3, 3, 3, 4, 4, 4]
    for result in random_results(partition.layout, 4):
        contribute(partition, result, tick=3)
    assert (partition.tick, partition.missing) == (4, list(range(7)))


@pytest.mark.parametrize("tick", [0, 2, 5])
def test_another_contribution_of_a_shard_to_the_same_tick_is_one_too_many(tick: int) -> None:
    partition = stale()
    result = random_results(partition.layout, 1)[0]
    contribute(partition, result, tick=0)
    before = partition.state_now().array_digests()
    assert not contribute(partition, result, tick=tick)
    assert partition.state_now().array_digests() == before
    assert list(partition.clocks) == [1, 0, 0, 0]


def test_the_job_is_finished_after_its_last_tick() -> None:
    partition = stale(epochs=1, num_validation=6)
    for tick in range(3):
        for result in random_results(partition.layout, 4, seed=tick):
            contribute(partition, result, tick=tick)
    head = Result(Block(0), push_memory(partition.layout), Measured(0.5, 1, 2))
    for shard in range(3):
        assert not contribute(partition, replace(head, block=Block(shard)), tick=3)
    assert contribute(partition, replace(head, block=Block(3)), tick=3)
    assert partition.finished
    assert partition.goes_on() is False
    [evaluation] = partition.evaluations
    assert (evaluation.loss, evaluation.accuracy, evaluation.step) == (2.0, 0.5, 3)


# --- weights ---------------------------------------------------------------------------------------------------


def test_weights_change_in_place_and_hold_for_every_step() -> None:
    partition = stale()
    assert partition.weights.versions.tolist() == [IN_PLACE, IN_PLACE]
    seen = partition.weights.arrays(0)["fc.weight"]
    before = seen.copy()
    contribute(partition, random_results(partition.layout, 1)[0], tick=0)
    assert not np.array_equal(seen, before)
    assert all(partition.weights.holds(step) for step in range(5))


def test_with_plain_sgd_every_order_moves_as_far_as_a_synchronous_step() -> None:
    plan = tiny_plan(optimizer=Sgd(lr=0.1))
    synchronous = make_partition(plan)
    results = random_results(synchronous.layout, 4)
    for result in results:
        result.push(synchronous)
    expected = synchronous.state_now()
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        partition = stale()
        for shard in order:
            contribute(partition, results[shard], tick=0)
        found = partition.state_now()
        for name, array in found.parameters.items():
            np.testing.assert_allclose(array, expected.parameters[name], rtol=1e-5, atol=1e-6)
        assert found.buffers.keys() == expected.buffers.keys()
        for name, array in found.buffers.items():
            assert array.tobytes() == expected.buffers[name].tobytes(), name


def test_contributions_are_applied_one_after_another() -> None:
    partition = stale(optimizer=Sgd(lr=0.1, momentum=0.9))
    results = random_results(partition.layout, 4)
    place = partition.layout.parameters["fc.weight"]
    expected = initial_state(partition.plan).parameters["fc.weight"]
    buffer = None
    for shard in (2, 0, 2):
        contribute(partition, results[shard], tick=int(partition.clocks[shard]))
        gradient = place.view(results[shard].memory)
        new = np.empty_like(expected)
        buffer = optim.sgd_update(expected, gradient, buffer, lr=0.1, momentum=0.9, out=new)
        expected = new
    state = partition.state_now()
    assert state.updates == 3
    assert state.parameters["fc.weight"].tobytes() == expected.tobytes()


def test_running_statistics_are_updated_once_a_tick_in_the_tree() -> None:
    partition = stale()
    results = random_results(partition.layout, 4)
    for shard in (3, 1, 2, 0):
        contribute(partition, results[shard], tick=0)
    name = "bn1.running_mean"
    a, b, c, d = (partition.layout.statistics[name].view(result.memory) for result in results)
    before = initial_state(partition.plan).buffers[name]
    found = partition.state_now().buffers
    assert found[name].tobytes() == F.running_update(before, (a + b) + (c + d), 0.1).tobytes()
    assert int(found["bn1.num_batches_tracked"]) == 1


@pytest.mark.parametrize("optimizer", [Sgd(lr=0.1, momentum=0.9), Adam(lr=0.01)], ids=str)
@pytest.mark.parametrize("steps", [1, 2])
def test_who_begins_from_a_state_goes_on_with_the_same_bits(steps: int, optimizer: Sgd | Adam) -> None:
    through, before = stale(optimizer=optimizer), stale(optimizer=optimizer)
    ticks = [random_results(through.layout, 4, seed=tick) for tick in range(3)]
    for tick in range(steps):
        for result in ticks[tick]:
            contribute(through, result, tick=tick)
            contribute(before, result, tick=tick)
    after = make_partition(before.plan, state=before.state_now())
    assert list(after.clocks) == [steps] * 4
    for result in ticks[steps]:
        contribute(through, result, tick=steps)
        contribute(after, result, tick=steps)
    assert after.state_now().digest() == through.state_now().digest()


# --- numbers that are none -------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_is_refused() -> None:
    partition = stale()
    result = replace(random_results(partition.layout, 2)[1], measured=Measured(float("nan"), 0, 4))
    with pytest.raises(NonFiniteError, match=r"the loss of shard 1 is nan at step 1 \(epoch 1\); lower the"):
        contribute(partition, result, tick=0)


def test_a_gradient_that_is_no_number_is_refused_by_name() -> None:
    partition = stale()
    memory = push_memory(partition.layout, {"bn1.weight": np.full(2, np.inf)})
    with pytest.raises(NonFiniteError, match=r"the gradient of bn1.weight is not finite at step 1 \(epoch 1\)"):
        contribute(partition, Result(Block(0), memory), tick=0)


def test_what_is_measured_alone_changes_no_weights() -> None:
    partition = stale(epochs=1, num_validation=6)
    for tick in range(3):
        for result in random_results(partition.layout, 4, seed=tick):
            contribute(partition, result, tick=tick)
    before = partition.state_now().digest()
    for shard in range(4):
        Result(Block(shard), push_memory(partition.layout)).push(partition, part=HEAD, tick=3)
    assert partition.state_now().digest() == before
