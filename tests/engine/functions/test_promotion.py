"""Promotion: the dtype and the value of every pair of dtypes, tensors with dimensions, without, and numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.dtypes import DType, is_floating
from tests.engine.functions.agreement import DTYPES, difference, samples, to_torch

NUMBERS = (True, 2, 3, 2.5)
OF_NUMBERS: dict[str, Callable[..., Any]] = {
    "add": lambda m, a, b: a + b,
    "sub": lambda m, a, b: a - b,
    "mul": lambda m, a, b: a * b,
    "div": lambda m, a, b: a / b,
    "floor_divide": lambda m, a, b: a // b,
    "remainder": lambda m, a, b: a % b,
    "pow": lambda m, a, b: a**b,
    "eq": lambda m, a, b: a == b,
    "lt": lambda m, a, b: a < b,
    "ge": lambda m, a, b: a >= b,
    "bitwise_and": lambda m, a, b: a & b,
    "bitwise_xor": lambda m, a, b: a ^ b,
    "left_shift": lambda m, a, b: a << b,
    "xlogy": lambda m, a, b: m.xlogy(a, b),
    "where": lambda m, a, b: m.where(m.tensor([True, False, True]), a, b),
}
OF_TENSORS: dict[str, Callable[..., Any]] = {
    "trunc_divide": lambda m, a, b: m.div(a, b, rounding_mode="trunc"),
    "fmod": lambda m, a, b: m.fmod(a, b),
    "maximum": lambda m, a, b: m.maximum(a, b),
    "fmin": lambda m, a, b: m.fmin(a, b),
    "atan2": lambda m, a, b: m.atan2(a, b),
    "copysign": lambda m, a, b: m.copysign(a, b),
    "float_power": lambda m, a, b: m.float_power(a, b),
    "logical_xor": lambda m, a, b: m.logical_xor(a, b),
    "clamp_min": lambda m, a, b: m.clamp(a, min=b),
    "addcmul": lambda m, a, b: m.addcmul(a, b, b),
}
ZERO_DIM = ((3,), (3,)), ((3,), ()), ((), (3,)), ((), ())


def tensors(left: DType, right: DType) -> list[list[Any]]:
    return [[samples(left, *a, positive=True), samples(right, *b, seed=1, positive=True)] for a, b in ZERO_DIM]


@pytest.mark.torch
@pytest.mark.parametrize("op", [*OF_NUMBERS, *OF_TENSORS])
def test_all_pairs_of_dtypes_give_what_pytorch_gives(op: str, torch: Any) -> None:
    call = (OF_NUMBERS | OF_TENSORS)[op]
    found = {
        f"{left} {a.shape}, {right} {b.shape}": difference(torch, call, a, b)
        for left, right in itertools.product(DTYPES, repeat=2)
        for a, b in tensors(left, right)
    }
    assert {pair: what for pair, what in found.items() if what} == {}


@pytest.mark.torch
@pytest.mark.parametrize("op", OF_NUMBERS)
def test_a_number_on_either_side_gives_what_pytorch_gives(op: str, torch: Any) -> None:
    call = OF_NUMBERS[op]
    found = {}
    for dtype, number, size in itertools.product(DTYPES, NUMBERS, ((3,), ())):
        if op == "sub" and number is True and is_floating(dtype):
            continue  # PyTorch refuses it, for floats too
        x = samples(dtype, *size, positive=True)
        found[f"{dtype} {size}, {number}"] = difference(torch, call, x, number)
        found[f"{number}, {dtype} {size}"] = difference(torch, call, number, x)
    assert {pair: what for pair, what in found.items() if what} == {}


@pytest.mark.torch
def test_joined_tensors_have_the_dtype_of_pytorch(torch: Any) -> None:
    for left, right in itertools.product(DTYPES, repeat=2):
        a, b = samples(left, 2), samples(right, 2)
        assert difference(torch, lambda m, a, b: m.cat([a, b]), a, b) is None
        assert difference(torch, lambda m, a, b: m.stack([a, b]), a, b) is None


@pytest.mark.torch
def test_result_type_is_that_of_pytorch(torch: Any) -> None:
    values: list[Any] = [samples(dtype, *size) for dtype in DTYPES for size in ((2,), ())]
    for a, b in itertools.product([*values, *NUMBERS], repeat=2):
        ours = cr.result_type(*(cr.Tensor(x) if isinstance(x, np.ndarray) else x for x in (a, b)))
        assert str(ours) == str(torch.result_type(to_torch(torch, a), to_torch(torch, b))).removeprefix("torch.")


def test_numbers_wrap_in_small_integers() -> None:
    assert (cr.tensor([1, -7], dtype=cr.int8) + 300).tolist() == [45, 37]
    assert (cr.tensor([1, 7], dtype=cr.uint8) - 2).tolist() == [255, 5]
    assert (cr.tensor([100], dtype=cr.int8) * 2).tolist() == [-56]
    with pytest.raises(OverflowError):
        cr.tensor([1], dtype=cr.int8) + 10**30


@pytest.mark.parametrize("scalar", [np.float32(2.5), np.float64(2.5), np.int64(2), np.bool_(True)])
def test_numpy_scalars_count_as_numbers(scalar: Any) -> None:
    x = cr.tensor([1.0, 2.0], dtype=cr.float16)
    assert (x * scalar).dtype == cr.float16
    assert (scalar * x).dtype == cr.float16
    assert (scalar * x).tolist() == (x * scalar.item()).tolist()


def test_numpy_arrays_count_as_tensors() -> None:
    x = cr.tensor([1.0, 2.0])
    for y in (x + np.array([1.0, 2.0]), np.array([1.0, 2.0]) + x):
        assert isinstance(y, cr.Tensor)
        assert y.dtype == cr.float64
    assert (np.array([7, 8]) // cr.tensor([2, 3])).tolist() == [3, 2]


def test_an_array_of_another_dtype_is_refused_by_name() -> None:
    with pytest.raises(cr.DTypeError, match="complex64"):
        cr.ones(1) + np.ones(1, np.complex64)
    with pytest.raises(cr.DTypeError, match="must be Tensor, not complex64"):
        cr.add(cr.ones(1), np.complex64(1j))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unsupported operand"):
        cr.ones(1) + 1j  # type: ignore[operator]


def test_a_gradient_comes_back_in_the_dtype_of_its_input() -> None:
    a = cr.tensor([1.0, 2.0], dtype=cr.float16, requires_grad=True)
    b = cr.tensor([3.0, 4.0], dtype=cr.float64, requires_grad=True)
    k = cr.tensor([2, 3])
    (a * b * k).sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    assert (a.grad.dtype, b.grad.dtype) == (cr.float16, cr.float64)
    assert (a.grad.tolist(), b.grad.tolist()) == ([6.0, 12.0], [2.0, 6.0])
