"""Comparisons and logic: functions without a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.functions.arguments import Operand, elementwise_function
from chainrule.engine.ops import elementwise

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

__all__ = ["all", "allclose", "any", "eq", "equal", "ge", "gt", "isnan", "le", "lt", "ne"]


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


isnan = elementwise_function(elementwise.isnan, "isnan", "Whether x is not a number.")


def all(input: Tensor) -> Tensor:
    """Whether every element is true."""
    return Variable.wrap(np.asarray(np.all(input.data)))


def any(input: Tensor) -> Tensor:
    """Whether an element is true."""
    return Variable.wrap(np.asarray(np.any(input.data)))


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether |input − other| ≤ atol + rtol · |other| everywhere."""
    return bool(np.allclose(input.data, other.data, rtol=rtol, atol=atol, equal_nan=equal_nan))


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether the tensors have one shape and the same elements."""
    return input.shape == other.shape and bool((input.data == other.data).all())
