"""The heavy operations in pure numpy: plain enough to be the oracle of every other kernel.

Shapes are logically (N, C, H, W); memory comes out channels-last, (N, H, W, C), which is how a product of matrices
leaves it and how the next one wants it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import as_strided

from chainrule.engine.dtypes import Array
from chainrule.engine.kernels.geometry import ConvGeometry, Pair, PoolGeometry, output_size

Shape = tuple[int, ...]

# ---- Convolution: gather the windows into rows, multiply by the weight ----


def conv2d(x: Array, w: Array, b: Array | None, geometry: ConvGeometry) -> Array:
    """y[n,o,i,j] = b[o] + Σ_{c,k,l} x[n, c, i·s + k·d − p, j·s + l·d − p] · w[o,c,k,l]."""
    n, _, height, width = x.shape
    out = len(w)
    oh, ow = _output_hw((height, width), w, geometry)
    y = np.empty((n * oh * ow, out), x.dtype)
    for inputs, outputs in _groups(x.shape[1], out, geometry.groups):
        rows = _im2col(x[:, inputs], w, geometry)
        np.matmul(rows, _matrix(w[outputs]).T, out=y[:, outputs])
    if b is not None:
        y += b
    return y.reshape(n, oh, ow, out).transpose(0, 3, 1, 2)


def conv2d_input(dy: Array, w: Array, shape: Shape, geometry: ConvGeometry) -> Array:
    """dx[n, c, i·s + k·d − p, j·s + l·d − p] += dy[n,o,i,j] · w[o,c,k,l]."""
    n, channels, height, width = shape
    _, out, oh, ow = dy.shape
    kh, kw = w.shape[2:]
    ph, pw = geometry.padding
    padded = np.zeros((n, height + 2 * ph, width + 2 * pw, channels), dy.dtype)
    rows = _channels_last(dy).reshape(n * oh * ow, out)
    for inputs, outputs in _groups(channels, out, geometry.groups):
        columns = (rows[:, outputs] @ _matrix(w[outputs])).reshape(n, oh, ow, kh, kw, -1)
        for k, place in enumerate(_places((kh, kw), (oh, ow), geometry.stride, geometry.dilation)):
            padded[:, place[0], place[1], inputs] += columns[:, :, :, k // kw, k % kw]
    return padded[:, ph : ph + height, pw : pw + width].transpose(0, 3, 1, 2)


def conv2d_weight(dy: Array, x: Array, shape: Shape, geometry: ConvGeometry) -> Array:
    """dw[o,c,k,l] = Σ_{n,i,j} dy[n,o,i,j] · x[n, c, i·s + k·d − p, j·s + l·d − p]."""
    out, per_group, kh, kw = shape
    dw = np.empty((out, kh, kw, per_group), dy.dtype)
    rows = _channels_last(dy).reshape(-1, out)
    like = np.broadcast_to(dy.dtype.type(0), shape)
    for inputs, outputs in _groups(x.shape[1], out, geometry.groups):
        columns = _im2col(x[:, inputs], like, geometry, places=dy.shape[2:])
        dw[outputs] = (rows[:, outputs].T @ columns).reshape(-1, kh, kw, per_group)
    return np.ascontiguousarray(dw.transpose(0, 3, 1, 2))


def _im2col(x: Array, w: Array, geometry: ConvGeometry, places: Shape | None = None) -> Array:
    """The windows of x as rows: (N·OH·OW, KH·KW·C)."""
    n, channels, height, width = x.shape
    kh, kw = w.shape[2:]
    oh, ow = places or _output_hw((height, width), w, geometry)
    padded = _pad(x, geometry.padding)  # (N, H, W, C)
    if (kh, kw) == (1, 1) and geometry.stride == (1, 1):
        return padded.reshape(n * oh * ow, channels)
    sn, sh, sw, sc = padded.strides
    windows = as_strided(
        padded,
        (n, oh, ow, kh, kw, channels),
        (
            sn,
            sh * geometry.stride[0],
            sw * geometry.stride[1],
            sh * geometry.dilation[0],
            sw * geometry.dilation[1],
            sc,
        ),
        writeable=False,
    )
    return windows.reshape(n * oh * ow, kh * kw * channels)


def _matrix(w: Array) -> Array:
    """The weight (O, C, KH, KW) as the matrix (O, KH·KW·C)."""
    return w.transpose(0, 2, 3, 1).reshape(len(w), -1)


def _groups(channels: int, out: int, groups: int) -> Iterator[tuple[slice, slice]]:
    """For each group its slice of the input channels and of the output channels."""
    c, o = channels // groups, out // groups
    for group in range(groups):
        yield slice(group * c, (group + 1) * c), slice(group * o, (group + 1) * o)


def _output_hw(size: Pair, w: Array, geometry: ConvGeometry) -> Pair:
    oh, ow = (
        output_size(size[i], w.shape[2 + i], geometry.stride[i], geometry.padding[i], geometry.dilation[i])
        for i in (0, 1)
    )
    return oh, ow


# ---- Pooling: one pass over the image for each place in the window ----


def max_pool2d(x: Array, geometry: PoolGeometry) -> tuple[Array, Array]:
    """The largest of each window, and its place in the window; the first where there are several."""
    padded = _pad(x, geometry.padding, -np.inf)  # (N, H, W, C)
    best: Array | None = None
    offsets: Array | None = None
    for k, (rows, columns) in enumerate(_pool_places(x.shape, geometry)):
        candidate = padded[:, rows, columns]
        if best is None or offsets is None:
            best, offsets = candidate.copy(), np.zeros(candidate.shape, np.int32)
        else:
            better = (candidate > best) | (candidate != candidate)  # NaN wins, as in PyTorch
            np.copyto(best, candidate, where=better)
            np.copyto(offsets, k, where=better)
    assert best is not None
    assert offsets is not None
    return best.transpose(0, 3, 1, 2), offsets.transpose(0, 3, 1, 2)


def unpool(y: Array, offsets: Array, shape: Shape, geometry: PoolGeometry) -> Array:
    """Each element of y added to zeros of `shape`, at its place in its window."""
    padded = _zeros(shape, geometry, y.dtype)
    y, offsets = _channels_last(y), _channels_last(offsets)
    for k, (rows, columns) in enumerate(_pool_places(shape, geometry)):
        padded[:, rows, columns] += y * (offsets == k)
    return _unpad(padded, shape, geometry)


def pick(x: Array, offsets: Array, geometry: PoolGeometry) -> Array:
    """From each window of x the element at the given place."""
    padded, offsets = _pad(x, geometry.padding), _channels_last(offsets)
    y = np.zeros(offsets.shape, x.dtype)
    for k, (rows, columns) in enumerate(_pool_places(x.shape, geometry)):
        np.copyto(y, padded[:, rows, columns], where=offsets == k)
    return y.transpose(0, 3, 1, 2)


def avg_pool2d(x: Array, geometry: PoolGeometry) -> Array:
    """The average of each window."""
    padded = _pad(x, geometry.padding)
    y: Array | None = None
    for rows, columns in _pool_places(x.shape, geometry):
        part = padded[:, rows, columns]
        y = part.copy() if y is None else np.add(y, part, out=y)
    assert y is not None
    y /= _window_sizes(x.shape, geometry, x.dtype)
    return y.transpose(0, 3, 1, 2)


def avg_unpool(y: Array, shape: Shape, geometry: PoolGeometry) -> Array:
    """Each element of y spread evenly over its window."""
    padded = _zeros(shape, geometry, y.dtype)
    part = _channels_last(y) / _window_sizes(shape, geometry, y.dtype)
    for rows, columns in _pool_places(shape, geometry):
        padded[:, rows, columns] += part
    return _unpad(padded, shape, geometry)


def _window_sizes(shape: Shape, geometry: PoolGeometry, dtype: np.dtype[np.generic]) -> Array:
    """By how many elements each window is divided, to broadcast over (N, OH, OW, C)."""
    if geometry.count_include_pad:
        return np.asarray(geometry.kernel[0] * geometry.kernel[1], dtype)
    ones = _pad(np.ones((1, 1, *shape[2:]), dtype), geometry.padding)
    sizes: Array = sum(ones[:, rows, columns] for rows, columns in _pool_places(shape, geometry))  # type: ignore[assignment]
    return sizes


def _pool_places(shape: Shape, geometry: PoolGeometry) -> Iterator[tuple[slice, slice]]:
    places = pool_output_hw(shape, geometry)
    return _places(geometry.kernel, places, geometry.stride, geometry.dilation)


def pool_output_hw(shape: Shape, geometry: PoolGeometry) -> Pair:
    """The height and width of what pooling makes of (N, C, H, W)."""
    oh, ow = (
        output_size(shape[2 + i], geometry.kernel[i], geometry.stride[i], geometry.padding[i], geometry.dilation[i])
        for i in (0, 1)
    )
    return oh, ow


# ---- Batch normalisation ----


def batch_moments(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of each channel, in float64: sums of many elements lose digits otherwise."""
    mean = _channel_mean(x)
    centred = x - mean.astype(x.dtype).reshape(1, -1, 1, 1)
    shift = _channel_mean(centred)  # what rounding the mean to x's dtype left
    square = _channel_mean(np.square(centred, out=centred))
    return mean, square - shift * shift


def _channel_mean(x: Array) -> Array:
    return np.asarray(np.mean(x, axis=(0, 2, 3), dtype=np.float64))


# ---- Windows and padding, in (N, H, W, C) ----


def _places(kernel: Pair, places: Pair, stride: Pair, dilation: Pair) -> Iterator[tuple[slice, slice]]:
    """For each place in the window, row by row, the slices of the image it meets."""
    for k in range(kernel[0]):
        for m in range(kernel[1]):
            top, left = k * dilation[0], m * dilation[1]
            yield (
                slice(top, top + stride[0] * (places[0] - 1) + 1, stride[0]),
                slice(left, left + stride[1] * (places[1] - 1) + 1, stride[1]),
            )


def _channels_last(x: Array) -> Array:
    """(N, C, H, W) as (N, H, W, C), without copying."""
    return x.transpose(0, 2, 3, 1)


def _pad(x: Array, padding: Pair, value: float = 0.0) -> Array:
    """(N, C, H, W) as contiguous (N, H, W, C) with a margin; a copy only where one is needed."""
    if padding == (0, 0):
        return np.ascontiguousarray(_channels_last(x))
    n, channels, height, width = x.shape
    ph, pw = padding
    padded = np.full((n, height + 2 * ph, width + 2 * pw, channels), value, x.dtype)
    padded[:, ph : ph + height, pw : pw + width] = _channels_last(x)
    return padded


def _zeros(shape: Shape, geometry: PoolGeometry, dtype: np.dtype[np.generic]) -> Array:
    n, channels, height, width = shape
    ph, pw = geometry.padding
    return np.zeros((n, height + 2 * ph, width + 2 * pw, channels), dtype)


def _unpad(padded: Array, shape: Shape, geometry: PoolGeometry) -> Array:
    ph, pw = geometry.padding
    return padded[:, ph : ph + shape[2], pw : pw + shape[3]].transpose(0, 3, 1, 2)
