"""Sums and rectified numbers of half precision are those of float32, rounded once, for every number there is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.dtypes import Array, bfloat16
from chainrule.engine.kernels import onednn, reference
from tests.engine.kernels.agreement import draws, layouts, needs_onednn

KERNELS = [reference, pytest.param(onednn, marks=needs_onednn)]


def every_bfloat16() -> Array:
    """All 65,536 of them."""
    return np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(bfloat16)


def bits(x: Array) -> Array:
    """Of bfloat16, with one pattern for 0 of both signs."""
    assert x.dtype == bfloat16
    pattern = x.view(np.uint16)
    return np.where(pattern == 0x8000, np.uint16(0), pattern)


def rounded_sum(a: Array, b: Array) -> Array:
    """The sum in float32, rounded to the nearest bfloat16, of two as near the even one, by its bits."""
    pattern = (a.astype(np.float32) + b.astype(np.float32)).view(np.uint32)
    nearest = (pattern + 0x7FFF + (pattern >> 16 & 1)) >> 16
    return nearest.astype(np.uint16).view(bfloat16)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("shape", [(1,), (31,), (1 << 16,), (4, 6, 5), (2, 16, 3, 3)])
def test_a_sum_is_rounded_once(kernels: Any, shape: tuple[int, ...]) -> None:
    a, b = draws(shape, "bfloat16"), draws(shape, "bfloat16", seed=1, scale=1e-2)
    y = kernels.add(a, b)
    assert y.shape == shape
    np.testing.assert_array_equal(bits(y), bits(rounded_sum(a, b)))


@pytest.mark.parametrize("kernels", KERNELS)
@np.errstate(all="ignore")
def test_a_sum_of_every_number_is_rounded_once(kernels: Any) -> None:
    """But for those next to 0, which have fewer digits: oneDNN takes them for 0."""
    a = every_bfloat16()
    for b in (np.roll(a, 1), np.roll(a, 128), a[::-1].copy()):
        y, expected = kernels.add(a, b), rounded_sum(a, b)
        wide = a.astype(np.float32) + b.astype(np.float32)
        numbers = ~np.isnan(wide)
        small = np.zeros(a.shape, bool)
        for v in (a, b, wide):
            small |= np.abs(v.astype(np.float32)) < np.finfo(np.float32).tiny
        exact = numbers & ~small
        np.testing.assert_array_equal(bits(y)[exact], bits(expected)[exact])
        assert np.isnan(y[~numbers]).all()
        near_zero = numbers & small
        np.testing.assert_allclose(y.astype(np.float32)[near_zero], wide[near_zero], rtol=2.0**-8, atol=2.0**-126)


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_sum_may_be_of_any_memory_and_shape(kernels: Any) -> None:
    a, b = draws((4, 6, 5), "bfloat16"), draws((4, 6, 5), "bfloat16", seed=1)
    y = bits(rounded_sum(a, b))
    for of_a in layouts(a).values():
        for of_b in layouts(b).values():
            np.testing.assert_array_equal(bits(kernels.add(of_a, of_b)), y)
    row = b[:1, :, :1]
    np.testing.assert_array_equal(bits(kernels.add(a, row)), bits(rounded_sum(a, np.broadcast_to(row, a.shape).copy())))
    images = draws((2, 5, 5, 16), "bfloat16").transpose(0, 3, 1, 2)
    total = kernels.add(images, images)
    assert total.strides == images.strides
    np.testing.assert_array_equal(total.astype(np.float32), 2 * images.astype(np.float32))
    assert kernels.add(a[:0], b[:0]).shape == (0, 6, 5)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_sum_of_other_types_is_numpys(kernels: Any, dtype: str) -> None:
    a, b = draws((30,), dtype), draws((30,), dtype, seed=1)
    np.testing.assert_array_equal(kernels.add(a, b), a + b, strict=True)


# ---- Rectified ----


@np.errstate(invalid="ignore")
def test_relu_of_every_bfloat16_is_that_of_float32() -> None:
    x = every_bfloat16()
    y = reference.relu(x)
    expected = np.maximum(x.astype(np.float32), 0)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(bits(y)[numbers], bits(expected.astype(bfloat16))[numbers])
    assert np.isnan(y[~numbers]).all()
    assert (~numbers).sum() == 2 * 127


def test_a_gradient_passes_where_the_result_is_not_zero() -> None:
    g = every_bfloat16()
    for y, passes in ((1.0, True), (np.inf, True), (np.nan, True), (-np.nan, True), (0.0, False)):
        dx = reference.relu_gradient(g, np.full(g.shape, y, bfloat16))
        np.testing.assert_array_equal(dx.view(np.uint16), g.view(np.uint16) if passes else np.zeros(g.shape, np.uint16))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_no_gradient_passes_where_the_result_is_zero_however_large(dtype: str) -> None:
    g, y = draws((6,), dtype), draws((6,), dtype)
    g[:3], y[:] = [np.inf, -np.inf, np.nan], 0
    assert reference.relu_gradient(g, y).astype(float).tolist() == [0] * 6
    y[:] = 2
    dx = reference.relu_gradient(g, y)
    np.testing.assert_array_equal(dx.astype(float), g.astype(float))
    assert dx.dtype == g.dtype
    if dtype != "bfloat16":
        negative = np.full(6, -0.0, y.dtype)
        assert reference.relu_gradient(g, negative).tolist() == [0] * 6


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_relu_of_other_types_keeps_what_is_no_number(dtype: str) -> None:
    for shape in ((4,), (3, 64), (2, 64, 3, 3)):
        x = draws(shape, dtype)
        x.flat[1], x.flat[2] = np.nan, -np.inf
        for same in layouts(x).values():
            y = reference.relu(same)
            np.testing.assert_array_equal(y, np.where(np.isnan(x), x, np.maximum(x, 0)), strict=True)


def test_a_network_shows_what_is_no_number() -> None:
    x = cr.tensor([[float("nan"), -1.0, 2.0]], dtype=cr.bfloat16, requires_grad=True)
    y = cr.nn.functional.relu(x)
    y.backward(cr.ones_like(y))
    assert np.isnan(y.detach().numpy()[0, 0])
    assert x.grad is not None
    assert x.grad.float().tolist() == [[1.0, 0.0, 1.0]]
