"""Arrays as oneDNN takes them: of which types, and images with the channels of a pixel side by side."""

from __future__ import annotations

import numpy as np

from chainrule.engine.dtypes import Array, DType, bfloat16, float32
from chainrule.engine.kernels.geometry import Shape
from chainrule.engine.kernels.onednn import library as dnn
from chainrule.engine.kernels.onednn.library import Argument
from chainrule.engine.kernels.onednn.primitive import Layout, Primitive, aligned, attributes, between, engine, kept

TYPES = (float32, bfloat16)


def empty_image(shape: Shape, dtype: DType) -> Array:
    """(N, C, H, W) whose memory is (N, H, W, C)."""
    n, c, h, w = shape
    pixels = aligned(n * c * h * w * dtype.itemsize).view(dtype)
    return pixels.reshape(n, h, w, c).transpose(0, 3, 1, 2)


def image_layout(shape: Shape, dtype: DType) -> Layout:
    """The layout of `empty_image`."""
    _, c, h, w = shape
    return Layout.of(shape, dtype, (h * w * c, 1, w * c, c))


def channels_last(x: Array) -> Array:
    """(N, C, H, W) with memory (N, H, W, C): x itself, or a copy."""
    if x.transpose(0, 2, 3, 1).flags.c_contiguous:
        return x
    if not x.flags.c_contiguous:
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    y = empty_image(x.shape, x.dtype)
    key = ("channels_last", x.shape, x.dtype)
    kept(key, lambda: reorder(Layout.dense(x.shape, x.dtype), image_layout(x.shape, x.dtype))).run(x, y)
    return y


def in_memory_of(y: Array, x: Array) -> Array:
    """x, or a copy of it, that lies in memory as y does, which has the same shape and leaves no gaps."""
    if x.strides == y.strides:
        return x
    copy = np.empty_like(y, dtype=x.dtype)
    copy[...] = x
    return copy


def converted(x: Array, dtype: DType) -> Array:
    """Contiguous x in another of `TYPES`: x itself, or a copy, which the next one overwrites."""
    if x.dtype == dtype:
        return x
    y = between(x.size * dtype.itemsize, 1).view(dtype).reshape(x.shape)
    size, source = (x.size,), x.dtype
    kept(
        ("converted", size, source, dtype), lambda: reorder(Layout.dense(size, source), Layout.dense(size, dtype))
    ).run(x, y)
    return y


def reorder(source: Layout, target: Layout) -> Primitive:
    """A copy from one layout to another; of another element type, too."""
    library = dnn.find()
    description = library.make(
        "reorder_primitive_desc_create", source.handle, engine(), target.handle, engine(), attributes()
    )
    return Primitive(description, [(Argument.SRC, source), (Argument.DST, target)])
