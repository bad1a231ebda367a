"""How parameters begin: filled in place, drawn from a Generator. Distributions and names are PyTorch's."""

from __future__ import annotations

import math

import numpy as np

from chainrule.engine.errors import ConfigError, ShapeError
from chainrule.engine.random import Generator, current_generator
from chainrule.engine.tensor import Tensor

_gains = {"linear": 1.0, "sigmoid": 1.0, "conv2d": 1.0, "tanh": 5.0 / 3, "relu": math.sqrt(2.0)}


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Draws from U(a, b)."""
    draw = (generator or current_generator()).uniform(tensor.shape, tensor.dtype)
    return _fill(tensor, draw * tensor.dtype.type(b - a) + tensor.dtype.type(a))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Draws from N(mean, std²)."""
    draw = (generator or current_generator()).normal(tensor.shape, tensor.dtype)
    return _fill(tensor, draw * tensor.dtype.type(std) + tensor.dtype.type(mean))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Sets every element to `val`."""
    return _fill(tensor, np.full(tensor.shape, val, tensor.dtype))


def zeros_(tensor: Tensor) -> Tensor:
    """Sets every element to 0."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Sets every element to 1."""
    return constant_(tensor, 1.0)


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
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Draws from U(−b, b), b = gain · √(6 / (fan_in + fan_out)).

    Source: Glorot and Bengio, https://proceedings.mlr.press/v9/glorot10a.html
    """
    bound = gain * math.sqrt(6.0 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def calculate_gain(nonlinearity: str, param: float = 0.01) -> float:
    """The factor that keeps a layer's variance through a nonlinearity: √(2 / (1 + slope²)) for leaky_relu.

    Raises:
        ConfigError: the nonlinearity is not known.
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1 + param**2))
    if nonlinearity not in _gains:
        raise ConfigError("nonlinearity", nonlinearity, f"choose one of leaky_relu, {', '.join(_gains)}")
    return _gains[nonlinearity]


def fans(tensor: Tensor) -> tuple[int, int]:
    """The connections into and out of a unit of a layer with this weight, (out, in, ...).

    Raises:
        ShapeError: fewer than two dimensions.
    """
    if tensor.ndim < 2:
        raise ShapeError("Fan in and fan out can not be computed for tensor with fewer than 2 dimensions")
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ConfigError("mode", mode, "choose fan_in or fan_out")
    fan = fans(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan) if fan else 0.0


def _fill(tensor: Tensor, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Tensor:
    np.copyto(tensor.data, values)
    tensor.counter.value += 1
    return tensor
