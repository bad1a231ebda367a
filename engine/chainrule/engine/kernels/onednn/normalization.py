"""Normalisation of batches by oneDNN: statistics and result in one call, all gradients in another."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from chainrule.engine.dtypes import Array, DType, float32
from chainrule.engine.kernels import reference
from chainrule.engine.kernels.geometry import Shape
from chainrule.engine.kernels.onednn import library as dnn
from chainrule.engine.kernels.onednn.arrays import TYPES, channels_last, empty_image, image_layout
from chainrule.engine.kernels.onednn.library import Argument, Query
from chainrule.engine.kernels.onednn.primitive import Layout, Primitive, attributes, describe, kept


def batch_norm(x: Array, w: Array | None, b: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """As `reference.batch_norm`."""
    found = _found(x, eps, dnn.WITH_SCALE | dnn.WITH_SHIFT)
    if found is None:
        return reference.batch_norm(x, w, b, eps)
    y = empty_image(x.shape, x.dtype)
    mean, variance = np.empty(x.shape[1], float32), np.empty(x.shape[1], float32)
    found.forward.run(channels_last(x), y, mean, variance, _scale(w, x), _shift(b, x))
    return y, mean, variance


def batch_norm_relu(x: Array, w: Array | None, b: Array | None, eps: float) -> tuple[Array, Array, Array, Array]:
    """As `reference.batch_norm_relu`, which does it where a channel has no variance: oneDNN's relu makes 0 of that."""
    found = _found(x, eps, dnn.WITH_SCALE | dnn.WITH_SHIFT | dnn.WITH_RELU)
    if found is None:
        return reference.batch_norm_relu(x, w, b, eps)
    y = empty_image(x.shape, x.dtype)
    mean, variance = np.empty(x.shape[1], float32), np.empty(x.shape[1], float32)
    scale, shift = _scale(w, x), _shift(b, x)
    mask = np.empty(found.mask.size, np.uint8)
    found.forward.run(channels_last(x), y, mean, variance, scale, shift, mask)
    if not np.isfinite(variance.sum() + scale.sum() + shift.sum()):
        return reference.batch_norm_relu(x, w, b, eps)
    return y, mean, variance, mask


def batch_norm_fixed(x: Array, w: Array | None, b: Array | None, mean: Array, variance: Array, eps: float) -> Array:
    """As `reference.batch_norm_fixed`."""
    found = _found(x, eps, dnn.WITH_SCALE | dnn.WITH_SHIFT | dnn.GIVEN_STATISTICS)
    if found is None:
        return reference.batch_norm_fixed(x, w, b, mean, variance, eps)
    y = empty_image(x.shape, x.dtype)
    found.forward.run(channels_last(x), y, _dense(mean), _dense(variance), _scale(w, x), _shift(b, x))
    return y


def batch_norm_gradients(
    g: Array, x: Array, w: Array | None, mean: Array, variance: Array, eps: float, mask: Array | None = None
) -> tuple[Array, Array, Array]:
    """As `reference.batch_norm_gradients`."""
    fused = mask is not None and mask.ndim == 1  # else it is that of `reference`
    found = _found(x, eps, dnn.WITH_SCALE | dnn.WITH_SHIFT | (dnn.WITH_RELU if fused else 0))
    if found is None or (mask is not None and not fused):
        return reference.batch_norm_gradients(g, x, w, mean, variance, eps, mask)
    dx = empty_image(x.shape, x.dtype)
    dw, db = np.empty(x.shape[1], float32), np.empty(x.shape[1], float32)
    masks = () if mask is None else (mask,)
    images, statistics = (channels_last(g), channels_last(x)), (_dense(mean), _dense(variance))
    found.backward.run(*images, *statistics, _scale(w, x), dx, dw, db, *masks)
    return dx, dw, db


class Sizes(NamedTuple):
    """All that decides which primitives normalise a batch."""

    shape: Shape
    dtype: DType
    eps: float
    flags: int


class Normalization:
    """The primitives of one set of sizes.

    Args:
        sizes: the images and the settings.
        description: of the forward; owned from now on.
        back: of the backward, likewise.
    """

    __slots__ = ("backward", "forward", "mask")

    def __init__(self, sizes: Sizes, description: int, back: int) -> None:
        image, channel = image_layout(sizes.shape, sizes.dtype), Layout.dense((sizes.shape[1],), float32)
        self.mask = Layout.chosen(description, Query.WORKSPACE)
        masks = ((Argument.WORKSPACE, self.mask),) if sizes.flags & dnn.WITH_RELU else ()
        self.forward = Primitive(
            description,
            (
                (Argument.SRC, image),
                (Argument.DST, image),
                (Argument.MEAN, channel),
                (Argument.VARIANCE, channel),
                (Argument.SCALE, channel),
                (Argument.SHIFT, channel),
                *masks,
            ),
        )
        self.backward = Primitive(
            back,
            (
                (Argument.DIFF_DST, image),
                (Argument.SRC, image),
                (Argument.MEAN, channel),
                (Argument.VARIANCE, channel),
                (Argument.SCALE, channel),
                (Argument.DIFF_SRC, image),
                (Argument.DIFF_SCALE, channel),
                (Argument.DIFF_SHIFT, channel),
                *masks,
            ),
        )


def _found(x: Array, eps: float, flags: int) -> Normalization | None:
    if x.dtype not in TYPES or not x.size:
        return None
    sizes = Sizes(x.shape, x.dtype, eps, flags)
    return kept(("batch_norm", sizes), lambda: _described(sizes))


def _described(sizes: Sizes) -> Normalization | None:
    image = image_layout(sizes.shape, sizes.dtype)
    description = describe(
        "batch_normalization_forward",
        dnn.FORWARD_TRAINING,
        image.handle,
        image.handle,
        sizes.eps,
        sizes.flags,
        attributes(),
    )
    if description is None:
        return None
    images = (image.handle,) * 3
    back = describe(
        "batch_normalization_backward", dnn.BACKWARD, *images, sizes.eps, sizes.flags, description, attributes()
    )
    if back is None:
        dnn.find().primitive_desc_destroy(description)
        return None
    return Normalization(sizes, description, back)


def _scale(w: Array | None, x: Array) -> Array:
    return np.ones(x.shape[1], float32) if w is None else _dense(w)


def _shift(b: Array | None, x: Array) -> Array:
    return np.zeros(x.shape[1], float32) if b is None else _dense(b)


def _dense(v: Array) -> Array:
    return np.ascontiguousarray(v, float32)
