"""A partition by itself: what pushes make of the state, and what it makes of pushes that are wrong."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn, optim
from chainrule.engine.nn import functional as F
from chainrule.server.training import layout as layouts
from chainrule.server.training import update
from chainrule.server.training.config import Adam, Schedule, Sgd
from chainrule.server.training.contributions import HEAD, WHOLE, Measured, place_of_part
from chainrule.server.training.errors import NonFiniteError
from chainrule.server.training.layout import PartitionLayout, make_layout, views
from chainrule.server.training.memory import WRITING
from chainrule.server.training.partition import Partition
from chainrule.server.training.plan import Plan
from chainrule.server.training.reduction import Block, ReductionError, root, tree_sum
from chainrule.server.training.state import Arrays, EvaluationMetric, StepMetric, TrainingState
from chainrule.server.training.update import clip_factor, sum_of_squares
from tests.server.training.bench import (
    NOW_S,
    Result,
    layout_of,
    make_partition,
    make_weights,
    push_memory,
    random_results,
    tiny_plan,
)
from tests.server.training.runs import initial_state

MOMENTUM = Sgd(lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True)


@pytest.fixture
def several_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model in three of them."""
    monkeypatch.setattr(layouts, "BUCKET_BYTES", 300)


def only_layout(plan: Plan) -> PartitionLayout:
    [layout] = layout_of(plan).partitions
    return layout


def clocked(plan: Plan) -> Partition:
    """One for which it is always the same time."""
    layout = only_layout(plan)
    return Partition(plan, layout, initial_state(plan), make_weights(layout), clock=lambda: NOW_S)


def gradients(layout: PartitionLayout, results: Iterable[Result]) -> Arrays:
    """The sum in the tree, by name."""
    values = {result.block: result.memory for result in results}
    found = {}
    for name, place in {**layout.parameters, **layout.statistics}.items():
        arrays = {block: place.view(memory) for block, memory in values.items()}
        found[name] = tree_sum(arrays, root(len(arrays)), np.add)
    return found


def step(partition: Partition, results: Sequence[Result]) -> None:
    done = [result.push(partition) for result in results]
    assert done == [False] * (len(results) - 1) + [True]


def several_steps(plan: Plan, *, scale: float = 1.0) -> TrainingState:
    partition = make_partition(plan)
    for number in range(3):
        step(partition, random_results(partition.layout, 4, seed=number, scale=scale))
    return partition.state_now()


def with_nan(result: Result, layout: PartitionLayout, name: str) -> Result:
    """The same with one gradient that is no number."""
    memory = memoryview(bytearray(result.memory))
    layout.parameters[name].view(memory).flat[-1] = np.nan
    return replace(result, memory=memory)


# --- a step ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{}, {"non_finite": "skip"}, {"clip_norm": 1e9}], ids=str)
@pytest.mark.parametrize("optimizer", [MOMENTUM, Adam(lr=0.01, weight_decay=0.1, decoupled=True)], ids=str)
def test_steps_have_the_bits_of_the_engines_optimizer_with_the_sum_in_the_tree(
    optimizer: Sgd | Adam, config: dict[str, Any]
) -> None:
    plan = tiny_plan(optimizer=optimizer, **config)
    partition = make_partition(plan)
    parameters = {name: nn.Parameter(cr.tensor(a)) for name, a in initial_state(plan).parameters.items()}
    if isinstance(optimizer, Sgd):
        stepper: optim.Optimizer = optim.SGD(
            parameters.values(), lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True
        )
    else:
        stepper = optim.AdamW(parameters.values(), lr=0.01, weight_decay=0.1)
    for number in range(3):
        results = random_results(partition.layout, 4, seed=number)
        step(partition, results)
        for name, gradient in gradients(partition.layout, results).items():
            if name in parameters:
                parameters[name].grad = cr.tensor(gradient)
        stepper.step()
    state = partition.state_now()
    assert (state.step, state.updates) == (3, 3)
    for name, parameter in parameters.items():
        assert state.parameters[name].tobytes() == parameter.data.tobytes(), name
        for slot, arrays in state.slots.items():
            assert arrays[name].tobytes() == np.asarray(stepper.state[parameter][slot]).tobytes(), (slot, name)


@pytest.mark.usefixtures("several_buckets")
@pytest.mark.parametrize("config", [{}, {"clip_norm": 0.5}], ids=str)
def test_no_order_of_blocks_and_parts_changes_the_state(config: dict[str, Any]) -> None:
    plan = tiny_plan(**config)
    layout = only_layout(plan)
    assert len(layout.buckets) == 3
    results = random_results(layout, 4)
    expected = make_partition(plan)
    step(expected, results)
    for seed in range(20):
        partition = make_partition(plan)
        parts = list(itertools.product(results, (HEAD, *range(len(layout.buckets)))))
        random.Random(seed).shuffle(parts)
        done = [result.push(partition, part=part) for result, part in parts]
        assert done == [False] * (len(parts) - 1) + [True]
        assert partition.state_now().digest() == expected.state_now().digest()


def test_a_sum_over_a_block_takes_the_place_of_its_shards() -> None:
    plan = tiny_plan()
    layout = only_layout(plan)
    results = random_results(layout, 4)
    places = {**layout.parameters, **layout.statistics}
    left, right = (views(places, result.memory) for result in results[:2])
    sums = push_memory(layout, {name: left[name] + right[name] for name in places})
    together = Result(Block(0, 2), sums, results[0].measured + results[1].measured)
    one, other = make_partition(plan), make_partition(plan)
    step(one, results)
    step(other, [results[3], results[0], together, results[2]])
    assert one.state_now().digest() == other.state_now().digest()
    assert one.metrics[0].loss == other.metrics[0].loss


def test_the_size_of_a_run_does_not_change_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = [tiny_plan(), tiny_plan(clip_norm=0.1)]
    whole = [several_steps(plan).digest() for plan in plans]
    monkeypatch.setattr(update, "SMALL", 16)
    monkeypatch.setattr(update, "CHUNK", 8)
    assert [several_steps(plan).digest() for plan in plans] == whole


def test_weights_lie_where_readers_look_for_them() -> None:
    partition = make_partition(tiny_plan())
    assert partition.weights.versions.tolist() == [0, WRITING]
    results = random_results(partition.layout, 4)
    for result in results[:-1]:
        result.push(partition)
    assert partition.weights.versions.tolist() == [0, WRITING]
    results[-1].push(partition)
    assert partition.weights.versions.tolist() == [0, 1]
    assert (partition.tick, partition.step) == (1, 1)


@pytest.mark.usefixtures("several_buckets")
def test_what_readers_may_still_compute_with_stays_until_the_next_step_is_written() -> None:
    partition = make_partition(tiny_plan())
    step(partition, random_results(partition.layout, 4))
    before = {name: array.copy() for name, array in partition.weights.arrays(1).items()}
    results = random_results(partition.layout, 4, seed=1)
    for result in results:
        result.push(partition, part=HEAD)
    assert partition.weights.versions.tolist() == [0, 1]
    for result in results:
        result.push(partition, part=0)  # the first bucket is updated: step 0's weights are being overwritten
    assert partition.weights.versions.tolist() == [WRITING, 1]
    assert not partition.untouched
    for name, array in partition.weights.arrays(1).items():
        np.testing.assert_array_equal(array, before[name])


def test_learning_rates_follow_the_steps() -> None:
    schedule = Schedule(decay="step", decay_steps=1, gamma=0.5)
    partition = make_partition(tiny_plan(optimizer=Sgd(lr=1.0), schedule=schedule, epochs=1))
    layout = partition.layout
    ones = push_memory(layout, {name: np.ones(place.shape) for name, place in layout.parameters.items()})
    quarter = [Result(Block(shard), ones) for shard in range(4)]
    seen = [partition.state_now().parameters["fc.bias"]]
    for _ in range(3):
        step(partition, quarter)
        seen.append(partition.state_now().parameters["fc.bias"])
    moved = [float((before - after).mean()) for before, after in itertools.pairwise(seen)]
    assert moved == pytest.approx([4.0, 2.0, 1.0], rel=1e-6)
    assert partition.finished


# --- what is measured ------------------------------------------------------------------------------------------


def test_a_step_reports_what_its_shards_measured() -> None:
    partition = clocked(tiny_plan())
    results = [Result(Block(k), push_memory(partition.layout), Measured(0.25 + k, k, 4)) for k in range(4)]
    for _ in range(4):
        step(partition, results)
    assert partition.metrics[0] == StepMetric(1, 1, 7.0, 6 / 16, 16, NOW_S)
    seen = [(metric.step, metric.epoch, metric.num_examples) for metric in partition.metrics]
    assert seen == [(1, 1, 16), (2, 1, 16), (3, 1, 8), (4, 2, 16)]


def test_losses_are_added_in_the_tree() -> None:
    losses = [1e16, 1.0, -1e16, 1.0]
    partition = make_partition(tiny_plan())
    results = random_results(partition.layout, 4)
    step(partition, [replace(r, measured=Measured(loss, 0, 4)) for r, loss in zip(results, losses, strict=True)][::-1])
    assert partition.metrics[0].loss == (1e16 + 1.0) + (-1e16 + 1.0)


def test_an_evaluation_is_measured_and_changes_nothing() -> None:
    partition = clocked(tiny_plan(num_validation=10))
    for number in range(3):
        step(partition, random_results(partition.layout, 4, seed=number))
    before = partition.state_now().digest()
    assert (partition.tick, partition.step, partition.untouched) == (3, 3, True)
    heads = [Result(Block(0, 2), push_memory(partition.layout), Measured(1.5, 3, 6))]
    heads += [Result(Block(2, 2), push_memory(partition.layout), Measured(0.5, 1, 4))]
    assert [head.push(partition, part=HEAD) for head in heads] == [False, True]
    assert partition.evaluations == [EvaluationMetric(1, 3, 2.0, 0.4, 10, NOW_S)]
    assert len(partition.metrics) == 3
    assert (partition.tick, partition.step, partition.state_now().digest()) == (4, 3, before)
    assert partition.weights.holds(3)


def test_the_job_is_finished_after_its_last_evaluation() -> None:
    partition = make_partition(tiny_plan(num_validation=10, epochs=1))
    for number in range(3):
        step(partition, random_results(partition.layout, 4, seed=number))
    assert not partition.finished
    Result(Block(0, 4), push_memory(partition.layout)).push(partition, part=HEAD)
    assert partition.finished
    assert not Result(Block(0, 4), push_memory(partition.layout)).push(partition, tick=99)


def test_it_says_which_shards_it_waits_for() -> None:
    partition = make_partition(tiny_plan())
    results = random_results(partition.layout, 4)
    assert partition.missing == [0, 1, 2, 3]
    results[1].push(partition)
    results[2].push(partition, part=HEAD)
    assert partition.missing == [0, 2, 3]
    assert partition.untouched


def test_shards_that_are_empty_are_not_waited_for() -> None:
    plan = tiny_plan(shards=7, batch_size=12)  # the last batch of an epoch has 4 examples
    partition = make_partition(plan)
    for number in range(3):
        step(partition, random_results(partition.layout, 7, seed=number))
    assert partition.missing == [0, 1, 2, 3]
    step(partition, random_results(partition.layout, 4))
    with pytest.raises(ReductionError, match="is no block of a tree over 7 shards"):
        Result(Block(7), push_memory(partition.layout)).push(partition)


# --- statistics ------------------------------------------------------------------------------------------------


class Normalised(nn.Module):
    """Two layers, one of which averages over all batches."""

    def __init__(self) -> None:
        super().__init__()
        self.often = nn.BatchNorm1d(3, momentum=0.3)
        self.cumulative = nn.BatchNorm1d(2, momentum=None)


def test_running_statistics_follow_those_of_the_shards_in_the_tree() -> None:
    model = Normalised()
    plan = tiny_plan(optimizer=Sgd(lr=0.0))
    [layout] = make_layout(plan, model).partitions
    parameters = {name: p.data for name, p in model.named_parameters()}
    expected = {name: np.array(b.data) for name, b in model.named_buffers()}
    partition = make_partition(plan, layout, TrainingState(0, parameters, expected))
    for number in range(3):
        results = random_results(layout, 4, seed=number)
        step(partition, results)
        total = gradients(layout, results)
        for layer, factor in (("often", 0.3), ("cumulative", 1.0 / (number + 1))):
            for name in (f"{layer}.running_mean", f"{layer}.running_var"):
                expected[name] = F.running_update(expected[name], total[name], factor)
            expected[f"{layer}.num_batches_tracked"] = np.array(number + 1)
    found = partition.state_now().buffers
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].tobytes() == array.tobytes(), name


# --- gradients that are too long, or no numbers ----------------------------------------------------------------


@pytest.mark.usefixtures("several_buckets")
def test_a_gradient_is_shortened_by_its_norm_over_all_parameters() -> None:
    plan = tiny_plan(optimizer=Sgd(lr=1.0), clip_norm=0.5)
    partition = make_partition(plan)
    results = random_results(partition.layout, 4)
    step(partition, results)
    total = {n: g for n, g in gradients(partition.layout, results).items() if n in partition.layout.parameters}
    factor = np.float32(clip_factor({name: sum_of_squares(g) for name, g in total.items()}, 0.5))
    assert factor < 0.1
    state = partition.state_now()
    for name, before in initial_state(plan).parameters.items():
        np.testing.assert_array_equal(state.parameters[name], before - total[name] * factor)


def test_a_gradient_that_is_short_enough_is_left_alone() -> None:
    clipped, plain = several_steps(tiny_plan(clip_norm=10.0), scale=1e-3), several_steps(tiny_plan(), scale=1e-3)
    assert clipped.digest() == plain.digest()


@pytest.mark.usefixtures("several_buckets")
@pytest.mark.parametrize("config", [{}, {"clip_norm": 1.0}], ids=str)
def test_a_gradient_that_is_no_number_is_refused_by_name(config: dict[str, Any]) -> None:
    partition = make_partition(tiny_plan(**config))
    layout = partition.layout
    for number in range(3):
        step(partition, random_results(layout, 4, seed=number))
    results = random_results(layout, 4)
    results[2] = with_nan(with_nan(results[2], layout, "conv2.weight"), layout, "fc.bias")
    named = "conv2.weight, fc.bias" if config else "fc.bias"  # of the first bucket that is updated, or of all
    refusal = rf"the gradient of {named} is not finite at step 4 \(epoch 2\), in shard 2; lower the learning rate"
    with pytest.raises(NonFiniteError, match=refusal):
        step(partition, results)


@pytest.mark.parametrize("config", [{}, {"clip_norm": 1.0}], ids=str)
@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_refused(loss: float, config: dict[str, Any]) -> None:
    partition = make_partition(tiny_plan(**config))
    results = random_results(partition.layout, 4)
    results[1] = replace(results[1], measured=Measured(loss, 0, 4))
    with pytest.raises(NonFiniteError, match=rf"the loss is {loss} at step 1 \(epoch 1\), in shard 1; lower"):
        step(partition, results)


def test_a_block_that_is_no_number_is_told_with_all_its_shards() -> None:
    partition = make_partition(tiny_plan())
    results = random_results(partition.layout, 4)
    broken = with_nan(replace(results[2], block=Block(2, 2)), partition.layout, "fc.bias")
    with pytest.raises(NonFiniteError, match=r"the gradient of fc.bias is not finite at .*, in shard 2, 3; lower"):
        step(partition, [results[0], results[1], broken])


def test_a_step_that_is_no_number_is_left_out_if_the_job_says_so() -> None:
    plan = tiny_plan(non_finite="skip", optimizer=MOMENTUM)
    partition, undisturbed = make_partition(plan), make_partition(plan)
    layout = partition.layout
    results = [random_results(layout, 4, seed=number) for number in range(3)]
    broken = [with_nan(results[1][0], layout, "bn1.bias"), *results[1][1:]]
    for shards in (results[0], broken, results[2]):
        step(partition, shards)
    for shards in (results[0], results[2]):
        step(undisturbed, shards)
    found, expected = partition.state_now(), undisturbed.state_now()
    assert (found.step, found.updates) == (3, 2)
    assert (expected.step, expected.updates) == (2, 2)
    assert found.array_digests() == expected.array_digests()
    cause = "the gradient of bn1.bias is not finite at step 2 (epoch 1), in shard 0"
    assert partition.skipped == [f"{cause}: its update was left out"]
    assert len(partition.metrics) == 3


def test_a_loss_that_is_no_number_is_left_out_and_reported_as_infinite() -> None:
    partition = make_partition(tiny_plan(non_finite="skip"))
    before = partition.state_now().array_digests()
    results = random_results(partition.layout, 4)
    step(partition, [replace(results[0], measured=Measured(float("nan"), 0, 4)), *results[1:]])
    assert partition.state_now().array_digests() == before
    assert partition.metrics[0].loss == float("inf")
    assert partition.skipped == ["the loss is nan at step 1 (epoch 1), in shard 0: its update was left out"]


def test_momentum_begins_with_the_first_update_and_not_with_the_first_step() -> None:
    plan = tiny_plan(non_finite="skip", optimizer=Sgd(lr=0.1, momentum=0.9, dampening=0.5))
    partition, undisturbed = make_partition(plan), make_partition(plan)
    results = random_results(partition.layout, 4)
    step(partition, [with_nan(result, partition.layout, "fc.bias") for result in results])
    assert partition.state_now().slots == {}
    step(partition, results)
    step(undisturbed, results)
    assert partition.state_now().array_digests() == undisturbed.state_now().array_digests()


def test_parameters_that_are_no_numbers_are_not_kept() -> None:
    partition = make_partition(tiny_plan(optimizer=Sgd(lr=1e38)))
    with np.errstate(over="ignore"):
        step(partition, random_results(partition.layout, 4, scale=1e10))
    with pytest.raises(NonFiniteError, match=r"bn1.bias, .* is not finite after step 1; lower the learning rate"):
        partition.state_now()


# --- parts --------------------------------------------------------------------------------------------------------


def test_parts_are_places_in_the_push_region() -> None:
    layout = only_layout(tiny_plan())
    assert place_of_part(layout, WHOLE) == (0, layout.push_bytes)
    assert place_of_part(layout, HEAD) == layout.statistics_range
    assert place_of_part(layout, 0) == (0, layout.buckets[0].end)
    [_, second] = layout_of(tiny_plan(partitions=2)).partitions
    assert place_of_part(second, HEAD) == (0, 0)


# --- what comes twice or too late ------------------------------------------------------------------------------


def test_the_same_result_twice_changes_nothing() -> None:
    plan = tiny_plan()
    partition, undisturbed = make_partition(plan), make_partition(plan)
    results = random_results(partition.layout, 4)
    step(undisturbed, results)
    for worker in (1, 2, 3):
        assert not results[0].push(partition, worker=worker)
    step(partition, results[1:])
    assert partition.state_now().digest() == undisturbed.state_now().digest()
    assert partition.disputes == []


def test_what_is_of_another_tick_is_not_taken() -> None:
    partition = make_partition(tiny_plan())
    step(partition, random_results(partition.layout, 4))
    before = partition.state_now().digest()
    for tick in (0, 2):
        assert not Result(Block(0, 4), push_memory(partition.layout)).push(partition, tick=tick)
    assert (partition.missing, partition.state_now().digest()) == ([0, 1, 2, 3], before)


def test_memory_may_be_used_again_once_a_step_is_over() -> None:
    partition = make_partition(tiny_plan())
    results = random_results(partition.layout, 4)
    step(partition, results)
    before = partition.state_now().digest()
    for result in results:
        result.memory[:] = b"\xff" * len(result.memory)
    assert partition.state_now().digest() == before
    assert partition.metrics[0].step == 1


def test_models_of_several_dtypes_have_a_bucket_for_each() -> None:
    plan = tiny_plan(optimizer=Sgd(lr=0.5, momentum=0.9))
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1).to(cr.float64))
    [layout] = make_layout(plan, model).partitions
    state = TrainingState(0, {name: p.data for name, p in model.named_parameters()}, {})
    partition = make_partition(plan, layout, state)
    results = random_results(layout, 4)
    step(partition, results)
    total = gradients(layout, results)
    for name, array in partition.state_now().parameters.items():
        assert array.dtype == state.parameters[name].dtype
        np.testing.assert_allclose(array, state.parameters[name] - 0.5 * total[name], rtol=1e-6)
    assert {a.dtype.name for a in partition.state_now().slots["momentum_buffer"].values()} == {"float32", "float64"}
