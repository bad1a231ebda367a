"""Pooling: one pass over the image for each element of the window."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from chainrule.engine.dtypes import Array, is_floating
from chainrule.engine.kernels.geometry import Pair, PoolGeometry, Shape
from chainrule.engine.kernels.reference.windows import Meeting, channels_first, channels_last, meetings

# ---- The largest element ----


def max_pool2d(x: Array, geometry: PoolGeometry) -> tuple[Array, Array]:
    """The largest of each window, and its number in the window, row by row; the first where there are several.

    The padding is never the largest. NaN is larger than any number, and of several the last is taken, as in PyTorch.
    """
    x = channels_last(x)
    n, height, width, channels = x.shape
    places = geometry.places((height, width))
    best = np.full((n, *places, channels), -np.inf if is_floating(x.dtype) else np.iinfo(x.dtype).min, x.dtype)
    offsets = np.empty(best.shape, np.min_scalar_type(geometry.kernel[0] * geometry.kernel[1] - 1))
    offsets[:] = _first_inside(places, geometry)[:, :, None]
    for meeting in _meetings((height, width), places, geometry):
        candidate, current = x[meeting.pixels], best[meeting.places]
        better = candidate > current
        if is_floating(x.dtype):
            better |= candidate != candidate
        np.maximum(current, candidate, out=current)
        number = offsets.dtype.type(meeting.row * geometry.kernel[1] + meeting.column)
        found = offsets[meeting.places]
        np.maximum(found, better.astype(offsets.dtype) * number, out=found)  # for the numbers grow
    return channels_first(best), channels_first(offsets)


def unpool(y: Array, offsets: Array, shape: Shape, geometry: PoolGeometry) -> Array:
    """Each element of y added to zeros of `shape`, at its place in its window."""
    y, offsets = channels_last(y), channels_last(offsets)
    x = np.zeros((shape[0], shape[2], shape[3], shape[1]), y.dtype)
    for meeting in _meetings((shape[2], shape[3]), (y.shape[1], y.shape[2]), geometry):
        number = meeting.row * geometry.kernel[1] + meeting.column
        target = x[meeting.pixels]
        np.add(target, y[meeting.places], out=target, where=offsets[meeting.places] == number)
    return channels_first(x)


def pick(x: Array, offsets: Array, geometry: PoolGeometry) -> Array:
    """From each window of x the element at the given place."""
    x, offsets = channels_last(x), channels_last(offsets)
    y = np.zeros(offsets.shape, x.dtype)
    for meeting in _meetings((x.shape[1], x.shape[2]), (offsets.shape[1], offsets.shape[2]), geometry):
        number = meeting.row * geometry.kernel[1] + meeting.column
        np.copyto(y[meeting.places], x[meeting.pixels], where=offsets[meeting.places] == number)
    return channels_first(y)


def _first_inside(places: Pair, geometry: PoolGeometry) -> Array:
    """The number of the first element of each window that lies in the image: (OH, OW)."""
    rows, columns = (
        np.clip(-((np.arange(places[i]) * geometry.stride[i] - geometry.padding[i]) // geometry.dilation[i]), 0, None)
        for i in (0, 1)
    )
    return rows[:, None] * geometry.kernel[1] + columns


# ---- The average ----


def avg_pool2d(x: Array, geometry: PoolGeometry) -> Array:
    """The average of each window."""
    x = channels_last(x)
    size = x.shape[1], x.shape[2]
    places = geometry.places(size)
    y = np.zeros((len(x), *places, x.shape[3]), x.dtype)
    for meeting in _meetings(size, places, geometry):
        y[meeting.places] += x[meeting.pixels]
    divisors = _divisors(size, places, geometry)
    if is_floating(x.dtype):
        y /= divisors.astype(x.dtype)
    else:
        y = (np.abs(y) // np.abs(divisors) * np.sign(y) * np.sign(divisors)).astype(x.dtype)  # rounds to zero
    return channels_first(y)


def avg_unpool(y: Array, shape: Shape, geometry: PoolGeometry) -> Array:
    """Each element of y spread evenly over its window."""
    y = channels_last(y)
    size, places = (shape[2], shape[3]), (y.shape[1], y.shape[2])
    part = y / _divisors(size, places, geometry).astype(y.dtype)
    x = np.zeros((shape[0], *size, shape[1]), y.dtype)
    for meeting in _meetings(size, places, geometry):
        x[meeting.pixels] += part[meeting.places]
    return channels_first(x)


def _divisors(size: Pair, places: Pair, geometry: PoolGeometry) -> Array:
    """By what each window is divided, to broadcast over (N, OH, OW, C)."""
    if geometry.divisor is not None:
        return np.asarray(geometry.divisor)
    lengths = []
    for i in (0, 1):
        start = np.arange(places[i]) * geometry.stride[i] - geometry.padding[i]
        stop = np.minimum(start + geometry.kernel[i], size[i] + geometry.padding[i])
        if not geometry.count_include_pad:
            start, stop = np.maximum(start, 0), np.minimum(stop, size[i])
        lengths.append(stop - start)
    return lengths[0][:, None, None] * lengths[1][:, None]


def _meetings(size: Pair, places: Pair, geometry: PoolGeometry) -> Iterator[Meeting]:
    return meetings(size, places, geometry.kernel, geometry.stride, geometry.padding, geometry.dilation)
