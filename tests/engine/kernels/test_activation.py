"""GELU by oneDNN is the reference's, in value and gradient, for any memory and any number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.dtypes import bfloat16
from chainrule.engine.kernels import onednn, reference
from chainrule.engine.kernels.reference.special import erf
from chainrule.engine.nn import functional as F
from tests.engine.kernels.agreement import TOLERANCES, agree, draws, gradient_of, layouts, needs_onednn

FORWARDS = ("gelu", "gelu_tanh")


@needs_onednn
@pytest.mark.parametrize("shape", [(), (1,), (17,), (3, 5), (2, 3, 4, 5), (300, 70)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FORWARDS)
def test_values_and_gradients_are_the_references(name: str, dtype: str, shape: tuple[int, ...]) -> None:
    x, g = draws(shape, dtype, scale=3.0), draws(shape, dtype, seed=1)
    agree(getattr(onednn, name)(x), getattr(reference, name)(x))
    gradient = f"{name}_gradient"
    agree(getattr(onednn, gradient)(g, x), getattr(reference, gradient)(g, x), 2.5 * TOLERANCES[x.dtype])


@needs_onednn
@pytest.mark.parametrize("name", FORWARDS)
def test_any_memory_will_do(name: str) -> None:
    x, g = draws((4, 6, 5)), draws((4, 6, 5), seed=1)
    y, dx = getattr(onednn, name)(x), getattr(onednn, f"{name}_gradient")(g, x)
    for of_x in layouts(x).values():
        np.testing.assert_array_equal(getattr(onednn, name)(of_x), y)
        for of_g in layouts(g).values():
            np.testing.assert_array_equal(getattr(onednn, f"{name}_gradient")(of_g, of_x), dx)


@needs_onednn
def test_memory_stays_in_its_order() -> None:
    x = draws((2, 4, 4, 3)).transpose(0, 3, 1, 2)
    assert onednn.gelu(x).strides == onednn.gelu_gradient(x, x).strides == x.strides


@needs_onednn
@pytest.mark.parametrize("dtype", ["float64", "float16"])
@pytest.mark.parametrize("name", FORWARDS)
def test_other_types_and_nothing_go_to_the_reference(name: str, dtype: str) -> None:
    x = draws((3, 4), dtype)
    np.testing.assert_array_equal(getattr(onednn, name)(x), getattr(reference, name)(x), strict=True)
    gradient = f"{name}_gradient"
    np.testing.assert_array_equal(getattr(onednn, gradient)(x, x), getattr(reference, gradient)(x, x), strict=True)
    empty = np.empty((0, 3), np.float32)
    assert getattr(onednn, name)(empty).shape == getattr(onednn, gradient)(empty, empty).shape == (0, 3)


@pytest.mark.torch
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_numbers_without_bounds_are_pytorchs(dtype: str, approximate: str, torch: Any) -> None:
    values = [math.nan, math.inf, -math.inf, 1e30, -1e30, 3e38, -3e38, 20.0, -20.0, 0.0, -0.0, 1e-30]
    for value in values:  # one at a time: of several, PyTorch makes ∞ not a number where it asks oneDNN
        x = cr.tensor([value], dtype=getattr(cr, dtype), requires_grad=True)
        t = torch.tensor([value], dtype=getattr(torch, dtype), requires_grad=True)
        y, expected = F.gelu(x, approximate), torch.nn.functional.gelu(t, approximate=approximate)
        y.backward(cr.ones_like(y))
        expected.backward(torch.ones_like(expected))
        for mine, theirs in ((y.detach().numpy(), expected.detach()), (gradient_of(x), t.grad)):
            wide = mine.astype(np.float64)
            np.testing.assert_allclose(wide, theirs.double().numpy(), rtol=8e-3, atol=1e-6, err_msg=str(value))
        among = F.gelu(cr.tensor([0.5, value, -1.0], dtype=x.dtype), approximate).numpy().astype(np.float64)
        np.testing.assert_allclose(among[1], y.item(), rtol=8e-3, atol=1e-6)


@needs_onednn
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FORWARDS)
def test_what_is_not_a_number_stays_so(name: str, dtype: str) -> None:
    x = draws((50,), dtype)
    x[13] = np.nan
    one = np.ones_like(x)
    for result in (getattr(onednn, name)(x), getattr(onednn, f"{name}_gradient")(one, x)):
        assert np.flatnonzero(np.isnan(result)).tolist() == [13]
    g = one.copy()
    g[7] = np.nan
    gradient = getattr(onednn, f"{name}_gradient")(g, np.zeros_like(x))
    assert np.flatnonzero(np.isnan(gradient)).tolist() == [7]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_erf_is_the_true_one_rounded(dtype: str) -> None:
    """In float64 to 10⁻¹⁵ of it; else to 0.6 of a last digit."""
    x = np.concatenate([np.linspace(-7, 7, 20_001), np.geomspace(1e-12, 8, 2_001)])
    x = x.astype(bfloat16 if dtype == "bfloat16" else dtype)
    truth = np.array([math.erf(v) for v in x.astype(np.float64)])
    y = erf(x)
    assert y.dtype == x.dtype
    error = np.abs(y.astype(np.float64) - truth)
    if dtype == "float64":
        assert (error <= 1e-15 * np.abs(truth)).all()
        return
    digit = {"float16": 2.0**-10, "float32": 2.0**-23, "bfloat16": 2.0**-7}[dtype]
    smallest = {"float16": 2.0**-24, "float32": 1e-45, "bfloat16": 1e-40}[dtype]
    last = np.maximum(2.0 ** np.floor(np.log2(np.maximum(np.abs(truth), 1e-300))) * digit, smallest)
    assert (error <= 0.6 * last).all()
    assert np.array_equal(erf(np.array([np.inf, -np.inf, 0.0], y.dtype)).astype(float), [1, -1, 0])
    assert np.isnan(erf(np.array([np.nan], y.dtype))).all()
