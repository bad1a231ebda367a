"""Rows of a table by their index, and bags of them."""

# mypy: disable-error-code=has-type
# A formula may name operations declared further down.

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.engine.dtypes import Array
from chainrule.engine.ops.op import op


@op("Embedding", w=lambda g, w_shape, index, scale: add_rows(g, index=index, scale=scale, rows=w_shape[0]))
def embedding(w: Any, *, index: Array, scale: Array | None = None) -> Any:  # noqa: ARG001 - the gradient uses it
    """y[i] = w[index[i]] for a table w (V, D) and an index of any shape.

    `scale`, in the shape of the index, is what the gradient of each y[i] is multiplied by.
    """
    return w[index]


@op("EmbeddingDenseBackward", x=lambda g, index, scale: rows_of(g, index=index, scale=scale))
def add_rows(x: Any, *, index: Array, scale: Array | None, rows: int) -> Any:
    """The reverse of `embedding`: zeros (rows, D), with scale[i] · x[i] added to row index[i], in the order of i."""
    flat = index.reshape(-1)
    x = _scaled(x, scale).reshape(flat.size, x.shape[-1])
    y = np.zeros((rows, x.shape[-1]), x.dtype)
    if flat.size:
        order = np.argsort(flat, kind="stable")
        named, starts = np.unique(flat[order], return_index=True)
        y[named] = np.add.reduceat(x[order], starts, axis=0)
    return y


@op("Embedding", w=lambda g, w_shape, index, scale: add_rows(g, index=index, scale=scale, rows=w_shape[0]))
def rows_of(w: Any, *, index: Array, scale: Array | None) -> Any:
    """y[i] = scale[i] · w[index[i]]"""
    return _scaled(w[index], scale)


def _scaled(x: Any, scale: Array | None) -> Any:
    return x if scale is None else x * scale[..., None].astype(x.dtype)


# ---- Bags: rows that belong together, one after another ----


@op("EmbeddingBag", x=lambda g, x_shape, starts: repeat_rows(g, starts=starts, rows=x_shape[0]))
def sum_bags(x: Any, *, starts: Array) -> Any:
    """y[j] = Σ x[starts[j]:starts[j + 1]] for rows x (N, D), and 0 for an empty bag."""
    ends = np.append(starts[1:], len(x))
    y = np.zeros((len(starts), *x.shape[1:]), x.dtype)
    full = ends > starts
    if full.any():
        y[full] = np.add.reduceat(x[: ends[-1]], starts[full], axis=0)
    return y


@op("EmbeddingBagBackward", x=lambda g, starts: sum_bags(g, starts=starts))
def repeat_rows(x: Any, *, starts: Array, rows: int) -> Any:
    """The reverse of `sum_bags`: y[i] = x[j] for the bag j that i is in."""
    return np.repeat(x, np.diff(np.append(starts, rows)), axis=0)
