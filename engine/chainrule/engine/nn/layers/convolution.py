"""Convolutional layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from chainrule.engine.autograd import is_grad_enabled
from chainrule.engine.creation import empty
from chainrule.engine.dtypes import default_dtype, float32
from chainrule.engine.errors import ConfigError
from chainrule.engine.nn import functional as F
from chainrule.engine.nn.functional.arguments import Ints, ints
from chainrule.engine.nn.functional.convolution import conv2d_affine, same_padding
from chainrule.engine.nn.layers.batch_norm import BatchNorm2d
from chainrule.engine.nn.layers.linear import reset_uniform
from chainrule.engine.nn.module import Module
from chainrule.engine.nn.parameter import Parameter
from chainrule.engine.tensor import Tensor

_padding_modes = ("zeros", "reflect", "replicate", "circular")


class _Convolution(Module):
    """What all convolutional layers share: settings, parameters, how they print.

    The parameters are drawn from U(−b, b), b = 1 / √(weight.shape[1] · window), as PyTorch does for both kinds.
    """

    dims: int
    weight: Parameter
    bias: Parameter | None  # (out_channels)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints,
        padding: Ints | str,
        dilation: Ints,
        output_padding: Ints,
        groups: int,
        bias: bool,
        padding_mode: str,
        dtype: npt.DTypeLike | None,
    ) -> None:
        super().__init__()
        if groups <= 0:
            raise ConfigError("groups", groups, "groups must be a positive integer")
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ConfigError("groups", groups, f"{name} must be divisible by groups")
        if padding_mode not in _padding_modes:
            raise ConfigError(
                "padding_mode",
                padding_mode,
                f"padding_mode must be one of {set(_padding_modes)}, but got padding_mode='{padding_mode}'",
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = self._setting("kernel_size", kernel_size)
        self.stride = self._setting("stride", stride)
        self.dilation = self._setting("dilation", dilation)
        if isinstance(padding, str):
            self._check_word(padding)
        self.padding: str | tuple[int, ...] = padding if isinstance(padding, str) else self._setting("padding", padding)
        self.output_padding = self._setting("output_padding", output_padding)
        self.groups = groups
        self.padding_mode = padding_mode
        dtype = default_dtype if dtype is None else dtype
        self.weight = Parameter(empty(*self.weight_shape(), dtype=dtype))
        self.register_parameter("bias", Parameter(empty(out_channels, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def weight_shape(self) -> tuple[int, ...]:
        """(out_channels, in_channels / groups, *kernel_size)"""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def reset_parameters(self) -> None:
        """Draws the parameters anew."""
        reset_uniform(self.weight, self.bias)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * self.dims:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self.dims:
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * self.dims:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        return text if self.padding_mode == "zeros" else text + f", padding_mode={self.padding_mode}"

    def _setting(self, field: str, value: Ints) -> tuple[int, ...]:
        return ints(type(self).__name__, field, value, self.dims, f"expected an integer, or {self.dims} of them")

    def _check_word(self, padding: str) -> None:
        if padding not in ("valid", "same"):
            raise ConfigError(
                "padding", padding, f"Invalid padding string '{padding}', should be one of { {'valid', 'same'} }"
            )
        if padding == "same" and any(step != 1 for step in self.stride):
            raise ConfigError("padding", padding, "padding='same' is not supported for strided convolutions")


# ---- Convolutions ----


class _Forward(_Convolution):
    """Convolutions that are not transposed."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Ints | str = 0,
        dilation: Ints = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            0,
            groups,
            bias,
            padding_mode,
            dtype,
        )

    def padded(self, input: Tensor) -> tuple[Tensor, Ints | str]:
        """The input, and the padding that is still to be done, which in the modes other than "zeros" is none."""
        if self.padding_mode == "zeros":
            return input, self.padding
        return F.pad(input, self._margins(), mode=self.padding_mode), 0

    def _margins(self) -> list[int]:
        """As F.pad takes them: (before, behind) of the last dimension first."""
        if self.padding == "same":
            total = same_padding(self.kernel_size, self.dilation)
            return [n for size in reversed(total) for n in (size // 2, size - size // 2)]
        sides = [0] * self.dims if isinstance(self.padding, str) else self.padding
        return [n for size in reversed(sides) for n in (size, size)]


class Conv1d(_Forward):
    """The cross-correlation of x (N, in_channels, L) with a learnt window, giving (N, out_channels, OL).

    Raises:
        ConfigError: a setting is out of range, or channels are not divisible by groups.
    """

    dims = 1

    def forward(self, input: Tensor) -> Tensor:
        x, padding = self.padded(input)
        return F.conv1d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv2d(_Forward):
    """The cross-correlation of x (N, in_channels, H, W) with a learnt window, giving (N, out_channels, OH, OW).

    Raises:
        ConfigError: a setting is out of range, or channels are not divisible by groups.
    """

    dims = 2

    def forward(self, input: Tensor) -> Tensor:
        x, padding = self.padded(input)
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _fused(self, following: Module, *args: Any) -> Any:
        """With BatchNorm2d that does not train, where no gradient is wanted of either."""
        if type(self) is not Conv2d or type(following) is not BatchNorm2d or len(args) != 1:
            return None
        statistics = following.running_mean, following.running_var
        tensors = [args[0], *self._parameters.values(), *following._parameters.values(), *statistics]
        if not all(v is None or (isinstance(v, Tensor) and v.dtype == float32) for v in tensors):
            return None
        if is_grad_enabled() and any(v is not None and v.requires_grad for v in tensors):
            return None
        affine = following.scale_and_shift() if following.num_features == self.out_channels else None
        if affine is None:
            return None
        x, padding = self.padded(args[0])
        if x.ndim != 4:
            return None
        return conv2d_affine(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups, affine)


# ---- Transposed convolutions ----


class _Transposed(_Convolution):
    """Transposed convolutions."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Ints = 0,
        output_padding: Ints = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Ints = 1,
        padding_mode: str = "zeros",
        *,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        if padding_mode != "zeros":
            raise ConfigError(
                "padding_mode",
                padding_mode,
                f'Only "zeros" padding mode is supported for {type(self).__name__}',
            )
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            output_padding,
            groups,
            bias,
            padding_mode,
            dtype,
        )

    def weight_shape(self) -> tuple[int, ...]:
        """(in_channels, out_channels / groups, *kernel_size)"""
        return (self.in_channels, self.out_channels // self.groups, *self.kernel_size)

    def _output_padding_for(self, input: Tensor, output_size: Sequence[int] | None) -> tuple[int, ...]:
        """The output padding that makes the output `output_size` large: (..., OH, OW) or (OH, OW)."""
        if output_size is None:
            return self.output_padding
        dims, lead = self.dims, input.ndim - self.dims
        size = tuple(output_size)
        if len(size) == lead + dims:
            size = size[lead:]
        if len(size) != dims:
            raise ConfigError(
                "output_size",
                output_size,
                f"ConvTranspose{dims}D: for {input.ndim}D input, output_size must have {dims} or {lead + dims} "
                f"elements (got {len(size)})",
            )
        assert not isinstance(self.padding, str)
        least = [
            (input.shape[lead + i] - 1) * self.stride[i]
            - 2 * self.padding[i]
            + self.dilation[i] * (self.kernel_size[i] - 1)
            + 1
            for i in range(dims)
        ]
        most = [n + step - 1 for n, step in zip(least, self.stride, strict=True)]
        if not all(low <= n <= high for low, n, high in zip(least, size, most, strict=True)):
            raise ConfigError(
                "output_size",
                output_size,
                f"requested an output size of {size}, but valid sizes range from {least} to {most} (for an input of "
                f"{tuple(input.shape[2:])})",
            )
        return tuple(n - low for n, low in zip(size, least, strict=True))


class ConvTranspose1d(_Transposed):
    """The transposed convolution of x (N, in_channels, L) with a learnt window, giving (N, out_channels, OL).

    Raises:
        ConfigError: a setting is out of range, or channels are not divisible by groups.
    """

    dims = 1

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        assert not isinstance(self.padding, str)
        behind = self._output_padding_for(input, output_size)
        return F.conv_transpose1d(
            input, self.weight, self.bias, self.stride, self.padding, behind, self.groups, self.dilation
        )


class ConvTranspose2d(_Transposed):
    """The transposed convolution of x (N, in_channels, H, W) with a learnt window, giving (N, out_channels, OH, OW).

    Raises:
        ConfigError: a setting is out of range, or channels are not divisible by groups.
    """

    dims = 2

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        assert not isinstance(self.padding, str)
        behind = self._output_padding_for(input, output_size)
        return F.conv_transpose2d(
            input, self.weight, self.bias, self.stride, self.padding, behind, self.groups, self.dilation
        )
