"""Normalisation: of batches, layers, groups and by the root mean square.

x̂ = (x − μ) · r with r = 1 / √(σ² + ε), where mean and variance are over some dimensions. What comes back through it is

    dx = r · (h − mean h − x̂ · mean(h · x̂))

for a gradient h of x̂, with the means over the same dimensions.
Source: Ioffe and Szegedy, Batch Normalization, https://arxiv.org/abs/1502.03167
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import Array
from chainrule.engine.ops.elementwise import sqrt
from chainrule.engine.ops.mixed import mixed
from chainrule.engine.ops.op import sum_to
from chainrule.engine.ops.reduction import mean as mean_of
from chainrule.engine.ops.reduction import sum
from chainrule.engine.ops.shape import reshape

Axes = tuple[int, ...]

# ---- Over the batch ----


@mixed(
    "NativeBatchNorm",
    x=lambda g, x, w, mean, variance, eps: _input_gradient(g, x, w, mean, variance, eps),
    w=lambda g, x, mean, variance, eps: sum(g * _normalised(x, mean, variance, eps)[0], dim=_all_but_channels(x)),
    b=lambda g: sum(g, dim=_all_but_channels(g)),
)
def batch_norm(x: Any, w: Any, b: Any, *, mean: Array, variance: Array, eps: float) -> Any:
    """y = w · (x − μ) / √(σ² + ε) + b for each channel of x (N, C, ...), where μ and σ² are those of x.

    They are given because the caller needs them too; the gradient knows that they depend on x.
    """
    return _affine(x, w, b, mean, variance, eps)


def _input_gradient(g: Any, x: Any, w: Any, mean: Array, variance: Array, eps: float) -> Any:
    x_hat, r = _normalised(x, mean, variance, eps)
    return _pull_back(g if w is None else g * _per_channel(w, x.ndim), x_hat, r, _all_but_channels(x))


def _normalised(x: Any, mean: Any, variance: Any, eps: float) -> tuple[Any, Any]:
    """x̂ and r. Where the gradient is to be differentiated, μ and σ² are functions of x again."""
    if isinstance(x, Variable):
        return _normalise(x, _all_but_channels(x), eps)
    centred = x - _per_channel(mean.astype(x.dtype), x.ndim)
    r = _reciprocal_std(variance, eps, x)
    return centred * r, r


@mixed(
    "NativeBatchNorm",
    x=lambda g, x, w, variance, eps: g * _scale(x, w, variance, eps),
    w=lambda g, x, mean, variance, eps: sum(g * _fixed(x, mean, variance, eps), dim=_all_but_channels(x)),
    b=lambda g: sum(g, dim=_all_but_channels(g)),
)
def batch_norm_fixed(x: Any, w: Any, b: Any, *, mean: Array, variance: Array, eps: float) -> Any:
    """y = w · (x − μ) / √(σ² + ε) + b for each channel of x (N, C, ...), where μ and σ² are constants."""
    return _affine(x, w, b, mean, variance, eps)


def _fixed(x: Any, mean: Array, variance: Array, eps: float) -> Any:
    return (x - _per_channel(mean.astype(np.dtype(x.dtype)), x.ndim)) * _reciprocal_std(variance, eps, x)


def _scale(x: Any, w: Any, variance: Array, eps: float) -> Any:
    r = _reciprocal_std(variance, eps, x)
    return r if w is None else _per_channel(w, x.ndim) * r


def _affine(x: Array, w: Array | None, b: Array | None, mean: Array, variance: Array, eps: float) -> Array:
    y: Array = x - _per_channel(mean.astype(x.dtype), x.ndim)
    y *= _scale(x, w, variance, eps)
    if b is not None:
        y += _per_channel(b, x.ndim)
    return y


def _reciprocal_std(variance: Array, eps: float, x: Any) -> Array:
    r: Array = (1 / np.sqrt(variance + eps)).astype(np.dtype(x.dtype))
    return r.reshape(1, -1, *(1,) * (x.ndim - 2))


def _per_channel(v: Any, ndim: int) -> Any:
    return reshape(v, shape=(1, v.shape[0], *(1,) * (ndim - 2)))


def _all_but_channels(x: Any) -> Axes:
    return (0, *range(2, x.ndim))


# ---- Over the last dimensions of each example ----


@mixed(
    "NativeLayerNorm",
    saves=("x_hat", "r"),
    x=lambda g, x, w, x_hat, r, ndim, eps: _layer_gradient(g, x, w, x_hat, r, ndim, eps),
    w=lambda g, w_shape, x, x_hat, ndim, eps: sum_to(g * _again(x, x_hat, None, _last(x, ndim), eps)[0], shape=w_shape),
    b=lambda g, b_shape: sum_to(g, shape=b_shape),
)
def layer_norm(x: Any, w: Any, b: Any, *, ndim: int, eps: float) -> Any:
    """y = w · x̂ + b, over the last `ndim` dimensions of x, which are those of w and b.

    Source: Ba, Kiros and Hinton, Layer Normalization, https://arxiv.org/abs/1607.06450
    """
    x_hat, r = _normalise(x, _last(x, ndim), eps)
    y = x_hat if w is None else x_hat * w
    return (y if b is None else y + b), {"x_hat": x_hat, "r": r}


def _layer_gradient(g: Any, x: Any, w: Any, x_hat: Array, r: Array, ndim: int, eps: float) -> Any:
    axes = _last(x, ndim)
    return _pull_back(g if w is None else g * w, *_again(x, x_hat, r, axes, eps), axes)


def _last(x: Any, ndim: int) -> Axes:
    return tuple(range(x.ndim - ndim, x.ndim))


# ---- Over groups of channels ----


@mixed(
    "NativeGroupNorm",
    saves=("x_hat", "r"),
    x=lambda g, x, w, x_hat, r, groups, eps: _group_gradient(g, x, w, x_hat, r, groups, eps),
    w=lambda g, x, x_hat, groups, eps: sum(
        g * _whole(_again(_grouped(x, groups), x_hat, None, (2,), eps)[0], x), dim=_all_but_channels(x)
    ),
    b=lambda g: sum(g, dim=_all_but_channels(g)),
)
def group_norm(x: Any, w: Any, b: Any, *, groups: int, eps: float) -> Any:
    """y = w · x̂ + b for each channel of x (N, C, ...), over all of a group of C / groups channels.

    Source: Wu and He, Group Normalization, https://arxiv.org/abs/1803.08494
    """
    x_hat, r = _normalise(_grouped(x, groups), (2,), eps)
    y = _whole(x_hat, x)
    y = y if w is None else y * _per_channel(w, x.ndim)
    return (y if b is None else y + _per_channel(b, x.ndim)), {"x_hat": x_hat, "r": r}


def _group_gradient(g: Any, x: Any, w: Any, x_hat: Array, r: Array, groups: int, eps: float) -> Any:
    h = g if w is None else g * _per_channel(w, x.ndim)
    rows = _grouped(x, groups)
    return _whole(_pull_back(_grouped(h, groups), *_again(rows, x_hat, r, (2,), eps), (2,)), x)


def _grouped(x: Any, groups: int) -> Any:
    """(N, C, ...) as (N, groups, C / groups · ...)"""
    return reshape(x, shape=(x.shape[0], groups, math.prod(x.shape[1:]) // groups))


def _whole(rows: Any, x: Any) -> Any:
    return reshape(rows, shape=x.shape)


# ---- By the root mean square ----


@mixed(
    "FusedRmsNorm",
    x=lambda g, x, w, ndim, eps: _rms_gradient(g if w is None else g * w, *_rms(x, ndim, eps), _last(x, ndim)),
    w=lambda g, w_shape, x, ndim, eps: sum_to(g * _rms(x, ndim, eps)[0], shape=w_shape),
)
def rms_norm(x: Any, w: Any, *, ndim: int, eps: float) -> Any:
    """y = w · x̂, with x̂ = x · r and r = 1 / √(mean x² + ε) over the last `ndim` dimensions of x.

    Source: Zhang and Sennrich, https://arxiv.org/abs/1910.07467
    """
    x_hat, _ = _rms(x, ndim, eps)
    return x_hat if w is None else x_hat * w


def _rms(x: Any, ndim: int, eps: float) -> tuple[Any, Any]:
    r = 1 / sqrt(mean_of(x * x, dim=_last(x, ndim), keepdim=True) + eps)
    return x * r, r


def _rms_gradient(h: Any, x_hat: Any, r: Any, axes: Axes) -> Any:
    """dx = r · (h − x̂ · mean(h · x̂))"""
    return r * (h - x_hat * mean_of(h * x_hat, dim=axes, keepdim=True))


# ---- What they share, on arrays and on Tensors ----


def _normalise(x: Any, axes: Axes, eps: float) -> tuple[Any, Any]:
    """x̂ = (x − μ) · r and r, with mean and variance over `axes`."""
    centred = x - mean_of(x, dim=axes, keepdim=True)
    r = 1 / sqrt(mean_of(centred * centred, dim=axes, keepdim=True) + eps)
    return centred * r, r


def _again(x: Any, x_hat: Any, r: Any, axes: Axes, eps: float) -> tuple[Any, Any]:
    """What was saved of `_normalise`; where the gradient is to be differentiated, as functions of x again."""
    return _normalise(x, axes, eps) if isinstance(x, Variable) else (x_hat, r)


def _pull_back(h: Any, x_hat: Any, r: Any, axes: Axes) -> Any:
    """dx = r · (h − mean h − x̂ · mean(h · x̂))"""
    return r * (h - mean_of(h, dim=axes, keepdim=True) - x_hat * mean_of(h * x_hat, dim=axes, keepdim=True))
