"""Normalisation of each example, a row of x (N, D), by its mean and variance, and its gradients."""

from __future__ import annotations

import numpy as np

from chainrule.engine.dtypes import Array


@np.errstate(all="ignore")  # as PyTorch, which gives inf and nan without a word
def layer_norm(x: Array, w: Array | None, b: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """y = w · (x − μ) / √(σ² + ε) + b, with the mean μ and the biased variance σ² of each row; these two, too."""
    mean = _row_mean(x)
    y = x - mean
    variance = _row_mean(y * y)
    y *= 1 / np.sqrt(variance + eps)
    if w is not None:
        y *= w
    if b is not None:
        y += b
    return y, mean[:, 0], variance[:, 0]


@np.errstate(all="ignore")
def layer_norm_gradients(
    g: Array, x: Array, w: Array | None, mean: Array, variance: Array, eps: float
) -> tuple[Array, Array, Array]:
    """The gradients of `layer_norm` by x, w and b: with x̂ = (x − μ) · r, r = 1 / √(σ² + ε) and h = w · g

    db = Σ g,   dw = Σ g · x̂,   dx = r · (h − mean h − x̂ · mean(h · x̂))

    for sums over the rows and means over each. Source: Ba, Kiros and Hinton, https://arxiv.org/abs/1607.06450
    """
    r = 1 / np.sqrt(variance + eps)[:, None]
    x_hat = (x - mean[:, None]) * r
    db, dw = np.sum(g, axis=0), np.sum(g * x_hat, axis=0)
    h = g if w is None else g * w
    mean_h = _row_mean(h)
    x_hat *= -_row_mean(h * x_hat)
    x_hat += h
    x_hat -= mean_h
    x_hat *= r
    return x_hat, dw, db


def _row_mean(x: Array) -> Array:
    """(N, 1)"""
    return np.asarray(np.add.reduce(x, axis=1, keepdims=True) / x.dtype.type(x.shape[1] or np.nan))
