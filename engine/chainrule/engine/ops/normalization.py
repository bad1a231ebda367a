"""Batch normalisation, with the statistics of the batch or with given ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import Array
from chainrule.engine.ops.elementwise import sqrt
from chainrule.engine.ops.op import op
from chainrule.engine.ops.reduction import mean as mean_of
from chainrule.engine.ops.reduction import sum
from chainrule.engine.ops.shape import reshape

_all_but_channels = (0, 2, 3)


@op(
    "NativeBatchNorm",
    x=lambda g, x, w, mean, variance, eps: _input_gradient(g, x, w, mean, variance, eps),
    w=lambda g, x, mean, variance, eps: sum(g * _normalised(x, mean, variance, eps)[0], dim=_all_but_channels),
    b=lambda g: sum(g, dim=_all_but_channels),
)
def batch_norm(x: Any, w: Any, b: Any, *, mean: Array, variance: Array, eps: float) -> Any:
    """y = w · (x − μ) / √(σ² + ε) + b for each channel of x (N, C, H, W), where μ and σ² are those of x.

    They are given because the caller needs them too; the gradient knows that they depend on x.
    Source: Ioffe and Szegedy, Batch Normalization, https://arxiv.org/abs/1502.03167
    """
    return _affine(x, w, b, mean, variance, eps)


def _input_gradient(g: Any, x: Any, w: Any, mean: Array, variance: Array, eps: float) -> Any:
    """dx = r · (h − mean h − x̂ · mean(h · x̂)), with h = g · w and r = 1 / √(σ² + ε)."""
    x_hat, r = _normalised(x, mean, variance, eps)
    h = g if w is None else g * _per_channel(w)
    return r * (h - _channel_mean(h) - x_hat * _channel_mean(h * x_hat))


def _normalised(x: Any, mean: Any, variance: Any, eps: float) -> tuple[Any, Any]:
    """x̂ = (x − μ) · r and r. Where the gradient is to be differentiated, μ and σ² are functions of x again."""
    if isinstance(x, Variable):
        centred: Any = x - _channel_mean(x)
        r: Any = 1 / sqrt(_channel_mean(centred * centred) + eps)
    else:
        centred = x - _per_channel(mean.astype(x.dtype))
        r = _reciprocal_std(variance, eps, x.dtype)
    return centred * r, r


def _channel_mean(x: Any) -> Any:
    return mean_of(x, dim=_all_but_channels, keepdim=True)


@op(
    "NativeBatchNormEval",
    x=lambda g, x, w, variance, eps: g * _scale(x, w, variance, eps),
    w=lambda g, x, mean, variance, eps: sum(g * _fixed(x, mean, variance, eps), dim=_all_but_channels),
    b=lambda g: sum(g, dim=_all_but_channels),
)
def batch_norm_fixed(x: Any, w: Any, b: Any, *, mean: Array, variance: Array, eps: float) -> Any:
    """y = w · (x − μ) / √(σ² + ε) + b for each channel of x (N, C, H, W), where μ and σ² are constants."""
    return _affine(x, w, b, mean, variance, eps)


def _fixed(x: Any, mean: Array, variance: Array, eps: float) -> Any:
    dtype = np.dtype(x.dtype)
    return (x - _per_channel(mean.astype(dtype))) * _reciprocal_std(variance, eps, dtype)


def _scale(x: Any, w: Any, variance: Array, eps: float) -> Any:
    r = _reciprocal_std(variance, eps, x.dtype)
    return r if w is None else _per_channel(w) * r


def _affine(x: Array, w: Array | None, b: Array | None, mean: Array, variance: Array, eps: float) -> Array:
    y: Array = x - _per_channel(mean.astype(x.dtype))
    y *= _scale(x, w, variance, eps)
    if b is not None:
        y += _per_channel(b)
    return y


def _reciprocal_std(variance: Array, eps: float, dtype: np.dtype[Any]) -> Array:
    r: Array = (1 / np.sqrt(variance + eps)).astype(dtype)
    return r.reshape(1, -1, 1, 1)


def _per_channel(v: Any) -> Any:
    return reshape(v, shape=(1, v.shape[0], 1, 1))
