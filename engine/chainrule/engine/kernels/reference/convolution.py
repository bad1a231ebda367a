"""Convolution and its two gradients: windows gathered into rows, then one product of matrices.

A group is a batch of that product. Where each group has a single channel there is nothing to multiply as matrices;
those are added up one element of the window after another.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import as_strided

from chainrule.engine.dtypes import Array, DType, widened
from chainrule.engine.kernels.geometry import ConvGeometry, Pair, Shape
from chainrule.engine.kernels.reference.windows import Meeting, channels_first, channels_last, meetings, with_margins

GATHERED_BYTES = 8 << 20
"""How much of the gathered windows is held at a time: little enough that the allocator hands the same memory out again,
and that much of it is still in the cache when it is multiplied."""
DEPTHWISE_BYTES = 1 << 20
"""Likewise of the images of a convolution of single channels."""


def conv2d(
    x: Array, w: Array, b: Array | None, geometry: ConvGeometry, affine: tuple[Array, Array] | None = None
) -> Array:
    """y[n,o,i,j] = b[o] + Σ_{c,k,l} x[n, c, i·s + k·d − p, j·s + l·d − p] · w[o,c,k,l]; then `apply_affine`."""
    kernel = w.shape[2], w.shape[3]
    places = geometry.places((x.shape[2], x.shape[3]), kernel)
    if _is_depthwise(w, geometry):
        y = _depthwise(channels_last(x), w, places, geometry)
    else:
        padded = _padded(x, kernel, places, geometry)
        y = _windows_times(padded, w, places, geometry)
    if b is not None:
        y += b
    return apply_affine(channels_first(y), affine)


def apply_affine(y: Array, affine: tuple[Array, Array] | None) -> Array:
    """scale[o] · y + shift[o] for each channel of y (N, O, H, W), in place."""
    if affine is not None:
        scale, shift = affine
        y *= scale.reshape(-1, 1, 1)
        y += shift.reshape(-1, 1, 1)
    return y


def conv2d_input(dy: Array, w: Array, shape: Shape, geometry: ConvGeometry) -> Array:
    """dx[n, c, i·s + k·d − p, j·s + l·d − p] += dy[n,o,i,j] · w[o,c,k,l]."""
    dy = channels_last(dy)
    if _is_depthwise(w, geometry):
        return channels_first(_depthwise_input(dy, w, shape, geometry))
    if geometry.stride == (1, 1) and (w.shape[2:] == (1, 1) or len(w) <= 2 * shape[1]):
        return channels_first(_flipped(dy, w, shape, geometry))
    return channels_first(_scattered(dy, w, shape, geometry))


def conv2d_weight(dy: Array, x: Array, shape: Shape, geometry: ConvGeometry, dtype: DType) -> Array:
    """dw[o,c,k,l] = Σ_{n,i,j} dy[n,o,i,j] · x[n, c, i·s + k·d − p, j·s + l·d − p], in the weight's dtype."""
    return _weight_gradient(widened(dy), widened(x), shape, geometry).astype(dtype, copy=False)


def _weight_gradient(dy: Array, x: Array, shape: Shape, geometry: ConvGeometry) -> Array:
    out, per_group, kh, kw = shape
    groups = geometry.groups
    places = dy.shape[2], dy.shape[3]
    dy = np.ascontiguousarray(channels_last(dy))
    if per_group == 1 and groups > 1:
        return _depthwise_weight(dy, channels_last(x), shape, geometry)
    padded = _padded(x, (kh, kw), places, geometry)
    dw = np.zeros((groups, out // groups, kh * kw * per_group), dy.dtype)
    for block, rows in _rows(padded, (kh, kw), places, geometry):
        columns = dy[block].reshape(-1, groups, out // groups).transpose(1, 2, 0)  # (G, O / G, N·OH·OW)
        dw += np.matmul(columns, rows)
    return np.ascontiguousarray(dw.reshape(out, kh, kw, per_group).transpose(0, 3, 1, 2))


# ---- Products of gathered windows ----


def _windows_times(padded: Array, w: Array, places: Pair, geometry: ConvGeometry) -> Array:
    """The windows of (N, H, W, C) times the weight (O, C / G, KH, KW): (N, OH, OW, O)."""
    out, per_group, kh, kw = w.shape
    groups = geometry.groups
    y = np.empty((len(padded), *places, out), padded.dtype)
    matrices = w.reshape(groups, out // groups, per_group, kh, kw).transpose(0, 3, 4, 2, 1)
    matrices = matrices.reshape(groups, kh * kw * per_group, out // groups)
    for block, rows in _rows(padded, (kh, kw), places, geometry):
        np.matmul(rows, matrices, out=_by_group(y[block], groups))
    return y


def _rows(padded: Array, kernel: Pair, places: Pair, geometry: ConvGeometry) -> Iterator[tuple[slice, Array]]:
    """Blocks of images, and the windows of each block as rows: (G, N·OH·OW, KH·KW·C / G).

    The memory of the rows is overwritten by the next block.
    """
    n, _, _, channels = padded.shape
    groups = geometry.groups
    if kernel == (1, 1) and geometry.stride == (1, 1):
        yield slice(None), _by_group(padded, groups)
        return
    sn, sh, sw, sc = padded.strides
    per_group = channels // groups
    windows = as_strided(
        padded,
        (groups, n, *places, *kernel, per_group),
        (
            sc * per_group,
            sn,
            sh * geometry.stride[0],
            sw * geometry.stride[1],
            sh * geometry.dilation[0],
            sw * geometry.dilation[1],
            sc,
        ),
        writeable=False,
    )
    image_size = places[0] * places[1] * kernel[0] * kernel[1] * channels
    length = min(n, max(1, GATHERED_BYTES // max(1, image_size * padded.itemsize)))
    buffer = np.empty(length * image_size, padded.dtype)
    for start in range(0, n, max(1, length)):
        block = windows[:, start : start + length]
        rows = buffer[: block.size].reshape(block.shape)
        np.copyto(rows, block)
        height = block.shape[1] * places[0] * places[1]
        yield slice(start, start + length), rows.reshape(groups, height, kernel[0] * kernel[1] * per_group)


def _by_group(x: Array, groups: int) -> Array:
    """(N, H, W, C) in contiguous memory as (G, N·H·W, C / G), without copying."""
    return x.reshape(x.shape[0] * x.shape[1] * x.shape[2], groups, x.shape[3] // groups).transpose(1, 0, 2)


def _padded(x: Array, kernel: Pair, places: Pair, geometry: ConvGeometry) -> Array:
    """x (N, C, H, W) as (N, H, W, C), with the margins; the remainder that no window reaches may be there or not."""
    if geometry.padding == (0, 0):
        return np.ascontiguousarray(channels_last(x))
    reach = [(places[i] - 1) * geometry.stride[i] + (kernel[i] - 1) * geometry.dilation[i] + 1 for i in (0, 1)]
    return with_margins(channels_last(x), geometry.padding, (reach[0], reach[1]))


# ---- The gradient of the input ----


def _flipped(dy: Array, w: Array, shape: Shape, geometry: ConvGeometry) -> Array:
    """With stride 1: the convolution of dy with the flipped weight, of which input and output channels are swapped."""
    out, per_group, kh, kw = w.shape
    _, channels, height, width = shape
    dilation = geometry.dilation
    swapped = w.reshape(geometry.groups, out // geometry.groups, per_group, kh, kw)[..., ::-1, ::-1]
    swapped = swapped.swapaxes(1, 2).reshape(channels, out // geometry.groups, kh, kw)
    extent = dilation[0] * (kh - 1), dilation[1] * (kw - 1)
    before = extent[0] - geometry.padding[0], extent[1] - geometry.padding[1]
    padded = with_margins(dy, before, (height + extent[0], width + extent[1]))
    return _windows_times(padded, swapped, (height, width), ConvGeometry((1, 1), (0, 0), dilation, geometry.groups))


def _scattered(dy: Array, w: Array, shape: Shape, geometry: ConvGeometry) -> Array:
    """For each element of the window the product with its part of the weight, added where that element lay."""
    n, channels, height, width = shape
    out, per_group, kh, kw = w.shape
    groups = geometry.groups
    places = dy.shape[1], dy.shape[2]
    rows = _by_group(np.ascontiguousarray(dy), groups)
    matrices = w.reshape(groups, out // groups, per_group, kh, kw)
    dx = np.zeros((n, height, width, channels), dy.dtype)
    part = np.empty((n, *places, channels), dy.dtype)
    for meeting in _meetings(shape, places, (kh, kw), geometry):
        np.matmul(rows, matrices[..., meeting.row, meeting.column], out=_by_group(part, groups))
        dx[meeting.pixels] += part[meeting.places]
    return dx


def _meetings(shape: Shape, places: Pair, kernel: Pair, geometry: ConvGeometry) -> Iterator[Meeting]:
    size = shape[2], shape[3]
    return meetings(size, places, kernel, geometry.stride, geometry.padding, geometry.dilation)


# ---- One channel a group ----


def _is_depthwise(w: Array, geometry: ConvGeometry) -> bool:
    return w.shape[1] == 1 and geometry.groups > 1


def _depthwise(x: Array, w: Array, places: Pair, geometry: ConvGeometry) -> Array:
    n, height, width, channels = x.shape
    out = len(w)
    x = _repeated(x, out // channels)
    y = np.zeros((n, *places, out), x.dtype)
    steps = list(_meetings((n, out, height, width), places, (w.shape[2], w.shape[3]), geometry))
    for block in _blocks(n, max(x[:1].nbytes, y[:1].nbytes)):
        image, result = np.ascontiguousarray(x[block]), y[block]
        for meeting in steps:
            result[meeting.places] += image[meeting.pixels] * w[:, 0, meeting.row, meeting.column]
    return y


def _depthwise_input(dy: Array, w: Array, shape: Shape, geometry: ConvGeometry) -> Array:
    n, channels, height, width = shape
    out = len(w)
    dx = np.zeros((n, height, width, out), dy.dtype)
    steps = list(_meetings(shape, (dy.shape[1], dy.shape[2]), (w.shape[2], w.shape[3]), geometry))
    for block in _blocks(n, max(dx[:1].nbytes, dy[:1].nbytes)):
        image, result = np.ascontiguousarray(dy[block]), dx[block]
        for meeting in steps:
            result[meeting.pixels] += image[meeting.places] * w[:, 0, meeting.row, meeting.column]
    return dx if out == channels else dx.reshape(n, height, width, channels, out // channels).sum(axis=4)


def _depthwise_weight(dy: Array, x: Array, shape: Shape, geometry: ConvGeometry) -> Array:
    n, height, width, channels = x.shape
    out, _, kh, kw = shape
    x = _repeated(x, out // channels)
    dw = np.zeros(shape, dy.dtype)
    steps = list(_meetings((n, out, height, width), (dy.shape[1], dy.shape[2]), (kh, kw), geometry))
    for block in _blocks(n, max(x[:1].nbytes, dy[:1].nbytes)):
        image, gradient = np.ascontiguousarray(x[block]), dy[block]
        for meeting in steps:
            product = gradient[meeting.places] * image[meeting.pixels]
            dw[:, 0, meeting.row, meeting.column] += product.sum(axis=2).sum(axis=(0, 1))
    return dw


def _repeated(x: Array, times: int) -> Array:
    """Each channel `times` times, for as many outputs of it."""
    return x if times == 1 else np.repeat(x, times, axis=3)


def _blocks(n: int, image_bytes: int) -> Iterator[slice]:
    """The images in blocks that stay in the cache."""
    length = max(1, DEPTHWISE_BYTES // max(1, image_bytes))
    return (slice(start, start + length) for start in range(0, n, length))
