"""Products by oneDNN are the reference's, for matrices as they lie and transposed, and large enough to be worth it."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.engine.dtypes import Array
from chainrule.engine.kernels import onednn, reference
from chainrule.engine.kernels.onednn import products
from tests.engine.kernels.agreement import draws, layouts, needs_onednn

SIZES = [(2, 3, 4), (7, 33, 5), (64, 100, 10), (130, 256, 70)]


@pytest.fixture(autouse=True)
def worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest product is given to oneDNN."""
    monkeypatch.setattr(products, "_WORTH", 0)


def near(y: Array, expected: Array, terms: int) -> None:
    """Equal but for roundings: of sums of as many terms of about one."""
    assert (y.dtype, y.shape) == (expected.dtype, expected.shape)
    digit = 2.0**-23 if y.dtype == np.float32 else 2.0**-7
    wide = expected.astype(np.float64)
    np.testing.assert_allclose(y.astype(np.float64), wide, rtol=2 * digit, atol=(4 + 2 * terms) * digit)


@needs_onednn
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("m", "k", "n"), SIZES)
def test_products_are_the_references(m: int, k: int, n: int, dtype: str) -> None:
    a, b = draws((m, k), dtype), draws((k, n), dtype, seed=1)
    near(onednn.mm(a, b), reference.mm(a, b), k)
    near(onednn.mm(b.T, a.T), reference.mm(b.T, a.T), k)


@needs_onednn
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("m", "k", "n"), SIZES)
def test_rows_times_a_weight_are_the_references(m: int, k: int, n: int, dtype: str, with_bias: bool) -> None:
    x, w = draws((m, k), dtype), draws((n, k), dtype, seed=1)
    b = draws((n,), dtype, seed=2) if with_bias else None
    near(onednn.linear(x, w, b), reference.linear(x, w, b), k)
    turned = np.asfortranarray(w)  # as the weight of the layer before, seen from its result
    near(onednn.linear(x, turned, b), reference.linear(x, w, b), k)


@needs_onednn
def test_any_memory_will_do() -> None:
    a, b, bias = draws((12, 9)), draws((15, 9), seed=1), draws((15,), seed=2)
    part = draws((20, 30), seed=3)[3:15, 4:13]  # rows with others beside them
    twice = np.broadcast_to(a[:1], a.shape)
    for of_a in (*layouts(a).values(), part, part[:, ::-1], part[::-1], twice):
        for of_b in layouts(b).values():
            near(onednn.mm(of_a, of_b.T), reference.mm(of_a, of_b.T), 9)
            for of_bias in layouts(bias).values():
                near(onednn.linear(of_a, of_b, of_bias), reference.linear(of_a, of_b, of_bias), 9)


@needs_onednn
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_types_go_to_the_reference(dtype: str) -> None:
    a, b = draws((6, 7), dtype), draws((7, 8), dtype, seed=1)
    np.testing.assert_array_equal(onednn.mm(a, b), reference.mm(a, b), strict=True)
    np.testing.assert_array_equal(onednn.linear(a, b.T, None), reference.linear(a, b.T, None), strict=True)


@needs_onednn
@pytest.mark.parametrize(("m", "k", "n"), [(0, 3, 4), (3, 0, 4), (3, 4, 0), (1, 5, 6), (6, 5, 1), (4, 1, 5), (1, 1, 1)])
def test_empty_matrices_and_vectors_will_do(m: int, k: int, n: int) -> None:
    a, b, bias = draws((m, k)), draws((k, n), seed=1), draws((n,), seed=2)
    near(onednn.mm(a, b), reference.mm(a, b), k)
    near(onednn.linear(a, b.T, bias), reference.linear(a, b.T, bias), k)


@needs_onednn
def test_what_is_not_finite_stays_in_its_row() -> None:
    a, b = draws((20, 30)), draws((30, 40), seed=1)
    a[3, 4], a[5, 6] = np.nan, np.inf
    y = onednn.mm(a, b)
    assert np.isnan(y[3]).all()
    assert np.array_equal(y[5], np.where(b[6] > 0, np.inf, -np.inf))
    assert np.isfinite(np.delete(y, [3, 5], axis=0)).all()
