"""Convolution and its two gradients by oneDNN: images channels-last, weights in the layout that it picks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from chainrule.engine.dtypes import Array, DType, float32
from chainrule.engine.kernels import reference
from chainrule.engine.kernels.geometry import ConvGeometry, Shape
from chainrule.engine.kernels.onednn import library as dnn
from chainrule.engine.kernels.onednn import taps
from chainrule.engine.kernels.onednn.arrays import TYPES, channels_last, converted, empty_image, image_layout, reorder
from chainrule.engine.kernels.onednn.library import Argument, Dims, Query
from chainrule.engine.kernels.onednn.primitive import (
    Layout,
    Primitive,
    attributes,
    between,
    describe,
    kept,
    with_post_ops,
)
from chainrule.engine.kernels.reference.convolution import apply_affine


def conv2d(
    x: Array, w: Array, b: Array | None, geometry: ConvGeometry, affine: tuple[Array, Array] | None = None
) -> Array:
    """As `reference.conv2d`."""
    if x.dtype in TYPES and x.size and w.size:
        if taps.pays(x.shape, w.shape, geometry):
            return apply_affine(taps.conv2d(x, w, b, geometry), affine)
        sizes = Sizes(x.shape, w.shape, geometry, x.dtype, w.dtype, b is not None, affine is not None)
        found = kept(("conv2d", sizes), lambda: _forward(sizes))
        if found is not None:
            y = empty_image(sizes.output, x.dtype)
            bias = () if b is None else (np.ascontiguousarray(b, w.dtype),)
            found.primitive.run(channels_last(x), found.packed(w), y, *bias, *(affine or ()))
            return y
    return reference.conv2d(x, w, b, geometry, affine)


def conv2d_input(dy: Array, w: Array, shape: Shape, geometry: ConvGeometry) -> Array:
    """As `reference.conv2d_input`."""
    if dy.dtype in TYPES and dy.size and w.size:
        if taps.pays(shape, w.shape, geometry):
            return taps.conv2d_input(dy, w, shape, geometry)
        sizes = Sizes(shape, w.shape, geometry, dy.dtype, w.dtype)
        found = kept(("conv2d_input", sizes), lambda: _backward_data(sizes))
        if found is not None:
            dx = empty_image(shape, dy.dtype)
            found.primitive.run(channels_last(dy), found.packed(w), dx)
            return dx
    return reference.conv2d_input(dy, w, shape, geometry)


def conv2d_weight(dy: Array, x: Array, shape: Shape, geometry: ConvGeometry, dtype: DType) -> Array:
    """As `reference.conv2d_weight`."""
    if dy.dtype in TYPES and dtype in TYPES and dy.size and x.size:
        if taps.pays(x.shape, shape, geometry):
            return taps.conv2d_weight(dy, x, shape, geometry, dtype)
        sizes = Sizes(x.shape, shape, geometry, dy.dtype, dtype)
        found = kept(("conv2d_weight", sizes), lambda: _backward_weights(sizes))
        if found is not None:
            packed = between(found.weights.size)
            found.primitive.run(channels_last(dy), channels_last(x), packed)
            return found.unpacked(packed)
    return reference.conv2d_weight(dy, x, shape, geometry, dtype)


class Sizes(NamedTuple):
    """All that decides which primitive computes a convolution."""

    input: Shape
    weight: Shape
    geometry: ConvGeometry
    dtype: DType
    """Of images."""
    weight_dtype: DType
    """Of weights as they come, and of their gradient: float32, too, where images are of half precision."""
    with_bias: bool = False
    with_affine: bool = False

    @property
    def output(self) -> Shape:
        """(N, O, OH, OW)"""
        places = self.geometry.places((self.input[2], self.input[3]), (self.weight[2], self.weight[3]))
        return (self.input[0], self.weight[0], *places)

    @property
    def grouped_weight(self) -> Shape:
        """(groups, O / groups, C / groups, KH, KW), or without the first where there is one group."""
        groups = self.geometry.groups
        return self.weight if groups == 1 else (groups, self.weight[0] // groups, *self.weight[1:])


class Convolution:
    """A primitive, and the way of the weights into the layout that it picked.

    Args:
        primitive: of a convolution, or of one of its gradients.
        weights: the layout of its weights, or of the gradient of them.
        sizes: what it was made for.
    """

    __slots__ = ("_pack", "_unpack", "primitive", "sizes", "weights")

    def __init__(self, primitive: Primitive, weights: Layout, sizes: Sizes) -> None:
        self.primitive = primitive
        self.weights = weights
        self.sizes = sizes
        self._pack: Primitive | None = None
        self._unpack: Primitive | None = None

    def packed(self, w: Array) -> Array:
        """The weights (O, C / groups, KH, KW) in the layout of the primitive."""
        if self._pack is None:
            self._pack = reorder(Layout.dense(self.sizes.grouped_weight, self.sizes.dtype), self.weights)
        packed = between(self.weights.size)
        self._pack.run(converted(np.ascontiguousarray(w), self.sizes.dtype), packed)  # at once, it takes twice as long
        return packed

    def unpacked(self, packed: Array) -> Array:
        """The reverse, of a gradient."""
        if self._unpack is None:
            self._unpack = reorder(self.weights, Layout.dense(self.sizes.grouped_weight, self.sizes.weight_dtype))
        w = np.empty(self.sizes.weight, self.sizes.weight_dtype)
        self._unpack.run(packed, w)
        return w


# ---- How they are described; None for what oneDNN does not have, or has slower than numpy ----


def _forward(sizes: Sizes) -> Convolution | None:
    description = _describe(sizes, "forward", dnn.FORWARD_TRAINING)
    if description is None:
        return None
    weights = Layout.chosen(description, Query.WEIGHTS)
    x, y = image_layout(sizes.input, sizes.dtype), image_layout(sizes.output, sizes.dtype)
    arguments = [(Argument.SRC, x), (Argument.WEIGHTS, weights), (Argument.DST, y)]
    if sizes.with_bias:
        arguments.append((Argument.BIAS, _bias(sizes)))
    if sizes.with_affine:
        arguments += [(Argument.POST_OP_0, _channels(sizes)), (Argument.POST_OP_1, _channels(sizes))]
    return Convolution(Primitive(description, arguments), weights, sizes)


def _backward_data(sizes: Sizes) -> Convolution | None:
    description = _describe(sizes, "backward_data")
    if description is None:
        return None
    weights = Layout.chosen(description, Query.WEIGHTS)
    dx, dy = image_layout(sizes.input, sizes.dtype), image_layout(sizes.output, sizes.dtype)
    arguments = [(Argument.DIFF_DST, dy), (Argument.WEIGHTS, weights), (Argument.DIFF_SRC, dx)]
    return Convolution(Primitive(description, arguments), weights, sizes)


def _backward_weights(sizes: Sizes) -> Convolution | None:
    if sizes.dtype != float32 and sizes.input[3] < sizes.geometry.stride[1]:
        return None  # oneDNN 3.2 would read scratch memory that it has not written
    description = _describe(sizes, "backward_weights")
    if description is None:
        return None
    weights = Layout.chosen(description, Query.DIFF_WEIGHTS)
    x, dy = image_layout(sizes.input, sizes.dtype), image_layout(sizes.output, sizes.dtype)
    arguments = [(Argument.DIFF_DST, dy), (Argument.SRC, x), (Argument.DIFF_WEIGHTS, weights)]
    return Convolution(Primitive(description, arguments), weights, sizes)


def _describe(sizes: Sizes, direction: str, *propagation: int) -> int | None:
    x, y = image_layout(sizes.input, sizes.dtype), image_layout(sizes.output, sizes.dtype)
    w = Layout.of(sizes.grouped_weight, sizes.weight_dtype if direction == "backward_weights" else sizes.dtype)
    b = _bias(sizes) if sizes.with_bias else None
    bias = () if direction == "backward_data" else (None if b is None else b.handle,)
    memories = (x.handle, w.handle, *bias, y.handle)
    geometry = sizes.geometry
    windows = (
        Dims(*geometry.stride),
        Dims(*(step - 1 for step in geometry.dilation)),  # the pixels between
        Dims(*geometry.padding),
        Dims(*_behind(sizes)),
    )
    hint: tuple[int, ...] = ()
    if direction != "forward":
        forward = _describe(sizes, "forward", dnn.FORWARD_TRAINING)
        if forward is None:
            return None
        hint = (forward,)
    affine = with_post_ops(dnn.MULTIPLY, dnn.ADD, operand=_channels(sizes)) if sizes.with_affine else None
    settings = attributes() if affine is None else affine.handle
    try:
        return describe(
            f"convolution_{direction}", *propagation, dnn.CONVOLUTION_DIRECT, *memories, *windows, *hint, settings
        )
    finally:
        for description in hint:
            dnn.find().primitive_desc_destroy(description)


def _behind(sizes: Sizes) -> tuple[int, ...]:
    """The padding below and at the right: what the last window reaches; less than nothing where it ends before."""
    geometry, output = sizes.geometry, sizes.output
    return tuple(
        (output[2 + i] - 1) * geometry.stride[i]
        + (sizes.weight[2 + i] - 1) * geometry.dilation[i]
        + 1
        - sizes.input[2 + i]
        - geometry.padding[i]
        for i in (0, 1)
    )


def _bias(sizes: Sizes) -> Layout:
    return Layout.dense((sizes.weight[0],), sizes.weight_dtype)


def _channels(sizes: Sizes) -> Layout:
    """A number for each channel of the output, to broadcast."""
    return Layout.dense((1, sizes.weight[0], 1, 1), float32)
