"""Softmax, and gradients of it and of its logarithm, by oneDNN, along a dimension whose elements lie side by side.

Not the logarithm itself, which oneDNN computes with an error of 4·10⁻⁶.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from chainrule.engine.dtypes import Array, DType
from chainrule.engine.kernels import reference
from chainrule.engine.kernels.onednn import library as dnn
from chainrule.engine.kernels.onednn.arrays import TYPES
from chainrule.engine.kernels.onednn.library import Argument
from chainrule.engine.kernels.onednn.primitive import Layout, Primitive, attributes, describe, kept


def softmax(x: Array, axis: int) -> Array:
    """As `reference.softmax`."""
    y = _forward(x, axis)
    return reference.softmax(x, axis) if y is None else y


def softmax_gradient(g: Array, y: Array, axis: int) -> Array:
    """As `reference.softmax_gradient`."""
    dx = _backward(dnn.SOFTMAX, g, y, axis)
    return reference.softmax_gradient(g, y, axis) if dx is None else dx


def safe_softmax(x: Array) -> Array:
    """As `reference.safe_softmax`."""
    y = _forward(x, -1)
    return reference.safe_softmax(x) if y is None else y


def log_softmax_gradient(g: Array, y: Array, axis: int) -> Array:
    """As `reference.log_softmax_gradient`."""
    dx = _backward(dnn.LOG_SOFTMAX, g, y, axis)
    return reference.log_softmax_gradient(g, y, axis) if dx is None else dx


class Softmax(NamedTuple):
    """The primitives for rows of one length."""

    forward: Primitive
    backward: Primitive


# Each gives None for what is left to numpy.


def _forward(x: Array, axis: int) -> Array | None:
    rows = _rows(x, axis)
    found = None if rows is None else _found(dnn.SOFTMAX, rows)
    if rows is None or found is None:
        return None
    y = np.empty(rows.shape, x.dtype)
    found.forward.run(rows, y)
    if _has_nan(y):  # which oneDNN keeps to itself, rather than all of its row
        return None
    return _back(y, axis)


def _backward(function: int, g: Array, y: Array, axis: int) -> Array | None:
    rows = _rows(y, axis)
    found = None if rows is None else _found(function, rows)
    if rows is None or found is None:
        return None
    if function == dnn.LOG_SOFTMAX and _has_nan(rows):  # whose exponential is ∞ to oneDNN
        return None
    dx = np.empty(rows.shape, y.dtype)
    found.backward.run(rows, np.ascontiguousarray(_last(g, axis)), dx)
    return _back(dx, axis)


def _rows(x: Array, axis: int) -> Array | None:
    """x with `axis` last, if its elements lie side by side or are easily made to."""
    if x.dtype not in TYPES or not x.size or not x.ndim:
        return None
    rows = _last(x, axis)
    if rows.flags.c_contiguous:
        return rows
    return np.ascontiguousarray(x) if rows is x else None


def _last(x: Array, axis: int) -> Array:
    return x if axis in (-1, x.ndim - 1) else np.moveaxis(x, axis, -1)


def _back(rows: Array, axis: int) -> Array:
    return rows if axis in (-1, rows.ndim - 1) else np.moveaxis(rows, -1, axis)


def _found(function: int, rows: Array) -> Softmax | None:
    n, d = rows.size // rows.shape[-1], rows.shape[-1]
    return kept(("softmax", function, n, d, rows.dtype), lambda: _described(function, n, d, rows.dtype))


def _described(function: int, n: int, d: int, dtype: DType) -> Softmax | None:
    rows = Layout.dense((n, d), dtype)
    there = describe("softmax_forward", dnn.FORWARD_TRAINING, function, rows.handle, rows.handle, 1, attributes())
    if there is None:
        return None
    forward = Primitive(there, ((Argument.SRC, rows), (Argument.DST, rows)))
    back = describe("softmax_backward", function, *(rows.handle,) * 3, 1, there, attributes())
    if back is None:
        return None
    arguments = ((Argument.DST, rows), (Argument.DIFF_DST, rows), (Argument.DIFF_SRC, rows))
    return Softmax(forward, Primitive(back, arguments))


@np.errstate(all="ignore")
def _has_nan(y: Array) -> bool:
    if y.dtype != np.float32:
        return bool(np.isnan(y).any())
    flat = y.reshape(-1)
    return math.isnan(np.dot(flat, flat))  # a pass over memory, and no more
