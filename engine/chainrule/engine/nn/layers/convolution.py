"""Convolutional layers."""

from __future__ import annotations

from chainrule.engine.creation import empty
from chainrule.engine.errors import ConfigError
from chainrule.engine.kernels.geometry import Pair
from chainrule.engine.nn import functional as F
from chainrule.engine.nn.functional.arguments import IntOrPair, pair
from chainrule.engine.nn.functional.convolution import conv_padding
from chainrule.engine.nn.layers.linear import reset_uniform
from chainrule.engine.nn.module import Module
from chainrule.engine.nn.parameter import Parameter
from chainrule.engine.tensor import Tensor


class Conv2d(Module):
    """The cross-correlation of x (N, in_channels, H, W) with a learnt window, giving (N, out_channels, OH, OW).

    The parameters are drawn from U(−b, b), b = 1 / √(in_channels / groups · KH · KW).

    Raises:
        ConfigError: a setting is out of range, or channels are not divisible by groups.
    """

    weight: Parameter  # (out_channels, in_channels / groups, KH, KW)
    bias: Parameter | None  # (out_channels)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: IntOrPair | str = 0,
        dilation: IntOrPair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ConfigError(
                "groups", groups, f"in_channels={in_channels} and out_channels={out_channels} must be divisible by it"
            )
        if padding_mode != "zeros":
            raise ConfigError("padding_mode", padding_mode, "this version pads with zeros only")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size: Pair = pair("kernel_size", kernel_size, minimum=1)
        self.stride: Pair = pair("stride", stride, minimum=1)
        self.dilation: Pair = pair("dilation", dilation, minimum=1)
        conv_padding(padding, self.kernel_size, self.stride, self.dilation)
        self.padding: Pair | str = padding if isinstance(padding, str) else pair("padding", padding, minimum=0)
        self.groups = groups
        self.weight = Parameter(empty(out_channels, in_channels // groups, *self.kernel_size))
        self.register_parameter("bias", Parameter(empty(out_channels)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the parameters anew."""
        reset_uniform(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0, 0):
            text += f", padding={self.padding}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        return text if self.bias is not None else text + ", bias=False"
