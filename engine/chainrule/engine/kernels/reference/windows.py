"""Where a window meets the image: places, slices and margins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from chainrule.engine.dtypes import Array
from chainrule.engine.kernels.geometry import Pair


class Meeting(NamedTuple):
    """One element of the window, and for all the places where it lies in the image: which they are, and on what."""

    row: int
    column: int
    """Of the element in the window."""
    places: tuple[slice, slice, slice]
    """Of the output (N, OH, OW, C)."""
    pixels: tuple[slice, slice, slice]
    """Of the image (N, H, W, C)."""


def meetings(size: Pair, places: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Iterator[Meeting]:
    """The elements of the window row by row; those that never lie in the image are left out."""
    rows, columns = (
        [_meeting(size[i], places[i], k * dilation[i] - padding[i], stride[i]) for k in range(kernel[i])]
        for i in (0, 1)
    )
    for k, (above, on) in enumerate(rows):
        for m, (left, at) in enumerate(columns):
            if on.start < on.stop and at.start < at.stop:
                yield Meeting(k, m, (slice(None), above, left), (slice(None), on, at))


def _meeting(size: int, places: int, offset: int, stride: int) -> tuple[slice, slice]:
    """The places i with 0 ≤ i·stride + offset < size, and those pixels."""
    first = max(0, -(offset // stride))  # ⌈−offset / stride⌉
    last = min(places - 1, (size - 1 - offset) // stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    return slice(first, last + 1), slice(first * stride + offset, last * stride + offset + 1, stride)


def channels_last(x: Array) -> Array:
    """(N, C, H, W) as (N, H, W, C), without copying."""
    return x.transpose(0, 2, 3, 1)


def channels_first(x: Array) -> Array:
    """(N, H, W, C) as (N, C, H, W), without copying."""
    return x.transpose(0, 3, 1, 2)


def with_margins(x: Array, before: Pair, size: Pair) -> Array:
    """(N, H, W, C) in contiguous memory among zeros, `size` large; a negative margin cuts off. Copies where it must."""
    if before == (0, 0) and x.shape[1:3] == size:
        return np.ascontiguousarray(x)
    y = np.zeros((len(x), *size, x.shape[3]), x.dtype)
    inner, outer = zip(*(_overlap(x.shape[1 + i], before[i], size[i]) for i in (0, 1)), strict=True)
    y[:, *outer] = x[:, *inner]
    return y


def _overlap(size: int, before: int, wanted: int) -> tuple[slice, slice]:
    """Which of `size` elements find room in `wanted`, the first of them at `before`, and where."""
    first, last = max(0, -before), min(size, wanted - before)
    last = max(first, last)
    return slice(first, last), slice(first + before, last + before)
