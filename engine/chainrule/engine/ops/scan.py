"""Running sums and products, and products, whose gradients are exact where elements are zero."""

# mypy: disable-error-code=has-type
# A formula may name operations declared further down.

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import Array
from chainrule.engine.ops.elementwise import exp, log, where
from chainrule.engine.ops.op import op
from chainrule.engine.ops.reduction import spread
from chainrule.engine.ops.shape import cat, narrow, slice_

# ---- Along a dimension ----


def reverse(x: Any, dim: int) -> Any:
    """`x` from back to front along `dim`; a 0-d one as it is."""
    return x if x.ndim == 0 else slice_(x, index=(slice(None),) * dim + (slice(None, None, -1),))


def _before(x: Any, dim: int, first: float) -> Any:
    """xᵢ₋₁ in place of xᵢ, and `first` at the start."""
    if x.ndim == 0:
        return full_like(x, first)
    n = x.shape[dim]
    head = full_like(narrow(x, start=0, length=min(n, 1), dim=dim), first)
    return cat(head, narrow(x, start=0, length=max(n - 1, 0), dim=dim), dim=dim)


def full_like(x: Any, value: float) -> Any:
    """`value` in the shape of `x`: an array if x is one, else a tensor."""
    return Variable.wrap(np.full_like(x.data, value)) if isinstance(x, Variable) else np.full_like(x, value)


# ---- Running sums ----


def _wide(x: Array) -> Any:
    """What a running sum is kept in: float64 for float32, so that no error builds up."""
    return np.float64 if x.dtype == np.float32 else x.dtype


@op("Cumsum", x=lambda g, dim: reverse(cumsum(reverse(g, dim), dim=dim), dim))
@np.errstate(all="ignore")
def cumsum(x: Any, *, dim: int) -> Any:
    """yᵢ = x₀ + … + xᵢ along `dim`"""
    return np.cumsum(x, axis=dim, dtype=_wide(x)).astype(x.dtype).reshape(x.shape)


@op("Logcumsumexp", x=lambda g, x, y, dim: _logcumsumexp_slope(g, x, y, dim))
@np.errstate(all="ignore")
def logcumsumexp(x: Any, *, dim: int) -> Any:
    """yᵢ = ln(e^x₀ + … + e^xᵢ) along `dim`"""
    if x.ndim == 0:
        return x.copy()
    return np.logaddexp.accumulate(x, axis=dim)


def _logcumsumexp_slope(g: Any, x: Any, y: Any, dim: int) -> Any:
    """eˣⁱ · Σ_{k≥i} gₖ e⁻ʸᵏ, in logarithms, for positive and negative g apart."""

    def part(g: Any) -> Any:
        some = g > 0
        logs = where(some, log(where(some, g, 1.0)) - y, -1e30 if g.dtype.itemsize > 2 else -6e4)
        return exp(reverse(logcumsumexp(reverse(logs, dim), dim=dim), dim) + x)

    return part(g) - part(-g)


# ---- Running products ----


@op("Cumprod", x=lambda g, x, y, dim: _cumprod_slope(g, x, y, dim))
@np.errstate(all="ignore")
def cumprod(x: Any, *, dim: int) -> Any:
    """yᵢ = x₀ · … · xᵢ along `dim`"""
    return np.cumprod(x, axis=dim, dtype=_wide(x)).astype(x.dtype).reshape(x.shape)


def _cumprod_slope(g: Any, x: Any, y: Any, dim: int) -> Any:
    """Σ_{k≥i} gₖ Π_{j≤k, j≠i} xⱼ."""
    if not has_zero(x):
        return reverse(cumsum(reverse(g * y, dim), dim=dim), dim) / x
    return _before(y, dim, 1.0) * _transposed(g, x, dim)


def has_zero(x: Any) -> bool:
    """Whether an element is zero."""
    return not np.all(x.data if isinstance(x, Variable) else x)


@op(
    "Recurrence",
    x=lambda g, a, dim: _transposed(g, a, dim),
    a=lambda g, a, y, dim: _transposed(g, a, dim) * _before(y, dim, 0.0),
)
def recurrence(x: Any, a: Any, *, dim: int) -> Any:
    """yᵢ = xᵢ + aᵢ · yᵢ₋₁ along `dim`, with y₋₁ = 0"""
    y = x.copy()
    if x.ndim:
        steps, factors = np.moveaxis(y, dim, 0), np.moveaxis(a, dim, 0)
        for i in range(1, len(steps)):
            steps[i] += factors[i] * steps[i - 1]
    return y


def _transposed(g: Any, a: Any, dim: int) -> Any:
    """rᵢ = gᵢ + aᵢ₊₁ · rᵢ₊₁"""
    follows = _before(reverse(a, dim), dim, 0.0)
    return reverse(recurrence(reverse(g, dim), follows, dim=dim), dim)


# ---- Products ----


@op("Prod", x=lambda g, x, y, dim, keepdim: _prod_slope(g, x, y, dim, keepdim))
@np.errstate(all="ignore")
def prod(x: Any, *, dim: int, keepdim: bool = False) -> Any:
    """y = Π x along `dim`"""
    return np.prod(x, axis=dim if x.ndim else None, keepdims=keepdim, dtype=x.dtype)


def _prod_slope(g: Any, x: Any, y: Any, dim: int, keepdim: bool) -> Any:
    """g times the product of the others."""
    g = spread(g, x.shape, dim, keepdim)
    if not has_zero(x):
        return g * spread(y, x.shape, dim, keepdim) / x
    left = _before(cumprod(x, dim=dim), dim, 1.0)
    right = reverse(_before(cumprod(reverse(x, dim), dim=dim), dim, 1.0), dim)
    return g * left * right
