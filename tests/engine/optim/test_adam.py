"""Adam and AdamW are PyTorch's, and the optimizers are the pure update."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn, optim
from chainrule.engine.optim import adam_update
from tests.engine.optim.twins import follows_pytorch

SETTINGS: list[dict[str, Any]] = [
    {},
    {"lr": 0.05},
    {"lr": 0.05, "betas": (0.5, 0.7), "eps": 1e-3},
    {"lr": 0.05, "betas": (0.3, 0.9)},
    {"lr": 0.05, "betas": (0.0, 0.0), "eps": 0.0},
    {"lr": 0.05, "weight_decay": 0.1},
    {"lr": 0.05, "amsgrad": True, "betas": (0.5, 0.3)},
    {"lr": 0.05, "maximize": True},
    {"lr": 0.05, "weight_decay": 0.1, "amsgrad": True, "maximize": True},
]


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_steps_and_state_are_those_of_pytorch(kind: str, settings: dict[str, Any], dtype: str, torch: Any) -> None:
    follows_pytorch(torch, kind, settings, dtype)


@pytest.mark.torch
def test_adam_with_decoupled_decay_is_adamw(torch: Any) -> None:
    follows_pytorch(torch, "Adam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}, "float64")


def test_the_first_step_is_the_rate_against_the_sign_of_the_gradient() -> None:
    p, m, v = np.zeros(3), np.zeros(3), np.zeros(3)
    adam_update(p, np.array([5.0, -2.0, 0.1]), m, v, step=1, lr=0.5, eps=0.0)
    np.testing.assert_allclose(p, [-0.5, 0.5, -0.5], rtol=1e-15)
    np.testing.assert_allclose(m, [0.5, -0.2, 0.01], rtol=1e-15)
    np.testing.assert_allclose(v, [0.025, 0.004, 0.00001], rtol=1e-12)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW])
def test_the_optimizer_is_the_update_to_the_bit(kind: Any, settings: dict[str, Any]) -> None:
    draws = np.random.default_rng(0)
    start = draws.standard_normal((3, 2)).astype(np.float32)
    p, array, m, v, u = nn.Parameter(cr.tensor(start)), start.copy(), *np.zeros((3, 3, 2), np.float32)
    optimizer = kind([p], **settings)
    numbers = {name: optimizer.defaults[name] for name in ("lr", "betas", "eps", "weight_decay", "maximize")}
    for step in range(1, 6):
        g = draws.standard_normal((3, 2)).astype(np.float32)
        before = g.tobytes()
        p.grad = cr.tensor(g)
        optimizer.step()
        adam_update(
            array,
            g,
            m,
            v,
            u if settings.get("amsgrad") else None,
            step=step,
            decoupled_weight_decay=kind is optim.AdamW,
            **numbers,
        )
        assert p.detach().numpy().tobytes() == array.tobytes()
        assert g.tobytes() == before
    assert optimizer.state[p]["step"].item() == 5


def test_settings_of_numpy_leave_float32_arithmetic() -> None:
    p, q = nn.Parameter(cr.tensor([0.3, 0.7])), nn.Parameter(cr.tensor([0.3, 0.7]))
    p.grad = q.grad = cr.tensor([0.1, 0.9])
    optim.Adam([p], lr=0.1, weight_decay=0.3).step()
    optim.Adam([q], lr=np.float64(0.1), weight_decay=np.float64(0.3)).step()
    assert p.detach().numpy().tobytes() == q.detach().numpy().tobytes()


def test_amsgrad_turned_on_later_begins_there() -> None:
    p = nn.Parameter(cr.ones(1))
    optimizer = optim.Adam([p], lr=0.1)
    p.grad = cr.ones(1)
    optimizer.step()
    optimizer.param_groups[0]["amsgrad"] = True
    optimizer.step()
    state = optimizer.state[p]
    assert state["max_exp_avg_sq"].tolist() == state["exp_avg_sq"].tolist()


@pytest.mark.torch
def test_adamw_decays_by_itself_whatever_was_loaded(torch: Any) -> None:
    for engine, p in ((optim, nn.Parameter(cr.ones(1))), (torch.optim, torch.nn.Parameter(torch.ones(1)))):
        adamw = engine.AdamW([p])
        adamw.load_state_dict(engine.Adam([p]).state_dict())
        assert adamw.param_groups[0]["decoupled_weight_decay"] is True
        adam = engine.Adam([p])
        adam.load_state_dict(engine.AdamW([p]).state_dict())
        assert adam.param_groups[0]["decoupled_weight_decay"] is True


@pytest.mark.torch
@pytest.mark.parametrize(
    ("settings", "field", "message"),
    [
        ({"lr": -0.1}, "lr", "Invalid learning rate: -0.1"),
        ({"lr": float("nan")}, "lr", "Invalid learning rate: nan"),
        ({"eps": -1.0}, "eps", "Invalid epsilon value: -1.0"),
        ({"betas": (1.0, 0.9)}, "betas", "Invalid beta parameter at index 0: 1.0"),
        ({"betas": (0.9, -0.5)}, "betas", "Invalid beta parameter at index 1: -0.5"),
        ({"betas": (0, 0.9)}, "betas", "betas must be either both floats or both Tensors"),
        ({"weight_decay": -1}, "weight_decay", "Invalid weight_decay value: -1"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_settings_out_of_range_are_refused(
    kind: str, settings: dict[str, Any], field: str, message: str, torch: Any
) -> None:
    with pytest.raises(cr.ConfigError, match=message) as caught:
        getattr(optim, kind)([nn.Parameter(cr.ones(1))], **settings)
    assert caught.value.field == field
    with pytest.raises(ValueError, match=message):
        getattr(torch.optim, kind)([torch.nn.Parameter(torch.ones(1))], **settings)
