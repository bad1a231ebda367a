"""Functions of each element: arithmetic, exponentials, limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chainrule.engine.dtypes import is_floating
from chainrule.engine.errors import AutogradError
from chainrule.engine.functions.arguments import Number, Operand, elementwise_function
from chainrule.engine.ops import elementwise

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

__all__ = [
    "abs",
    "add",
    "clamp",
    "div",
    "exp",
    "log",
    "maximum",
    "minimum",
    "mul",
    "neg",
    "pow",
    "relu",
    "sigmoid",
    "sign",
    "sqrt",
    "square",
    "sub",
    "tanh",
    "where",
]


def add(input: Tensor, other: Operand, *, alpha: Number = 1) -> Tensor:
    """input + alpha · other"""
    return elementwise.add(input, other if alpha == 1 else other * alpha)


def sub(input: Tensor, other: Operand, *, alpha: Number = 1) -> Tensor:
    """input − alpha · other"""
    return elementwise.sub(input, other if alpha == 1 else other * alpha)


def mul(input: Tensor, other: Operand) -> Tensor:
    """input · other"""
    return elementwise.mul(input, other)


def div(input: Tensor, other: Operand) -> Tensor:
    """input / other"""
    return elementwise.div(input, other)


def pow(input: Tensor | Number, exponent: Operand) -> Tensor:
    """inputᵉˣᵖᵒⁿᵉⁿᵗ"""
    return elementwise.pow(input, exponent)


def square(input: Tensor) -> Tensor:
    """input²"""
    return elementwise.pow(input, 2)


neg = elementwise_function(elementwise.neg, "neg", "−x")
exp = elementwise_function(elementwise.exp, "exp", "eˣ")
log = elementwise_function(elementwise.log, "log", "ln x")
sqrt = elementwise_function(elementwise.sqrt, "sqrt", "√x")
tanh = elementwise_function(elementwise.tanh, "tanh", "tanh x")
sigmoid = elementwise_function(elementwise.sigmoid, "sigmoid", "1 / (1 + e⁻ˣ)")
relu = elementwise_function(elementwise.relu, "relu", "max(x, 0)")
abs = elementwise_function(elementwise.abs, "abs", "|x|")
sign = elementwise_function(elementwise.sign, "sign", "−1, 0 or 1, by the sign of x")


def clamp(input: Tensor, min: Number | None = None, max: Number | None = None) -> Tensor:
    """The elements limited to [min, max].

    Raises:
        AutogradError: neither limit is given.
    """
    if min is None and max is None:
        raise AutogradError("clamp: at least one of min or max must not be None")
    fractions = isinstance(min, float) or isinstance(max, float)
    return elementwise.clamp(input.float() if fractions and not is_floating(input.dtype) else input, min=min, max=max)


def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The larger of both, element by element; where they are equal, each has half the gradient."""
    return elementwise.maximum(input, other)


def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of both, element by element; where they are equal, each has half the gradient."""
    return elementwise.minimum(input, other)


def where(condition: Tensor, input: Operand, other: Operand) -> Tensor:
    """`input` where the condition is true, `other` elsewhere."""
    return elementwise.where(condition, input, other)
