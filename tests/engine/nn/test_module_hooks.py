"""Hooks see, and may replace, what goes into a module and what comes out."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from tests.engine.nn.twins import both, same_error


def _scale(m: Any) -> Any:
    class Scale(m.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any, factor: float = 1.0, fail: bool = False) -> Any:
            if fail:
                raise ValueError("failed on purpose")
            return x * factor

    return Scale()


def _around(m: Any) -> Any:
    """In which order hooks are called, with what, and what they make of it."""
    module, log = _scale(m), []

    def note(name: str, result: Any = None) -> Any:
        def hook(owner: Any, *given: Any) -> Any:
            log.append((name, type(owner).__name__, str(given).replace("tensor", "")))
            return result

        return hook

    module.register_forward_pre_hook(note("pre 1"))
    module.register_forward_pre_hook(note("pre 2", m.tensor([2.0])))
    module.register_forward_pre_hook(note("pre 0"), prepend=True)
    module.register_forward_pre_hook(note("pre kw", ((m.tensor([3.0]),), {"factor": 4.0})), with_kwargs=True)
    module.register_forward_hook(note("post 1"))
    module.register_forward_hook(note("post 2", m.tensor([5.0])))
    module.register_forward_hook(note("post kw"), with_kwargs=True)
    module.register_forward_hook(note("post 0"), prepend=True, always_call=True)
    result = module(m.tensor([1.0]), factor=2.0).tolist()
    return result, log


@pytest.mark.torch
def test_hooks_are_called_in_pytorchs_order_and_replace_what_pytorchs_do(torch: Any) -> None:
    mine, theirs = both(torch, _around)
    assert mine == theirs


def _failing(m: Any) -> Any:
    module = _scale(m)
    log: list[Any] = []
    module.register_forward_hook(lambda *given: log.append(("always", len(given), given[-1])), always_call=True)
    module.register_forward_hook(
        lambda *given: log.append(("kwargs", len(given), given[-1])), always_call=True, with_kwargs=True
    )
    module.register_forward_hook(lambda *given: log.append(("not always", given)))
    with pytest.raises(ValueError, match="failed on purpose"):
        module(m.ones(1), fail=True)
    return log


@pytest.mark.torch
def test_some_hooks_are_called_though_the_forward_failed(torch: Any) -> None:
    mine, theirs = both(torch, _failing)
    assert mine == theirs
    assert [entry[0] for entry in mine] == ["always", "kwargs"]


def test_a_hook_that_fails_after_a_failure_warns_and_does_not_hide_it() -> None:
    layer = nn.Linear(2, 1)

    def fail(*given: Any) -> None:
        raise KeyError("the hook's own")

    layer.register_forward_hook(fail, always_call=True)
    with (
        pytest.warns(UserWarning, match="raised an exception that was silenced as another error was raised in forward"),
        pytest.raises(cr.ShapeError),
    ):
        layer(cr.ones(1, 3))


def test_a_hook_that_always_runs_is_called_once() -> None:
    layer, calls = nn.Identity(), []
    layer.register_forward_hook(lambda *given: calls.append(given), always_call=True)

    def fail(*given: Any) -> None:
        raise ValueError("of the second hook")

    layer.register_forward_hook(fail)
    with pytest.raises(ValueError, match="of the second hook"):
        layer(cr.ones(1))
    assert len(calls) == 1


@pytest.mark.torch
def test_a_hook_with_kwargs_returns_a_pair(torch: Any) -> None:
    def wrong(m: Any) -> None:
        module = m.nn.Identity()
        module.register_forward_pre_hook(lambda *given: 3, with_kwargs=True)
        module(1)

    same_error(torch, wrong)


def test_a_hook_may_remove_itself_and_handles_work_in_a_with() -> None:
    layer = nn.Identity()
    calls: list[str] = []

    def once(*given: Any) -> None:
        calls.append("once")
        handle.remove()

    handle = layer.register_forward_hook(once)
    layer(1), layer(1)
    with layer.register_forward_pre_hook(lambda *given: calls.append("with")):
        layer(1)
    layer(1)
    assert calls == ["once", "with"]
    assert not layer._call_hooks


class Counter:
    """A hook that can be pickled."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, module: nn.Module, *given: Any) -> None:
        self.calls += 1


def test_copies_have_hooks_of_their_own() -> None:
    hook = Counter()
    layer: Any = nn.Identity()
    layer.register_forward_hook(hook)
    for duplicate in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        duplicate(1)
        (kept,) = duplicate._call_hooks.values()
        assert (kept.function.calls, hook.calls) == (1, 0)
