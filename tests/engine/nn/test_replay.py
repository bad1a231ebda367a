"""Forward passes recorded and computed again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import models, nn
from chainrule.engine.nn.replay import Replay, record


def inputs(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def evaluated(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(False)


def called(module: nn.Module, *arrays: np.ndarray) -> np.ndarray:
    with cr.no_grad():
        return np.asarray(module(*map(cr.from_numpy, arrays)).numpy())


@pytest.mark.parametrize(
    ("family", "config", "shape"),
    [
        ("small_cnn", {}, (1, 1, 8, 8)),
        ("small_cnn", {"dropout": 0.5, "in_channels": 3}, (5, 3, 8, 8)),
        ("mlp", {}, (1, 64)),
        ("mlp", {"hidden": [], "in_features": 12}, (7, 3, 4)),
    ],
)
def test_a_replay_has_the_bits_of_the_call(family: str, config: dict[str, Any], shape: tuple[int, ...]) -> None:
    module = evaluated(models.build(family, config, generator=cr.Generator(1)))
    replay = record(module, inputs(*shape))
    assert isinstance(replay, Replay)
    for seed in (1, 2):
        x = inputs(*shape, seed=seed)
        np.testing.assert_array_equal(replay(x), called(module, x))


class Double(nn.Module):
    """Two inputs, views, and what numpy computes of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(cr.from_numpy(inputs(3)))

    def forward(self, x: cr.Tensor, y: cr.Tensor) -> cr.Tensor:
        scale = cr.from_numpy(np.abs(self.weight.numpy()))
        return cr.cat([x.t().t() * scale, (x - y).mean(1, keepdim=True)], 1)


class Reading(nn.Module):
    """Of two inputs that are drawn alike, both decide the same: only that it is read tells that it decides."""

    def forward(self, x: cr.Tensor) -> cr.Tensor:
        return x * 2 if float(x.detach().abs().max().numpy()) < 100 else x


def test_a_module_that_reads_what_it_computes_is_not_replayed() -> None:
    assert record(evaluated(Reading()), inputs(2, 3)) is None


def test_several_inputs_and_constants_are_replayed() -> None:
    module, x, y = evaluated(Double()), inputs(2, 3), inputs(2, 3, seed=1)
    replay = record(module, x, y)
    assert replay is not None
    np.testing.assert_array_equal(replay(y, x), called(module, y, x))


class Leaks(nn.Module):
    """Something is computed of the elements that is no operation."""

    def forward(self, x: cr.Tensor) -> cr.Tensor:
        return x * float(x.numpy().max())


class Writes(nn.Module):
    def forward(self, x: cr.Tensor) -> cr.Tensor:
        return (x * 2).relu_()


class Returns(nn.Module):
    def forward(self, x: cr.Tensor) -> tuple[cr.Tensor, cr.Tensor]:
        return x + 1, x


class Same(nn.Module):
    def forward(self, x: cr.Tensor) -> cr.Tensor:
        return cr.from_numpy(np.ones(2, np.float32))


@pytest.mark.parametrize("module", [Leaks(), Writes(), Returns(), Same()])
def test_what_cannot_be_replayed_is_not(module: nn.Module) -> None:
    x = inputs(2, 3)
    assert record(evaluated(module), x) is None


def test_modules_that_train_and_inputs_of_whole_numbers_are_not_replayed() -> None:
    assert record(nn.Linear(3, 2).train(), inputs(2, 3)) is None
    assert record(evaluated(nn.Embedding(4, 2)), np.zeros((2, 3), np.int64)) is None
