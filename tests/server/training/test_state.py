"""States: one digest of their values, copies, shares, and who begins from one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chainrule.server.training.config import Adam, Sgd
from chainrule.server.training.partition import Partition, merged
from chainrule.server.training.reduction import ReductionError
from chainrule.server.training.state import TrainingState, combined_digest
from tests.server.training.bench import Bench, Result, make_partition, random_results, tiny_plan
from tests.server.training.runs import initial_state

MOMENTUM = Sgd(lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True)
STATE = TrainingState(
    step=7,
    parameters={"fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "fc.bias": np.ones(2, np.float32)},
    buffers={"bn.num_batches_tracked": np.array(7), "bn.running_mean": np.zeros(2, np.float32)},
    slots={"momentum_buffer": {"fc.weight": np.ones((2, 3), np.float32), "fc.bias": np.zeros(2, np.float32)}},
    updates=6,
)


def step(partition: Partition, results: list[Result]) -> None:
    for result in results:
        result.push(partition)


# --- digests ---------------------------------------------------------------------------------------------------


def test_the_digest_is_known_for_ever() -> None:
    assert STATE.digest() == "7c4ae10e18e9d97498089a5bf8ca6645e74b0c21c0333a3f9fe3d9dc6a11d5cd"


def test_the_order_of_names_and_the_layout_in_memory_do_not_matter() -> None:
    turned = np.asfortranarray(STATE.parameters["fc.weight"])
    assert not turned.flags.c_contiguous
    other = replace(STATE, parameters={"fc.bias": STATE.parameters["fc.bias"], "fc.weight": turned})
    assert other.digest() == STATE.digest()


@pytest.mark.parametrize(
    "other",
    [
        replace(STATE, step=8),
        replace(STATE, updates=7),
        replace(STATE, slots={}),
        replace(STATE, slots={"exp_avg": STATE.slots["momentum_buffer"]}),
        replace(STATE, buffers={}),
        replace(STATE, buffers=STATE.buffers | {"bn.running_mean": np.array([0.0, -0.0], np.float32)}),
        replace(STATE, buffers=STATE.buffers | {"bn.running_mean": np.zeros(2, np.int32)}),
        replace(STATE, parameters=STATE.parameters | {"fc.weight": STATE.parameters["fc.weight"].reshape(3, 2)}),
        replace(STATE, parameters=STATE.parameters | {"fc.bias": np.array([1, np.nextafter(1, 2, dtype=np.float32)])}),
    ],
)
def test_whatever_differs_shows_in_the_digest(other: TrainingState) -> None:
    assert other.digest() != STATE.digest()


def test_digests_of_arrays_add_up_to_that_of_the_state() -> None:
    digests = STATE.array_digests()
    assert set(digests) == {
        "parameters/fc.weight",
        "parameters/fc.bias",
        "buffers/bn.num_batches_tracked",
        "buffers/bn.running_mean",
        "momentum_buffer/fc.weight",
        "momentum_buffer/fc.bias",
    }
    assert combined_digest(7, 6, dict(reversed(digests.items()))) == STATE.digest()


def test_a_copy_has_memory_of_its_own() -> None:
    copy = STATE.copy()
    assert copy.digest() == STATE.digest()
    for section, arrays in (("parameters", copy.parameters), ("buffers", copy.buffers)):
        for name, array in arrays.items():
            assert not np.shares_memory(array, getattr(STATE, section)[name])
    assert not np.shares_memory(copy.slots["momentum_buffer"]["fc.bias"], STATE.slots["momentum_buffer"]["fc.bias"])


def test_weights_are_parameters_and_buffers() -> None:
    assert sorted(STATE.weights()) == ["bn.num_batches_tracked", "bn.running_mean", "fc.bias", "fc.weight"]


# --- of a partition ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {"optimizer": MOMENTUM},
        {"optimizer": Adam(lr=0.01)},
        {"optimizer": Sgd(lr=0.1)},
        {"clip_norm": 0.5, "optimizer": MOMENTUM},
        {"trainable": ("fc.*", "*.bias"), "optimizer": MOMENTUM},
    ],
    ids=str,
)
def test_who_begins_from_a_state_goes_on_with_the_same_bits(config: dict[str, Any]) -> None:
    plan = tiny_plan(**config)
    through, before = make_partition(plan), make_partition(plan)
    layout = through.layout
    for number in range(6):
        step(through, random_results(layout, 4, seed=number))
    for number in range(3):
        step(before, random_results(layout, 4, seed=number))
    after = make_partition(plan, state=before.state_now())
    assert after.state_now().digest() == before.state_now().digest()
    assert (after.tick, after.step) == (3, 3)
    for number in range(3, 6):
        step(after, random_results(layout, 4, seed=number))
    assert after.state_now().digest() == through.state_now().digest()


def test_a_state_is_a_copy() -> None:
    partition = make_partition(tiny_plan())
    state = partition.state_now()
    before = state.digest()
    step(partition, random_results(partition.layout, 4))
    step(partition, random_results(partition.layout, 4))
    assert state.digest() == before
    assert partition.state_now().digest() != before


def test_a_new_state_is_that_of_the_model() -> None:
    plan = tiny_plan(trainable=("fc.*",))
    assert make_partition(plan).state_now().digest() == initial_state(plan).digest()


@pytest.mark.parametrize("config", [{}, {"optimizer": Adam(lr=0.01)}, {"trainable": ("*weight",)}], ids=str)
@pytest.mark.parametrize("partitions", [2, 3, 7])
def test_partitions_do_not_change_the_state(partitions: int, config: dict[str, Any]) -> None:
    one, many = Bench(tiny_plan(epochs=1, **config)), Bench(tiny_plan(epochs=1, partitions=partitions, **config))
    assert len(many.partitions) == min(partitions, len(many.layout.trained))
    assert many.run().digest() == one.run().digest()


def test_shares_are_put_together_whatever_their_order() -> None:
    bench = Bench(tiny_plan(partitions=3))
    bench.advance()
    shares = {partition.layout.index: partition.state_now() for partition in bench.partitions}
    assert merged(dict(reversed(shares.items()))).digest() == bench.state.digest()


def test_shares_of_different_steps_are_not_put_together() -> None:
    shares = {0: TrainingState(3, {}, {}), 1: TrainingState(4, {}, {})}
    with pytest.raises(ReductionError, match=r"partitions are at different steps: \[3, 4\]"):
        merged(shares)
