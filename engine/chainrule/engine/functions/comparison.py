"""Comparisons and logic: functions without a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import type_name, uint8, widened
from chainrule.engine.errors import ArgumentError, DTypeError
from chainrule.engine.functions.arguments import Operand, elementwise_function, require_tensor
from chainrule.engine.ops import elementwise
from chainrule.engine.ops.op import Op
from chainrule.engine.ops.reduction import Dim, axes_of
from chainrule.engine.watching import watched

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

__all__ = [
    "all",
    "allclose",
    "any",
    "bitwise_and",
    "bitwise_left_shift",
    "bitwise_not",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "eq",
    "equal",
    "ge",
    "greater",
    "greater_equal",
    "gt",
    "isclose",
    "isfinite",
    "isinf",
    "isnan",
    "isneginf",
    "isposinf",
    "isreal",
    "le",
    "less",
    "less_equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "lt",
    "ne",
    "not_equal",
]

# ---- Comparisons ----


def eq(input: Tensor, other: Operand) -> Tensor:
    """input = other"""
    return elementwise.eq(input, other)


def ne(input: Tensor, other: Operand) -> Tensor:
    """input ≠ other"""
    return elementwise.ne(input, other)


def lt(input: Tensor, other: Operand) -> Tensor:
    """input < other"""
    return elementwise.lt(input, other)


def le(input: Tensor, other: Operand) -> Tensor:
    """input ≤ other"""
    return elementwise.le(input, other)


def gt(input: Tensor, other: Operand) -> Tensor:
    """input > other"""
    return elementwise.gt(input, other)


def ge(input: Tensor, other: Operand) -> Tensor:
    """input ≥ other"""
    return elementwise.ge(input, other)


not_equal = ne
less = lt
less_equal = le
greater = gt
greater_equal = ge

isnan = elementwise_function(elementwise.isnan, "isnan", "Whether x is not a number.")
isinf = elementwise_function(elementwise.isinf, "isinf", "Whether x is ∞ or −∞.")
isfinite = elementwise_function(elementwise.isfinite, "isfinite", "Whether x is a number and not infinite.")


def isposinf(input: Tensor) -> Tensor:
    """Whether x is ∞."""
    return elementwise.logical_and(isinf(input), elementwise.gt(input, 0))


def isneginf(input: Tensor) -> Tensor:
    """Whether x is −∞."""
    return elementwise.logical_and(isinf(input), elementwise.lt(input, 0))


def isreal(input: Tensor) -> Tensor:
    """True throughout: there are no complex tensors."""
    require_tensor("isreal", input)
    return Variable.wrap(np.ones(input.shape, bool))


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Whether |input − other| ≤ atol + rtol · |other|.

    Raises:
        DTypeError: the tensors are of different dtypes.
        ArgumentError: a tolerance is negative.
    """
    _require_tensors("isclose", input, other)
    if input.data.dtype != other.data.dtype:
        raise DTypeError(f"{type_name(input.data.dtype)} did not match {type_name(other.data.dtype)}")
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if tolerance < 0:
            raise ArgumentError(f"{name} must be greater than or equal to zero, but got {tolerance:g}")
    return elementwise.isclose(input, other, rtol=rtol, atol=atol, equal_nan=equal_nan)


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether |input − other| ≤ atol + rtol · |other| everywhere; see `isclose`."""
    return bool(isclose(input, other, rtol, atol, equal_nan).all())


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether the tensors have one shape and the same elements."""
    _require_tensors("equal", input, other)
    return input.shape == other.shape and bool(elementwise.eq(input, other).all())


# ---- Logic ----


def _logical(op: Op, name: str, doc: str) -> Callable[[Tensor, Tensor], Tensor]:
    def function(input: Tensor, other: Tensor) -> Tensor:
        _require_tensors(name, input, other)
        return op(input, other)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


logical_and = _logical(elementwise.logical_and, "logical_and", "Whether both are other than zero.")
logical_or = _logical(elementwise.logical_or, "logical_or", "Whether one is other than zero.")
logical_xor = _logical(elementwise.logical_xor, "logical_xor", "Whether exactly one is other than zero.")
logical_not = elementwise_function(elementwise.logical_not, "logical_not", "Whether x is zero.")


def bitwise_and(input: Tensor, other: Operand) -> Tensor:
    """The bits that are set in both; of integers and bools."""
    return elementwise.bitwise_and(input, other)


def bitwise_or(input: Tensor, other: Operand) -> Tensor:
    """The bits that are set in one; of integers and bools."""
    return elementwise.bitwise_or(input, other)


def bitwise_xor(input: Tensor, other: Operand) -> Tensor:
    """The bits that are set in exactly one; of integers and bools."""
    return elementwise.bitwise_xor(input, other)


def bitwise_left_shift(input: Tensor, other: Operand) -> Tensor:
    """input · 2ᵒᵗʰᵉʳ, in the bits of its dtype."""
    return elementwise.left_shift(input, other)


def bitwise_right_shift(input: Tensor, other: Operand) -> Tensor:
    """⌊input / 2ᵒᵗʰᵉʳ⌋"""
    return elementwise.right_shift(input, other)


bitwise_not = elementwise_function(elementwise.bitwise_not, "bitwise_not", "All bits turned; of bools, not x.")

# ---- Over dimensions ----


def all(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Whether every element is true, over `dim`."""
    return _over(np.logical_and, "all", input, dim, keepdim)


def any(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Whether an element is true, over `dim`."""
    return _over(np.logical_or, "any", input, dim, keepdim)


@watched
def _over(logic: np.ufunc, name: str, input: Tensor, dim: Dim, keepdim: bool) -> Tensor:
    require_tensor(name, input)
    array = widened(input.data)
    axes = () if dim == () else axes_of(array.ndim, dim)  # unlike sums, over no dimension if none is named
    result = np.asarray(logic.reduce(array, axis=axes, keepdims=keepdim))
    return Variable.wrap(result.astype(uint8 if array.dtype == uint8 else bool, copy=False))


def _require_tensors(name: str, input: object, other: object) -> None:
    require_tensor(name, input)
    if not isinstance(other, Variable):
        raise DTypeError(f"{name}(): argument 'other' (position 2) must be Tensor, not {type(other).__name__}")
