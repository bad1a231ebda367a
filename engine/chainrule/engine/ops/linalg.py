"""Products of matrices and vectors."""

# mypy: disable-error-code=has-type
# A formula may name operations declared further down.

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chainrule.engine import kernels
from chainrule.engine.dtypes import float32, widened
from chainrule.engine.ops.broadcasting import sum_to
from chainrule.engine.ops.op import op
from chainrule.engine.ops.shape import reshape, transpose


@op("Dot", a=lambda g, b: g * b, b=lambda g, a: g * a)
def dot(a: Any, b: Any) -> Any:
    """y = Σ aᵢ·bᵢ."""
    return np.dot(a, b)


@op("Mv", a=lambda g, b: outer(g, b), b=lambda g, a: mv(a.T, g))
def mv(a: Any, b: Any) -> Any:
    """y = A·b."""
    return a @ b


def outer(a: Any, b: Any) -> Any:
    """y = a·bᵀ."""
    return mm(reshape(a, shape=(-1, 1)), reshape(b, shape=(1, -1)))


@op("Mm", native=True, a=lambda g, b: mm(g, b.T), b=lambda g, a: mm(a.T, g))
def mm(a: Any, b: Any) -> Any:
    """y = A·B."""
    return kernels.mm(a, b)


@op(
    "Bmm",
    a=lambda g, a_shape, b: sum_to(bmm(g, transpose(b, dim0=-2, dim1=-1)), shape=a_shape),
    b=lambda g, a, b_shape: sum_to(bmm(transpose(a, dim0=-2, dim1=-1), g), shape=b_shape),
)
def bmm(a: Any, b: Any) -> Any:
    """y = A·B for each pair of a batch; the batch dimensions broadcast."""
    return np.matmul(a, b)


# ---- Products added to something: y = β·x + α·(a·b) ----


@op(
    "Addmv",
    x=lambda g, x_shape, beta: sum_to(g * beta, shape=x_shape),
    a=lambda g, b, alpha: outer(g, b) * alpha,
    b=lambda g, a, alpha: mv(a.T, g) * alpha,
)
def addmv(x: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """y = β·x + α·A·b; x broadcasts."""
    return _plus(x, a @ b, beta, alpha)


@op(
    "Addmm",
    x=lambda g, x_shape, beta: sum_to(g * beta, shape=x_shape),
    a=lambda g, b, alpha: mm(g, b.T) * alpha,
    b=lambda g, a, alpha: mm(a.T, g) * alpha,
)
def addmm(x: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """y = β·x + α·A·B; x broadcasts."""
    return _plus(x, a @ b, beta, alpha)


@op(
    "Baddbmm",
    x=lambda g, x_shape, beta: sum_to(g * beta, shape=x_shape),
    a=lambda g, b, alpha: bmm(g, transpose(b, dim0=-2, dim1=-1)) * alpha,
    b=lambda g, a, alpha: bmm(transpose(a, dim0=-2, dim1=-1), g) * alpha,
)
def baddbmm(x: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """y = β·x + α·A·B for each pair of a batch; x broadcasts."""
    return _plus(x, np.matmul(a, b), beta, alpha)


def _plus(x: Any, product: Any, beta: float, alpha: float) -> Any:
    if alpha != 1:
        product *= product.dtype.type(alpha)
    if beta != 0:  # so that what is not finite has no part in it
        product += x if beta == 1 else x * x.dtype.type(beta)
    return product


@op(
    "Addmm",
    native=True,
    x=lambda g, w: linear(g, w.T),
    w=lambda g, x: mm(_rows(g).T, _rows(x)),
    b=lambda g: _sum_of_rows(g),
    into={"w": lambda g, x, out: kernels.mm(_rows(g).T, _rows(x), out)},
)
def linear(x: Any, w: Any, b: Any = None) -> Any:
    """y = x·wᵀ + b, with x (..., I), w (O, I), b (O) or None, y (..., O)."""
    rows = x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    y = kernels.linear(rows, w, b)
    return y if x.ndim == 2 else y.reshape(*x.shape[:-1], len(w))


def _sum_of_rows(g: Any) -> Any:
    """Σ g over all dimensions but the last; of half precision in float32."""
    if type(g) is np.ndarray and g.dtype is float32 and g.ndim == 2:  # nearly always, and by a shorter way
        return np.add.reduce(g, axis=0)
    wide = widened(g)
    total: Any = sum_to(wide, shape=g.shape[-1:])
    return total if wide is g else total.astype(g.dtype)


def _rows(x: Any) -> Any:
    return x if x.ndim == 2 else reshape(x, shape=(-1, x.shape[-1]))
