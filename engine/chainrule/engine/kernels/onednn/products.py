"""Products of matrices by oneDNN, which adds the bias on the way and leaves transposed weights where they are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from chainrule.engine.dtypes import Array, DType, float32
from chainrule.engine.kernels import reference
from chainrule.engine.kernels.geometry import Shape
from chainrule.engine.kernels.onednn.arrays import TYPES
from chainrule.engine.kernels.onednn.library import Argument
from chainrule.engine.kernels.onednn.primitive import Layout, Primitive, attributes, describe, kept

_WORTH = 1 << 20
"""Multiplications from which a call of oneDNN takes less time than one of numpy."""


def mm(a: Array, b: Array, out: Array | None = None) -> Array:
    """As `reference.mm`."""
    y = _product(a, b, None, out)
    return reference.mm(a, b, out) if y is None else y


def linear(x: Array, w: Array, b: Array | None) -> Array:
    """As `reference.linear`."""
    y = _product(x, w.T, b)
    return reference.linear(x, w, b) if y is None else y


def product(a: Array, b: Array, out: Array | None = None) -> Array:
    """a·b in float32, of float32 or bfloat16, written to contiguous `out` if that is given."""
    if out is None:
        out = np.empty((a.shape[0], b.shape[1]), float32)
    if _product(a, b, None, out) is None:
        np.matmul(a.astype(float32, copy=False), b.astype(float32, copy=False), out=out)
    return out


class Sizes(NamedTuple):
    """All that decides which primitive computes a product."""

    a: Shape
    a_steps: Shape
    b: Shape
    b_steps: Shape
    dtype: DType
    result: DType
    with_bias: bool


def _product(a: Array, b: Array, bias: Array | None, out: Array | None = None) -> Array | None:
    """a·b + bias, or None for what is left to numpy."""
    (m, k), n = a.shape, b.shape[1]
    dtype = a.dtype
    if m * k * n < _WORTH or 1 in (m, n) or dtype not in TYPES or b.dtype != dtype:
        return None
    if bias is not None and (bias.dtype != dtype or not bias.flags.c_contiguous):
        return None
    a_steps, b_steps = _steps(a), _steps(b)
    if a_steps is None or b_steps is None:
        return None
    y = np.empty((m, n), dtype) if out is None else out
    sizes = Sizes(a.shape, a_steps, b.shape, b_steps, dtype, y.dtype, bias is not None)
    primitive = kept(sizes, lambda: _described(sizes))
    if primitive is None:
        return None
    primitive.run(a, b, y, *(() if bias is None else (bias,)))
    return y


def _steps(x: Array) -> Shape | None:
    """Elements from one to the next of each dimension, if rows or columns lie side by side without overlapping."""
    size = x.itemsize
    rows, columns = x.strides
    if rows % size or columns % size:
        return None
    rows, columns = rows // size, columns // size
    if (columns == 1 and rows >= x.shape[1]) or (rows == 1 and columns >= x.shape[0]):
        return rows, columns
    return None


def _described(sizes: Sizes) -> Primitive | None:
    a = Layout.of(sizes.a, sizes.dtype, sizes.a_steps)
    b = Layout.of(sizes.b, sizes.dtype, sizes.b_steps)
    bias = Layout.dense((1, sizes.b[1]), sizes.dtype) if sizes.with_bias else None
    y = Layout.dense((sizes.a[0], sizes.b[1]), sizes.result)
    description = describe("matmul", a.handle, b.handle, None if bias is None else bias.handle, y.handle, attributes())
    if description is None:
        return None
    arguments = [(Argument.SRC, a), (Argument.WEIGHTS, b), (Argument.DST, y)]
    if bias is not None:
        arguments.append((Argument.BIAS, bias))
    return Primitive(description, arguments)
