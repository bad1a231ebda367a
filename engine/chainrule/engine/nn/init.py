"""How parameters begin: filled in place, drawn from a Generator. Distributions and names are PyTorch's.

What is filled may also be the array of a parameter, `layer.weight.data`.
"""

from __future__ import annotations

import math
import warnings

import numpy as np

from chainrule.engine.autograd.mode import no_grad
from chainrule.engine.dtypes import Array, float64
from chainrule.engine.errors import ConfigError, ShapeError
from chainrule.engine.nn.normal_quantile import normal_cdf, normal_quantile
from chainrule.engine.random import Generator, current_generator
from chainrule.engine.tensor import Tensor

__all__ = [
    "calculate_gain",
    "constant_",
    "dirac_",
    "eye_",
    "fans",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

_convolutions = [f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)]
_gains = {
    **dict.fromkeys(("linear", *_convolutions, "sigmoid"), 1.0),
    "tanh": 5.0 / 3,
    "relu": math.sqrt(2.0),
    "selu": 3.0 / 4,
}


class FanError(ShapeError, ValueError):
    """A shape that the way to begin has no meaning for."""


# ---- Constants ----


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Sets every element to `val`."""
    return _fill(tensor, np.full(tensor.shape, val, tensor.dtype))


def zeros_(tensor: Tensor) -> Tensor:
    """Sets every element to 0."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Sets every element to 1."""
    return constant_(tensor, 1.0)


def eye_(tensor: Tensor) -> Tensor:
    """Sets a matrix to the identity: 1 on the diagonal, 0 elsewhere.

    Raises:
        FanError: not two dimensions.
    """
    _check_matrix(tensor)
    return _fill(tensor, np.eye(*tensor.shape, dtype=tensor.dtype))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Sets a convolution's weight (out, in, ...) so that it hands on as many channels as it can, in each group.

    Raises:
        FanError: not three, four or five dimensions, or out is not divisible by `groups`.
    """
    if not 3 <= tensor.ndim <= 5:
        raise FanError("Only tensors with 3, 4, or 5 dimensions are supported")
    out, given, *window = tensor.shape
    if out % groups:
        raise FanError("dim 0 must be divisible by groups")
    values = np.zeros(tensor.shape, tensor.dtype)
    centre = tuple(n // 2 for n in window)
    for group in range(groups):
        for channel in range(min(out // groups, given)):
            values[(group * (out // groups) + channel, channel, *centre)] = 1
    return _fill(tensor, values)


# ---- Distributions ----


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Draws from U(a, b)."""
    draw = (generator or current_generator()).uniform(tensor.shape, tensor.dtype)
    return _fill(tensor, draw * tensor.dtype.type(b - a) + tensor.dtype.type(a))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Draws from N(mean, std²)."""
    draw = (generator or current_generator()).normal(tensor.shape, tensor.dtype)
    return _fill(tensor, draw * tensor.dtype.type(std) + tensor.dtype.type(mean))


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:
    """Draws from N(mean, std²) what lies in [a, b].

    x = mean + std · Φ⁻¹(u), u from U(Φ((a − mean) / std), Φ((b − mean) / std))
    """
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(
            "mean is more than 2 std from [a, b] in nn.init.trunc_normal_. The distribution of values may be "
            "incorrect.",
            stacklevel=2,
        )
    low, high = normal_cdf((a - mean) / std), normal_cdf((b - mean) / std)
    u = (generator or current_generator()).uniform(tensor.shape, float64) * (high - low) + low
    return _fill(tensor, np.clip(mean + std * normal_quantile(u), a, b))


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Draws from U(−b, b), b = gain · √(6 / (fan_in + fan_out)).

    Source: Glorot and Bengio, https://proceedings.mlr.press/v9/glorot10a.html
    """
    bound = gain * math.sqrt(6.0 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Draws from N(0, gain² · 2 / (fan_in + fan_out)); source as for `xavier_uniform_`."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(fans(tensor))), generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Draws from U(−b, b), b = gain · √(3 / fan).

    Source: He et al., Delving deep into rectifiers, https://arxiv.org/abs/1502.01852
    """
    if 0 in tensor.shape:
        return _nothing_to_fill(tensor)
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Draws from N(0, gain² / fan); source as for `kaiming_uniform_`."""
    if 0 in tensor.shape:
        return _nothing_to_fill(tensor)
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Draws gain · Q, Q evenly distributed among the matrices (out, the rest) with orthonormal rows, or columns.

    Q is that of the QR decomposition of a normal matrix, with the signs that make R's diagonal positive.
    Source: Saxe et al., https://arxiv.org/abs/1312.6120

    Raises:
        FanError: fewer than two dimensions.
    """
    if tensor.ndim < 2:
        raise FanError("Only tensors with 2 or more dimensions are supported")
    if 0 in tensor.shape:
        return tensor
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    draw = (generator or current_generator()).normal((max(rows, columns), min(rows, columns)), float64)
    q, r = np.linalg.qr(draw)
    q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return _fill(tensor, gain * (q if rows >= columns else q.T).reshape(tensor.shape))


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """Draws from N(0, std²), but for 0 in ⌈sparsity · rows⌉ places of each column.

    Source: Martens, Deep learning via Hessian-free optimization, 2010

    Raises:
        FanError: not two dimensions.
    """
    _check_matrix(tensor)
    generator = generator or current_generator()
    rows, columns = tensor.shape
    values = generator.normal(tensor.shape, tensor.dtype) * tensor.dtype.type(std)
    order = np.argsort(generator.words(rows * columns).reshape(rows, columns), axis=0, kind="stable")
    np.put_along_axis(values, order[: math.ceil(sparsity * rows)], 0, axis=0)
    return _fill(tensor, values)


# ---- How far they spread ----


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps a layer's variance through a nonlinearity: √(2 / (1 + slope²)) for leaky_relu.

    Args:
        param: the slope; None: 0.01.

    Raises:
        ConfigError: the nonlinearity is not known, or the slope is no number.
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, int | float):
            raise ConfigError("param", param, f"negative_slope {param} not a valid number")
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity not in _gains:
        raise ConfigError("nonlinearity", nonlinearity, f"choose one of leaky_relu, {', '.join(_gains)}")
    return _gains[nonlinearity]


def fans(tensor: Tensor) -> tuple[int, int]:
    """The connections into and out of a unit of a layer with this weight, (out, in, ...).

    Raises:
        FanError: fewer than two dimensions.
    """
    if tensor.ndim < 2:
        raise FanError("Fan in and fan out can not be computed for tensor with fewer than 2 dimensions")
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode.lower() not in ("fan_in", "fan_out"):
        raise ConfigError("mode", mode, "choose fan_in or fan_out")
    return calculate_gain(nonlinearity, a) / math.sqrt(fans(tensor)[mode.lower() == "fan_out"])


def _check_matrix(tensor: Tensor) -> None:
    if tensor.ndim != 2:
        raise FanError("Only tensors with 2 dimensions are supported")


def _nothing_to_fill(tensor: Tensor) -> Tensor:
    warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=3)
    return tensor


def _fill(tensor: Tensor, values: Array) -> Tensor:
    if isinstance(tensor, np.ndarray):  # init.zeros_(layer.weight.data)
        tensor[...] = values
        return tensor
    with no_grad():
        return tensor.copy_(values)
