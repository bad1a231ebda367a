"""Layer normalisation by oneDNN is the reference's, in value and gradients, for any memory and any number."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.dtypes import Array
from chainrule.engine.kernels import onednn, reference
from chainrule.engine.nn import functional as F
from tests.engine.kernels.agreement import TOLERANCES, agree, draws, gradient_of, layouts, needs_onednn

EPS = 1e-5
SHAPES = [(1, 1), (1, 8), (7, 13), (64, 256), (33, 255)]


@needs_onednn
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_values_and_gradients_are_the_references(dtype: str, shape: tuple[int, int], affine: bool) -> None:
    x, g = draws(shape, dtype, scale=2.0) + draws((), dtype, seed=3), draws(shape, dtype, seed=1)
    w, b = (draws(shape[1:], seed=seed) if affine else None for seed in (4, 5))
    tolerance = TOLERANCES[x.dtype]
    y, mean, variance = onednn.layer_norm(x, w, b, EPS)
    expected, *statistics = reference.layer_norm(x, w, b, EPS)
    agree(y, expected, 2 * tolerance)
    agree(mean, statistics[0], 2e-6)
    agree(variance, statistics[1], 2e-6)

    gradients = onednn.layer_norm_gradients(g, x, w, mean, variance, EPS)
    scale = 10 * tolerance if shape[1] > 1 else 1e-2  # where all is one number, roundings are divided by √ε
    for gradient, wanted in zip(gradients, reference.layer_norm_gradients(g, x, w, mean, variance, EPS), strict=True):
        agree(gradient, wanted, scale)


@needs_onednn
def test_any_memory_will_do() -> None:
    x, g, w, b = draws((12, 10)), draws((12, 10), seed=1), draws((10,), seed=2), draws((10,), seed=3)
    y, mean, variance = onednn.layer_norm(x, w, b, EPS)
    gradients = onednn.layer_norm_gradients(g, x, w, mean, variance, EPS)
    for of_x, of_g in zip(layouts(x).values(), reversed(layouts(g).values()), strict=True):
        for of_w, of_b in zip(layouts(w).values(), layouts(b).values(), strict=True):
            np.testing.assert_array_equal(onednn.layer_norm(of_x, of_w, of_b, EPS)[0], y)
            again = onednn.layer_norm_gradients(of_g, of_x, of_w, mean, variance, EPS)
            for one, other in zip(again, gradients, strict=True):
                np.testing.assert_array_equal(one, other)


@needs_onednn
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_types_go_to_the_reference(dtype: str) -> None:
    x, w = draws((5, 6), dtype), draws((6,), dtype, seed=1)
    for mine, wanted in zip(onednn.layer_norm(x, w, w, EPS), reference.layer_norm(x, w, w, EPS), strict=True):
        np.testing.assert_array_equal(mine, wanted, strict=True)


@needs_onednn
def test_nothing_is_normalised_to_nothing() -> None:
    empty, none = np.empty((0, 3), np.float32), np.empty(0, np.float32)
    y, mean, variance = onednn.layer_norm(empty, None, None, EPS)
    assert (y.shape, mean.shape, variance.shape) == ((0, 3), (0,), (0,))
    dx, dw, db = onednn.layer_norm_gradients(empty, empty, None, none, none, EPS)
    assert dx.shape == (0, 3)
    assert dw.tolist() == db.tolist() == [0, 0, 0]


@needs_onednn
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_makes_its_row_not_a_number(value: float) -> None:
    x = draws((4, 20))
    x[2, 7] = value
    y, mean, variance = onednn.layer_norm(x, None, None, EPS)
    assert np.isnan(y[2]).any()
    assert np.isfinite(y[[0, 1, 3]]).all()
    dx, dw, db = onednn.layer_norm_gradients(np.ones_like(x), x, None, mean, variance, EPS)
    assert np.isnan(dx[2]).all()
    assert np.isfinite(dx[[0, 1, 3]]).all()
    assert np.isnan(dw).all() or value == np.inf
    assert np.isfinite(db).all()


def test_large_numbers_keep_their_digits() -> None:
    x = np.float32(1e4) + draws((8, 64))
    w = np.ones(64, np.float32)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + EPS)
    y = F.layer_norm(cr.Tensor(x), (64,), cr.Tensor(w))
    np.testing.assert_allclose(y.numpy(), expected, atol=5e-3)  # half a last digit of x is 5·10⁻⁴


# ---- The gradients that come together ----


def gradients_after(times: int) -> list[Array]:
    """Those of x, w and b, when the same gradient went back so many times."""
    x, w, b = (
        cr.Tensor(draws(shape, seed=seed), requires_grad=True) for seed, shape in enumerate([(4, 6), (6,), (6,)])
    )
    y = F.layer_norm(x, (6,), w, b)
    g = cr.Tensor(draws((4, 6), seed=9))
    for _ in range(times):
        y.backward(g, retain_graph=True)
    return [gradient_of(v) for v in (x, w, b)]


def test_a_gradient_that_goes_back_again_adds_as_much_again() -> None:
    for once, thrice in zip(gradients_after(1), gradients_after(3), strict=True):
        np.testing.assert_allclose(thrice, 3 * once, rtol=1e-6)


def test_each_input_can_do_without_the_others() -> None:
    arrays = [draws(shape, seed=seed) for seed, shape in enumerate([(4, 6), (6,), (6,)])]
    wanted = gradients_after(1)
    for which in range(3):
        x, w, b = (cr.Tensor(array, requires_grad=place == which) for place, array in enumerate(arrays))
        F.layer_norm(x, (6,), w, b).backward(cr.Tensor(draws((4, 6), seed=9)))
        np.testing.assert_array_equal(gradient_of((x, w, b)[which]), wanted[which])
