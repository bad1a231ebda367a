"""Reductions: sum, mean, extremes, log-sum-exp. `dim` is None for all dimensions, one of them, or several."""

# mypy: disable-error-code=has-type
# A formula may name operations declared further down.

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.engine.errors import DimensionError, ShapeError
from chainrule.engine.ops.elementwise import cast, eq, exp
from chainrule.engine.ops.op import expand, op
from chainrule.engine.ops.shape import reshape

Dim = int | tuple[int, ...] | list[int] | None


def axes_of(ndim: int, dim: Dim) -> tuple[int, ...]:
    """The dimensions `dim` means, counted from 0.

    Raises:
        DimensionError: one of them is not there.
        ShapeError: one of them is named twice.
    """
    if dim is None or dim == ():
        return tuple(range(ndim))
    axes = (dim,) if isinstance(dim, int) else tuple(dim)
    limit = ndim or 1  # a 0-d tensor takes -1 and 0
    for axis in axes:
        if not -limit <= axis < limit:
            raise DimensionError(f"Dimension out of range (expected to be in [{-limit}, {limit - 1}], but got {axis})")
    axes = tuple(axis % limit for axis in axes)
    if len(set(axes)) < len(axes):
        raise ShapeError(f"dim {dim} names a dimension twice")
    return axes if ndim else ()


def spread(g: Any, shape: tuple[int, ...], dim: Dim, keepdim: bool) -> Any:
    """What was reduced over `dim`, expanded again to the shape it was reduced from."""
    axes = axes_of(len(shape), dim)
    if not keepdim:
        g = reshape(g, shape=tuple(1 if axis in axes else n for axis, n in enumerate(shape)))
    return expand(g, shape=shape)


def count(shape: tuple[int, ...], dim: Dim) -> int:
    """How many elements each result of a reduction over `dim` is made of."""
    return int(np.prod([shape[axis] for axis in axes_of(len(shape), dim)], dtype=np.int64))


@op("Sum", x=lambda g, x_shape, dim, keepdim: spread(g, x_shape, dim, keepdim))
def sum(x: Any, *, dim: Dim = None, keepdim: bool = False) -> Any:
    """y = Σ x over `dim`."""
    return np.sum(x, axis=axes_of(x.ndim, dim), keepdims=keepdim)


@op("Mean", x=lambda g, x_shape, dim, keepdim: spread(g / count(x_shape, dim), x_shape, dim, keepdim))
def mean(x: Any, *, dim: Dim = None, keepdim: bool = False) -> Any:
    """y = Σ x / n over `dim`."""
    n = count(x.shape, dim)
    total = np.asarray(np.sum(x, axis=axes_of(x.ndim, dim), keepdims=keepdim))
    return total / x.dtype.type(n) if n else np.full_like(total, np.nan)


def _share_of_extreme(g: Any, x: Any, y: Any, dim: Dim, keepdim: bool) -> Any:
    """g to the elements that are the extreme, in equal parts where there are several."""
    is_extreme = cast(eq(x, spread(y, x.shape, dim, keepdim)), dtype=x.dtype)
    ties = sum(is_extreme, dim=dim, keepdim=keepdim)
    return spread(g / ties, x.shape, dim, keepdim) * is_extreme


@op("Amax", x=lambda g, x, y, dim, keepdim: _share_of_extreme(g, x, y, dim, keepdim))
def amax(x: Any, *, dim: Dim = None, keepdim: bool = False) -> Any:
    """y = max x over `dim`; ties share the gradient."""
    return np.max(x, axis=axes_of(x.ndim, dim), keepdims=keepdim)


@op("Amin", x=lambda g, x, y, dim, keepdim: _share_of_extreme(g, x, y, dim, keepdim))
def amin(x: Any, *, dim: Dim = None, keepdim: bool = False) -> Any:
    """y = min x over `dim`; ties share the gradient."""
    return np.min(x, axis=axes_of(x.ndim, dim), keepdims=keepdim)


@op("Argmax")
def argmax(x: Any, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """The index of the first largest element, in the flattened tensor or along `dim`."""
    return np.argmax(x, axis=dim, keepdims=keepdim)


@op("Argmin")
def argmin(x: Any, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """The index of the first smallest element, in the flattened tensor or along `dim`."""
    return np.argmin(x, axis=dim, keepdims=keepdim)


@op(
    "Logsumexp",
    x=lambda g, x, y, dim, keepdim: spread(g, x.shape, dim, keepdim) * exp(x - spread(y, x.shape, dim, keepdim)),
)
def logsumexp(x: Any, *, dim: Dim, keepdim: bool = False) -> Any:
    """y = log Σ eˣ over `dim`, without overflow."""
    axes = axes_of(x.ndim, dim)
    top = np.max(x, axis=axes, keepdims=True)
    top = np.where(np.isfinite(top), top, 0).astype(x.dtype)
    y = np.log(np.sum(np.exp(x - top), axis=axes, keepdims=True)) + top
    return y if keepdim else y.reshape([n for axis, n in enumerate(x.shape) if axis not in axes])
