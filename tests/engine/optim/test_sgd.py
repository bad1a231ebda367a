"""SGD is PyTorch's, and the optimizer is the pure update."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn, optim
from chainrule.engine.optim import sgd_update
from tests.engine.optim.twins import follows_pytorch

SETTINGS: list[dict[str, Any]] = [
    {"lr": 0.1},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    {"lr": 0.1, "weight_decay": 0.05},
    {"lr": 0.05, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01},
]
ALL: list[dict[str, Any]] = [
    {},
    *SETTINGS,
    {"lr": 0.1, "dampening": 0.5},
    {"lr": 0.1, "maximize": True},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05, "maximize": True},
]


def gradients(steps: int = 20) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    return [np.random.default_rng(step).standard_normal((3, 2)).astype(np.float32) for step in range(steps)]


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("settings", ALL, ids=str)
def test_steps_and_state_are_those_of_pytorch(settings: dict[str, Any], dtype: str, torch: Any) -> None:
    follows_pytorch(torch, "SGD", settings, dtype)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_optimizer_is_the_update_to_the_bit(settings: dict[str, Any]) -> None:
    p, array, buffer = nn.Parameter(cr.ones(3, 2)), np.ones((3, 2), np.float32), None
    optimizer = optim.SGD([p], **settings)
    for g in gradients():
        p.grad = cr.tensor(g)
        optimizer.step()
        buffer = sgd_update(array, g, buffer, **settings)
        assert p.detach().numpy().tobytes() == array.tobytes()


def test_the_update_of_a_large_parameter_is_that_of_its_parts_to_the_bit() -> None:
    random = np.random.default_rng(0)
    p, g = (random.standard_normal((800, 700), np.float32) for _ in range(2))
    rows = [(p[:400].copy(), g[:400]), (p[400:].copy(), g[400:])]
    settings: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    buffer: Any = None
    buffers: list[Any] = [None, None]
    for _ in range(2):
        buffer = sgd_update(p, g, buffer, **settings)
        buffers = [sgd_update(part, slope, b, **settings) for (part, slope), b in zip(rows, buffers, strict=True)]
    assert p.tobytes() == b"".join(part.tobytes() for part, _ in rows)
    assert buffer.tobytes() == b"".join(b.tobytes() for b in buffers)


def by_the_formula(
    p: Any,
    g: Any,
    b: Any,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> Any:
    """The parameter and its buffer after a step: what the docstring says, with a new array for every result."""
    if weight_decay:
        g = g + weight_decay * p
    if momentum:
        if b is None:
            b = g.astype(p.dtype)
        else:
            b = (b * momentum).astype(b.dtype)
            b = (b + (g if dampening == 0 else (1 - dampening) * g)).astype(b.dtype)
        g = g + momentum * b if nesterov else b
    return (p - lr * g).astype(p.dtype), b


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, cr.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(), (7,), (5, 3), (9 * 65536 + 5,)], ids=str)
@pytest.mark.parametrize(
    "settings",
    [
        *SETTINGS,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05},
    ],
    ids=str,
)
def test_memory_that_results_share_changes_no_bit(settings: dict[str, Any], shape: tuple[int, ...], dtype: Any) -> None:
    draws = np.random.default_rng(0)
    p, *gradients = (np.asarray(draws.standard_normal(shape)).astype(dtype) for _ in range(4))
    expected, buffer = p.copy(), None
    found, kept = p, None
    for g in gradients:
        before = g.copy()
        expected, buffer = by_the_formula(expected, g, buffer, **settings)
        kept = sgd_update(found, g, kept, **settings)
        assert found.tobytes() == expected.tobytes()
        assert g.tobytes() == before.tobytes()
        assert (kept is None) == (buffer is None)
        assert kept is None or kept.tobytes() == buffer.tobytes()


def test_the_update_leaves_the_gradient_and_starts_the_buffer_with_a_copy() -> None:
    p, g = np.ones(2, np.float32), np.full(2, 2.0, np.float32)
    buffer = sgd_update(p, g, None, lr=0.5, momentum=0.9)
    assert buffer is not None
    assert p.tolist() == [0.0, 0.0]
    assert buffer.tolist() == [2.0, 2.0]
    assert not np.shares_memory(buffer, g)
    again = sgd_update(p, g, buffer, lr=0.5, momentum=0.9)
    assert again is buffer
    assert g.tolist() == [2.0, 2.0]
    assert p.dtype == buffer.dtype == np.float32


def test_there_is_no_buffer_without_momentum() -> None:
    assert sgd_update(np.ones(1), np.ones(1), None, lr=0.1) is None


def test_maximizing_is_descending_the_negated_gradient() -> None:
    p, q = nn.Parameter(cr.ones(2)), nn.Parameter(cr.ones(2))
    climbing, descending = optim.SGD([p], lr=0.1, momentum=0.9, maximize=True), optim.SGD([q], lr=0.1, momentum=0.9)
    for _ in range(3):
        p.grad, q.grad = cr.tensor([0.3, -2.0]), cr.tensor([-0.3, 2.0])
        climbing.step()
        descending.step()
    assert p.tolist() == q.tolist()
    assert p.grad is not None
    assert p.grad.tolist() == cr.tensor([0.3, -2.0]).tolist()


def test_a_number_remembers_its_momentum() -> None:
    p = nn.Parameter(cr.tensor(1.0))
    optimizer = optim.SGD([p], lr=0.5, momentum=0.5, weight_decay=0.5)
    for expected in (0.25, -0.6875):  # b = 1 + 0.5·1, then 0.5·1.5 + 1 + 0.5·0.25
        p.grad = cr.tensor(1.0)
        optimizer.step()
        assert p.item() == expected


@pytest.mark.torch
@pytest.mark.parametrize(
    ("settings", "field", "message"),
    [
        ({"lr": -1}, "lr", "Invalid learning rate: -1"),
        ({"momentum": -1}, "momentum", "Invalid momentum value: -1"),
        ({"weight_decay": -1}, "weight_decay", "Invalid weight_decay value: -1"),
        ({"nesterov": True}, "nesterov", "Nesterov momentum requires a momentum and zero dampening"),
        (
            {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
            "nesterov",
            "Nesterov momentum requires a momentum and zero dampening",
        ),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], field: str, message: str, torch: Any) -> None:
    with pytest.raises(cr.ConfigError, match=message) as caught:
        optim.SGD([nn.Parameter(cr.ones(1))], **settings)
    assert caught.value.field == field
    with pytest.raises(ValueError, match=message):
        torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], **settings)
