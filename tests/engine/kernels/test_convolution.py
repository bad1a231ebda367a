"""Convolution by oneDNN and its gradients are the reference's in float64, for any window, memory and precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from chainrule.engine.dtypes import Array, DType
from chainrule.engine.kernels import onednn, reference
from chainrule.engine.kernels.geometry import ConvGeometry, Pair, Shape
from chainrule.engine.kernels.onednn import taps
from chainrule.engine.kernels.onednn.primitive import _local, scratchpad
from tests.engine.kernels.agreement import draws, needs_onednn

pytestmark = needs_onednn

float32, float64 = np.dtype(np.float32), np.dtype(np.float64)
TOLERANCES = {"float32": 1e-5, "bfloat16": 2.0**-8, "mixed": 2.0**-7}
"""Of the largest element: sums of at most some thousand terms lose a few digits of float32's seven; bfloat16 is rounded
once at the end, by up to 2⁻⁹, and with weights of float32 these are rounded first, too."""
WINDOWS = [(1, 1), (3, 3), (2, 3), (5, 2)]
CHANNELS = [(1, 3, 1), (16, 5, 1), (17, 17, 17), (5, 10, 5), (6, 9, 3)]
"""Of the input and of the output, and groups."""
MOVES = [
    ((1, 1), (0, 0), (1, 1)),
    ((2, 1), (1, 2), (1, 1)),
    ((1, 2), (2, 0), (2, 1)),
    ((3, 3), (1, 1), (1, 2)),
]
"""Stride, padding, dilation."""


class Problem(NamedTuple):
    """The arrays of a convolution."""

    x: Array
    w: Array
    b: Array
    dy: Array
    geometry: ConvGeometry

    @property
    def wide(self) -> Problem:
        """The same in float64, with the weights as the images' precision has them."""
        w = self.w.astype(self.x.dtype)
        x, w, b, dy = (np.asarray(v.astype(float64)) for v in (self.x, w, self.b, self.dy))
        return Problem(x, w, b, dy, self.geometry)


def problem(
    shape: Shape, weight: Shape, geometry: ConvGeometry, dtype: str = "float32", weight_dtype: str | None = None
) -> Problem:
    """Random numbers of these shapes."""
    places = geometry.places((shape[2], shape[3]), (weight[2], weight[3]))
    of_weights = dtype if weight_dtype is None else weight_dtype
    return Problem(
        draws(shape, dtype),
        draws(weight, of_weights, seed=1),
        draws((weight[0],), of_weights, seed=2),
        draws((shape[0], weight[0], *places), dtype, seed=3),
        geometry,
    )


def near(y: Array, expected: Array, dtype: DType, tolerance: float) -> None:
    """y is of this dtype, and differs from what it is to be by `tolerance` of the largest of it at most."""
    assert (y.dtype, y.shape) == (dtype, expected.shape)
    if y.size:
        error = np.abs(y.astype(float64) - expected).max()
        assert error <= tolerance * max(1.0, np.abs(expected).max())


def check(given: Problem, tolerance: float) -> None:
    """Result and gradients are the reference's in float64."""
    x, w, b, dy, geometry = given
    wide = given.wide
    near(onednn.conv2d(x, w, b, geometry), reference.conv2d(*wide[:3], geometry), x.dtype, tolerance)
    near(onednn.conv2d(x, w, None, geometry), reference.conv2d(*wide[:2], None, geometry), x.dtype, tolerance)
    dx = reference.conv2d_input(wide.dy, wide.w, x.shape, geometry)
    near(onednn.conv2d_input(dy, w, x.shape, geometry), dx, x.dtype, tolerance)
    dw = reference.conv2d_weight(wide.dy, wide.x, w.shape, geometry, float64)
    exact = TOLERANCES["float32"] if w.dtype == float32 else tolerance
    near(onednn.conv2d_weight(dy, x, w.shape, geometry, w.dtype), dw, w.dtype, exact)


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize(("channels", "out", "groups"), CHANNELS)
@pytest.mark.parametrize("window", WINDOWS)
def test_result_and_gradients_are_the_references(
    window: Pair, channels: int, out: int, groups: int, move: tuple[Pair, Pair, Pair], precision: str
) -> None:
    dtype, weight_dtype = ("bfloat16", "float32") if precision == "mixed" else (precision, precision)
    shape, weight = (2, channels, 9, 10), (out, channels // groups, *window)
    check(problem(shape, weight, ConvGeometry(*move, groups), dtype, weight_dtype), TOLERANCES[precision])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("n", [0, 1])
def test_a_batch_may_be_of_one_or_of_none(n: int, dtype: str) -> None:
    check(problem((n, 3, 6, 5), (4, 3, 3, 3), ConvGeometry((1, 1), (1, 1)), dtype), TOLERANCES[dtype])


@pytest.mark.parametrize("size", [(7, 7), (8, 9), (9, 8)])
def test_the_gradient_has_the_size_of_the_image_though_others_give_the_same_result(size: Pair) -> None:
    geometry = ConvGeometry((3, 3), (1, 1))
    assert geometry.places(size, (3, 3)) == (3, 3)
    given = problem((2, 8, *size), (16, 8, 3, 3), geometry)
    check(given, TOLERANCES["float32"])
    unreached = onednn.conv2d_input(given.dy, given.w, (2, 8, *size), geometry)
    assert not unreached[:, :, 8:].any()
    assert not unreached[..., 8:].any()


def seen(x: Array) -> dict[str, Array]:
    """The same numbers in other memory."""
    n, c, h, w = x.shape
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    among = np.zeros((n, 2 * c, h + 2, w + 3), x.dtype)
    among[:, ::2, 1:-1, 2:-1] = x
    return {
        "contiguous": np.ascontiguousarray(x),
        "channels last": last,
        "sliced": among[:, ::2, 1:-1, 2:-1],
        "every other image": np.repeat(last, 2, axis=0)[::2],
        "backwards": np.ascontiguousarray(x[:, :, ::-1, ::-1])[:, :, ::-1, ::-1],
        "columns first": np.asfortranarray(x),
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("groups", [1, 2])
def test_any_memory_will_do(groups: int, dtype: str) -> None:
    geometry = ConvGeometry((1, 1), (1, 1), (1, 1), groups)
    x, w, b, dy, _ = problem((2, 6, 5, 7), (8, 6 // groups, 3, 3), geometry, dtype)
    y = onednn.conv2d(x, w, b, geometry)
    dx = onednn.conv2d_input(dy, w, x.shape, geometry)
    dw = onednn.conv2d_weight(dy, x, w.shape, geometry, w.dtype)
    for name in seen(x):
        same_x, same_w, same_dy = seen(x)[name], seen(w)[name], seen(dy)[name]
        np.testing.assert_array_equal(onednn.conv2d(same_x, same_w, b, geometry), y, name)
        np.testing.assert_array_equal(onednn.conv2d_input(same_dy, same_w, x.shape, geometry), dx, name)
        np.testing.assert_array_equal(onednn.conv2d_weight(same_dy, same_x, w.shape, geometry, w.dtype), dw, name)


def test_a_gradient_that_is_one_number_everywhere_will_do() -> None:
    geometry = ConvGeometry((1, 1), (1, 1))
    x, w, b, dy, _ = problem((2, 4, 5, 5), (6, 4, 3, 3), geometry)
    check(Problem(x, w, b, np.broadcast_to(np.float32(0.5), dy.shape), geometry), TOLERANCES["float32"])


def test_a_bias_with_gaps_will_do() -> None:
    x, w, b, _, geometry = problem((2, 4, 5, 5), (6, 4, 3, 3), ConvGeometry())
    y = onednn.conv2d(x, w, b, geometry)
    np.testing.assert_array_equal(onednn.conv2d(x, w, np.repeat(b, 2)[::2], geometry), y)


def test_memory_comes_out_channels_last() -> None:
    x, w, _, dy, geometry = problem((2, 4, 5, 6), (8, 4, 3, 3), ConvGeometry())
    for y in (onednn.conv2d(x, w, None, geometry), onednn.conv2d_input(dy, w, x.shape, geometry)):
        assert y.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("shape", "weight"), [((2, 5, 6, 7), (9, 5, 3, 3)), ((2, 64, 2, 2), (64, 64, 3, 3))])
def test_channels_are_scaled_and_shifted_at_the_end(shape: Shape, weight: Shape, with_bias: bool) -> None:
    given = problem(shape, weight, ConvGeometry((1, 1), (1, 1)))
    scale, shift = draws((weight[0],), seed=4), draws((weight[0],), seed=5)
    x, w, b, _, geometry = given.wide
    bias = b if with_bias else None
    expected = reference.conv2d(x, w, bias, geometry, (scale.astype(float64), shift.astype(float64)))
    plain = reference.conv2d(x, w, bias, geometry)
    np.testing.assert_allclose(expected, plain * scale.reshape(-1, 1, 1) + shift.reshape(-1, 1, 1), rtol=1e-12)
    y = onednn.conv2d(given.x, given.w, given.b if with_bias else None, geometry, (scale, shift))
    near(y, expected, float32, TOLERANCES["float32"])


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_types_go_to_the_reference(dtype: str) -> None:
    x, w, b, dy, geometry = problem((2, 4, 5, 6), (8, 4, 3, 3), ConvGeometry((2, 2), (1, 1)), dtype)
    mine, expected = (
        (
            kernels.conv2d(x, w, b, geometry),
            kernels.conv2d_input(dy, w, x.shape, geometry),
            kernels.conv2d_weight(dy, x, w.shape, geometry, w.dtype),
        )
        for kernels in (onednn, reference)
    )
    for one, other in zip(mine, expected, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


def test_what_is_not_finite_stays_where_the_window_meets_it() -> None:
    x, w, _, _, geometry = problem((1, 3, 6, 6), (4, 3, 3, 3), ConvGeometry((1, 1), (1, 1)))
    x[0, 1, 0, 0] = np.nan
    found = np.isnan(onednn.conv2d(x, w, None, geometry))
    assert found[:, :, :2, :2].all()
    assert found.sum() == 4 * 4


# ---- Of images that are hardly larger than nothing ----

TINY = [
    ((1, 1), (3, 3), ConvGeometry((1, 1), (1, 1))),
    ((2, 2), (3, 3), ConvGeometry((1, 1), (1, 1))),
    ((2, 3), (3, 3), ConvGeometry((2, 2), (1, 1))),
    ((4, 4), (3, 3), ConvGeometry((2, 1), (1, 1))),
    ((3, 2), (5, 2), ConvGeometry((1, 1), (2, 1))),
    ((3, 3), (3, 3), ConvGeometry((1, 2), (2, 2), (2, 2))),
    ((4, 5), (2, 3), ConvGeometry((3, 3), (0, 1), (1, 2))),
]


@pytest.mark.parametrize(("size", "window", "geometry"), TINY)
def test_one_element_of_the_window_after_the_other_gives_the_references(
    size: Pair, window: Pair, geometry: ConvGeometry
) -> None:
    x, w, b, dy, _ = given = problem((3, 5, *size), (7, 5, *window), geometry)
    wide, tolerance = given.wide, TOLERANCES["float32"]
    near(taps.conv2d(x, w, b, geometry), reference.conv2d(*wide[:3], geometry), float32, tolerance)
    near(taps.conv2d(x, w, None, geometry), reference.conv2d(*wide[:2], None, geometry), float32, tolerance)
    dx = reference.conv2d_input(wide.dy, wide.w, x.shape, geometry)
    near(taps.conv2d_input(dy, w, x.shape, geometry), dx, float32, tolerance)
    dw = reference.conv2d_weight(wide.dy, wide.x, w.shape, geometry, float64)
    near(taps.conv2d_weight(dy, x, w.shape, geometry, float32), dw, float32, tolerance)


@pytest.mark.parametrize("weight_dtype", ["float32", "bfloat16"])
def test_the_weights_gradient_of_half_precision_is_summed_in_float32(weight_dtype: str) -> None:
    geometry = ConvGeometry((1, 1), (1, 1))
    x, w, _, dy, _ = given = problem((3, 5, 2, 2), (7, 5, 3, 3), geometry, "bfloat16", weight_dtype)
    expected = reference.conv2d_weight(given.wide.dy, given.wide.x, w.shape, geometry, float64)
    near(taps.conv2d_weight(dy, x, w.shape, geometry, w.dtype), expected, w.dtype, TOLERANCES[weight_dtype])


def test_tiny_images_may_lie_in_any_memory() -> None:
    x, w, b, dy, geometry = problem((3, 5, 2, 2), (7, 5, 3, 3), ConvGeometry((1, 1), (1, 1)))
    results = taps.conv2d(x, w, b, geometry), taps.conv2d_input(dy, w, x.shape, geometry)
    dw = taps.conv2d_weight(dy, x, w.shape, geometry, float32)
    for name in seen(x):
        same_x, same_w, same_dy = seen(x)[name], seen(w)[name], seen(dy)[name]
        again = taps.conv2d(same_x, same_w, b, geometry), taps.conv2d_input(same_dy, same_w, x.shape, geometry)
        for mine, expected in zip(again, results, strict=True):
            np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-5, err_msg=name)
        same_dw = taps.conv2d_weight(same_dy, same_x, w.shape, geometry, float32)
        np.testing.assert_allclose(same_dw, dw, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("size", "window", "groups", "chosen"),
    [
        ((2, 2), (3, 3), 1, True),  # the window meets 4 pixels of 9
        ((1, 1), (3, 3), 1, True),
        ((56, 56), (3, 3), 1, False),
        ((2, 2), (1, 1), 1, False),
        ((2, 2), (3, 3), 2, False),
    ],
)
def test_windows_that_lie_mostly_in_the_padding_are_taken_apart(
    size: Pair, window: Pair, groups: int, chosen: bool
) -> None:
    geometry = ConvGeometry((1, 1), (window[0] // 2, window[1] // 2), (1, 1), groups)
    assert taps.pays((32, 512, *size), (512, 512 // groups, *window), geometry) is chosen


def test_few_channels_are_not_worth_it() -> None:
    geometry = ConvGeometry((1, 1), (1, 1))
    assert not taps.pays((32, 16, 2, 2), (16, 16, 3, 3), geometry)
    assert taps.pays((32, 64, 2, 2), (64, 64, 3, 3), geometry)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_convolution_that_is_taken_apart_is_the_references(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    def counted(name: str, kernel: Callable[..., Array]) -> Callable[..., Array]:
        def run(*arguments: Any) -> Array:
            taken.append(name)
            return kernel(*arguments)

        return run

    for name in ("conv2d", "conv2d_input", "conv2d_weight"):
        monkeypatch.setattr(taps, name, counted(name, getattr(taps, name)))
    check(problem((2, 64, 2, 2), (64, 64, 3, 3), ConvGeometry((1, 1), (1, 1)), dtype), TOLERANCES[dtype])
    assert taken == ["conv2d", "conv2d", "conv2d_input", "conv2d_weight"]


@pytest.mark.parametrize(("size", "window", "stride"), [((1, 1), 3, 2), ((4, 1), 5, 2), ((3, 2), 3, 3), ((5, 3), 3, 4)])
def test_images_narrower_than_the_stride_use_nothing_that_was_not_written(
    size: tuple[int, int], window: int, stride: int
) -> None:
    geometry = ConvGeometry((stride, stride), (window // 2, window // 2))
    given = problem((4, 16, *size), (32, 16, window, window), geometry, "bfloat16")
    scratchpad(1 << 24)
    _local().scratch[:] = 0xFF  # of float32 and bfloat16, no number
    check(given, TOLERANCES["bfloat16"])
