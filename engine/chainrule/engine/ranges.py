"""Functions that make tensors of numbers in order: ranges, and the indices of triangles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.creation import made
from chainrule.engine.dtypes import Array, as_dtype, bool_, default_dtype, int64, is_floating
from chainrule.engine.errors import ArgumentError, ShapeError, UnsupportedError

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

Bound = Any
"""A number, or a tensor of one."""


def arange(
    start: Bound = 0,
    end: Bound | None = None,
    step: Bound = 1,
    *,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """The numbers start, start + step, … below end; with one bound, from 0.

    Of integers int64, else float32, computed in float64 and rounded once.

    Raises:
        ArgumentError: the step is zero, or leads away from the end.
    """
    first, last, stride = map(_number, (0, start, step) if end is None else (start, end, step))
    floating = any(isinstance(number, float) for number in (first, last, stride))
    resolved = as_dtype(dtype) if dtype is not None else default_dtype if floating else int64
    if resolved == bool_:
        raise UnsupportedError("\"arange_cpu\" not implemented for 'Bool'")
    if not math.isfinite(first) or not math.isfinite(last):
        raise ArgumentError(f"unsupported range: {first} -> {last}")
    if resolved == int64:  # other dtypes are counted in fractions
        first, last, stride = int(first), int(last), int(stride)
    if stride == 0:
        raise ArgumentError("step must be nonzero")
    if (last - first) * stride < 0:
        raise ArgumentError("upper bound and lower bound inconsistent with step sign")
    count = math.ceil((last - first) / stride)
    if not is_floating(resolved):
        first, stride = int(first), int(stride)
    values: Array = first + np.arange(count) * stride
    return made(values.astype(resolved), device, requires_grad)


def linspace(
    start: Bound,
    end: Bound,
    steps: int,
    *,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`steps` numbers from start to end, both included, evenly apart; computed in float64 and rounded once.

    Raises:
        ArgumentError: their number is negative.
    """
    resolved = default_dtype if dtype is None else as_dtype(dtype)
    return made(_evenly(start, end, steps, whole=not is_floating(resolved)).astype(resolved), device, requires_grad)


def logspace(
    start: Bound,
    end: Bound,
    steps: int,
    base: float = 10.0,
    *,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """baseˣ for `steps` numbers x from start to end, evenly apart; see `linspace`."""
    resolved = default_dtype if dtype is None else as_dtype(dtype)
    powers = base ** _evenly(start, end, steps, whole=not is_floating(resolved))
    return made(powers.astype(resolved), device, requires_grad)


def _evenly(start: Bound, end: Bound, steps: int, *, whole: bool) -> npt.NDArray[np.float64]:
    """Counted from the nearer end, so that both are met; between whole numbers, if the result has to be of them."""
    if steps < 0:
        raise ArgumentError("number of steps must be non-negative")
    first, last = (float(int(x) if whole else x) for x in (_number(start), _number(end)))
    if steps == 1:
        return np.array([first])
    i = np.arange(steps)
    step = (last - first) / max(steps - 1, 1)
    return np.where(i < steps / 2 - 0.5 + (steps % 2), first + step * i, last - step * (steps - 1 - i))


def _number(bound: Bound) -> Any:
    if isinstance(bound, Variable):
        bound = bound.data
        if bound.ndim:
            raise ShapeError(
                f"ranges only support 0-dimensional start and end tensors, but got one with {bound.ndim} dimension(s)"
            )
    return bound.item() if isinstance(bound, np.ndarray | np.generic) else bound


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: npt.DTypeLike = int64, device: Any = None) -> Tensor:
    """The indices (2, N) of the elements of a matrix that are not above a diagonal, row by row."""
    return _triangle(np.tri(_length("row", row), _length("col", col), offset, bool), dtype, device)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: npt.DTypeLike = int64, device: Any = None) -> Tensor:
    """The indices (2, N) of the elements of a matrix that are not below a diagonal, row by row."""
    return _triangle(~np.tri(_length("row", row), _length("col", col), offset - 1, bool), dtype, device)


def _length(name: str, n: int) -> int:
    if n < 0:
        raise ShapeError(f"{name} must be non-negative, got{n}")
    return n


def _triangle(inside: Array, dtype: npt.DTypeLike, device: Any) -> Tensor:
    return made(np.stack(inside.nonzero()).astype(as_dtype(dtype)), device)
