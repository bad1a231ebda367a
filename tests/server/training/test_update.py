"""The update: the optimizers' own bits, run by run, and sums that no cut changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chainrule.engine as cr
from chainrule.engine import nn, optim
from chainrule.server.training import update
from chainrule.server.training.config import Adam, Optimizer, Schedule, Sgd, TrainingConfig
from chainrule.server.training.reduction import Block, root, tree_sum
from chainrule.server.training.state import Array
from chainrule.server.training.update import (
    CHUNK,
    SMALL,
    TreeSum,
    Updater,
    clip_factor,
    is_finite,
    runs,
    sum_of_squares,
)

SIZES = [0, 1, 7, CHUNK, SMALL - 1, SMALL, SMALL + 1, SMALL + CHUNK, 3 * SMALL - 5]


def normal(size: int, *, seed: int = 0, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(seed).normal(size=size).astype(dtype)


# --- runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_runs_cover_every_element_once_in_order(size: int) -> None:
    assert [index for start, stop in runs(size) for index in range(start, stop)] == list(range(size))


def test_what_is_small_is_not_cut() -> None:
    assert runs(SMALL) == [(0, SMALL)]
    assert runs(SMALL + 1)[:2] == [(0, CHUNK), (CHUNK, 2 * CHUNK)]
    assert runs(0) == []


@pytest.mark.parametrize("num_shards", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("size", [9, SMALL + 77])
def test_a_sum_run_by_run_has_the_bits_of_the_tree(num_shards: int, size: int) -> None:
    values = {Block(shard): normal(size, seed=shard) for shard in range(num_shards)}
    expected = tree_sum(values, root(num_shards), np.add)
    total = TreeSum(values, num_shards)
    found = np.concatenate([total.run(start, stop).copy() for start, stop in runs(size)])
    assert found.tobytes() == expected.tobytes()


def test_blocks_of_several_shards_take_their_place_in_the_sum() -> None:
    shards = [normal(6, seed=shard) for shard in range(6)]
    values = {Block(4, 2): shards[4] + shards[5], Block(0): shards[0], Block(2, 2): shards[2] + shards[3]}
    values[Block(1)] = shards[1]
    expected = ((shards[0] + shards[1]) + (shards[2] + shards[3])) + (shards[4] + shards[5])
    assert TreeSum(values, 6).run(0, 6).tobytes() == expected.tobytes()


def test_a_sum_leaves_its_terms_alone() -> None:
    values = {Block(shard): normal(5, seed=shard) for shard in range(4)}
    before = {block: value.copy() for block, value in values.items()}
    TreeSum(values, 4).run(0, 5)
    for block, value in values.items():
        np.testing.assert_array_equal(value, before[block])


# --- numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, cr.bfloat16])
def test_what_is_no_number_is_found_wherever_it_is(dtype: Any) -> None:
    for wrong in (np.nan, np.inf, -np.inf):
        for place in (0, 50, 99):
            values = np.ones(100, np.float32)
            values[place] = wrong
            assert not is_finite(values.astype(dtype))
    assert is_finite(np.ones(100, dtype))


def test_numbers_whose_squares_are_none_are_numbers() -> None:
    with np.errstate(over="ignore"):
        assert is_finite(np.full(10, 3e38, np.float32))
        assert is_finite(np.full(10, 1e308))


@pytest.mark.parametrize("size", SIZES)
def test_the_sum_of_squares_is_that_of_exact_arithmetic(size: int) -> None:
    values = normal(size)
    exact = math.fsum(float(v) ** 2 for v in values)
    assert sum_of_squares(values) == pytest.approx(exact, rel=1e-12)


@given(st.integers(1, 400), st.integers(1, 400))
def test_the_sum_of_squares_does_not_depend_on_the_shape(rows: int, columns: int) -> None:
    values = normal(rows * columns)
    assert sum_of_squares(values.reshape(rows, columns)) == sum_of_squares(values)
    assert sum_of_squares(values.copy()) == sum_of_squares(values)


def test_squares_beyond_float32_are_added() -> None:
    assert sum_of_squares(np.full(4, 1e30, np.float32)) == pytest.approx(4e60, rel=1e-6)


def test_a_gradient_that_is_short_enough_stays() -> None:
    assert clip_factor({"a": 9.0, "b": 16.0}, 5.1) == 1.0
    assert clip_factor({"a": 0.0}, 1e-9) == pytest.approx(1e-3)


def test_a_longer_one_is_shortened_by_the_norm_over_all() -> None:
    assert clip_factor({"a": 9.0, "b": 16.0}, 1.0) == 1.0 / (5.0 + 1e-6)


def test_the_order_of_parameters_does_not_matter_to_the_norm() -> None:
    squares = {str(index): float(value) for index, value in enumerate(normal(50) ** 2)}
    assert clip_factor(dict(reversed(squares.items())), 0.5) == clip_factor(squares, 0.5)


@pytest.mark.torch
@pytest.mark.parametrize("longest", [0.01, 1.0, 100.0])
def test_clipping_is_that_of_pytorch(longest: float) -> None:
    torch = pytest.importorskip("torch")
    gradients = {"a": normal(30).reshape(5, 6), "b": normal(7, seed=1)}
    parameters = [torch.nn.Parameter(torch.zeros(g.shape)) for g in gradients.values()]
    for parameter, g in zip(parameters, gradients.values(), strict=True):
        parameter.grad = torch.tensor(g)
    torch.nn.utils.clip_grad_norm_(parameters, longest)
    factor = np.float32(clip_factor({name: sum_of_squares(g) for name, g in gradients.items()}, longest))
    for parameter, g in zip(parameters, gradients.values(), strict=True):
        np.testing.assert_allclose(g * factor, parameter.grad.numpy(), rtol=1e-6)


# --- optimizers ------------------------------------------------------------------------------------------------

SGDS = [
    Sgd(lr=0.1),
    Sgd(lr=0.1, weight_decay=0.01),
    Sgd(lr=0.1, momentum=0.9),
    Sgd(lr=0.1, momentum=0.9, dampening=0.5, weight_decay=1e-3),
    Sgd(lr=0.1, momentum=0.8, nesterov=True, weight_decay=1e-3),
]
ADAMS = [
    Adam(lr=0.01),
    Adam(lr=0.01, beta1=0.8, beta2=0.99, eps=1e-4, weight_decay=0.1),
    Adam(lr=0.01, weight_decay=0.1, decoupled=True),
    Adam(lr=0.01, beta1=0.0, beta2=0.0),
]


def theirs(optimizer: Optimizer, parameter: nn.Parameter) -> optim.Optimizer:
    """The engine's optimizer with the same settings."""
    if isinstance(optimizer, Sgd):
        return optim.SGD(
            [parameter],
            lr=optimizer.lr,
            momentum=optimizer.momentum,
            dampening=optimizer.dampening,
            weight_decay=optimizer.weight_decay,
            nesterov=optimizer.nesterov,
        )
    kind: Callable[..., optim.Optimizer] = optim.AdamW if optimizer.decoupled else optim.Adam
    betas = (optimizer.beta1, optimizer.beta2)
    return kind([parameter], lr=optimizer.lr, betas=betas, eps=optimizer.eps, weight_decay=optimizer.weight_decay)


@pytest.mark.parametrize("size", [5, SMALL + 1000])
@pytest.mark.parametrize("optimizer", [*SGDS, *ADAMS], ids=str)
def test_an_update_in_runs_has_the_bits_of_the_engines_optimizer(optimizer: Optimizer, size: int) -> None:
    parameter = nn.Parameter(cr.tensor(normal(size)))
    theirs_ = theirs(optimizer, parameter)
    updater = Updater(TrainingConfig(optimizer=optimizer), total_steps=4)
    regions = [normal(size), np.full(size, np.nan, np.float32)]
    slots = {slot: np.zeros(size, np.float32) for slot in updater.slots}
    for step in range(4):
        gradient = normal(size, seed=10 + step)
        parameter.grad = cr.tensor(gradient)
        theirs_.step()
        old, new = regions[step % 2], regions[(step + 1) % 2]
        before = old.copy()
        for start, stop in runs(size):
            state = {slot: array[start:stop] for slot, array in slots.items()}
            updater.apply(
                old[start:stop], new[start:stop], gradient[start:stop], state, lr=updater.rate(step), updates=step
            )
        assert new.tobytes() == parameter.data.tobytes(), step
        assert old.tobytes() == before.tobytes(), "what workers may still read has changed"


@pytest.mark.parametrize("optimizer", [SGDS[3], ADAMS[2]], ids=str)
def test_an_update_in_place_has_the_same_bits(optimizer: Optimizer) -> None:
    updater = Updater(TrainingConfig(optimizer=optimizer), total_steps=3)
    apart, in_place = normal(20), normal(20)
    slots = [{slot: np.zeros(20, np.float32) for slot in updater.slots} for _ in range(2)]
    for step in range(3):
        gradient, new = normal(20, seed=step), np.empty(20, np.float32)
        updater.apply(apart, new, gradient, slots[0], lr=0.1, updates=step)
        updater.apply(in_place, in_place, gradient, slots[1], lr=0.1, updates=step)
        apart = new
    assert in_place.tobytes() == apart.tobytes()
    for slot in updater.slots:
        assert slots[0][slot].tobytes() == slots[1][slot].tobytes()


def test_the_state_is_what_the_optimizer_needs() -> None:
    assert Updater(TrainingConfig(optimizer=Sgd()), 1).slots == ()
    assert Updater(TrainingConfig(optimizer=Sgd(momentum=0.9)), 1).slots == ("momentum_buffer",)
    assert Updater(TrainingConfig(optimizer=Adam()), 1).slots == ("exp_avg", "exp_avg_sq")


def test_the_rate_follows_the_schedule() -> None:
    schedule = Schedule(warmup_steps=2, decay="step", decay_steps=3, gamma=0.5)
    updater = Updater(TrainingConfig(optimizer=Sgd(lr=0.6), schedule=schedule), total_steps=8)
    assert [updater.rate(step) for step in range(8)] == pytest.approx([0.2, 0.4, 0.6, 0.6, 0.6, 0.3, 0.3, 0.3])


def test_the_size_of_a_run_does_not_change_the_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    def total() -> bytes:
        found = TreeSum(values, 5)
        return b"".join(found.run(start, stop).tobytes() for start, stop in runs(1000))

    values = {Block(shard): normal(1000, seed=shard) for shard in range(5)}
    whole = total()
    monkeypatch.setattr(update, "SMALL", 100)
    monkeypatch.setattr(update, "CHUNK", 64)
    assert len(runs(1000)) == 16
    assert total() == whole == tree_sum(values, root(5), np.add).tobytes()
