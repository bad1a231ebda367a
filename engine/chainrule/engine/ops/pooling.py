"""Pooling: the largest or the average of each window."""

# mypy: disable-error-code=has-type
# A formula may name operations declared further down.

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from chainrule.engine import kernels
from chainrule.engine.dtypes import Array, is_floating
from chainrule.engine.kernels.geometry import Pair, PoolGeometry
from chainrule.engine.ops.op import op
from chainrule.engine.ops.shape import gather, reshape, scatter

Shape = tuple[int, ...]

# ---- Windows of one size ----


@op(
    "MaxPool2DWithIndices",
    native=True,
    saves=("offsets",),
    x=lambda g, x_shape, offsets, geometry: unpool(g, offsets=offsets, shape=x_shape, geometry=geometry),
)
def max_pool2d(x: Any, *, geometry: PoolGeometry, found: tuple[Array, Array] | None = None) -> Any:
    """The largest of each window, with its place in it; of several the first, row by row, as in PyTorch.

    Args:
        found: what `kernels.max_pool2d` makes of `x`, where that is known.
    """
    y, offsets = found or kernels.max_pool2d(x, geometry)
    return y, {"offsets": offsets}


@op("MaxUnpool2D", native=True, x=lambda g, offsets, geometry: pick(g, offsets=offsets, geometry=geometry))
def unpool(x: Any, *, offsets: Array, shape: Shape, geometry: PoolGeometry) -> Any:
    """Zeros of `shape`, to which each element is added at its place in its window."""
    return kernels.unpool(x, offsets, shape, geometry)


@op(
    "PickFromWindows",
    native=True,
    x=lambda g, x_shape, offsets, geometry: unpool(g, offsets=offsets, shape=x_shape, geometry=geometry),
)
def pick(x: Any, *, offsets: Array, geometry: PoolGeometry) -> Any:
    """From each window the element at the given place."""
    return kernels.pick(x, offsets, geometry)


@op("AvgPool2D", native=True, x=lambda g, x_shape, geometry: avg_unpool(g, shape=x_shape, geometry=geometry))
def avg_pool2d(x: Any, *, geometry: PoolGeometry) -> Any:
    """The average of each window."""
    return kernels.avg_pool2d(x, geometry)


@op("AvgUnpool2D", native=True, x=lambda g, geometry: avg_pool2d(g, geometry=geometry))
def avg_unpool(x: Any, *, shape: Shape, geometry: PoolGeometry) -> Any:
    """The gradient of avg_pool2d: each element spread evenly over its window."""
    return kernels.avg_unpool(x, shape, geometry)


def plane_indices(offsets: Array, width: int, geometry: PoolGeometry) -> Array:
    """Places in windows as places in the image, counted row by row: (N, C, OH, OW) in int64."""
    rows, columns = (np.arange(offsets.shape[2 + i]) * geometry.stride[i] - geometry.padding[i] for i in (0, 1))
    k, m = np.divmod(offsets.astype(np.int64), geometry.kernel[1])
    indices = (rows[:, None] + k * geometry.dilation[0]) * width + columns + m * geometry.dilation[1]
    return np.ascontiguousarray(indices)


# ---- As many windows as are asked for ----


def _spans(size: int, places: int) -> list[tuple[int, int]]:
    """Where each window begins and ends: ⌊i · size / places⌋, ⌈(i + 1) · size / places⌉."""
    return [(i * size // places, -(-(i + 1) * size // places)) for i in range(places)]


@op("AdaptiveAvgPool2D", x=lambda g, x_shape: adaptive_avg_unpool(g, size=x_shape[2:]))
def adaptive_avg_pool2d(x: Any, *, size: Pair) -> Any:
    """The averages of size[0] × size[1] windows that cover the image."""
    for axis, places in zip((2, 3), size, strict=True):
        y = np.empty((*x.shape[:axis], places, *x.shape[axis + 1 :]), x.dtype)
        for i, (start, stop) in enumerate(_spans(x.shape[axis], places)):
            np.mean(_at(x, axis, slice(start, stop)), axis=axis, out=_at(y, axis, i))
        x = y
    return x


@op("AdaptiveAvgUnpool2D", x=lambda g, x_shape: adaptive_avg_pool2d(g, size=x_shape[2:]))
def adaptive_avg_unpool(x: Any, *, size: Pair) -> Any:
    """The gradient of adaptive_avg_pool2d: each element spread evenly over its window of an image of that size."""
    for axis, length in zip((2, 3), size, strict=True):
        y = np.zeros((*x.shape[:axis], length, *x.shape[axis + 1 :]), x.dtype)
        for i, (start, stop) in enumerate(_spans(length, x.shape[axis])):
            _at(y, axis, slice(start, stop))[...] += _at(x, axis, slice(i, i + 1)) / x.dtype.type(stop - start)
        x = y
    return x


def _at(x: Array, axis: int, index: int | slice) -> Array:
    part: Array = x[(slice(None),) * axis + (index, ...)]
    return part


@op("AdaptiveMaxPool2D", saves=("indices",), x=lambda g, x_shape, indices: plane_add(g, indices, x_shape))
def adaptive_max_pool2d(x: Any, *, size: Pair, found: tuple[Array, Array] | None = None) -> Any:
    """The largest elements of size[0] × size[1] windows that cover the image, with their places in it.

    Args:
        found: what `adaptive_maxima` makes of `x`, where that is known.
    """
    y, indices = found or adaptive_maxima(x, size)
    return y, {"indices": indices}


def adaptive_maxima(x: Array, size: Pair) -> tuple[Array, Array]:
    """The largest of each window, and its place in the image, counted row by row; ties and NaN as in max_pool2d."""
    width = x.shape[3]
    best: Array | None = None
    indices: Array | None = None
    for rows, columns in _window_elements((x.shape[2], width), size):
        candidate = x[:, :, rows[:, None], columns]
        index = rows[:, None] * width + columns
        if best is None or indices is None:
            best, indices = candidate, np.empty(candidate.shape, np.int64)
            indices[:] = index
            continue
        better = candidate > best
        if is_floating(x.dtype):
            better |= candidate != candidate
        np.copyto(best, candidate, where=better)
        np.copyto(indices, index, where=better)
    if best is None or indices is None:
        return np.empty((*x.shape[:2], *size), x.dtype), np.empty((*x.shape[:2], *size), np.int64)
    return best, indices


def _window_elements(size: Pair, places: Pair) -> Iterator[tuple[Array, Array]]:
    """One element of every window after another; of a smaller window the last comes again instead."""
    spans = [np.asarray(_spans(size[i], places[i])).reshape(-1, 2) for i in (0, 1)]
    lengths = [int((span[:, 1] - span[:, 0]).max(initial=0)) for span in spans]
    for k in range(lengths[0]):
        for m in range(lengths[1]):
            rows, columns = (
                np.minimum(span[:, 0] + step, span[:, 1] - 1) for span, step in zip(spans, (k, m), strict=True)
            )
            yield rows, columns


# ---- Places in the image ----


@op("MaxUnpool2D", native=True, x=lambda g, indices: plane_take(g, indices))
def max_unpool2d(x: Any, *, indices: Array, size: Pair) -> Any:
    """Zeros (N, C, *size), with each element at its place in the image; where several meet, the last stays."""
    y = np.zeros((*x.shape[:2], math.prod(size)), x.dtype)
    np.put_along_axis(y, _flat(indices), x.reshape(_flat(indices).shape), axis=2)
    return y.reshape(*x.shape[:2], *size)


def plane_take(x: Any, indices: Array) -> Any:
    """From the images (N, C, H, W) the elements at the places (N, C, OH, OW)."""
    planes = reshape(x, shape=(*x.shape[:2], math.prod(x.shape[2:])))
    return reshape(gather(planes, dim=2, index=_flat(indices)), shape=indices.shape)


def plane_add(x: Any, indices: Array, shape: Shape) -> Any:
    """Zeros of `shape`, to which the elements are added at their places."""
    rows = reshape(x, shape=_flat(indices).shape)
    planes = scatter(rows, dim=2, index=_flat(indices), shape=(*shape[:2], math.prod(shape[2:])))
    return reshape(planes, shape=shape)


def _flat(indices: Array) -> Array:
    return indices.reshape(*indices.shape[:2], math.prod(indices.shape[2:]))
