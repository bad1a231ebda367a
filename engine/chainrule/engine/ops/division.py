"""Division to whole numbers, and what it leaves."""

# mypy: disable-error-code=has-type
# A formula may name operations declared further down.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule.engine.dtypes import widened
from chainrule.engine.errors import DivisionError
from chainrule.engine.ops.broadcasting import Scalar, elementwise
from chainrule.engine.ops.elementwise import lacks, quiet, zeros_like


def _no_zeros(divide: Callable[..., Any]) -> Callable[..., Any]:
    """Division that, of integers, refuses to divide by zero."""

    def _forward(a: Any, b: Any) -> Any:
        y = divide(a, b)
        if y.dtype.kind in "iu" and y.size and not np.all(b):
            raise DivisionError("ZeroDivisionError")
        return y

    return _forward


def _truncated(a: Any, b: Any) -> Any:
    dtype = a.dtype if isinstance(a, np.ndarray | np.generic) else b.dtype
    if dtype.kind not in "iu":
        if type(b) in Scalar:
            return np.trunc(np.divide(widened(a), b)).astype(dtype)
        return np.trunc(np.divide(np.asarray(a, dtype), b))
    return (a - np.fmod(a, b)) // b


floor_divide = elementwise(
    "FloorDivide",
    _no_zeros(quiet(np.floor_divide)),
    inputs=("a", "b"),
    a=lambda g: zeros_like(g),
    b=lambda g: zeros_like(g),
    refuse=lacks("div_floor_cpu", "b"),
)
trunc_divide = elementwise(
    "TruncDivide",
    _no_zeros(quiet(_truncated)),
    inputs=("a", "b"),
    a=lambda g: zeros_like(g),
    b=lambda g: zeros_like(g),
    refuse=lacks("div_trunc_cpu", "b"),
)
trunc_divide.exact = True  # as in PyTorch, the quotient of tensors of half precision is rounded before it is truncated
remainder = elementwise(
    "Remainder",
    _no_zeros(quiet(np.remainder)),
    inputs=("a", "b"),
    a=lambda g: g,
    b=lambda g, a, b: -g * floor_divide(a, b),
    refuse=lacks("remainder_cpu", "b"),
)
fmod = elementwise(
    "Fmod",
    _no_zeros(quiet(np.fmod)),
    inputs=("a", "b"),
    a=lambda g: g,
    b=lambda g, a, b: -g * trunc_divide(a, b),
    refuse=lacks("fmod_cpu", "b"),
)
