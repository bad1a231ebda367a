"""Pooling is PyTorch's: values, places and gradients over grids of settings, layers, and the errors of wrong use."""

from __future__ import annotations

import itertools
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

Call = Callable[..., Any]


def draw(*size: int) -> Array:
    """Numbers of which some are equal."""
    return np.random.default_rng(len(size)).integers(-9, 9, size) / 4


def laid_out(x: Array, memory: str) -> Array:
    """The same numbers in another order in memory."""
    if memory == "channels last":
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, -3, -1)), -1, -3)
    return np.repeat(x, 2, axis=-1)[..., ::2] if memory == "strided" else x


def agree(torch: Any, call: Call, x: Array) -> None:
    """Checks that `call(m, tensor)`, a tensor or a pair of values and places, and its gradient are those of PyTorch."""
    ours, theirs = cr.Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, expected = call(cr, ours), call(torch, theirs)
    assert isinstance(y, tuple) == isinstance(expected, tuple)
    if isinstance(y, tuple):
        np.testing.assert_array_equal(y[1].numpy(), expected[1].numpy(), strict=True)
        y, expected = y[0], expected[0]
    tolerance = 1e-5 if x.dtype == np.float32 else 1e-12
    np.testing.assert_allclose(
        np.asarray(y.detach().numpy()), expected.detach().numpy(), rtol=tolerance, atol=tolerance, strict=True
    )
    weight = np.random.default_rng(9).standard_normal(tuple(expected.shape)).astype(x.dtype)
    y.backward(cr.Tensor(weight))
    expected.backward(torch.tensor(weight))
    assert ours.grad is not None
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=tolerance, atol=tolerance, strict=True)


over_layouts = pytest.mark.parametrize("memory", ["contiguous", "channels last", "strided"])
over_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


# ---- Over grids ----


@pytest.mark.torch
@over_dtypes
@over_layouts
def test_max_pool2d_is_pytorchs(memory: str, dtype: str, torch: Any) -> None:
    x = laid_out(draw(2, 3, 7, 8).astype(dtype), memory)
    for kernel, stride, padding, dilation, ceil_mode in itertools.product(
        [2, 3, (3, 2)], [None, 1, (2, 3)], [0, 1], [1, (1, 2)], [False, True]
    ):
        args = (kernel, stride, padding, dilation, ceil_mode)
        for places in (False, True):
            agree(torch, lambda m, x, a=(*args, places): m.nn.functional.max_pool2d(x, *a), x)


@pytest.mark.torch
@over_dtypes
@over_layouts
def test_avg_pool2d_is_pytorchs(memory: str, dtype: str, torch: Any) -> None:
    x = laid_out(draw(2, 3, 7, 8).astype(dtype), memory)
    for kernel, stride, padding, ceil_mode, count, divisor in itertools.product(
        [2, 3, (3, 2)], [None, 1, (2, 3)], [0, 1], [False, True], [False, True], [None, 5]
    ):
        args = (kernel, stride, padding, ceil_mode, count, divisor)
        agree(torch, lambda m, x, a=args: m.nn.functional.avg_pool2d(x, *a), x)


@pytest.mark.torch
@over_dtypes
@over_layouts
def test_adaptive_pooling_is_pytorchs(memory: str, dtype: str, torch: Any) -> None:
    x = laid_out(draw(2, 3, 6, 9).astype(dtype), memory)
    for size in [1, 2, 3, 4, (5, 7), (None, 2), (1, None), (8, 13), (6, 9)]:
        agree(torch, lambda m, x, s=size: m.nn.functional.adaptive_avg_pool2d(x, s), x)
        agree(torch, lambda m, x, s=size: m.nn.functional.adaptive_max_pool2d(x, s), x)
        agree(torch, lambda m, x, s=size: m.nn.functional.adaptive_max_pool2d(x, s, return_indices=True), x)


@pytest.mark.torch
@pytest.mark.parametrize("shape", [(2, 3, 9), (3, 9), (0, 3, 9)])
def test_pooling_in_one_dimension_is_pytorchs(shape: tuple[int, ...], torch: Any) -> None:
    x = draw(*shape)
    for kernel, stride, padding, flag, other in itertools.product([2, 3], [None, 2], [0, 1], [0, 1], [0, 1]):
        args: tuple[Any, ...] = (kernel, stride, padding)
        agree(torch, lambda m, x, a=(*args, 1 + flag, bool(other)): m.nn.functional.max_pool1d(x, *a), x)
        agree(torch, lambda m, x, a=(*args, 1, bool(flag), True): m.nn.functional.max_pool1d(x, *a), x)
        agree(torch, lambda m, x, a=(*args, bool(flag), bool(other)): m.nn.functional.avg_pool1d(x, *a), x)
    for size in (1, 4, 11):
        agree(torch, lambda m, x, s=size: m.nn.functional.adaptive_avg_pool1d(x, s), x)
        agree(torch, lambda m, x, s=size: m.nn.functional.adaptive_max_pool1d(x, s, True), x)


@pytest.mark.torch
@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.data())
def test_any_geometry_is_pytorchs(torch: Any, data: st.DataObject) -> None:
    def pair(low: int, high: int) -> tuple[int, int]:
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    kernel, stride, dilation = pair(1, 4), pair(1, 4), pair(1, 3)
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    size = [data.draw(st.integers(d * (k - 1) + 1, 12)) for k, d in zip(kernel, dilation, strict=True)]
    ceil_mode, flag = data.draw(st.booleans()), data.draw(st.booleans())
    x = draw(data.draw(st.integers(0, 2)), 2, *size)
    args: tuple[Any, ...] = (kernel, stride, padding)
    agree(torch, lambda m, x: m.nn.functional.max_pool2d(x, *args, dilation, ceil_mode, flag), x)
    agree(torch, lambda m, x: m.nn.functional.avg_pool2d(x, *args, ceil_mode, flag), x)
    agree(torch, lambda m, x: m.nn.functional.adaptive_avg_pool2d(x, stride), x)


# ---- Ties, NaN, infinity, integers ----


@pytest.mark.torch
@pytest.mark.parametrize("call", [lambda m, x: m.nn.functional.max_pool2d(x, 3, 2, 1, return_indices=True)])
@pytest.mark.parametrize("value", [-np.inf, np.nan, 1.0])
def test_of_equal_elements_pytorchs_is_taken(call: Call, value: float, torch: Any) -> None:
    agree(torch, call, np.full((1, 2, 5, 6), value))


@pytest.mark.torch
def test_nan_is_the_largest(torch: Any) -> None:
    x = draw(1, 1, 6, 6)
    x[0, 0, [0, 2, 2, 5], [1, 2, 3, 5]] = np.nan
    agree(torch, lambda m, x: m.nn.functional.max_pool2d(x, 3, return_indices=True), x)
    agree(torch, lambda m, x: m.nn.functional.adaptive_max_pool2d(x, 4, return_indices=True), x)


@pytest.mark.torch
def test_infinity_stays_in_its_windows(torch: Any) -> None:
    x = draw(1, 1, 5, 7)
    x[0, 0, 2, 3] = np.inf
    agree(torch, lambda m, x: m.nn.functional.avg_pool2d(x, 2, 1), x)
    agree(torch, lambda m, x: m.nn.functional.adaptive_avg_pool2d(x, 3), x)


def test_an_infinite_gradient_goes_to_one_element_only() -> None:
    x = cr.tensor([[[1.0, 2.0, 0.0, 3.0]]], requires_grad=True)
    F.max_pool1d(x, 2).backward(cr.tensor([[[np.inf, 1.0]]]))
    assert x.grad is not None
    assert x.grad.tolist() == [[[0.0, np.inf, 0.0, 1.0]]]


@pytest.mark.torch
def test_integers_are_pooled_as_by_pytorch(torch: Any) -> None:
    x = np.random.default_rng(0).integers(-9, 9, (2, 3, 5, 6))
    calls: list[Call] = [
        lambda m, x: m.nn.functional.max_pool2d(x, 3, 2, 1),
        lambda m, x: m.nn.functional.avg_pool2d(x, 2),
        lambda m, x: m.nn.functional.avg_pool2d(x, 2, divisor_override=-3),
    ]
    for call in calls:
        np.testing.assert_array_equal(call(cr, cr.tensor(x)).numpy(), call(torch, torch.tensor(x)).numpy(), strict=True)


def test_no_windows_give_nothing_and_no_gradient() -> None:
    x = cr.ones(1, 2, 3, 4, requires_grad=True)
    y = F.adaptive_avg_pool2d(x, 0)
    assert y.shape == (1, 2, 0, 0)
    y.sum().backward()
    assert x.grad is not None
    assert not x.grad.numpy().any()


# ---- The way back ----


@pytest.mark.torch
@pytest.mark.parametrize("shape", [(2, 3, 6, 8), (3, 6, 7)])
def test_max_unpool2d_puts_back_what_max_pool2d_took(shape: tuple[int, ...], torch: Any) -> None:
    def back(m: Any, x: Any) -> Any:
        y, places = m.nn.functional.max_pool2d(x, 2, return_indices=True)
        return m.nn.functional.max_unpool2d(y, places, 2, output_size=shape[-2:])

    x = draw(*shape)
    agree(torch, back, x)
    y = back(cr, cr.Tensor(x)).numpy()
    np.testing.assert_array_equal(y[y != 0], x[y != 0])


@pytest.mark.torch
def test_max_unpool1d_is_pytorchs(torch: Any) -> None:
    def back(m: Any, x: Any) -> Any:
        y, places = m.nn.functional.max_pool1d(x, 3, 2, 1, return_indices=True)
        return m.nn.functional.max_unpool1d(y, places, 3, 2, 1)

    agree(torch, back, draw(2, 3, 7))


def test_where_two_meet_the_last_stays() -> None:
    x = cr.arange(4.0).reshape(1, 1, 2, 2).requires_grad_()
    y = F.max_unpool2d(x, cr.tensor([[[[3, 3], [3, 0]]]]), 2)
    assert y[0, 0, 0].tolist() == [3.0, 0.0, 0.0, 2.0]
    y.backward(cr.arange(16.0).reshape(1, 1, 4, 4))
    assert x.grad is not None
    assert x.grad.tolist() == [[[[3.0, 3.0], [3.0, 0.0]]]]  # as PyTorch's, of which any of them may stay


@pytest.mark.torch
@pytest.mark.parametrize("p", [1, 2, 3, np.inf, -np.inf])
def test_lp_pooling_is_pytorchs(p: float, torch: Any) -> None:
    x = np.abs(draw(2, 3, 7, 6)) + 0.5
    agree(torch, lambda m, x: m.nn.functional.lp_pool2d(x, p, (3, 2), 2, ceil_mode=True), x)
    agree(torch, lambda m, x: m.nn.functional.lp_pool1d(x, p, 3), x[0])


# ---- Layers ----

LAYERS: list[tuple[Callable[[Any], Any], tuple[int, ...]]] = [
    (lambda m: m.MaxPool1d(2, ceil_mode=True), (2, 3, 7)),
    (lambda m: m.MaxPool1d((2,), 1, dilation=2), (3, 7)),
    (lambda m: m.MaxPool2d(3, stride=2, padding=1, ceil_mode=True), (2, 3, 6, 7)),
    (lambda m: m.MaxPool2d((3, 2), dilation=(1, 2), return_indices=True), (3, 6, 7)),
    (lambda m: m.AvgPool1d(2), (2, 3, 7)),
    (lambda m: m.AvgPool1d((3,), 1, 1, ceil_mode=True, count_include_pad=False), (3, 7)),
    (lambda m: m.AvgPool2d((3, 2), 2, (1, 0), count_include_pad=False), (2, 3, 6, 7)),
    (lambda m: m.AvgPool2d(2, ceil_mode=True, divisor_override=3), (3, 5, 7)),
    (lambda m: m.AdaptiveAvgPool1d(3), (2, 3, 7)),
    (lambda m: m.AdaptiveAvgPool2d((None, 3)), (2, 3, 6, 7)),
    (lambda m: m.AdaptiveAvgPool2d(1), (3, 6, 7)),
    (lambda m: m.AdaptiveMaxPool1d(3, return_indices=True), (3, 7)),
    (lambda m: m.AdaptiveMaxPool2d((2, 3)), (2, 3, 6, 7)),
    (lambda m: m.LPPool1d(2, 3), (2, 3, 7)),
    (lambda m: m.LPPool2d(2, (2, 3), stride=1), (3, 5, 6)),
]


@pytest.mark.torch
@pytest.mark.parametrize(("make", "shape"), LAYERS, ids=lambda value: repr(value(nn)) if callable(value) else "")
def test_layer_is_pytorchs(make: Callable[[Any], Any], shape: tuple[int, ...], torch: Any) -> None:
    assert repr(make(nn)) == repr(make(torch.nn))
    agree(torch, lambda m, x: make(m.nn)(x), np.abs(draw(*shape)) + 0.1)


@pytest.mark.torch
def test_unpooling_layers_are_pytorchs(torch: Any) -> None:
    makes: list[Call] = [lambda m: m.MaxUnpool2d((2, 3), stride=2, padding=(1, 1)), lambda m: m.MaxUnpool1d(2)]
    for make in makes:
        assert repr(make(nn)) == repr(make(torch.nn))

    def back(m: Any, x: Any) -> Any:
        y, places = m.nn.MaxPool2d(2, return_indices=True)(x)
        return m.nn.MaxUnpool2d(2)(y, places, output_size=(2, 3, 5, 7))

    agree(torch, back, draw(2, 3, 5, 7))


# ---- Wrong use ----


@pytest.mark.torch
@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.nn.functional.max_pool2d(m.ones(1, 1, 4, 4), 2, padding=2),
        lambda m: m.nn.functional.max_pool2d(m.ones(1, 1, 4, 4), 2, padding=-1),
        lambda m: m.nn.functional.max_pool2d(m.ones(1, 1, 1, 1), 2),
        lambda m: m.nn.functional.max_pool2d(m.ones(1, 1, 4, 4), (2, 2, 2)),
        lambda m: m.nn.functional.max_pool2d(m.ones(1, 1, 4, 4), 2, stride=(1, 1, 1)),
        lambda m: m.nn.functional.max_pool2d(m.ones(1, 1, 4, 4).to(bool if m is cr else m.bool), 2),
        lambda m: m.nn.functional.max_pool1d(m.ones(4), 2),
        lambda m: m.nn.functional.max_pool1d(m.ones(1, 1, 4), (2, 2)),
        lambda m: m.nn.functional.avg_pool2d(m.ones(1, 1, 4, 4), 2, divisor_override=0),
        lambda m: m.nn.functional.avg_pool2d(m.ones(1, 1, 4, 4).to(m.int32), 2),
        lambda m: m.nn.functional.avg_pool2d(m.ones(1, 1, 1, 1), 2),
        lambda m: m.nn.functional.avg_pool1d(m.ones(1, 1, 4), 2, padding=2),
        lambda m: m.nn.functional.avg_pool1d(m.ones(1, 1, 1), 2),
        lambda m: m.nn.functional.adaptive_avg_pool2d(m.ones(1, 1, 4, 4), (2, 2, 2)),
        lambda m: m.nn.functional.adaptive_avg_pool2d(m.ones(1, 1, 4, 4), -1),
        lambda m: m.nn.functional.adaptive_avg_pool2d(m.ones(1, 1, 0, 4), 2),
        lambda m: m.nn.functional.adaptive_avg_pool2d(m.ones(1, 1, 4, 4).long(), 2),
        lambda m: m.nn.functional.adaptive_avg_pool1d(m.ones(4), 2),
        lambda m: m.nn.functional.adaptive_avg_pool1d(m.ones(1, 1, 4), (2, 3)),
        lambda m: m.nn.functional.adaptive_max_pool2d(m.ones(4, 4), 2),
        lambda m: m.nn.functional.adaptive_max_pool2d(m.ones(1, 1, 4, 4), -1),
        lambda m: m.nn.functional.max_unpool2d(m.ones(1, 1, 1, 2), m.tensor([[[[0, 30]]]]), 2),
        lambda m: m.nn.functional.max_unpool2d(m.ones(1, 1, 1, 2), m.tensor([[[[0, -3]]]]), 2),
        lambda m: m.nn.functional.max_unpool2d(m.ones(1, 1, 1, 2), m.tensor([[[[0]]]]), 2),
        lambda m: m.nn.functional.max_unpool2d(m.ones(1, 1, 1, 2), m.tensor([[[[0, 1]]]]).to(m.int32), 2),
        lambda m: m.nn.functional.max_unpool2d(m.ones(1, 1, 1, 2), m.tensor([[[[0, 1]]]]), 2, output_size=(9, 9)),
        lambda m: m.nn.functional.max_unpool2d(m.ones(1, 1, 1, 2), m.tensor([[[[0, 1]]]]), 2, output_size=(9,)),
        lambda m: m.nn.functional.max_unpool2d(m.ones(2, 2), m.tensor([[0, 1], [2, 3]]), 2),
    ],
)
def test_wrong_use_is_refused_in_pytorchs_words(call: Callable[[Any], Any], torch: Any) -> None:
    same_error(torch, call)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.max_pool2d(cr.ones(4, 4), 2), cr.ShapeError, r"Expected 3D or 4D .* but got:\[4, 4\]"),
        (lambda: F.avg_pool2d(cr.ones(1, 1, 0, 4), 2), cr.ShapeError, r"Expected 3D or 4D .* but got:\[1, 1, 0, 4\]"),
        (
            lambda: F.max_pool2d(cr.ones(1, 1, 4, 4), 2, stride=0),
            cr.ConfigError,
            "stride=0: max_pool2d: stride must be",
        ),
        (
            lambda: F.max_pool2d(cr.ones(1, 1, 4, 4), 0),
            cr.ConfigError,
            "kernel_size=0: max_pool2d: kernel_size must be",
        ),
        (lambda: F.max_pool2d(cr.ones(1, 1, 4, 4), 2, dilation=0), cr.ConfigError, "dilation should be greater than z"),
        (lambda: F.max_pool1d(cr.ones(1, 1, 4), 2, padding=2), cr.ConfigError, "pad should be at most half"),
        (lambda: F.max_pool2d(1.0, 2), cr.DTypeError, "max_pool2d..: argument 'input' .position 1. must"),  # type: ignore[arg-type]
        (lambda: F.max_pool2d(cr.ones(1, 1, 4, 4), 1.5), cr.DTypeError, "'kernel_size' must be tuple of ints, not flo"),  # type: ignore[arg-type]
    ],
)
def test_wrong_use_is_explained(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
