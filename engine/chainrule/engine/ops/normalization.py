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

from chainrule.engine import kernels
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import Array, float32, is_low_precision
from chainrule.engine.ops.broadcasting import sum_to
from chainrule.engine.ops.elementwise import sqrt
from chainrule.engine.ops.mixed import mixed
from chainrule.engine.ops.op import op
from chainrule.engine.ops.reduction import mean as mean_of
from chainrule.engine.ops.reduction import sum
from chainrule.engine.ops.shape import reshape
from chainrule.engine.ops.together import Together

Axes = tuple[int, ...]

# ---- Over the batch ----


@op(
    "NativeBatchNorm",
    native=True,
    saves=("batch",),
    x=lambda g, x, w, batch: batch.gradient(0, g, x, w),
    w=lambda g, x, w, batch: batch.gradient(1, g, x, w),
    b=lambda g, x, w, batch: batch.gradient(2, g, x, w),
)
def batch_norm(x: Any, w: Any, b: Any, *, found: list[Found]) -> Any:  # noqa: ARG001
    """y = w · (x − μ) / √(σ² + ε) + b for each channel of x (N, C, ...), where μ and σ² are those of x.

    Args:
        found: y, which `kernels.batch_norm` makes together with μ and σ², as the caller needs those, too. It is taken
            out of the list: a node keeps its attributes, and shall not keep its output.
    """
    y, batch = found.pop()
    return y, {"batch": batch}


@op(
    "Relu",
    native=True,
    saves=("batch",),
    x=lambda g, x, w, y, batch: batch.gradient(0, _before_relu(g, y), x, w),
    w=lambda g, x, w, y, batch: batch.gradient(1, _before_relu(g, y), x, w),
    b=lambda g, x, w, y, batch: batch.gradient(2, _before_relu(g, y), x, w),
)
def batch_norm_relu(x: Any, w: Any, b: Any, *, found: list[Found]) -> Any:  # noqa: ARG001
    """y = max(batch_norm(x), 0): two operations, which `kernels.batch_norm_relu` computes at once."""
    y, batch = found.pop()
    return y, {"batch": batch}


def _before_relu(g: Any, y: Any) -> Any:
    """The gradient of what relu was applied to; of arrays, the kernel sees to it."""
    return g * (y != 0) if isinstance(g, Variable) else g


class Batch:
    """A batch that was normalised: its statistics, and the gradients through it, which one kernel computes at once.

    Args:
        mean: μ of each channel.
        variance: σ² of each channel.
        eps: ε.
        mask: what `kernels.batch_norm_relu` says of where y is not 0, if relu followed.
    """

    __slots__ = ("_together", "eps", "mask", "mean", "variance")

    def __init__(self, mean: Array, variance: Array, eps: float, mask: Array | None = None) -> None:
        self.mean = mean
        self.variance = variance
        self.eps = eps
        self.mask = mask
        self._together = Together()

    def gradient(self, position: int, g: Any, x: Any, w: Any) -> Any:
        """That by x, w or b, by position. Of Tensors, μ and σ² are functions of x again, and with h = w · g

        dx = r · (h − mean h − x̂ · mean(h · x̂)),   dw = Σ g · x̂,   db = Σ g
        """
        if not isinstance(x, Variable):
            return self._together.take(position, g, lambda: self._gradients(g, x, w))
        dtype = x.data.dtype if position == 0 or w is None else w.dtype
        g, x, w = map(_wide, (g, x, w))
        axes = _all_but_channels(x)
        x_hat, r = _normalise(x, axes, self.eps)
        if position == 0:
            gradient = _pull_back(g if w is None else g * _per_channel(w, g.ndim), x_hat, r, axes)
        else:
            gradient = sum(g if position == 2 else g * x_hat, dim=axes)
        return gradient.to(dtype)

    def _gradients(self, g: Array, x: Array, w: Array | None) -> tuple[Array, Array, Array]:
        images = as_images(g), as_images(x)
        dx, dw, db = kernels.batch_norm_gradients(*images, w, self.mean, self.variance, self.eps, self.mask)
        dtype = x.dtype if w is None else w.dtype
        return dx.reshape(x.shape), dw.astype(dtype, copy=False), db.astype(dtype, copy=False)


Found = tuple[Array, Batch]
"""A result, and the batch it is of."""


def as_images(x: Array) -> Array:
    """(N, C, ...) as (N, C, H, W)"""
    return x if x.ndim == 4 else x.reshape(x.shape[0], x.shape[1], math.prod(x.shape[2:]), 1)


@mixed(
    "NativeBatchNorm",
    x=lambda g, x, w, variance, eps: g * _scale(x, w, variance, eps),
    w=lambda g, x, mean, variance, eps: sum(g * _fixed(x, mean, variance, eps), dim=_all_but_channels(x)),
    b=lambda g: sum(g, dim=_all_but_channels(g)),
)
def batch_norm_fixed(x: Any, w: Any, b: Any, *, mean: Array, variance: Array, eps: float) -> Any:
    """y = w · (x − μ) / √(σ² + ε) + b for each channel of x (N, C, ...), where μ and σ² are constants."""
    return kernels.batch_norm_fixed(as_images(x), w, b, mean, variance, eps).reshape(x.shape)


def _fixed(x: Any, mean: Array, variance: Array, eps: float) -> Any:
    return (x - _per_channel(mean.astype(np.dtype(x.dtype)), x.ndim)) * _reciprocal_std(variance, eps, x)


def _scale(x: Any, w: Any, variance: Array, eps: float) -> Any:
    r = _reciprocal_std(variance, eps, x)
    return r if w is None else _per_channel(w, x.ndim) * r


def _reciprocal_std(variance: Array, eps: float, x: Any) -> Array:
    r: Array = (1 / np.sqrt(variance + eps)).astype(np.dtype(x.dtype))
    return r.reshape(1, -1, *(1,) * (x.ndim - 2))


def _per_channel(v: Any, ndim: int) -> Any:
    return reshape(v, shape=(1, v.shape[0], *(1,) * (ndim - 2)))


def _all_but_channels(x: Any) -> Axes:
    return (0, *range(2, x.ndim))


# ---- Over the last dimensions of each example ----


@op(
    "NativeLayerNorm",
    native=True,
    saves=("mean", "variance", "together"),
    x=lambda g, x, w, ndim, eps, mean, variance, together: _layer_gradient(
        0, g, x, w, ndim, eps, mean, variance, together
    ),
    w=lambda g, x, w, ndim, eps, mean, variance, together: _layer_gradient(
        1, g, x, w, ndim, eps, mean, variance, together
    ),
    b=lambda g, x, w, ndim, eps, mean, variance, together: _layer_gradient(
        2, g, x, w, ndim, eps, mean, variance, together
    ),
)
def layer_norm(x: Any, w: Any, b: Any, *, ndim: int, eps: float) -> Any:
    """y = w · x̂ + b, over the last `ndim` dimensions of x, which are those of w and b.

    Source: Ba, Kiros and Hinton, Layer Normalization, https://arxiv.org/abs/1607.06450
    """
    y, mean, variance = kernels.layer_norm(_examples(x, ndim), _flat(w), _flat(b), eps)
    return y.reshape(x.shape), {"mean": mean, "variance": variance, "together": Together()}


def _layer_gradient(
    position: int,
    g: Any,
    x: Any,
    w: Any,
    ndim: int,
    eps: float,
    mean: Array,
    variance: Array,
    together: Together,
) -> Any:
    """Of arrays, all gradients come from one kernel. Of Tensors, μ and σ² are functions of x again, and

    dx = r · (h − mean h − x̂ · mean(h · x̂)) with h = w · g,   dw = Σ g · x̂,   db = Σ g
    """
    if not isinstance(x, Variable):
        return together.take(position, g, lambda: _layer_gradients(g, x, w, ndim, eps, mean, variance))
    dtype = x.data.dtype if position == 0 or w is None else w.dtype
    g, x, w = map(_wide, (g, x, w))
    axes = _last(x, ndim)
    x_hat, r = _normalise(x, axes, eps)
    if position == 0:
        gradient = _pull_back(g if w is None else g * w, x_hat, r, axes)
    else:
        gradient = sum_to(g if position == 2 else g * x_hat, shape=x.shape[-ndim:])
    return gradient.to(dtype)


def _wide(x: Any) -> Any:
    """A Tensor of half precision as float32; anything else as it is."""
    return x.to(float32) if x is not None and is_low_precision(x.dtype) else x


def _layer_gradients(
    g: Array, x: Array, w: Array | None, ndim: int, eps: float, mean: Array, variance: Array
) -> tuple[Array, ...]:
    dx, dw, db = kernels.layer_norm_gradients(_examples(g, ndim), _examples(x, ndim), _flat(w), mean, variance, eps)
    dtype, shape = x.dtype if w is None else w.dtype, x.shape[-ndim:]
    return dx.reshape(x.shape), *(d.astype(dtype, copy=False).reshape(shape) for d in (dw, db))


def _examples(x: Array, ndim: int) -> Array:
    """(..., and `ndim` dimensions) as (examples, elements)"""
    return x.reshape(math.prod(x.shape[: x.ndim - ndim]), math.prod(x.shape[x.ndim - ndim :]))


def _flat(v: Array | None) -> Array | None:
    return None if v is None else v.reshape(-1)


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
