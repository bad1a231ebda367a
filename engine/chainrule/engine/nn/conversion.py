"""What `Module.to` is asked for: a dtype, a memory format, or a device, of which there is one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.engine.dtypes import DType, as_dtype
from chainrule.engine.errors import ConfigError, DTypeError, UnsupportedError
from chainrule.engine.tensor import Tensor

_device_name = re.compile(r"(cpu|cuda|hip|hpu|ipu|maia|meta|mps|mtia|xla|xpu|privateuseone)(:\d+)?")
_formats = ("preserve_format", "contiguous_format", "channels_last")


@dataclass(frozen=True)
class Conversion:
    """A conversion of floating tensors.

    Attributes:
        dtype: what they become; None: what they are.
        memory_format: how the elements of four-dimensional ones lie in memory; None: as they do.
    """

    dtype: DType | None
    memory_format: str | None

    def __call__(self, tensor: Tensor) -> Tensor:
        if self.dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(self.dtype)
        if self.memory_format is not None and tensor.ndim == 4:
            tensor = _in_format(tensor, self.memory_format)
        return tensor


def parse_to(
    *args: Any,
    device: object = None,
    dtype: Any = None,
    non_blocking: bool = False,  # noqa: ARG001 - PyTorch's argument
    memory_format: object = None,
) -> Conversion:
    """The conversion meant by `to(device, dtype)`, `to(dtype)` or `to(tensor)`; `non_blocking` says nothing here.

    Raises:
        UnsupportedError: a device other than the CPU, or a memory format that is not supported.
        DTypeError: a dtype that is not floating, or that the engine does not know.
        ConfigError: more arguments than `to` has.
    """
    rest = list(args)
    if rest and isinstance(rest[0], Tensor):
        dtype = rest.pop(0).dtype
    else:
        if rest and (rest[0] is None or _is_device(rest[0])):
            device = rest.pop(0)
        if rest and not isinstance(rest[0], bool):
            dtype = rest.pop(0)
    if len(rest) > 2 or not all(isinstance(flag, bool) for flag in rest):
        raise ConfigError("args", args, "to() takes a device and a dtype, a dtype, or a tensor, then non_blocking")
    check_device(device)
    return Conversion(None if dtype is None else floating(dtype), _format(memory_format))


def floating(dtype: Any) -> DType:
    """The floating dtype meant by `dtype`."""
    resolved = as_dtype(dtype)
    if not Tensor.wrap(np.empty(0, resolved)).is_floating_point():
        raise DTypeError(
            f"nn.Module.to only accepts floating point or complex dtypes, but got desired dtype={resolved}"
        )
    return resolved


def check_device(device: object) -> None:
    """Raises UnsupportedError unless `device` is None or the CPU."""
    if device is not None and str(device).partition(":")[0] != "cpu":
        raise UnsupportedError(f'device "{device}": this version computes on the CPU; say "cpu" or leave it out')


def _is_device(value: object) -> bool:
    return bool(_device_name.fullmatch(str(value))) if isinstance(value, str) else type(value).__name__ == "device"


def _format(memory_format: object) -> str | None:
    if memory_format is None:
        return None
    name = str(memory_format).rpartition(".")[2]
    if name not in _formats:
        raise UnsupportedError(f"memory_format {memory_format} is not supported; choose one of {', '.join(_formats)}")
    return None if name == "preserve_format" else name


def _in_format(tensor: Tensor, memory_format: str) -> Tensor:
    to_layout: tuple[int, ...] = (0, 2, 3, 1) if memory_format == "channels_last" else (0, 1, 2, 3)
    laid_out = tensor.data.transpose(to_layout)
    if laid_out.flags.c_contiguous:
        return tensor
    return Tensor.wrap(np.ascontiguousarray(laid_out).transpose(np.argsort(to_layout)))


def unsupported_device(name: str) -> Callable[..., Any]:
    """A method like PyTorch's `cuda`, which says that there is no such device."""

    def method(self: object, device: object = None) -> Any:  # noqa: ARG001 - PyTorch's argument
        raise UnsupportedError(f"{type(self).__name__}.{name}(): this version computes on the CPU; leave the call out")

    method.__name__, method.__doc__ = name, f"Not supported: there is no {name} device."
    return method
