"""Normalisation of each example by oneDNN: statistics and result in one call, all gradients in another."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from chainrule.engine.dtypes import Array, DType, float32
from chainrule.engine.kernels import reference
from chainrule.engine.kernels.onednn import library as dnn
from chainrule.engine.kernels.onednn.arrays import TYPES
from chainrule.engine.kernels.onednn.library import Argument
from chainrule.engine.kernels.onednn.primitive import Layout, Primitive, attributes, describe, kept


def layer_norm(x: Array, w: Array | None, b: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """As `reference.layer_norm`."""
    found = _found(x, eps)
    if found is None:
        return reference.layer_norm(x, w, b, eps)
    n, d = x.shape
    y = np.empty((n, d), x.dtype)
    mean, variance = np.empty(n, float32), np.empty(n, float32)
    found.forward.run(np.ascontiguousarray(x), y, mean, variance, _scale(w, d), _shift(b, d))
    return y, mean, variance


def layer_norm_gradients(
    g: Array, x: Array, w: Array | None, mean: Array, variance: Array, eps: float
) -> tuple[Array, Array, Array]:
    """As `reference.layer_norm_gradients`."""
    found = _found(x, eps)
    if found is None:
        return reference.layer_norm_gradients(g, x, w, mean, variance, eps)
    n, d = x.shape
    dx, dw, db = np.empty((n, d), x.dtype), np.empty(d, float32), np.empty(d, float32)
    rows, scale = (np.ascontiguousarray(g), np.ascontiguousarray(x)), _scale(w, d)
    found.backward.run(*rows, mean, variance, scale, scale, dx, dw, db)  # it asks for the shift, too, and uses none
    return dx, dw, db


class Normalization(NamedTuple):
    """The primitives for rows of one length."""

    forward: Primitive
    backward: Primitive


def _found(x: Array, eps: float) -> Normalization | None:
    if x.dtype not in TYPES or not x.size:
        return None
    n, d = x.shape
    return kept(("layer_norm", n, d, x.dtype, eps), lambda: _described(n, d, x.dtype, eps))


def _described(n: int, d: int, dtype: DType, eps: float) -> Normalization | None:
    rows, row, column = Layout.dense((n, d), dtype), Layout.dense((d,), float32), Layout.dense((n,), float32)
    flags = dnn.WITH_SCALE | dnn.WITH_SHIFT
    there = describe(
        "layer_normalization_forward",
        dnn.FORWARD_TRAINING,
        *(rows.handle, rows.handle, column.handle),
        eps,
        flags,
        attributes(),
    )
    if there is None:
        return None
    statistics = (Argument.MEAN, column), (Argument.VARIANCE, column)
    parameters = (Argument.SCALE, row), (Argument.SHIFT, row)
    forward = Primitive(there, ((Argument.SRC, rows), (Argument.DST, rows), *statistics, *parameters))
    back = describe(
        "layer_normalization_backward",
        dnn.BACKWARD,
        *(rows.handle, rows.handle, rows.handle, column.handle),
        eps,
        flags,
        there,
        attributes(),
    )
    if back is None:
        return None
    gradients = (Argument.DIFF_SRC, rows), (Argument.DIFF_SCALE, row), (Argument.DIFF_SHIFT, row)
    arguments = ((Argument.DIFF_DST, rows), (Argument.SRC, rows), *statistics, *parameters, *gradients)
    return Normalization(forward, Primitive(back, arguments))


def _scale(w: Array | None, d: int) -> Array:
    return np.ones(d, float32) if w is None else np.ascontiguousarray(w, float32)


def _shift(b: Array | None, d: int) -> Array:
    return np.zeros(d, float32) if b is None else np.ascontiguousarray(b, float32)
