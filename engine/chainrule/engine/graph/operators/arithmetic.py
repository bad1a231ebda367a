"""Functions of each element: arithmetic, comparison, logic, choices, conversions."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

import chainrule.engine as cr
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import Array, is_floating
from chainrule.engine.graph.errors import GraphError, Refused
from chainrule.engine.graph.node import Node
from chainrule.engine.graph.registry import Compute, operator
from chainrule.engine.graph.tensors import dtype_of
from chainrule.engine.tensor import Tensor

# ---- Of one tensor ----

_unary: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": cr.abs,
    "Ceil": cr.ceil,
    "Exp": cr.exp,
    "Floor": cr.floor,
    "Log": cr.log,
    "Neg": cr.neg,
    "Reciprocal": cr.reciprocal,
    "Sqrt": cr.sqrt,
}
_trigonometric: dict[str, Callable[[Tensor], Tensor]] = {
    "Acos": cr.acos,
    "Acosh": cr.acosh,
    "Asin": cr.asin,
    "Asinh": cr.asinh,
    "Atan": cr.atan,
    "Atanh": cr.atanh,
    "Cos": cr.cos,
    "Cosh": cr.cosh,
    "Erf": cr.erf,
    "IsNaN": cr.isnan,
    "Not": cr.logical_not,
    "Round": cr.round,
    "Sign": cr.sign,
    "Sin": cr.sin,
    "Sinh": cr.sinh,
    "Tan": cr.tan,
    "BitwiseNot": cr.bitwise_not,
}


@operator(*_unary, since=6)
@operator("Not")
@operator("Acos", "Asin", "Atan", "Cos", "Sin", "Tan", since=7)
@operator("Acosh", "Asinh", "Atanh", "Cosh", "Erf", "IsNaN", "Sign", "Sinh", since=9)
@operator("Round", since=11)
@operator("BitwiseNot", since=18)
def unary(node: Node) -> Compute:
    function = _unary.get(node.op) or _trigonometric[node.op]
    return lambda x: function(x)


@operator("IsInf", since=10)
def is_inf(node: Node) -> Compute:
    negative, positive = node.int("detect_negative", 1), node.int("detect_positive", 1)
    if negative and positive:
        return lambda x: cr.isinf(x)
    if not negative and not positive:
        return lambda x: Variable.wrap(np.zeros(x.shape, bool))
    return lambda x: cr.isposinf(x) if positive else cr.isneginf(x)


@operator("Clip", since=6, until=10)
def clip_by_attributes(node: Node) -> Compute:
    low = node.float("min") if node.has("min") else None
    high = node.float("max") if node.has("max") else None
    return lambda x: _clipped(x, low, high)


@operator("Clip", since=11, host=(1, 2))
def clip(node: Node) -> Compute:  # noqa: ARG001
    return lambda x, low=None, high=None: _clipped(x, _number(low), _number(high))


def _clipped(x: Tensor, low: float | None, high: float | None) -> Tensor:
    return x if low is None and high is None else cr.clamp(x, low, high)


def _number(value: Array | None) -> Any:
    """The one element of an array, as a Python number."""
    if value is None:
        return None
    if value.size != 1:
        raise GraphError(f"a single number is expected, got {value.size}")
    return value.reshape(()).astype(np.float64 if is_floating(value.dtype) else value.dtype).item()


# ---- Of two or more ----

_binary: dict[str, Callable[[Any, Any], Any]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "And": cr.logical_and,
    "Or": cr.logical_or,
    "Xor": cr.logical_xor,
    "Equal": cr.eq,
    "Greater": cr.gt,
    "Less": cr.lt,
    "GreaterOrEqual": cr.ge,
    "LessOrEqual": cr.le,
    "BitwiseAnd": cr.bitwise_and,
    "BitwiseOr": cr.bitwise_or,
    "BitwiseXor": cr.bitwise_xor,
}


@operator("Add", "Sub", "Mul", "And", "Or", "Xor", "Equal", "Greater", "Less", since=7)
@operator("GreaterOrEqual", "LessOrEqual", since=12)
@operator("BitwiseAnd", "BitwiseOr", "BitwiseXor", since=18)
def binary(node: Node) -> Compute:
    function = _binary[node.op]
    return lambda a, b: function(a, b)


@operator("BitShift", since=11)
def bit_shift(node: Node) -> Compute:
    left = node.one_of("direction", ("LEFT", "RIGHT"), "") == "LEFT"
    return lambda a, b: cr.bitwise_left_shift(a, b) if left else cr.bitwise_right_shift(a, b)


@operator("Div", since=7)
def div(node: Node) -> Compute:  # noqa: ARG001
    """Integers are divided towards 0."""
    return lambda a, b: a / b if is_floating(a.dtype) else cr.div(a, b, rounding_mode="trunc")


@operator("Mod", since=10)
def mod(node: Node) -> Compute:
    """With the sign of the divisor, or with fmod=1 of the dividend."""
    if node.int("fmod", 0):
        return lambda a, b: cr.fmod(a, b)
    return lambda a, b: cr.remainder(a, b)


@operator("Pow", since=7)
def power(node: Node) -> Compute:  # noqa: ARG001
    """In the dtype of the base."""

    def compute(x: Tensor, exponent: Tensor) -> Tensor:
        if exponent.data.size == 1 and not exponent.requires_grad and exponent.ndim <= x.ndim:
            y: Tensor = x ** _number(exponent.data)  # a number is squared, not exp and log
            y = y if exponent.ndim <= x.ndim else y.reshape((1,) * exponent.ndim)
        else:
            y = x**exponent
        return y if y.dtype == x.dtype else y.to(x.dtype)

    return compute


@operator("Max", "Min", "Sum", "Mean", since=8)
def several(node: Node) -> Compute:
    def mean(*x: Tensor) -> Tensor:
        return reduce(lambda a, b: a + b, x) / len(x)

    if not node.inputs:
        raise node.error("it has no inputs")
    if node.op == "Mean":
        return mean
    function = {"Max": cr.maximum, "Min": cr.minimum, "Sum": cr.add}[node.op]
    return lambda *x: reduce(function, x)


@operator("Where", since=9)
def where(node: Node) -> Compute:  # noqa: ARG001
    return lambda condition, a, b: cr.where(condition, a, b)


# ---- Conversions ----


@operator("Cast", since=6, itemsize=8)
def cast(node: Node) -> Compute:
    dtype = _wanted(node.int("to"))
    return lambda x: x if x.dtype == dtype else x.to(dtype)


@operator("CastLike", since=15, itemsize=8)
def cast_like(node: Node) -> Compute:  # noqa: ARG001
    return lambda x, like: x if x.dtype == like.dtype else x.to(like.dtype)


def _wanted(code: int) -> Any:
    try:
        return dtype_of(code, "its result")
    except GraphError as error:
        raise Refused(error.message) from None
