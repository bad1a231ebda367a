"""Softmax and its logarithm along a dimension, and their gradients; of a scalar along 0 or −1."""

from __future__ import annotations

import numpy as np

from chainrule.engine.dtypes import Array

_quiet = np.errstate(all="ignore")  # as PyTorch, which gives inf and nan without a word


@_quiet
def softmax(x: Array, axis: int) -> Array:
    """y = eˣ / Σ eˣ"""
    if not x.size:
        return np.empty_like(x)
    y = np.asarray(x - _largest(x, axis))
    np.exp(y, out=y)
    y /= np.add.reduce(y, axis=axis, keepdims=True)
    return y


@_quiet
def softmax_gradient(g: Array, y: Array, axis: int) -> Array:
    """dx = y · (g − Σ g · y)"""
    dx = np.asarray(g * y)
    dx -= y * np.add.reduce(dx, axis=axis, keepdims=True)
    return dx


@_quiet
def safe_softmax(x: Array) -> Array:
    """`softmax` along the last dimension; a row of −∞ only gives 0 rather than what is not a number."""
    top = np.max(x, axis=-1, keepdims=True, initial=-np.inf)
    top[np.isneginf(top)] = 0
    y: Array = x - top
    np.exp(y, out=y)
    total = np.add.reduce(y, axis=-1, keepdims=True)
    total[total == 0] = 1
    y /= total
    return y


@_quiet
def log_softmax(x: Array, axis: int) -> Array:
    """y = x − log Σ eˣ"""
    if not x.size:
        return np.empty_like(x)
    y = np.asarray(x - _largest(x, axis))
    y -= np.log(np.add.reduce(np.exp(y), axis=axis, keepdims=True))
    return y


@_quiet
def log_softmax_gradient(g: Array, y: Array, axis: int) -> Array:
    """dx = g − eʸ · Σ g"""
    dx = np.asarray(np.exp(y))
    dx *= -np.add.reduce(g, axis=axis, keepdims=True)
    dx += g
    return dx


def _largest(x: Array, axis: int) -> Array:
    """The largest along `axis`, which is kept; numpy takes longer over short rows than over columns."""
    if x.ndim == 2 and axis in (1, -1) and x.shape[1] <= 32 <= x.shape[0]:
        return np.asarray(np.maximum.reduce(np.ascontiguousarray(x.T), axis=0)).reshape(-1, 1)
    return np.asarray(np.maximum.reduce(x, axis=axis, keepdims=True))
