"""Pooling by oneDNN: the places of the largest come out as `reference` gives them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from chainrule.engine.dtypes import Array, DType, float32, uint8
from chainrule.engine.kernels import reference
from chainrule.engine.kernels.geometry import PoolGeometry, Shape
from chainrule.engine.kernels.onednn import library as dnn
from chainrule.engine.kernels.onednn.arrays import TYPES, channels_last, empty_image, image_layout
from chainrule.engine.kernels.onednn.library import Argument, Dims, Query
from chainrule.engine.kernels.onednn.primitive import Layout, Primitive, attributes, describe, kept


def max_pool2d(x: Array, geometry: PoolGeometry) -> tuple[Array, Array]:
    """As `reference.max_pool2d`, which does it where oneDNN would not see what there is: no number, nothing but −∞."""
    found = _found(x.dtype, x.shape, geometry, dnn.POOLING_MAX)
    if found is None or not _has_numbers_only(x):
        return reference.max_pool2d(x, geometry)
    y, offsets = empty_image(found.sizes.output, x.dtype), empty_image(found.sizes.output, uint8)
    found.forward.run(channels_last(x), y, offsets)
    return reference.max_pool2d(x, geometry) if _holds_lowest(y) else (y, offsets)


def unpool(y: Array, offsets: Array, shape: Shape, geometry: PoolGeometry) -> Array:
    """As `reference.unpool`."""
    found = _found(y.dtype, shape, geometry, dnn.POOLING_MAX) if offsets.dtype == uint8 else None
    if found is None:
        return reference.unpool(y, offsets, shape, geometry)
    x = empty_image(shape, y.dtype)
    found.backward.run(channels_last(y), x, channels_last(offsets))
    return x


def avg_pool2d(x: Array, geometry: PoolGeometry) -> Array:
    """As `reference.avg_pool2d`."""
    found = _found(x.dtype, x.shape, geometry, _average(geometry))
    if found is None:
        return reference.avg_pool2d(x, geometry)
    y = empty_image(found.sizes.output, x.dtype)
    found.forward.run(channels_last(x), y)
    return y


def avg_unpool(y: Array, shape: Shape, geometry: PoolGeometry) -> Array:
    """As `reference.avg_unpool`."""
    found = _found(y.dtype, shape, geometry, _average(geometry))
    if found is None:
        return reference.avg_unpool(y, shape, geometry)
    x = empty_image(shape, y.dtype)
    found.backward.run(channels_last(y), x)
    return x


class Sizes(NamedTuple):
    """All that decides which primitives pool."""

    input: Shape
    geometry: PoolGeometry
    dtype: DType
    algorithm: int

    @property
    def output(self) -> Shape:
        """(N, C, OH, OW)"""
        return (*self.input[:2], *self.geometry.places((self.input[2], self.input[3])))


class Pooling:
    """The primitives of one set of sizes; where the largest lay is written to, and read from, a workspace."""

    __slots__ = ("backward", "forward", "sizes")

    def __init__(self, sizes: Sizes, forward: int, backward: int) -> None:
        self.sizes = sizes
        x, y = image_layout(sizes.input, sizes.dtype), image_layout(sizes.output, sizes.dtype)
        places = (
            ((Argument.WORKSPACE, image_layout(sizes.output, uint8)),) if sizes.algorithm == dnn.POOLING_MAX else ()
        )
        self.forward = Primitive(forward, ((Argument.SRC, x), (Argument.DST, y), *places))
        self.backward = Primitive(backward, ((Argument.DIFF_DST, y), (Argument.DIFF_SRC, x), *places))


def _found(dtype: DType, shape: Shape, geometry: PoolGeometry, algorithm: int | None) -> Pooling | None:
    if algorithm is None or dtype not in TYPES or 0 in shape:
        return None
    sizes = Sizes(shape, geometry, dtype, algorithm)
    return kept(("pooling", sizes), lambda: _described(sizes))


def _described(sizes: Sizes) -> Pooling | None:
    geometry, (_, _, *size), (_, _, *places) = sizes.geometry, sizes.input, sizes.output
    if 0 in places or geometry.kernel[0] * geometry.kernel[1] > np.iinfo(uint8).max:
        return None
    behind = [
        (places[i] - 1) * geometry.stride[i] + (geometry.kernel[i] - 1) * geometry.dilation[i] + 1 - size[i]
        - geometry.padding[i]
        for i in (0, 1)
    ]  # fmt: skip
    windows = (
        Dims(*geometry.stride),
        Dims(*geometry.kernel),
        Dims(*(step - 1 for step in geometry.dilation)),
        Dims(*geometry.padding),
        Dims(*behind),
    )
    x, y = image_layout(sizes.input, sizes.dtype), image_layout(sizes.output, sizes.dtype)
    images = (x.handle, y.handle)
    forward = describe("pooling_forward", dnn.FORWARD_TRAINING, sizes.algorithm, *images, *windows, attributes())
    if forward is None:
        return None
    library = dnn.find()
    places_as_ours = sizes.algorithm != dnn.POOLING_MAX or (
        Layout.chosen(forward, Query.WORKSPACE) == image_layout(sizes.output, uint8)
    )
    backward = None
    if places_as_ours:
        backward = describe("pooling_backward", sizes.algorithm, *images, *windows, forward, attributes())
    if backward is None:
        library.primitive_desc_destroy(forward)
        return None
    return Pooling(sizes, forward, backward)


def _average(geometry: PoolGeometry) -> int | None:
    """How oneDNN averages in this way, if it does."""
    if geometry.divisor is not None or geometry.ceil_mode:
        return None
    return dnn.POOLING_AVERAGE_PADDED if geometry.count_include_pad else dnn.POOLING_AVERAGE_INSIDE


def _has_numbers_only(x: Array) -> bool:
    """Whether no element is NaN, of which the largest is one."""
    if x.dtype == float32:
        return bool(x.max() == x.max())
    return bool(x.view(np.int16).max() <= 0x7F80 and x.view(np.uint16).max() <= 0xFF80)  # ∞ and −∞


def _holds_lowest(y: Array) -> bool:
    """Whether an element is the lowest that is finite, with which oneDNN begins: it is not less where all is −∞."""
    if y.dtype == float32:
        return bool(y.min() == np.finfo(np.float32).min)
    return bool(y.view(np.uint16).max() >= 0xFF7F)  # −∞ is what it is rounded to
