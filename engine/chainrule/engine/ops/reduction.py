"""Reductions: sums, means, variances, norms, extremes. `dim` is None for all dimensions, one of them, or several."""

# mypy: disable-error-code=has-type
# A formula may name operations declared further down.

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chainrule.engine.errors import DimensionError, ShapeError
from chainrule.engine.ops.broadcasting import expand
from chainrule.engine.ops.elementwise import abs, cast, eq, exp, isnan, pow, sign, where, zeros_like
from chainrule.engine.ops.op import op
from chainrule.engine.ops.shape import reshape

Dim = int | tuple[int, ...] | list[int] | None


def axes_of(ndim: int, dim: Dim) -> tuple[int, ...]:
    """The dimensions `dim` means, counted from 0.

    Raises:
        DimensionError: one of them is not there.
        ShapeError: one of them is named twice.
    """
    if type(dim) is int and 0 <= dim < ndim:
        return (dim,)
    if dim is None or dim in ((), []):
        return tuple(range(ndim))
    axes = (dim,) if isinstance(dim, int) else tuple(dim)
    limit = ndim or 1  # a 0-d tensor takes -1 and 0
    for axis in axes:
        if not -limit <= axis < limit:
            raise DimensionError(
                f"Dimension out of range (expected to be in range of [{-limit}, {limit - 1}], but got {axis})"
            )
    axes = tuple(axis % limit for axis in axes)
    if len(set(axes)) < len(axes):
        twice = next(axis for axis in axes if axes.count(axis) > 1)
        raise ShapeError(f"dim {twice} appears multiple times in the list of dims")
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
@np.errstate(all="ignore")
def sum(x: Any, *, dim: Dim = None, keepdim: bool = False) -> Any:
    """y = Σ x over `dim`."""
    keepdims: Any = keepdim
    return np.add.reduce(x, axes_of(x.ndim, dim), x.dtype, keepdims=keepdims)  # numpy would widen small integers


@op("Mean", x=lambda g, x_shape, dim, keepdim: spread(g / count(x_shape, dim), x_shape, dim, keepdim))
@np.errstate(all="ignore")
def mean(x: Any, *, dim: Dim = None, keepdim: bool = False) -> Any:
    """y = Σ x / n over `dim`."""
    n = count(x.shape, dim)
    total = np.asarray(np.sum(x, axis=axes_of(x.ndim, dim), keepdims=keepdim))
    return total / x.dtype.type(n) if n else np.full_like(total, np.nan)


# ---- Spread ----


def _per_freedom(g: Any, shape: tuple[int, ...], dim: Dim, correction: float) -> Any:
    """2g / (n − correction); infinite where no degree of freedom is left."""
    freedom = count(shape, dim) - correction
    return g * (2 / freedom) if freedom > 0 else where(g == 0, g * math.nan, g * math.inf)


def _var_slope(g: Any, x: Any, dim: Dim, keepdim: bool, correction: float) -> Any:
    share = spread(_per_freedom(g, x.shape, dim, correction), x.shape, dim, keepdim)
    return share * (x - mean(x, dim=dim, keepdim=True))


@np.errstate(all="ignore")
def _variance(x: Any, dim: Dim, keepdim: bool, correction: float) -> Any:
    axes = axes_of(x.ndim, dim)
    n = count(x.shape, dim)
    center = np.sum(x, axis=axes, keepdims=True) / x.dtype.type(n)
    total = np.asarray(np.sum(np.square(x - center), axis=axes, keepdims=keepdim))
    return total / x.dtype.type(max(n - correction, 0))


@op("Var", x=lambda g, x, dim, keepdim, correction: _var_slope(g, x, dim, keepdim, correction))
def var(x: Any, *, dim: Dim = None, keepdim: bool = False, correction: float = 1) -> Any:
    """y = Σ (x − x̄)² / (n − correction) over `dim`"""
    return _variance(x, dim, keepdim, correction)


@op(
    "Std",
    x=lambda g, x, y, dim, keepdim, correction: _var_slope(
        where(y == 0, 0.0, g / where(y == 0, 1.0, 2 * y)), x, dim, keepdim, correction
    ),
)
def std(x: Any, *, dim: Dim = None, keepdim: bool = False, correction: float = 1) -> Any:
    """y = √(Σ (x − x̄)² / (n − correction)) over `dim`; where y = 0, so is the gradient."""
    return np.sqrt(_variance(x, dim, keepdim, correction))


# ---- Norms ----


def _norm_slope(x: Any, y: Any, p: float, dim: Dim) -> Any:
    """d(‖x‖ₚ)/dx, with y = ‖x‖ₚ spread to the shape of x; 0 where y is."""
    if p == 0:
        return zeros_like(x)
    if p == 1:
        return sign(x)
    if math.isinf(p):
        largest = cast(eq(abs(x), y), dtype=x.dtype)
        return sign(x) * largest / sum(largest, dim=dim, keepdim=True)
    some = where(y == 0, 1.0, y)
    if p == 2:
        return x / some
    size = where(x == 0, 1.0, abs(x))
    return sign(x) * where(x == 0, 0.0, pow(size / some, p - 1))


@op(
    "LinalgVectorNorm",
    x=lambda g, x, y, p, dim, keepdim: (
        spread(g, x.shape, dim, keepdim) * _norm_slope(x, spread(y, x.shape, dim, keepdim), p, dim)
    ),
)
@np.errstate(all="ignore")
def norm(x: Any, *, p: float = 2, dim: Dim = None, keepdim: bool = False) -> Any:
    """y = (Σ |x|ᵖ)^(1/p) over `dim`; the largest |x| for p = ∞, the smallest for −∞, how many are not 0 for p = 0."""
    axes = axes_of(x.ndim, dim)
    if p == 0:
        return np.asarray(np.count_nonzero(x, axis=axes, keepdims=keepdim)).astype(x.dtype)
    size = np.abs(x)
    if math.isinf(p):
        return (np.max if p > 0 else np.min)(size, axis=axes, keepdims=keepdim)
    total = np.sum(np.square(x) if p == 2 else np.power(size, p), axis=axes, keepdims=keepdim)
    return np.sqrt(total) if p == 2 else np.power(total, 1 / p)


# ---- Extremes ----


def _shared(g: Any, x: Any, y: Any, dim: Dim, keepdim: bool) -> Any:
    """g to the elements that are y, in equal parts where there are several."""
    is_y = cast(_same(x, spread(y, x.shape, dim, keepdim)), dtype=x.dtype)
    ties = sum(is_y, dim=dim, keepdim=keepdim)
    return spread(g / ties, x.shape, dim, keepdim) * is_y


def _same(x: Any, y: Any) -> Any:
    return eq(x, y) | (isnan(x) & isnan(y))


@op("Amax", x=lambda g, x, y, dim, keepdim: _shared(g, x, y, dim, keepdim))
def amax(x: Any, *, dim: Dim = None, keepdim: bool = False) -> Any:
    """y = max x over `dim`; ties share the gradient."""
    return np.max(x, axis=axes_of(x.ndim, dim), keepdims=keepdim)


@op("Amin", x=lambda g, x, y, dim, keepdim: _shared(g, x, y, dim, keepdim))
def amin(x: Any, *, dim: Dim = None, keepdim: bool = False) -> Any:
    """y = min x over `dim`; ties share the gradient."""
    return np.min(x, axis=axes_of(x.ndim, dim), keepdims=keepdim)


@op("Max", x=lambda g, x, y: _shared(g, x, y, None, False))
def max_of_all(x: Any) -> Any:
    """The largest element; ties share the gradient."""
    return np.max(x)


@op("Min", x=lambda g, x, y: _shared(g, x, y, None, False))
def min_of_all(x: Any) -> Any:
    """The smallest element; ties share the gradient."""
    return np.min(x)


@op("Median", x=lambda g, x, y: _shared(g, x, y, None, False))
def median_of_all(x: Any) -> Any:
    """The median, of an even number of elements the lower one; ties share the gradient."""
    return _lower_median(x.ravel(), np.isnan(x).any())


@op("Nanmedian", x=lambda g, x, y: _shared(g, x, y, None, False))
def nanmedian_of_all(x: Any) -> Any:
    """The median of what is not nan."""
    numbers = x[~np.isnan(x)]
    return _lower_median(numbers, not numbers.size)


def _lower_median(x: Any, is_nan: Any) -> Any:
    if is_nan or not x.size:
        return x.dtype.type(np.nan)
    return np.partition(x, (x.size - 1) // 2)[(x.size - 1) // 2]


@op("Argmax")
def argmax(x: Any, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """The index of the first largest element, in the flattened tensor or along `dim`."""
    return np.argmax(x, axis=dim, keepdims=keepdim)


@op("Argmin")
def argmin(x: Any, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """The index of the first smallest element, in the flattened tensor or along `dim`."""
    return np.argmin(x, axis=dim, keepdims=keepdim)


# ---- Logarithms ----


@op(
    "Logsumexp",
    x=lambda g, x, y, dim, keepdim: (
        spread(g, x.shape, dim, keepdim) * exp(x - _finite(spread(y, x.shape, dim, keepdim)))
    ),
)
@np.errstate(all="ignore")
def logsumexp(x: Any, *, dim: Dim, keepdim: bool = False) -> Any:
    """y = log Σ eˣ over `dim`, without overflow."""
    axes = axes_of(x.ndim, dim)
    top = np.max(x, axis=axes, keepdims=True, initial=-math.inf)
    top = np.where(np.isfinite(top), top, 0).astype(x.dtype)
    y = np.log(np.sum(np.exp(x - top), axis=axes, keepdims=True)) + top
    return y if keepdim else y.reshape([n for axis, n in enumerate(x.shape) if axis not in axes])


def _finite(y: Any) -> Any:
    """Zeros in place of ±∞: of a sum without terms every share is 0."""
    return where(abs(y) == math.inf, 0.0, y)
