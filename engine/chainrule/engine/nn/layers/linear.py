"""Linear layers, and those that only move elements."""

from __future__ import annotations

import math

from chainrule.engine.creation import empty
from chainrule.engine.nn import functional as F
from chainrule.engine.nn import init
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

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(empty(out_features, in_features))
        self.register_parameter("bias", Parameter(empty(out_features)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the parameters anew."""
        reset_uniform(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


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


def reset_uniform(weight: Parameter, bias: Parameter | None) -> None:
    """PyTorch's default: U(−1/√fan_in, 1/√fan_in) for both, which it writes as kaiming_uniform_ with a = √5."""
    init.kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        bound = 1 / math.sqrt(init.fans(weight)[0])
        init.uniform_(bias, -bound, bound)
