"""Convolution of images so small that the window mostly lies in the padding: only what meets the image is multiplied.

oneDNN goes through the whole window at every place. On an image of 2×2, a window of 3×3 meets 4 pixels at each place:
one product of matrices for each element of the window, over the places where that meets a pixel, does 4/9 of the work.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from chainrule.engine.dtypes import Array, DType, float32
from chainrule.engine.kernels.geometry import ConvGeometry, Pair, Shape
from chainrule.engine.kernels.onednn.arrays import converted, reorder
from chainrule.engine.kernels.onednn.primitive import Layout, between, kept
from chainrule.engine.kernels.onednn.products import product
from chainrule.engine.kernels.reference.windows import Meeting, channels_first, channels_last, meetings

SMALLEST_WEIGHT = 64 * 64
"""The products of output and input channels from which on a product of matrices outweighs the call."""
LARGEST_SHARE = 0.7
"""How much of the window may meet the image, on the average, for this to be faster; measured."""


@lru_cache(maxsize=1024)
def pays(shape: Shape, weight: Shape, geometry: ConvGeometry) -> bool:
    """Whether of the window, (O, C, KH, KW), little enough meets images of (N, C, H, W) for this to be faster."""
    kernel, size = (weight[2], weight[3]), (shape[2], shape[3])
    if geometry.groups > 1 or kernel == (1, 1) or weight[0] * weight[1] < SMALLEST_WEIGHT:
        return False
    places = geometry.places(size, kernel)
    met = sum(
        _length(meeting.places[1]) * _length(meeting.places[2]) for meeting in _meet(size, places, kernel, geometry)
    )
    return met <= LARGEST_SHARE * places[0] * places[1] * kernel[0] * kernel[1]


def conv2d(x: Array, w: Array, b: Array | None, geometry: ConvGeometry) -> Array:
    """As `reference.conv2d`."""
    n, _, *size = x.shape
    kernel = w.shape[2], w.shape[3]
    places = geometry.places((size[0], size[1]), kernel)
    image, packed = channels_last(x), _packed(w, x.dtype)
    y = np.zeros((n, *places, len(w)), float32)
    for meeting in _meet((size[0], size[1]), places, kernel, geometry):
        part = y[meeting.places]
        part += product(_rows(image[meeting.pixels]), packed[meeting.row, meeting.column].T).reshape(part.shape)
    if b is not None:
        y += b
    return channels_first(y.astype(x.dtype, copy=False))


def conv2d_input(dy: Array, w: Array, shape: Shape, geometry: ConvGeometry) -> Array:
    """As `reference.conv2d_input`."""
    n, channels, height, width = shape
    gradient, packed = channels_last(dy), _packed(w, dy.dtype)
    dx = np.zeros((n, height, width, channels), float32)
    places, kernel = (dy.shape[2], dy.shape[3]), (w.shape[2], w.shape[3])
    for meeting in _meet((height, width), places, kernel, geometry):
        part = dx[meeting.pixels]
        part += product(_rows(gradient[meeting.places]), packed[meeting.row, meeting.column]).reshape(part.shape)
    return channels_first(dx.astype(dy.dtype, copy=False))


def conv2d_weight(dy: Array, x: Array, shape: Shape, geometry: ConvGeometry, dtype: DType) -> Array:
    """As `reference.conv2d_weight`."""
    kh, kw = shape[2:]
    gradient, image = channels_last(dy), channels_last(x)
    packed = _between(shape, float32)
    met = _meet((x.shape[2], x.shape[3]), (dy.shape[2], dy.shape[3]), (kh, kw), geometry)
    if len(met) < kh * kw:
        packed[:] = 0
    for meeting in met:
        rows, columns = _rows(image[meeting.pixels]), _rows(gradient[meeting.places])
        product(columns.T, rows, out=packed[meeting.row, meeting.column])
    dw = np.empty(shape, dtype)
    key = ("taps to weight", shape, dtype)
    kept(key, lambda: reorder(_by_element(shape, float32), Layout.dense(shape, dtype))).run(packed, dw)
    return dw


def _packed(w: Array, dtype: DType) -> Array:
    """(O, C, KH, KW) as (KH, KW, O, C): a matrix for each element of the window."""
    shape = w.shape
    packed = _between(shape, dtype)
    key = ("weight to taps", shape, dtype)
    kept(key, lambda: reorder(Layout.dense(shape, dtype), _by_element(shape, dtype))).run(
        converted(np.ascontiguousarray(w), dtype), packed
    )
    return packed


def _between(shape: Shape, dtype: DType) -> Array:
    """Memory for (KH, KW, O, C), which is free again when this is called the next time."""
    out, channels, kh, kw = shape
    return between(out * channels * kh * kw * dtype.itemsize).view(dtype).reshape(kh, kw, out, channels)


def _by_element(shape: Shape, dtype: DType) -> Layout:
    out, channels, _, kw = shape
    return Layout.of(shape, dtype, (channels, 1, kw * out * channels, out * channels))


def _rows(x: Array) -> Array:
    """(N, H, W, C) as (N·H·W, C)"""
    return x.reshape(-1, x.shape[3])


@lru_cache(maxsize=1024)
def _meet(size: Pair, places: Pair, kernel: Pair, geometry: ConvGeometry) -> tuple[Meeting, ...]:
    return tuple(meetings(size, places, kernel, geometry.stride, geometry.padding, geometry.dilation))


def _length(places: slice) -> int:
    return int(places.stop - places.start)
