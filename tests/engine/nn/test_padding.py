"""Margins are PyTorch's: of every mode and every sign, as functions and as layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.dtypes import Array
from chainrule.engine.nn import functional as F
from tests.engine.nn.twins import same_error


def agree(torch: Any, call: Callable[..., Any], x: Array) -> None:
    """Checks that `call(m, tensor)` and its gradient are those of PyTorch, to the last bit."""
    ours, theirs = cr.Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, expected = call(cr, ours), call(torch, theirs)
    np.testing.assert_array_equal(np.asarray(y.detach().numpy()), expected.detach().numpy(), strict=True)
    weight = np.random.default_rng(9).integers(-9, 9, tuple(expected.shape)).astype(x.dtype)
    y.backward(cr.Tensor(weight))
    expected.backward(torch.tensor(weight))
    assert ours.grad is not None
    np.testing.assert_array_equal(ours.grad.numpy(), theirs.grad.numpy(), strict=True)


@pytest.mark.torch
@settings(deadline=None, max_examples=80, derandomize=True)
@given(st.data())
def test_any_margin_is_pytorchs(torch: Any, data: st.DataObject) -> None:
    mode = data.draw(st.sampled_from(["constant", "reflect", "replicate", "circular"]))
    dims = data.draw(st.integers(1, 3))
    shape = [*data.draw(st.sampled_from([(2,), (2, 3), (0, 3)])), *[data.draw(st.integers(2, 5)) for _ in range(dims)]]
    margins: list[int] = []
    for size in reversed(shape[-dims:]):
        low = -(size // 2)
        before = data.draw(st.integers(low, size - 1))
        behind = data.draw(st.integers(low, size - 1))
        if mode == "circular":  # PyTorch cannot wrap what it cuts off
            left = size + min(before, 0) + min(behind, 0)
            before, behind = min(before, left), min(behind, left)
        margins += [before, behind]
    value = data.draw(st.sampled_from([None, 2.5])) if mode == "constant" else None
    x = np.random.default_rng(0).standard_normal(shape).astype(data.draw(st.sampled_from(["float32", "float64"])))
    if data.draw(st.booleans()):
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0)  # the same in another order in memory
    agree(torch, lambda m, x: m.nn.functional.pad(x, margins, mode, value), x)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("margins", "mode"),
    [((-1, 2), "reflect"), ((-7, 4), "reflect"), ((-7, 4), "replicate"), ((-2, 3), "circular"), ((5, 5), "circular")],
)
def test_margins_may_exceed_what_is_left(margins: tuple[int, int], mode: str, torch: Any) -> None:
    agree(torch, lambda m, x: m.nn.functional.pad(x, margins, mode), np.arange(5.0).reshape(1, 1, 5))


def test_margins_of_integers_are_integers() -> None:
    x = cr.tensor([1, 2])
    assert F.pad(x, (1, 2), value=2.7).tolist() == [2, 1, 2, 2, 2]
    assert F.pad(x.reshape(1, 2), (1, 1), "circular").tolist() == [[2, 1, 2, 1]]
    assert F.pad(cr.tensor([True, False]), (1, 0), value=3).tolist() == [True, True, False]


def test_the_gradient_of_a_repeated_element_is_the_sum_of_its_copies() -> None:
    x = cr.tensor([[1.0, 2.0]], requires_grad=True)
    F.pad(x, (2, 1), "replicate").backward(cr.tensor([[1.0, 10.0, 100.0, 1000.0, 10000.0]]))
    assert x.grad is not None
    assert x.grad.tolist() == [[111.0, 11000.0]]


@pytest.mark.torch
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda m: m.ZeroPad1d(2), (2, 3, 4)),
        (lambda m: m.ZeroPad2d((1, 0, 2, -1)), (2, 3, 4, 5)),
        (lambda m: m.ConstantPad1d((2, 1), 3.5), (3, 4)),
        (lambda m: m.ConstantPad2d(1, 3), (3, 4, 5)),
        (lambda m: m.ReflectionPad1d(1), (2, 3, 4)),
        (lambda m: m.ReflectionPad2d((1, 2, 0, 3)), (2, 3, 4, 5)),
        (lambda m: m.ReplicationPad1d((1, 6)), (3, 4)),
        (lambda m: m.ReplicationPad2d(2), (2, 3, 4, 5)),
        (lambda m: m.CircularPad1d(2), (2, 3, 4)),
        (lambda m: m.CircularPad2d((1, 2, 3, 0)), (2, 3, 4, 5)),
    ],
)
def test_layer_is_pytorchs(make: Callable[[Any], Any], shape: tuple[int, ...], torch: Any) -> None:
    assert repr(make(nn)) == repr(make(torch.nn))
    agree(torch, lambda m, x: make(m.nn)(x), np.random.default_rng(0).standard_normal(shape))


@pytest.mark.torch
@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.nn.functional.pad(m.ones(3), (1, 1, 1)),
        lambda m: m.nn.functional.pad(m.ones(3), (1, 1, 1, 1)),
        lambda m: m.nn.functional.pad(m.tensor(3.0), (1, 1)),
        lambda m: m.nn.functional.pad(m.ones(3), 1),
        lambda m: m.nn.functional.pad(m.ones(1, 1, 3, 3), (3, 1, 0, 0), "reflect"),
        lambda m: m.nn.functional.pad(m.ones(1, 1, 3, 3), (1, 1, 0, 3), "reflect"),
        lambda m: m.nn.functional.pad(m.ones(1, 3), (3, 1), "reflect"),
        lambda m: m.nn.functional.pad(m.ones(1, 1, 3, 3, 3), (1, 1, 0, 0, 3, 1), "reflect"),
        lambda m: m.nn.functional.pad(m.ones(1, 1, 3, 3), (1, 1), "reflect"),
        lambda m: m.nn.functional.pad(m.ones(3), (1, 1), "replicate"),
        lambda m: m.nn.functional.pad(m.ones(1, 3, 0), (1, 1), "replicate"),
        lambda m: m.nn.functional.pad(m.ones(1, 0, 3, 3), (1, 1, 1, 1), "reflect"),
        lambda m: m.nn.functional.pad(m.ones(1, 1, 3, 3), (4, 1, 0, 0), "circular"),
        lambda m: m.nn.functional.pad(m.ones(1, 1, 3, 3), (-2, -2, 0, 0), "circular"),
        lambda m: m.nn.functional.pad(m.ones(1, 3, 3), (1, 1), "reflect", 3.0),
        lambda m: m.nn.functional.pad(m.ones(1, 3, 3), (1, 1), "wrap"),
    ],
)
def test_wrong_use_is_refused_in_pytorchs_words(call: Callable[[Any], Any], torch: Any) -> None:
    same_error(torch, call)


@pytest.mark.parametrize(
    ("margins", "mode", "message"),
    [
        (
            (-2, -2),
            "constant",
            r"length must be non-negative, but padding \(-2, -2\) cuts off more than there is at di",
        ),
        ((-4, 2), "constant", r"at dimension 2 of input \[1, 1, 3\]"),
        ((-2, -2), "replicate", r"padding \(-2, -2\) cuts off more than there is at dimension 2"),
        ((-2, 2), "circular", r"padding \(-2, 2\) wraps around more than the 1 elements that it leaves"),
    ],
)
def test_margins_that_leave_too_little_are_refused(margins: tuple[int, int], mode: str, message: str) -> None:
    with pytest.raises(cr.ShapeError, match=f"(?i){message}"):
        F.pad(cr.ones(1, 1, 3), margins, mode)
