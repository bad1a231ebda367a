"""Pooling by oneDNN is the reference's: the largest and where it lay in every bit, averages but for rounding."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from chainrule.engine.dtypes import Array
from chainrule.engine.kernels import onednn, reference
from chainrule.engine.kernels.geometry import Pair, PoolGeometry
from tests.engine.kernels.agreement import draws, needs_onednn

pytestmark = needs_onednn

TOLERANCES = {"float32": 1e-6, "bfloat16": 2.0**-7}
"""Of numbers up to about one: sums of few terms, of which bfloat16 rounds each."""
WINDOWS = [(2, 2), (3, 3), (2, 3), (1, 4)]
MOVES = [
    ((1, 1), (0, 0), (1, 1)),
    ((2, 2), (1, 1), (1, 1)),
    ((3, 2), (0, 1), (1, 1)),
    ((2, 1), (1, 0), (2, 1)),
    ((1, 2), (0, 1), (2, 2)),
]
"""Stride, padding, dilation."""
SHAPES = [(2, 3, 8, 9), (1, 16, 7, 8), (2, 5, 9, 9)]


def geometries(*, dilated: bool = True) -> list[PoolGeometry]:
    """All of the grid that are allowed: a padding of half the window at most."""
    return [
        PoolGeometry(window, *move, ceil_mode=ceil_mode)
        for window, move, ceil_mode in itertools.product(WINDOWS, MOVES, (False, True))
        if all(2 * move[1][i] <= window[i] for i in (0, 1)) and (dilated or move[2] == (1, 1))
    ]


def near(x: Array, expected: Array, dtype: str) -> None:
    """The two are of this dtype, and equal but for roundings."""
    assert str(x.dtype) == str(expected.dtype) == dtype
    wide = expected.astype(np.float64)
    np.testing.assert_allclose(x.astype(np.float64), wide, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])


# ---- The largest ----


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("geometry", geometries())
def test_the_largest_and_its_place_are_the_references(geometry: PoolGeometry, dtype: str) -> None:
    for shape in SHAPES:
        x = np.round(draws(shape, dtype).astype(np.float32) * 1.5).astype(
            draws((), dtype).dtype
        )  # of equals, the first
        y, offsets = onednn.max_pool2d(x, geometry)
        expected, places = reference.max_pool2d(x, geometry)
        np.testing.assert_array_equal(y, expected, strict=True)
        np.testing.assert_array_equal(offsets, places, strict=True)

        g = (0.1 * draws(y.shape, dtype, seed=1)).astype(y.dtype)
        gradient = onednn.unpool(g, offsets, shape, geometry)
        near(gradient, reference.unpool(g, places, shape, geometry), dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_without_bounds_are_pooled_as_by_the_reference(value: float, dtype: str) -> None:
    for geometry in (PoolGeometry((2, 2), (2, 2)), PoolGeometry((3, 3), (2, 2), (1, 1))):
        x = draws((2, 16, 6, 6), dtype)
        x[0, 1, 2, 3] = x[0, 1, 2, 2] = x[1, 3, 0, 0] = value
        y, offsets = onednn.max_pool2d(x, geometry)
        expected, places = reference.max_pool2d(x, geometry)
        np.testing.assert_array_equal(y.astype(np.float32), expected.astype(np.float32))
        np.testing.assert_array_equal(offsets, places, strict=True)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("value", [np.nan, -np.nan])
def test_what_is_no_number_is_the_largest_whatever_its_sign(value: float, dtype: str) -> None:
    x = draws((1, 16, 4, 4), dtype)
    x[0, 3, 2, 2] = value
    y, offsets = onednn.max_pool2d(x, PoolGeometry((2, 2), (2, 2)))
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 3, 1, 1]]
    assert offsets[0, 3, 1, 1] == 0


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_where_all_is_minus_infinity_the_first_that_lies_in_the_image_is_the_largest(dtype: str) -> None:
    x = np.full((1, 16, 4, 4), -np.inf, draws((), dtype).dtype)
    geometry = PoolGeometry((3, 3), (2, 2), (1, 1))
    y, offsets = onednn.max_pool2d(x, geometry)
    assert np.isneginf(y.astype(np.float32)).all()
    np.testing.assert_array_equal(offsets, reference.max_pool2d(x, geometry)[1])
    assert offsets[0, 0].tolist() == [[4, 3], [1, 0]]


def test_a_gradient_goes_to_one_element_of_each_window() -> None:
    x, geometry = np.ones((1, 16, 4, 4), np.float32), PoolGeometry((2, 2), (2, 2))
    y, offsets = onednn.max_pool2d(x, geometry)
    gradient = onednn.unpool(np.ones_like(y), offsets, x.shape, geometry)
    assert gradient[0, 5].tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("window", [(20, 20), (16, 16)])
def test_windows_of_more_elements_than_a_byte_counts_will_do(window: Pair) -> None:
    x, geometry = draws((1, 3, 24, 24)), PoolGeometry(window, (2, 2))
    y, offsets = onednn.max_pool2d(x, geometry)
    expected, places = reference.max_pool2d(x, geometry)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(offsets, places, strict=True)
    gradient = onednn.unpool(y, offsets, x.shape, geometry)
    np.testing.assert_allclose(gradient, reference.unpool(y, places, x.shape, geometry), rtol=1e-5)


# ---- The average ----


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("divisor", [None, 3, -2])
@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("geometry", geometries(dilated=False))
def test_the_average_is_the_references(
    geometry: PoolGeometry, count_include_pad: bool, divisor: int | None, dtype: str
) -> None:
    geometry = geometry._replace(count_include_pad=count_include_pad, divisor=divisor)
    for shape in SHAPES:
        x = (0.3 * draws(shape, dtype).astype(np.float32)).astype(draws((), dtype).dtype)
        y = onednn.avg_pool2d(x, geometry)
        near(y, reference.avg_pool2d(x, geometry), dtype)
        g = (0.1 * draws(y.shape, dtype, seed=1)).astype(y.dtype)
        near(onednn.avg_unpool(g, shape, geometry), reference.avg_unpool(g, shape, geometry), dtype)


# ---- In any memory, of any type ----


def test_any_memory_will_do() -> None:
    x, geometry = draws((2, 6, 7, 8)), PoolGeometry((3, 3), (2, 2), (1, 1))
    y, offsets = onednn.max_pool2d(x, geometry)
    average = onednn.avg_pool2d(x, geometry)
    gradients = onednn.unpool(y, offsets, x.shape, geometry), onednn.avg_unpool(y, x.shape, geometry)
    among = np.zeros((2, 12, 7, 10), np.float32)
    among[:, ::2, :, 1:-1] = x
    for same in (among[:, ::2, :, 1:-1], np.asfortranarray(x), np.ascontiguousarray(x[..., ::-1])[..., ::-1]):
        np.testing.assert_array_equal(onednn.max_pool2d(same, geometry)[0], y)
        np.testing.assert_array_equal(onednn.max_pool2d(same, geometry)[1], offsets)
        np.testing.assert_array_equal(onednn.avg_pool2d(same, geometry), average)
    for same, places in ((np.ascontiguousarray(y), np.asfortranarray(offsets)), (np.asfortranarray(y), offsets)):
        np.testing.assert_array_equal(onednn.unpool(same, places, x.shape, geometry), gradients[0])
        np.testing.assert_array_equal(onednn.avg_unpool(same, x.shape, geometry), gradients[1])


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64"])
def test_other_types_go_to_the_reference(dtype: str) -> None:
    x, geometry = (3 * draws((2, 3, 6, 6))).astype(dtype), PoolGeometry((2, 2), (2, 2))
    y, offsets = onednn.max_pool2d(x, geometry)
    for one, other in zip((y, offsets), reference.max_pool2d(x, geometry), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    np.testing.assert_array_equal(
        onednn.unpool(y, offsets, x.shape, geometry), reference.unpool(y, offsets, x.shape, geometry), strict=True
    )
    if dtype != "int64":
        average = onednn.avg_pool2d(x, geometry)
        np.testing.assert_array_equal(average, reference.avg_pool2d(x, geometry), strict=True)
        np.testing.assert_array_equal(
            onednn.avg_unpool(y, x.shape, geometry), reference.avg_unpool(y, x.shape, geometry), strict=True
        )


def test_an_empty_batch_is_pooled_to_nothing() -> None:
    x, geometry = np.empty((0, 3, 6, 6), np.float32), PoolGeometry((2, 2), (2, 2))
    y, offsets = onednn.max_pool2d(x, geometry)
    assert y.shape == offsets.shape == onednn.avg_pool2d(x, geometry).shape == (0, 3, 3, 3)
    assert onednn.unpool(y, offsets, x.shape, geometry).shape == x.shape
    assert onednn.avg_unpool(y, x.shape, geometry).shape == x.shape
