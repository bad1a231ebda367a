"""Normalisation of images (N, C, H, W) by the mean and variance of each channel, and its gradients."""

from __future__ import annotations

import numpy as np

from chainrule.engine.dtypes import Array
from chainrule.engine.kernels.reference.elementwise import masked, relu


def batch_norm(x: Array, w: Array | None, b: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """y = w · (x − μ) / √(σ² + ε) + b, with the mean μ and the biased variance σ² of each channel."""
    mean, variance = batch_moments(x)
    return batch_norm_fixed(x, w, b, mean, variance, eps), mean, variance


def batch_norm_relu(x: Array, w: Array | None, b: Array | None, eps: float) -> tuple[Array, Array, Array, Array]:
    """max(`batch_norm`, 0), and where it is not 0: for `batch_norm_gradients`, in a form of the kernel's own."""
    y, mean, variance = batch_norm(x, w, b, eps)
    y = relu(y)
    return y, mean, variance, y != 0


def batch_norm_fixed(x: Array, w: Array | None, b: Array | None, mean: Array, variance: Array, eps: float) -> Array:
    """y = w · (x − μ) / √(σ² + ε) + b, with the mean and variance that are given."""
    r = _reciprocal_std(variance, eps, x)
    y: Array = x - _per_channel(mean.astype(x.dtype))
    y *= r if w is None else _per_channel(w) * r
    if b is not None:
        y += _per_channel(b)
    return y


def batch_norm_gradients(
    g: Array, x: Array, w: Array | None, mean: Array, variance: Array, eps: float, mask: Array | None = None
) -> tuple[Array, Array, Array]:
    """The gradients of `batch_norm` by x, w and b: with x̂ = (x − μ) · r and r = 1 / √(σ² + ε)

    db = Σ g,   dw = Σ g · x̂,   dx = w · r · (g − (db + x̂ · dw) / n)

    for sums over the n elements of a channel. With a mask, those of `batch_norm_relu`. Source: Ioffe and Szegedy, https://arxiv.org/abs/1502.03167
    """
    if mask is not None:
        g = masked(g, mask)
    n = x.size // x.shape[1]
    r = _reciprocal_std(variance, eps, x)
    x_hat = x - _per_channel(mean.astype(x.dtype))
    x_hat *= r
    db, dw = _channel_sum(g), _channel_sum(g * x_hat)
    dx = x_hat  # the memory, from here on
    dx *= _per_channel(dw / -n)
    dx += g
    dx -= _per_channel(db / n)
    dx *= r if w is None else _per_channel(w) * r
    return dx, dw, db


def batch_moments(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of each channel, in float64: sums of many elements lose digits otherwise."""
    mean = _channel_mean(x)
    centred = x - _per_channel(mean.astype(x.dtype))
    shift = _channel_mean(centred)  # what rounding the mean to x's dtype left
    square = _channel_mean(np.square(centred, out=centred))
    return mean, square - shift * shift


def _channel_mean(x: Array) -> Array:
    return np.asarray(np.mean(x, axis=(0, 2, 3), dtype=np.float64))


def _channel_sum(x: Array) -> Array:
    return np.asarray(np.sum(x, axis=(0, 2, 3), dtype=np.float64)).astype(x.dtype)


def _reciprocal_std(variance: Array, eps: float, x: Array) -> Array:
    return _per_channel((1 / np.sqrt(variance + eps)).astype(x.dtype))


def _per_channel(v: Array) -> Array:
    return v.reshape(1, -1, 1, 1)
