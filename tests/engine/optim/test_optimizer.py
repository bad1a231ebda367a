"""What optimizers share: groups, closures, states, copies."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn, optim

KINDS: list[Any] = [optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop]


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(cr.ones(*shape))


def trained(kind: Any, steps: int = 3, **settings: Any) -> Any:
    """An optimizer of one parameter with an eventful past."""
    optimizer = kind([parameter(3, 2)], **settings)
    for step in range(steps):
        train(optimizer, step)
    return optimizer


def train(optimizer: Any, seed: int) -> None:
    for p in optimizer.param_groups[0]["params"]:
        p.grad = cr.tensor(np.random.default_rng(seed).standard_normal(p.shape).astype(np.float32))
    optimizer.step()


def bits(optimizer: Any) -> list[bytes]:
    return [p.detach().numpy().tobytes() for group in optimizer.param_groups for p in group["params"]]


# ---- Steps ----


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_without_gradients_stay_and_updated_ones_count_a_version(kind: Any) -> None:
    p, q = parameter(1), parameter(1)
    p.grad = cr.ones(1)
    optimizer = kind([p, q], lr=0.5)
    optimizer.step()
    assert p.item() < 1
    assert p._version == 1
    assert (q.tolist(), q._version) == ([1.0], 0)
    assert q not in optimizer.state


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_writes_into_the_memory_of_the_parameter(kind: Any) -> None:
    p = parameter(2, 2)
    array = p.detach().numpy()
    p.grad = cr.ones(2, 2)
    kind([p], lr=0.5).step()
    assert p.data is array
    assert (array < 1).all()


def test_a_step_between_forward_and_backward_is_noticed() -> None:
    w, x = parameter(1), cr.ones(1, requires_grad=True)
    w.grad = cr.ones(1)
    y = w * x
    optim.SGD([w], lr=0.5).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


@pytest.mark.parametrize("kind", KINDS)
def test_the_closure_is_recorded_and_its_loss_given(kind: Any) -> None:
    p = nn.Parameter(cr.tensor([2.0]))
    optimizer = kind([p], lr=0.5)

    def closure() -> cr.Tensor:
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with cr.no_grad():
        loss = optimizer.step(closure)
        assert not cr.is_grad_enabled()
    assert loss.item() == 4
    assert p.item() < 2
    assert p.grad is not None
    assert p.grad.tolist() == [4.0]
    assert optimizer.step() is None


def test_an_optimizer_of_your_own_defines_its_step_as_in_pytorch() -> None:
    class Halve(optim.Optimizer):
        @cr.no_grad()
        def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                for p in group["params"]:
                    p.mul_(group["by"])
                    self.state[p]["count"] = self.state[p].get("count", 0) + 1

    p = nn.Parameter(cr.tensor([8.0]))
    optimizer = Halve([p], {"by": 0.5})
    optimizer.step()
    optimizer.step()
    assert p.tolist() == [2.0]
    assert optimizer.state_dict() == {"state": {0: {"count": 2}}, "param_groups": [{"params": [0], "by": 0.5}]}


def test_an_optimizer_that_defines_no_step_says_so() -> None:
    p = parameter(1)
    p.grad = cr.ones(1)
    with pytest.raises(NotImplementedError, match="Optimizer defines neither update nor step"):
        optim.Optimizer([p], {}).step()


def test_zero_grad_forgets_or_zeroes() -> None:
    p = parameter(1)
    optimizer = optim.SGD([p], lr=0.5)
    p.grad = cr.ones(1)
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is not None
    assert p.grad.tolist() == [0.0]
    optimizer.zero_grad()
    assert p.grad is None


# ---- Groups ----


def test_groups_have_settings_of_their_own() -> None:
    p, q = parameter(1), parameter(1)
    groups: list[dict[str, Any]] = [{"params": [p]}, {"params": q, "lr": 0.25}]
    optimizer = optim.SGD(groups, lr=0.5)
    assert groups == [{"params": [p]}, {"params": q, "lr": 0.25}]
    p.grad = q.grad = cr.ones(1)
    optimizer.step()
    assert (p.tolist(), q.tolist()) == ([0.5], [0.75])
    optimizer.param_groups[0]["lr"] = 1.0
    optimizer.step()
    assert p.tolist() == [-0.5]


def test_a_group_is_added_later() -> None:
    p, q = parameter(1), parameter(1)
    optimizer = optim.SGD([p], lr=0.5, momentum=0.9)
    optimizer.add_param_group({"params": q, "lr": 0.25})
    assert optimizer.param_groups[1] == {**optimizer.param_groups[0], "params": [q], "lr": 0.25}
    q.grad = cr.ones(1)
    optimizer.step()
    assert (p.tolist(), q.tolist()) == ([1.0], [0.75])


@pytest.mark.torch
def test_named_parameters_keep_their_names(torch: Any) -> None:
    ours, theirs = nn.Linear(2, 1), torch.nn.Linear(2, 1)
    a, b = optim.SGD(ours.named_parameters()), torch.optim.SGD(theirs.named_parameters())
    assert a.param_groups[0]["params"] == [ours.weight, ours.bias]
    assert a.param_groups[0]["param_names"] == b.param_groups[0]["param_names"] == ["weight", "bias"]
    assert repr(a) == repr(b)
    assert a.state_dict() == b.state_dict()
    plain = optim.SGD(ours.parameters())
    plain.load_state_dict(b.state_dict())
    assert plain.param_groups[0]["param_names"] == ["weight", "bias"]
    a.load_state_dict(torch.optim.SGD(theirs.parameters(), lr=0.5).state_dict())
    assert a.param_groups[0]["param_names"] == ["weight", "bias"]
    assert a.param_groups[0]["lr"] == 0.5


@pytest.mark.torch
@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (lambda p, q: [], ValueError, "optimizer got an empty parameter list"),
        (lambda p, q: p, TypeError, "params argument given to the optimizer should be an iterable of Tensors or dicts"),
        (lambda p, q: [3], TypeError, "optimizer can only optimize Tensors, but one of the params is"),
        (lambda p, q: [p * 2], ValueError, "can't optimize a non-leaf Tensor"),
        (lambda p, q: [{"params": p}, p], TypeError, "param_group must be a dict, but got"),
        (lambda p, q: [{"params": {p, q}}], TypeError, "optimizer parameters need to be organized in ordered"),
        (lambda p, q: [{"params": p}, {"params": p}], ValueError, "some parameters appear in more than one"),
        (lambda p, q: [("p", p), q], ValueError, "all optimizer params should be with/without names. Some"),
        (
            lambda p, q: [{"params": [("p", p)]}, {"params": q}],
            ValueError,
            "all optimizer param groups should be with/without names. cannot add param group",
        ),
    ],
)
def test_impossible_parameters_are_refused_as_by_pytorch(
    params: Any, error: type[Exception], message: str, torch: Any
) -> None:
    with pytest.raises(error, match=message) as caught:
        optim.SGD(params(parameter(1), parameter(1)))
    assert isinstance(caught.value, cr.ChainruleError)
    with pytest.raises(error, match=message):
        torch.optim.SGD(params(*(torch.nn.Parameter(torch.ones(1)) for _ in range(2))))


def test_a_parameter_twice_in_a_group_is_refused() -> None:
    p = parameter(1)
    with pytest.raises(cr.ConfigError, match="a parameter group with duplicate parameters; list each once"):
        optim.SGD([p, p])


def test_settings_of_a_group_are_checked_too() -> None:
    with pytest.raises(ValueError, match="Invalid learning rate: -1"):
        optim.SGD([{"params": [parameter(1)], "lr": -1}])


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (optim.SGD, ["foreach", "differentiable", "fused"]),
        (optim.Adam, ["foreach", "capturable", "differentiable", "fused"]),
        (optim.AdamW, ["foreach", "capturable", "differentiable", "fused"]),
        (optim.RMSprop, ["foreach", "capturable", "differentiable"]),
    ],
)
def test_other_implementations_are_refused_by_name(kind: Any, names: list[str]) -> None:
    for name in names:
        assert kind([parameter(1)], **{name: False}).defaults[name] is False
        with pytest.raises(cr.UnsupportedError, match=f"{kind.__name__}: {name}=True is not supported"):
            kind([parameter(1)], **{name: True})
        with pytest.raises(cr.UnsupportedError, match=name):
            kind([{"params": [parameter(1)], name: True}])
        saved = kind([parameter(1)]).state_dict()
        saved["param_groups"][0][name] = True
        with pytest.raises(cr.UnsupportedError, match=name):
            kind([parameter(1)]).load_state_dict(saved)


@pytest.mark.parametrize("settings", [{"lr": cr.tensor(0.1)}, {"betas": (cr.tensor(0.9), cr.tensor(0.9))}], ids=str)
def test_tensors_as_settings_are_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(cr.UnsupportedError, match=rf"Adam: {next(iter(settings))} as a Tensor is not supported"):
        optim.Adam([parameter(1)], **settings)


# ---- State ----


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("of", ["tensors", "arrays", "pickle"])
def test_a_loaded_state_continues_to_the_bit(kind: Any, of: str) -> None:
    first = trained(kind, lr=0.1, weight_decay=0.01)
    second = kind([nn.Parameter(first.param_groups[0]["params"][0].detach().clone())], lr=0.7)
    saved = first.state_dict()
    if of == "arrays":
        saved["state"] = {n: {key: x.numpy() for key, x in state.items()} for n, state in saved["state"].items()}
    second.load_state_dict(pickle.loads(pickle.dumps(saved)) if of == "pickle" else saved)
    assert second.param_groups[0]["lr"] == 0.1
    for seed in range(3, 6):
        train(first, seed)
        train(second, seed)
        assert bits(first) == bits(second)


def test_a_loaded_state_is_a_copy() -> None:
    first = trained(optim.SGD, lr=0.1, momentum=0.9)
    second = optim.SGD([parameter(3, 2)], lr=0.1)
    second.load_state_dict(first.state_dict())
    train(second, 9)
    [mine], [theirs] = first.state.values(), second.state.values()
    assert mine["momentum_buffer"].tolist() != theirs["momentum_buffer"].tolist()
    second.param_groups[0]["lr"] = 0.5
    assert first.param_groups[0]["lr"] == 0.1


def test_a_state_takes_the_dtype_of_its_parameter_and_its_count_does_not() -> None:
    wide = optim.Adam([nn.Parameter(cr.ones(2, dtype=cr.float64))])
    narrow = optim.Adam([parameter(2)])
    for p in narrow.param_groups[0]["params"]:
        p.grad = cr.ones(2)
    narrow.step()
    wide.load_state_dict(narrow.state_dict())
    [state] = wide.state.values()
    assert {key: str(value.dtype) for key, value in state.items()} == {
        "step": "float32",
        "exp_avg": "float64",
        "exp_avg_sq": "float64",
    }


def test_a_count_saved_as_a_number_is_a_tensor_again() -> None:
    optimizer = trained(optim.Adam)
    saved = optimizer.state_dict()
    saved["state"][0] = {**saved["state"][0], "step": 3}
    optimizer.load_state_dict(saved)
    train(optimizer, 0)
    [state] = optimizer.state.values()
    assert (state["step"].item(), state["step"].dtype) == (4.0, cr.float32)


def test_what_is_kept_under_no_parameter_travels_as_it_is() -> None:
    first, second = optim.SGD([parameter(1)]), optim.SGD([parameter(1)])
    first.state["note"] = {"epoch": 3}
    second.load_state_dict(first.state_dict())
    assert second.state["note"] == {"epoch": 3}


@pytest.mark.torch
def test_state_dicts_of_other_sizes_are_refused_as_by_pytorch(torch: Any) -> None:
    for engine, p in ((optim, parameter(1)), (torch.optim, torch.nn.Parameter(torch.ones(1)))):
        optimizer = engine.SGD([p])
        with pytest.raises(ValueError, match="loaded state dict has a different number of parameter groups"):
            optimizer.load_state_dict({"state": {}, "param_groups": []})
        with pytest.raises(ValueError, match="doesn't match the size of optimizer's group"):
            optimizer.load_state_dict({"state": {}, "param_groups": [{"params": [0, 1]}]})
    with pytest.raises(cr.StateDictError, match="2, not 1"):
        optim.SGD([parameter(1)]).load_state_dict({"state": {}, "param_groups": [{"params": [0, 1]}]})


def test_a_state_of_another_shape_is_refused_and_nothing_is_changed() -> None:
    saved = trained(optim.SGD, lr=0.1, momentum=0.9).state_dict()
    other = optim.SGD([parameter(2, 3)], lr=0.5)
    with pytest.raises(cr.StateDictError, match=r"momentum_buffer of shape \(3, 2\) for parameter 0 of shape \(2, 3\)"):
        other.load_state_dict(saved)
    assert other.param_groups[0]["lr"] == 0.5
    assert not other.state


# ---- Copies ----


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_of_model_and_optimizer_go_on_together(kind: Any, duplicate: Any) -> None:
    optimizer = trained(kind, lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: pytest.fail("hooks are not copied"))
    model = optimizer.param_groups[0]["params"]
    model_copy, optimizer_copy = duplicate((model, optimizer))
    assert optimizer_copy.param_groups[0]["params"][0] is model_copy[0]
    assert repr(optimizer_copy) == repr(optimizer)
    optimizer._hooks.clear()
    optimizer_copy.register_step_post_hook(lambda *_: None)
    train(optimizer_copy, 7)
    assert bits(optimizer) != bits(optimizer_copy)
    train(optimizer, 7)
    assert bits(optimizer) == bits(optimizer_copy)


@pytest.mark.torch
@pytest.mark.parametrize("kind", [kind.__name__ for kind in KINDS])
def test_repr_is_pytorchs(kind: str, torch: Any) -> None:
    ours, theirs = parameter(1), torch.nn.Parameter(torch.ones(1))
    assert repr(getattr(optim, kind)([ours])) == repr(getattr(torch.optim, kind)([theirs]))
    ours_two, theirs_two = (
        getattr(engine, kind)([{"params": [p]}, {"params": [q], "lr": 0.5}], lr=0.25, weight_decay=0.1, maximize=True)
        for engine, p, q in (
            (optim, ours, parameter(1)),
            (torch.optim, theirs, torch.nn.Parameter(torch.ones(1))),
        )
    )
    assert repr(ours_two) == repr(theirs_two)
    assert "    lr: 0.5\n" in repr(ours_two)
