"""Hooks are called around steps, saving and loading, as PyTorch calls them."""

from __future__ import annotations

from typing import Any

import pytest

import chainrule.engine as cr
from chainrule.engine import nn, optim


def ours() -> Any:
    p = nn.Parameter(cr.ones(1))
    p.grad = cr.ones(1)
    return optim.SGD([p], lr=0.5)


@pytest.fixture
def engines(torch: Any) -> list[Any]:
    """An optimizer of ours and one of PyTorch's."""
    q = torch.nn.Parameter(torch.ones(1))
    q.grad = torch.ones(1)
    return [ours(), torch.optim.SGD([q], lr=0.5)]


def value(optimizer: Any) -> float:
    return float(optimizer.param_groups[0]["params"][0].item())


@pytest.mark.torch
def test_step_hooks_see_the_optimizer_the_arguments_and_the_right_moment(engines: list[Any]) -> None:
    for optimizer in engines:
        seen: list[Any] = []
        before = optimizer.register_step_pre_hook(lambda *given, seen=seen: seen.append((value(given[0]), *given[1:])))
        optimizer.register_step_post_hook(lambda *given, seen=seen: seen.append((value(given[0]), *given[1:])))
        optimizer.step()
        before.remove()
        optimizer.step(closure=None)
        assert seen == [
            (1.0, (optimizer,), {}),
            (0.5, (optimizer,), {}),
            (0.0, (optimizer,), {"closure": None}),
        ]


@pytest.mark.torch
def test_a_pre_hook_changes_the_arguments(engines: list[Any]) -> None:
    for optimizer in engines:
        optimizer.register_step_pre_hook(lambda self, args, kwargs: ((self, lambda: 7.0), {}))
        assert optimizer.step() == 7.0


@pytest.mark.torch
def test_a_pre_hook_that_gives_something_else_is_refused(engines: list[Any]) -> None:
    for optimizer in engines:
        optimizer.register_step_pre_hook(lambda self, args, kwargs: 3)
        with pytest.raises(RuntimeError, match="must return None or a tuple"):
            optimizer.step()
        assert value(optimizer) == 1.0


@pytest.mark.torch
def test_hooks_of_state_dicts_replace_and_see_them_in_order(engines: list[Any]) -> None:
    for optimizer in engines:
        calls: list[str] = []
        optimizer.register_state_dict_pre_hook(lambda self, calls=calls: calls.append("second"))
        optimizer.register_state_dict_pre_hook(lambda self, calls=calls: calls.append("first"), prepend=True)
        optimizer.register_state_dict_post_hook(lambda self, saved: {**saved, "note": 1})
        optimizer.register_load_state_dict_pre_hook(
            lambda self, saved: {**saved, "param_groups": [{**saved["param_groups"][0], "lr": 2.0}]}
        )
        optimizer.register_load_state_dict_post_hook(lambda self, calls=calls: calls.append(str(value(self))))
        saved = optimizer.state_dict()
        assert saved["note"] == 1
        optimizer.load_state_dict(saved)
        assert optimizer.param_groups[0]["lr"] == 2.0
        assert saved["param_groups"][0]["lr"] == 0.5
        assert calls == ["first", "second", "1.0"]


def test_a_step_that_calls_the_one_it_overrides_has_its_hooks_once() -> None:
    class Twice(optim.SGD):
        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            return super().step(closure)

    p = nn.Parameter(cr.ones(1))
    p.grad = cr.ones(1)
    optimizer, calls = Twice([p], lr=0.5), []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    optimizer.step()
    assert calls == ["before", "after"]
    assert p.tolist() == [0.0]


def test_a_failed_step_leaves_the_hooks_in_place() -> None:
    optimizer = ours()
    calls: list[int] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append(1))

    def closure() -> float:
        raise ArithmeticError("no loss")

    with pytest.raises(ArithmeticError, match="no loss"):
        optimizer.step(closure)
    optimizer.step()
    assert calls == [1, 1]
    assert value(optimizer) == 0.5


def test_a_handle_removes_at_the_end_of_a_with() -> None:
    optimizer, calls = ours(), []
    with optimizer.register_step_post_hook(lambda *_: calls.append(1)):
        optimizer.step()
    optimizer.step()
    assert calls == [1]
