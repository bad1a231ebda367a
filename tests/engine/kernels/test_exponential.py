"""Softmax by oneDNN is the reference's, in value and gradient, along any dimension, for any memory and any number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.dtypes import Array
from chainrule.engine.kernels import onednn, reference
from tests.engine.kernels.agreement import agree, draws, gradient_of, layouts, needs_onednn

NAMES = ("softmax", "log_softmax")
GRID = [((1,), 0), ((7,), -1), ((64, 10), 1), ((64, 10), 0), ((5, 3, 4), 1), ((33, 300), -1), ((2, 3, 4, 5), -2)]


@needs_onednn
@pytest.mark.parametrize(("shape", "axis"), GRID)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_the_references(name: str, dtype: str, shape: tuple[int, ...], axis: int) -> None:
    x, g = draws(shape, dtype, scale=3.0), draws(shape, dtype, seed=1)
    y = getattr(reference, name)(x, axis)
    if name == "softmax":
        agree(onednn.softmax(x, axis), y)
    gradient = f"{name}_gradient"
    tolerance = 5e-6 if dtype == "float32" else 5e-2  # a bfloat16 g is summed over up to 300
    agree(getattr(onednn, gradient)(g, y, axis), getattr(reference, gradient)(g, y, axis), tolerance)


@needs_onednn
def test_any_memory_will_do() -> None:
    x, g = draws((4, 6, 5)), draws((4, 6, 5), seed=1)
    for axis in range(3):
        y = onednn.softmax(x, axis)
        dx = onednn.softmax_gradient(g, y, axis)
        for of_x, of_g, of_y in zip(*(layouts(v).values() for v in (x, g, y)), strict=True):
            agree(onednn.softmax(of_x, axis), y)
            agree(onednn.softmax_gradient(of_g, of_y, axis), dx)


@needs_onednn
def test_channels_that_lie_side_by_side_stay_so() -> None:
    x = draws((2, 4, 4, 3)).transpose(0, 3, 1, 2)
    y = onednn.softmax(x, 1)
    assert y.strides == onednn.softmax_gradient(x, y, 1).strides == x.strides
    agree(y, reference.softmax(x, 1))


@needs_onednn
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_types_and_nothing_go_to_the_reference(dtype: str) -> None:
    x = draws((3, 4), dtype)
    y = reference.softmax(x, -1)
    np.testing.assert_array_equal(onednn.softmax(x, -1), y, strict=True)
    np.testing.assert_array_equal(onednn.softmax_gradient(x, y, -1), reference.softmax_gradient(x, y, -1), strict=True)
    for shape in ((0, 3), (3, 0)):
        empty = np.empty(shape, np.float32)
        assert onednn.softmax(empty, -1).shape == onednn.softmax_gradient(empty, empty, -1).shape == shape


UNBOUNDED = [[np.nan, 0, 1], [np.inf, 0, 1], [-np.inf, 0, 1], [-np.inf, -np.inf, -np.inf], [3e38, -3e38, 0], [1, 2, 3]]


def unbounded() -> Array:
    """Rows of 20, most of them with something that is not finite."""
    x: Array = np.zeros((len(UNBOUNDED), 20), np.float32)
    x[:, [3, 8, 17]] = UNBOUNDED
    x[3] = -np.inf
    return x


@pytest.mark.torch
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_is_pytorchs(name: str, torch: Any) -> None:
    for rows in (unbounded(), *unbounded()[:, None]):  # together, and each row alone
        y = getattr(cr.Tensor(rows.copy()), name)(-1).numpy()
        expected = getattr(torch.tensor(rows), name)(-1).numpy()
        np.testing.assert_allclose(y, expected, rtol=1e-6)


@needs_onednn
@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_that_is_not_a_number_makes_its_row_so(name: str) -> None:
    y = getattr(reference, name)(draws((4, 20)), -1)
    g = np.ones_like(y)
    g[2, 7] = np.nan
    dx = getattr(onednn, f"{name}_gradient")(g, y, -1)
    assert np.isnan(dx[2]).all()
    assert np.isfinite(dx[[0, 1, 3]]).all()


@needs_onednn
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_a_result_that_is_not_a_number_makes_its_row_of_the_gradient_so(name: str, dtype: str) -> None:
    x = draws((4, 20), dtype)
    x[0, 5] = -np.inf
    y = getattr(reference, name)(x, -1)
    y[2] = np.nan
    dx = getattr(onednn, f"{name}_gradient")(draws((4, 20), dtype, seed=1), y, -1).astype(np.float32)
    assert np.isnan(dx[2]).all()
    assert np.isfinite(dx[[0, 1, 3]]).all()


@pytest.mark.torch
def test_the_loss_of_what_is_not_a_number_has_pytorchs_gradient(torch: Any) -> None:
    array = draws((3, 5))
    array[0, 1] = np.nan
    x, theirs = cr.tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
    cr.nn.functional.cross_entropy(x, cr.tensor([1, 2, 0])).backward()
    torch.nn.functional.cross_entropy(theirs, torch.tensor([1, 2, 0])).backward()
    assert np.isnan(gradient_of(x)[0]).all()
    np.testing.assert_allclose(gradient_of(x), theirs.grad.numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dim", [0, -1])
def test_a_scalar_is_its_own_row(name: str, dim: int) -> None:
    x = cr.tensor(3.0, requires_grad=True)
    y = getattr(x, name)(dim)
    y.backward()
    assert (y.shape, y.item()) == ((), 1.0 if name == "softmax" else 0.0)
    assert gradient_of(x).tolist() == 0.0


# ---- Of rows that may be hidden ----


@needs_onednn
def test_safe_softmax_is_the_references() -> None:
    x = draws((2, 5, 40), scale=3.0)
    agree(onednn.safe_softmax(x), reference.safe_softmax(x))
    x[0, 3, 5:] = -np.inf
    agree(onednn.safe_softmax(x), reference.safe_softmax(x))


@pytest.mark.parametrize("kernels", [reference, pytest.param(onednn, marks=needs_onednn)])
def test_safe_softmax_of_minus_infinity_only_is_zero(kernels: Any) -> None:
    y = kernels.safe_softmax(unbounded())
    assert y[3].tolist() == [0.0] * 20
    assert np.isnan(y[[0, 1]]).all()
    np.testing.assert_allclose(y[[2, 4, 5]].sum(1), 1, rtol=1e-6)
    assert kernels.safe_softmax(np.empty((3, 0), np.float32)).shape == (3, 0)
