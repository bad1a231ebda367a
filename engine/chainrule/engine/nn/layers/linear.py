"""Linear and bilinear layers, and those that only move elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from chainrule.engine.creation import empty
from chainrule.engine.errors import ConfigError, DTypeError, ShapeError
from chainrule.engine.functions.arguments import axis_of
from chainrule.engine.nn import functional as F
from chainrule.engine.nn import init
from chainrule.engine.nn.layers.factory import parameter_dtype
from chainrule.engine.nn.module import Module
from chainrule.engine.nn.parameter import Parameter
from chainrule.engine.tensor import Tensor


class Identity(Module):
    """y = x"""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        return input


class Linear(Module):
    """y = x·wᵀ + b, for x (..., in_features) and y (..., out_features).

    w and b are drawn from U(−1/√in_features, 1/√in_features).
    """

    weight: Parameter  # (out_features, in_features)
    bias: Parameter | None  # (out_features)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: object = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        dtype = parameter_dtype(device, dtype)
        self.weight = Parameter(empty(out_features, in_features, dtype=dtype))
        self.register_parameter("bias", Parameter(empty(out_features, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the parameters anew."""
        reset_uniform(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Bilinear(Module):
    """yₒ = x₁ᵀ·Wₒ·x₂ + bₒ, for x₁ (..., in1_features), x₂ (..., in2_features) and y (..., out_features).

    W and b are drawn from U(−1/√in1_features, 1/√in1_features).

    Raises:
        ConfigError: there are no in1_features.
    """

    weight: Parameter  # (out_features, in1_features, in2_features)
    bias: Parameter | None  # (out_features)

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device: object = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.in1_features = in1_features
        self.in2_features = in2_features
        self.out_features = out_features
        dtype = parameter_dtype(device, dtype)
        self.weight = Parameter(empty(out_features, in1_features, in2_features, dtype=dtype))
        self.register_parameter("bias", Parameter(empty(out_features, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the parameters anew."""
        if self.in1_features <= 0:
            raise ConfigError(
                "in1_features",
                self.in1_features,
                f"in1_features must be > 0, but got (in1_features={self.in1_features})",
            )
        bound = 1 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class Flatten(Module):
    """The dimensions from `start_dim` to `end_dim` made one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """The dimension `dim` made several, of the sizes `unflattened_size`; one of them may be -1.

    Raises:
        DTypeError: the sizes are no tuple or list of integers.
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        _check_sizes(unflattened_size)
        self.dim = dim
        self.unflattened_size = unflattened_size

    def forward(self, input: Tensor) -> Tensor:
        axis, sizes = axis_of(input, self.dim), list(self.unflattened_size)
        length, known = input.shape[axis], math.prod(n for n in sizes if n != -1)
        inferred = [length // known if n == -1 and known else n for n in sizes]
        if sizes.count(-1) > 1 or math.prod(inferred) != length:
            raise ShapeError(
                f"unflatten: Provided sizes {sizes} don't multiply up to the size of dim {axis} ({length}) in the "
                "input tensor"
            )
        return input.reshape(*input.shape[:axis], *inferred, *input.shape[axis + 1 :])

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


def _check_sizes(sizes: Any) -> None:
    if not isinstance(sizes, tuple | list):
        raise DTypeError(f"unflattened_size must be a tuple of ints, but found type {type(sizes).__name__}")
    for position, size in enumerate(sizes):
        if not isinstance(size, int):
            raise DTypeError(
                f"unflattened_size must be tuple of ints, but found element of type {type(size).__name__} at pos "
                f"{position}"
            )


def reset_uniform(weight: Parameter, bias: Parameter | None) -> None:
    """PyTorch's default: U(−1/√fan_in, 1/√fan_in) for both, which it writes as kaiming_uniform_ with a = √5."""
    init.kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        fan_in = init.fans(weight)[0]
        bound = 1 / math.sqrt(fan_in) if fan_in else 0
        init.uniform_(bias, -bound, bound)
