"""Comparisons and logic, as PyTorch's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.functions import comparison
from tests.engine.functions.agreement import DTYPES, FLOATING, difference, samples

inf, nan = float("inf"), float("nan")

BINARY = (
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "isclose",
    "equal",
    "allclose",
    "logical_and",
    "logical_or",
    "logical_xor",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "bitwise_left_shift",
    "bitwise_right_shift",
)
UNARY = (
    "isnan",
    "isinf",
    "isfinite",
    "isposinf",
    "isneginf",
    "isreal",
    "logical_not",
    "bitwise_not",
    "all",
    "any",
)


@pytest.mark.torch
@pytest.mark.parametrize("name", BINARY)
def test_of_two_in_every_dtype_as_pytorch(name: str, torch: Any) -> None:
    call = lambda m, a, b: getattr(m, name)(a, b)
    found = {}
    for dtype, size in itertools.product(DTYPES, ((2, 3), (3,), ())):
        found[f"{dtype}, {size}"] = difference(torch, call, samples(dtype, 2, 3), samples(dtype, *size, seed=1))
        found[f"{dtype}, empty"] = difference(torch, call, samples(dtype, 0, 3), samples(dtype, 1, seed=1))
        found[f"{dtype}, equal"] = difference(torch, call, samples(dtype, 2, 3), samples(dtype, 2, 3))
    for dtype in FLOATING:
        edges = np.array([0.0, -0.0, 1.0, 1.000001, inf, -inf, nan]).astype(dtype)
        pairs = np.repeat(edges, len(edges)), np.tile(edges, len(edges))
        found[f"{dtype}, edges"] = difference(torch, call, *pairs)
    assert {key: what for key, what in found.items() if what} == {}


@pytest.mark.torch
@pytest.mark.parametrize("name", UNARY)
def test_of_one_in_every_dtype_as_pytorch(name: str, torch: Any) -> None:
    call = lambda m, x: getattr(m, name)(x)
    found = {str(dtype): difference(torch, call, samples(dtype, 2, 3)) for dtype in DTYPES}
    for dtype in FLOATING:
        found[f"{dtype}, edges"] = difference(torch, call, np.array([0.0, 1.0, inf, -inf, nan]).astype(dtype))
    assert {key: what for key, what in found.items() if what} == {}


@pytest.mark.torch
@pytest.mark.parametrize("equal_nan", [False, True])
@pytest.mark.parametrize(("rtol", "atol"), [(1e-5, 1e-8), (0.0, 0.0), (0.1, 0.0), (0.0, 0.5)])
def test_closeness_is_that_of_pytorch(rtol: float, atol: float, equal_nan: bool, torch: Any) -> None:
    edges = np.array([0.0, 1.0, 1.05, 1.5, -1.0, inf, -inf, nan])
    a, b = np.repeat(edges, len(edges)), np.tile(edges, len(edges))
    assert difference(torch, lambda m, a, b: m.isclose(a, b, rtol, atol, equal_nan), a, b) is None
    assert difference(torch, lambda m, a, b: m.allclose(a, b, rtol, atol, equal_nan), edges, edges) is None
    k = np.array([0, 1, 10, -10])
    assert difference(torch, lambda m, a, b: m.isclose(a, b, rtol, atol), k, k + 1) is None


ERRORS: dict[str, Callable[..., Any]] = {
    "isclose-of-two-dtypes": lambda m, x: m.isclose(x, x.double()),
    "allclose-of-two-dtypes": lambda m, x: m.allclose(x, x.long()),
    "isclose-of-number": lambda m, x: m.isclose(x, 2),
    "equal-of-number": lambda m, x: m.equal(x, 2),
    "logical-and-of-number": lambda m, x: m.logical_and(x, 2),
    "bits": lambda m, x: m.bitwise_xor(x, x),
    "not-bits": lambda m, x: m.bitwise_not(x),
    "shapes": lambda m, x: x < m.ones(4),
    "dim": lambda m, x: x.any(2),
    "dim-twice": lambda m, x: x.all((0, -2)),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_worded_as_pytorch_words_them(name: str, torch: Any) -> None:
    x = samples(np.dtype("float32"), 2, 3)
    with pytest.raises((RuntimeError, TypeError, IndexError)):
        ERRORS[name](cr, cr.Tensor(x))
    assert difference(torch, ERRORS[name], x) is None


def test_a_negative_tolerance_is_refused_by_name() -> None:
    with pytest.raises(cr.ArgumentError, match="rtol must be greater than or equal to zero, but got -1"):
        cr.isclose(cr.ones(1), cr.ones(1), rtol=-1)


def test_operators_compare_with_numbers_arrays_and_tensors_on_either_side() -> None:
    x = cr.tensor([1, 2, 3])
    numbers: tuple[Any, ...] = (2, np.int64(2), np.array([2, 2, 2]), cr.tensor(2))
    for two in numbers:
        assert (x < two).tolist() == (two > x).tolist() == [True, False, False]
        assert (x >= two).tolist() == (two <= x).tolist() == [False, True, True]
        assert (x == two).tolist() == (two == x).tolist() == [False, True, False]
        assert (x & two).tolist() == (two & x).tolist() == [0, 2, 2]
        assert (x | two).tolist() == (two | x).tolist() == [3, 2, 3]
        assert (x ^ two).tolist() == (two ^ x).tolist() == [3, 0, 1]
        assert (x << two).tolist() == [4, 8, 12]
        assert (two << x).tolist() == [4, 8, 16]
        assert (two >> x).tolist() == [1, 0, 0]
    nothing: Any = None
    assert (x != nothing) is True
    assert (~x).tolist() == [-2, -3, -4]


def test_comparisons_have_no_history() -> None:
    x = cr.tensor([1.0, 2.0], requires_grad=True)
    for y in (x < 2, x.isnan(), x.logical_not(), x.all(), x.isclose(x)):
        assert not y.requires_grad
        assert y.dtype == cr.bool


def test_public_functions_are_methods() -> None:
    assert [name for name in comparison.__all__ if not hasattr(cr.Tensor, name)] == []
