"""RMSprop is PyTorch's, and the optimizer is the pure update."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn, optim
from chainrule.engine.optim import rmsprop_update
from tests.engine.optim.twins import follows_pytorch

SETTINGS: list[dict[str, Any]] = [
    {},
    {"lr": 0.05, "alpha": 0.6, "eps": 1e-3},
    {"lr": 0.05, "momentum": 0.9},
    {"lr": 0.05, "centered": True},
    {"lr": 0.05, "weight_decay": 0.1},
    {"lr": 0.05, "maximize": True},
    {"lr": 0.05, "momentum": 0.5, "centered": True, "weight_decay": 0.1, "maximize": True},
]


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_steps_and_state_are_those_of_pytorch(settings: dict[str, Any], dtype: str, torch: Any) -> None:
    follows_pytorch(torch, "RMSprop", settings, dtype)


def test_the_first_step_by_hand() -> None:
    p, v, m, b = np.zeros(2), np.zeros(2), np.zeros(2), np.full(2, 0.5)
    rmsprop_update(p, np.array([3.0, -4.0]), v, m, b, lr=0.1, alpha=0.5, eps=0.0, momentum=0.5)
    np.testing.assert_allclose(v, [4.5, 8.0])
    np.testing.assert_allclose(m, [1.5, -2.0])
    np.testing.assert_allclose(b, [0.25 + 3 / 1.5, 0.25 - 4 / 2])  # √(4.5 − 2.25) and √(8 − 4)
    np.testing.assert_allclose(p, -0.1 * b)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_optimizer_is_the_update_to_the_bit(settings: dict[str, Any]) -> None:
    draws = np.random.default_rng(0)
    start = draws.standard_normal((3, 2)).astype(np.float32)
    p, array, v, m, b = nn.Parameter(cr.tensor(start)), start.copy(), *np.zeros((3, 3, 2), np.float32)
    optimizer = optim.RMSprop([p], **settings)
    names = ("lr", "alpha", "eps", "weight_decay", "momentum", "maximize")
    for _ in range(5):
        g = draws.standard_normal((3, 2)).astype(np.float32)
        before = g.tobytes()
        p.grad = cr.tensor(g)
        optimizer.step()
        rmsprop_update(
            array,
            g,
            v,
            m if settings.get("centered") else None,
            b if settings.get("momentum") else None,
            **{name: optimizer.defaults[name] for name in names},
        )
        assert p.detach().numpy().tobytes() == array.tobytes()
        assert g.tobytes() == before


@pytest.mark.torch
@pytest.mark.parametrize(
    ("settings", "field", "message"),
    [
        ({"lr": -0.1}, "lr", "Invalid learning rate: -0.1"),
        ({"eps": -1.0}, "eps", "Invalid epsilon value: -1.0"),
        ({"momentum": -1}, "momentum", "Invalid momentum value: -1"),
        ({"weight_decay": -1}, "weight_decay", "Invalid weight_decay value: -1"),
        ({"alpha": -0.5}, "alpha", "Invalid alpha value: -0.5"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], field: str, message: str, torch: Any) -> None:
    with pytest.raises(cr.ConfigError, match=message) as caught:
        optim.RMSprop([nn.Parameter(cr.ones(1))], **settings)
    assert caught.value.field == field
    with pytest.raises(ValueError, match=message):
        torch.optim.RMSprop([torch.nn.Parameter(torch.ones(1))], **settings)
