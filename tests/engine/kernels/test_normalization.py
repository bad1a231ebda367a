"""Normalisation of batches by oneDNN is the reference's in float64, far from zero and where numbers end, too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.dtypes import Array, DType, bfloat16
from chainrule.engine.kernels import onednn, reference
from tests.engine.kernels.agreement import draws, needs_onednn

float32, float64 = np.dtype(np.float32), np.dtype(np.float64)
EPS = 1e-5
TOLERANCES = {"float32": 1e-5, "bfloat16": 2.0**-8}
"""Of the largest element: sums of some hundred terms in float32; bfloat16 is rounded once at the end, by up to 2⁻⁹."""
SHAPES = [(2, 1, 1, 1), (4, 3, 5, 2), (2, 17, 3, 1), (3, 16, 4, 4), (8, 64, 2, 2), (1, 33, 7, 6)]
KERNELS = [reference, pytest.param(onednn, marks=needs_onednn)]


def wide(v: Array | None) -> Array | None:
    return None if v is None else np.asarray(v.astype(float64))


def near(y: Array, expected: Array, dtype: DType, tolerance: float) -> None:
    """y is of this dtype, and differs from what it is to be by `tolerance` of the largest of it at most."""
    assert (y.dtype, y.shape) == (dtype, expected.shape)
    error = np.abs(y.astype(float64) - expected).max()
    assert error <= tolerance * max(1.0, np.abs(expected).max())


def parameters(channels: int, which: str) -> tuple[Array | None, Array | None]:
    w, b = 1 + 0.5 * draws((channels,), seed=1), draws((channels,), seed=2)
    return w if "w" in which else None, b if "b" in which else None


def images(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Array:
    """Normal numbers; two examples of one pixel each are apart, as √ε divides where they are the same."""
    x = draws(shape, dtype, seed=seed)
    if shape == (2, 1, 1, 1):
        x.ravel()[:] = [0.5, 2.0]
    return x


@needs_onednn
@pytest.mark.parametrize("which", ["wb", "w", "b", ""])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES)
def test_result_statistics_and_gradients_are_the_references(shape: tuple[int, ...], dtype: str, which: str) -> None:
    x, g, tolerance = images(shape, dtype), draws(shape, dtype, seed=3), TOLERANCES[dtype]
    w, b = parameters(shape[1], which)
    wide_x, wide_g, wide_w, wide_b = map(wide, (x, g, w, b))
    assert wide_x is not None
    assert wide_g is not None

    y, mean, variance = onednn.batch_norm(x, w, b, EPS)
    expected, true_mean, true_variance = reference.batch_norm(wide_x, wide_w, wide_b, EPS)
    near(y, expected, x.dtype, tolerance)
    for found, moment in zip((mean, variance), (true_mean, true_variance), strict=True):
        np.testing.assert_allclose(found, moment, rtol=1e-5, atol=1e-6)
    near(onednn.batch_norm_fixed(x, w, b, mean, variance, EPS), expected, x.dtype, tolerance)

    gradients = onednn.batch_norm_gradients(g, x, w, mean, variance, EPS)
    wanted = reference.batch_norm_gradients(wide_g, wide_x, wide_w, true_mean, true_variance, EPS)
    near(gradients[0], wanted[0], x.dtype, 2 * tolerance)
    for gradient, truth in zip(gradients[1:], wanted[1:], strict=True):
        near(gradient.astype(float32), truth, float32, 2e-5)


@needs_onednn
@pytest.mark.parametrize("which", ["wb", "w", "b", ""])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_rectified_at_once_is_the_references(shape: tuple[int, ...], dtype: str, which: str) -> None:
    x, g, tolerance = images(shape, dtype), draws(shape, dtype, seed=3), TOLERANCES[dtype]
    w, b = parameters(shape[1], which)
    wide_x, wide_g, wide_w, wide_b = map(wide, (x, g, w, b))
    assert wide_x is not None
    assert wide_g is not None

    y, mean, variance, mask = onednn.batch_norm_relu(x, w, b, EPS)
    expected, true_mean, true_variance, wide_mask = reference.batch_norm_relu(wide_x, wide_w, wide_b, EPS)
    near(y, expected, x.dtype, tolerance)
    assert not ((y != 0) & (expected == 0)).any()
    for found, moment in zip((mean, variance), (true_mean, true_variance), strict=True):
        np.testing.assert_allclose(found, moment, rtol=1e-5, atol=1e-6)

    gradients = onednn.batch_norm_gradients(g, x, w, mean, variance, EPS, mask)
    wanted = reference.batch_norm_gradients(wide_g, wide_x, wide_w, true_mean, true_variance, EPS, wide_mask)
    near(gradients[0], wanted[0], x.dtype, 2 * tolerance)
    for gradient, truth in zip(gradients[1:], wanted[1:], strict=True):
        near(gradient.astype(float32), truth, float32, 2e-5)


@needs_onednn
def test_the_mask_of_the_reference_will_do() -> None:
    x, g = draws((3, 16, 4, 4)), draws((3, 16, 4, 4), seed=3)
    *_, mean, variance, mask = reference.batch_norm_relu(x, None, None, EPS)
    mine = onednn.batch_norm_gradients(g, x, None, mean, variance, EPS, mask)
    expected = reference.batch_norm_gradients(g, x, None, mean, variance, EPS, mask)
    for one, other in zip(mine, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@needs_onednn
def test_any_memory_will_do() -> None:
    x, g, v = draws((3, 6, 4, 5)), draws((3, 6, 4, 5), seed=1), draws((6,), seed=2)
    among = np.zeros((3, 12, 4, 7), np.float32)
    among[:, ::2, :, 1:-1] = x
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    y, mean, variance, mask = onednn.batch_norm_relu(x, v, v, EPS)
    gradients = onednn.batch_norm_gradients(g, x, v, mean, variance, EPS, mask)
    gaps = np.repeat(v, 2)[::2]
    for same in (among[:, ::2, :, 1:-1], last, np.asfortranarray(x)):
        np.testing.assert_array_equal(onednn.batch_norm_relu(same, gaps, gaps, EPS)[0], y)
        again = onednn.batch_norm_gradients(np.asfortranarray(g), same, gaps, mean, variance, EPS, mask)
        for one, other in zip(again, gradients, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("kernels", "tolerance"), [(reference, 2e-4), pytest.param(onednn, 2e-3, marks=needs_onednn)])
def test_numbers_far_from_zero_keep_their_digits(kernels: Any, tolerance: float) -> None:
    """Half a last digit of x is 3·10⁻⁵; oneDNN sums the mean in float32, as PyTorch does of channels-last memory."""
    x = (draws((16, 16, 8, 8)) + 1000).astype(np.float32)
    wide_x = x.astype(float64)
    truth, mean, variance = reference.batch_norm(wide_x, None, None, EPS)
    for name, expected in (("batch_norm", truth), ("batch_norm_relu", np.maximum(truth, 0))):
        y, found_mean, found_variance, *_ = getattr(kernels, name)(x, None, None, EPS)
        np.testing.assert_allclose(found_mean, mean, rtol=0, atol=tolerance)
        np.testing.assert_allclose(found_variance, variance, rtol=1e-5)
        np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance)
    g = draws(x.shape, seed=1)
    gradients = kernels.batch_norm_gradients(g, x, None, mean.astype(float32), variance.astype(float32), EPS)
    wanted = reference.batch_norm_gradients(g.astype(float64), wide_x, None, mean, variance, EPS)
    near(gradients[0], wanted[0], float32, 2e-4)


# ---- What is no number ----


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("kernels", KERNELS)
def test_what_is_not_finite_makes_its_channel_not_a_number(
    kernels: Any, channels: int, dtype: str, value: float
) -> None:
    x = draws((4, channels, 3, 3), dtype)
    x[1, 2, 0, 0] = value
    others = [channel for channel in range(channels) if channel != 2]
    for y in (kernels.batch_norm(x, None, None, EPS)[0], kernels.batch_norm_relu(x, None, None, EPS)[0]):
        assert np.isnan(y[:, 2]).all()
        assert np.isfinite(y[:, others].astype(np.float32)).all()


@pytest.mark.parametrize("kernels", KERNELS)
def test_with_given_statistics_it_stays_where_it_is(kernels: Any) -> None:
    x = draws((4, 16, 3, 3))
    x[1, 2, 0, 0], x[2, 3, 1, 1] = np.nan, np.inf
    y = kernels.batch_norm_fixed(x, None, None, np.zeros(16, np.float32), np.ones(16, np.float32), EPS)
    assert np.argwhere(np.isnan(y)).tolist() == [[1, 2, 0, 0]]
    assert np.argwhere(np.isinf(y)).tolist() == [[2, 3, 1, 1]]


@pytest.mark.parametrize("which", ["w", "b"])
@pytest.mark.parametrize("kernels", KERNELS)
def test_a_parameter_that_is_no_number_makes_its_channel_so(kernels: Any, which: str) -> None:
    w, b = np.ones(16, np.float32), np.zeros(16, np.float32)
    (w if which == "w" else b)[5] = np.nan
    x = draws((4, 16, 3, 3))
    y, mean, variance, mask = kernels.batch_norm_relu(x, w, b, EPS)
    assert np.isnan(y[:, 5]).all()
    assert np.isfinite(np.delete(y, 5, axis=1)).all()
    dx, _, _ = kernels.batch_norm_gradients(np.ones_like(x), x, w, mean, variance, EPS, mask)
    assert np.isnan(dx[:, 5]).all() == (which == "w")
    assert np.isfinite(np.delete(dx, 5, axis=1)).all()


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_layers_that_follow_one_another_do_not_hide_what_is_no_number(dtype: str) -> None:
    x = draws((4, 16, 3, 3), dtype)
    x[1, 2, 0, 0] = np.nan
    for rectified in (nn.ReLU(), nn.ReLU(inplace=True)):
        together = nn.Sequential(nn.BatchNorm2d(16), rectified)
        apart = rectified(nn.BatchNorm2d(16)(cr.Tensor(x)))
        for y in (together(cr.Tensor(x)), apart):
            assert np.isnan(y.detach().numpy()[:, 2]).all()


@pytest.mark.parametrize("kernels", KERNELS)
def test_what_comes_back_where_the_result_is_zero_does_not_count(kernels: Any) -> None:
    x, g = draws((4, 16, 3, 3)), draws((4, 16, 3, 3), seed=1)
    y, mean, variance, mask = kernels.batch_norm_relu(x, None, None, EPS)
    expected = kernels.batch_norm_gradients(np.where(y != 0, g, 0), x, None, mean, variance, EPS)
    g[y == 0] = np.inf
    for one, other in zip(kernels.batch_norm_gradients(g, x, None, mean, variance, EPS, mask), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_channel_of_one_number_is_its_shift(kernels: Any) -> None:
    b = draws((16,), seed=2)
    x = np.full((4, 16, 3, 3), 7, np.float32)
    y, mean, variance = kernels.batch_norm(x, None, b, EPS)
    np.testing.assert_allclose(y, np.broadcast_to(b.reshape(1, -1, 1, 1), x.shape), atol=1e-6)
    assert mean.tolist() == [7] * 16
    assert variance.tolist() == [0] * 16


# ---- What oneDNN is not asked for ----


@needs_onednn
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_types_go_to_the_reference(dtype: str) -> None:
    x, g, v = draws((3, 4, 2, 2), dtype), draws((3, 4, 2, 2), dtype, seed=1), draws((4,), dtype, seed=2)
    mine, expected = onednn.batch_norm_relu(x, v, v, EPS), reference.batch_norm_relu(x, v, v, EPS)
    for one, other in zip(mine, expected, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    _, mean, variance, mask = expected
    for name, arguments in {
        "batch_norm": (x, v, v, EPS),
        "batch_norm_fixed": (x, v, v, mean, variance, EPS),
        "batch_norm_gradients": (g, x, v, mean, variance, EPS, mask),
    }.items():
        for one, other in zip(getattr(onednn, name)(*arguments), getattr(reference, name)(*arguments), strict=True):
            np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
@pytest.mark.parametrize("dtype", [float32, bfloat16])
@pytest.mark.parametrize("kernels", KERNELS)
def test_an_empty_batch_is_normalised_to_nothing(kernels: Any, dtype: DType) -> None:
    x, channel = np.empty((0, 5, 2, 2), dtype), np.ones(5, np.float32)
    y = kernels.batch_norm_fixed(x, channel, channel, channel, channel, EPS)
    assert (y.shape, y.dtype) == (x.shape, dtype)
    for y in (kernels.batch_norm(x, None, None, EPS)[0], kernels.batch_norm_relu(x, None, None, EPS)[0]):
        assert (y.shape, y.dtype) == (x.shape, dtype)
