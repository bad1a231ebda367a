"""Attention: queries look up values by their keys."""

# mypy: disable-error-code=has-type
# A formula may name operations declared further down.

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.engine import kernels
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import Array
from chainrule.engine.ops.linalg import bmm
from chainrule.engine.ops.op import op
from chainrule.engine.ops.reduction import sum
from chainrule.engine.ops.shape import transpose
from chainrule.engine.ops.together import Together


@op("SafeSoftmax", x=lambda g, y: _softmax_gradient(g, y))
def masked_softmax(x: Any, *, mask: Array | None = None) -> Any:
    """y = eˣ / Σ eˣ along the last dimension, over the elements where `mask` is true; 0 elsewhere.

    A row without any such element, or with −∞ only, is 0 rather than not a number. `mask` broadcasts to x; one of
    floats is added to x instead.
    """
    return kernels.safe_softmax(_masked(x, mask))


def _masked(x: Any, mask: Array | None) -> Any:
    if mask is None:
        return x
    return np.where(mask, x, x.dtype.type(-np.inf)) if mask.dtype == bool else x + mask.astype(x.dtype, copy=False)


def _softmax_gradient(g: Any, y: Any) -> Any:
    if isinstance(y, Variable):
        return y * (g - sum(g * y, dim=-1, keepdim=True))
    return kernels.softmax_gradient(g, y, -1)


# ---- The whole of it ----


@op(
    "ScaledDotProductAttention",
    saves=("p", "together"),
    q=lambda g, q, k, v, mask, scale, p, together: _gradient(0, g, q, k, v, mask, scale, p, together),
    k=lambda g, q, k, v, mask, scale, p, together: _gradient(1, g, q, k, v, mask, scale, p, together),
    v=lambda g, q, k, v, mask, scale, p, together: _gradient(2, g, q, k, v, mask, scale, p, together),
)
def attend(q: Any, k: Any, v: Any, *, mask: Array | None, scale: float) -> Any:
    """y = P·v with P = softmax(scale · q·kᵀ), for q (..., L, E), k (..., S, E) and v (..., S, Ev); y (..., L, Ev).

    Masks as in `masked_softmax`. Results lie in memory as q does: heads that were cut out of features, and are
    to be joined to features again, are not copied for that. Source: Vaswani et al., https://arxiv.org/abs/1706.03762
    """
    p = np.matmul(q, k.swapaxes(-1, -2))
    p *= p.dtype.type(scale)
    p = kernels.safe_softmax(_hidden(p, mask))
    y = np.empty_like(q, shape=(*q.shape[:-1], v.shape[-1]))
    return np.matmul(p, v, out=y), {"p": p, "together": Together()}


def _hidden(scores: Array, mask: Array | None) -> Array:
    """`_masked`, in the memory of the scores."""
    if mask is None:
        return scores
    if mask.dtype == bool:
        np.copyto(scores, -np.inf, where=~mask)
    else:
        scores += mask.astype(scores.dtype, copy=False)
    return scores


def _gradient(
    position: int,
    g: Any,
    q: Any,
    k: Any,
    v: Any,
    mask: Array | None,
    scale: float,
    p: Array,
    together: Together,
) -> Any:
    """Of arrays, all gradients come together. Of Tensors, P is a function of q and k again; for scores s

    dv = Pᵀ·g,   ds = P · (dP − Σ dP · P) with dP = g·vᵀ,   dq = scale · ds·k,   dk = scale · dsᵀ·q
    """
    if not isinstance(q, Variable):
        return together.take(position, g, lambda: _gradients(g, q, k, v, scale, p))
    weights = masked_softmax(bmm(q, _t(k)) * scale, mask=mask)
    if position == 2:
        return bmm(_t(weights), g)
    ds = _softmax_gradient(bmm(g, _t(v)), weights) * scale
    return bmm(ds, k) if position == 0 else bmm(_t(ds), q)


def _gradients(g: Array, q: Array, k: Array, v: Array, scale: float, p: Array) -> tuple[Array, ...]:
    ds = kernels.softmax_gradient(np.matmul(g, v.swapaxes(-1, -2)), p, -1)
    ds *= ds.dtype.type(scale)
    return (
        np.matmul(ds, k, out=np.empty_like(q)),
        np.matmul(ds.swapaxes(-1, -2), q, out=np.empty_like(k)),
        np.matmul(p.swapaxes(-1, -2), g, out=np.empty_like(v)),
    )


def _t(x: Any) -> Any:
    return transpose(x, dim0=-2, dim1=-1)
