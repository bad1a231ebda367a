"""SGD is PyTorch's, and the optimizer is the pure update."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn, optim
from chainrule.engine.optim import sgd_update

SETTINGS: list[dict[str, Any]] = [
    {"lr": 0.1},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    {"lr": 0.1, "weight_decay": 0.05},
    {"lr": 0.05, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01},
]


def gradients(steps: int = 20) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    return [np.random.default_rng(step).standard_normal((3, 2)).astype(np.float32) for step in range(steps)]


@pytest.mark.torch
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_twenty_steps_are_those_of_pytorch(settings: dict[str, Any], torch: Any) -> None:
    start = np.ones((3, 2), np.float32)
    p, q = nn.Parameter(cr.tensor(start)), torch.nn.Parameter(torch.tensor(start))
    ours, theirs = optim.SGD([p], **settings), torch.optim.SGD([q], **settings)
    for g in gradients():
        p.grad, q.grad = cr.tensor(g), torch.tensor(g)
        ours.step()
        theirs.step()
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_optimizer_is_the_update_to_the_bit(settings: dict[str, Any]) -> None:
    p, array, buffer = nn.Parameter(cr.ones(3, 2)), np.ones((3, 2), np.float32), None
    optimizer = optim.SGD([p], **settings)
    for g in gradients():
        p.grad = cr.tensor(g)
        optimizer.step()
        buffer = sgd_update(array, g, buffer, **settings)
        assert p.detach().numpy().tobytes() == array.tobytes()


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


def test_parameters_without_gradients_stay_and_updated_ones_count_a_version() -> None:
    p, q = nn.Parameter(cr.ones(1)), nn.Parameter(cr.ones(1))
    p.grad = cr.ones(1)
    optim.SGD([p, q], lr=0.5).step()
    assert (p.tolist(), p._version) == ([0.5], 1)
    assert (q.tolist(), q._version) == ([1.0], 0)


def test_a_step_between_forward_and_backward_is_noticed() -> None:
    w, x = nn.Parameter(cr.ones(1)), cr.ones(1, requires_grad=True)
    w.grad = cr.ones(1)
    y = w * x
    optim.SGD([w], lr=0.5).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_groups_have_settings_of_their_own() -> None:
    p, q = nn.Parameter(cr.ones(1)), nn.Parameter(cr.ones(1))
    groups: list[dict[str, Any]] = [{"params": [p]}, {"params": q, "lr": 0.25}]
    optimizer = optim.SGD(groups, lr=0.5)
    p.grad = q.grad = cr.ones(1)
    optimizer.step()
    assert (p.tolist(), q.tolist()) == ([0.5], [0.75])
    optimizer.param_groups[0]["lr"] = 1.0
    optimizer.step()
    assert p.tolist() == [-0.5]


def test_zero_grad_forgets_or_zeroes() -> None:
    p = nn.Parameter(cr.ones(1))
    optimizer = optim.SGD([p], lr=0.5)
    p.grad = cr.ones(1)
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is not None
    assert p.grad.tolist() == [0.0]
    optimizer.zero_grad()
    assert p.grad is None


def test_a_loaded_state_continues_to_the_bit() -> None:
    p = nn.Parameter(cr.ones(3, 2))
    first = optim.SGD([p], lr=0.1, momentum=0.9)
    for g in gradients(5):
        p.grad = cr.tensor(g)
        first.step()
    q = nn.Parameter(p.detach().clone())
    second = optim.SGD([q], lr=0.7)
    second.load_state_dict(first.state_dict())
    p.grad = q.grad = cr.ones(3, 2)
    first.step()
    second.step()
    assert p.detach().numpy().tobytes() == q.detach().numpy().tobytes()


@pytest.mark.torch
def test_state_dict_has_pytorchs_layout(torch: Any) -> None:
    p, q = nn.Parameter(cr.ones(1)), torch.nn.Parameter(torch.ones(1))
    ours, theirs = optim.SGD([p], lr=0.1, momentum=0.9), torch.optim.SGD([q], lr=0.1, momentum=0.9)
    p.grad, q.grad = cr.ones(1), torch.ones(1)
    ours.step()
    theirs.step()
    state, expected = ours.state_dict(), theirs.state_dict()
    assert state.keys() == expected.keys()
    assert state["state"][0].keys() == expected["state"][0].keys()
    assert state["param_groups"][0]["params"] == [0]
    assert state["param_groups"][0].keys() <= expected["param_groups"][0].keys()


@pytest.mark.parametrize(
    ("settings", "field", "message"),
    [
        ({"lr": -1}, "lr", "Invalid learning rate: -1"),
        ({"momentum": -1}, "momentum", "Invalid momentum value: -1"),
        ({"weight_decay": -1}, "weight_decay", "Invalid weight_decay value: -1"),
        ({"nesterov": True}, "nesterov", "Nesterov momentum requires a momentum and zero dampening"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(cr.ConfigError, match=message) as caught:
        optim.SGD([nn.Parameter(cr.ones(1))], **settings)
    assert caught.value.field == field
    with pytest.raises(ValueError, match=message):
        optim.SGD([{"params": [nn.Parameter(cr.ones(1))], **settings}])


def test_impossible_parameters_are_refused() -> None:
    p = nn.Parameter(cr.ones(1))
    with pytest.raises(ValueError, match="optimizer got an empty parameter list"):
        optim.SGD([])
    with pytest.raises(ValueError, match="more than one parameter group"):
        optim.SGD([p, p])
    with pytest.raises(ValueError, match="can't optimize a non-leaf Tensor"):
        optim.SGD([p * 2])
    with pytest.raises(TypeError, match="iterable"):
        optim.SGD(p)
    with pytest.raises(cr.StateDictError, match="doesn't match the size"):
        optim.SGD([p]).load_state_dict({"state": {}, "param_groups": [{"params": [0, 1]}]})
    with pytest.raises(cr.UnsupportedError, match="maximize"):
        optim.SGD([p], maximize=True)


def test_repr_lists_the_settings() -> None:
    assert "Parameter Group 0\n" in repr(optim.SGD([nn.Parameter(cr.ones(1))], lr=0.5))
    assert "    lr: 0.5\n" in repr(optim.SGD([nn.Parameter(cr.ones(1))], lr=0.5))
