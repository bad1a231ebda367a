"""Anomaly detection."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

import chainrule.engine as cr
from chainrule.engine.autograd import Function, detect_anomaly, set_detect_anomaly


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", []))


def test_the_forward_line_is_named() -> None:
    with detect_anomaly():
        x = cr.zeros(1, requires_grad=True)
        y = cr.sqrt(x) * 0  # the line to name
        with pytest.raises(RuntimeError, match="'SqrtBackward0' returned nan values in its 0th output") as caught:
            y.backward()
    assert "y = cr.sqrt(x) * 0  # the line to name" in notes(caught.value)
    assert "chainrule/engine/ops" not in notes(caught.value)


def test_an_error_inside_a_backward_names_the_forward_line() -> None:
    class Broken(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 1

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            raise ValueError("broken")

    with detect_anomaly():
        y = Broken.apply(cr.ones(1, requires_grad=True))  # here
        with pytest.raises(ValueError, match="broken") as caught:
            y.backward()
    assert "# here" in notes(caught.value)


def test_nan_is_let_through_where_it_is_not_asked_for() -> None:
    for mode in (lambda: detect_anomaly(check_nan=False), cr.enable_grad):
        x = cr.zeros(1, requires_grad=True)
        with mode():
            (cr.sqrt(x) * 0).backward()
        assert x.grad is not None
        assert x.grad.isnan().item()


def test_what_was_recorded_before_says_so() -> None:
    y = cr.sqrt(cr.zeros(1, requires_grad=True)) * 0
    with detect_anomaly(), pytest.raises(RuntimeError, match="nan") as caught:
        y.backward()
    assert "recorded before anomaly detection was turned on" in notes(caught.value)


def test_the_mode_ends_with_its_block_and_nests() -> None:
    from chainrule.engine.autograd.anomaly import is_anomaly_enabled

    with detect_anomaly():
        with set_detect_anomaly(False):
            assert not is_anomaly_enabled()
        assert is_anomaly_enabled()
    assert not is_anomaly_enabled()
    set_detect_anomaly(True)
    assert is_anomaly_enabled()
    set_detect_anomaly(False)
    x = cr.ones(1, requires_grad=True) * 2
    assert x.grad_fn is not None
    assert x.grad_fn.extra is None


def _enter(stack: ExitStack, block: Callable[[], set_detect_anomaly]) -> None:
    stack.enter_context(block())


def test_blocks_of_several_threads_may_end_in_any_order() -> None:
    from chainrule.engine.autograd.anomaly import is_anomaly_check_nan_enabled, is_anomaly_enabled

    blocks_of: tuple[Callable[[], set_detect_anomaly], ...] = (detect_anomaly, lambda: set_detect_anomaly(True))
    for block in blocks_of:
        seen: list[bool] = []
        threads = [ThreadPoolExecutor(1) for _ in range(2)]  # which take turns
        blocks = [ExitStack() for _ in threads]
        for thread, stack in zip(threads, blocks, strict=True):
            thread.submit(_enter, stack, block).result()
            seen.append(is_anomaly_enabled())
        for thread, stack in zip(threads, blocks, strict=True):
            thread.submit(stack.close).result()
            seen.append(is_anomaly_enabled())
            thread.shutdown()
        assert seen == [True, True, True, False]
    outer, inner = detect_anomaly(check_nan=False), detect_anomaly()
    outer.__enter__()
    with inner:
        outer.__exit__(None, None, None)
        assert is_anomaly_check_nan_enabled()
    assert not is_anomaly_enabled()
