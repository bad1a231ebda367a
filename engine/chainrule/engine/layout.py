"""Where tensors lie, and how: the one device, and the orders of their elements in memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

from chainrule.engine.dtypes import Array
from chainrule.engine.errors import DTypeError, ShapeError, UnsupportedError


class MemoryFormat(Enum):
    """An order of the elements in memory."""

    contiguous_format = "contiguous_format"
    """Row by row."""
    channels_last = "channels_last"
    """Of images (N, C, H, W): the channels of a pixel side by side."""
    preserve_format = "preserve_format"
    """As it is in the tensor that is copied."""

    def __repr__(self) -> str:
        return self.value

    __str__ = __repr__


contiguous_format = MemoryFormat.contiguous_format
channels_last = MemoryFormat.channels_last
preserve_format = MemoryFormat.preserve_format


@dataclass(frozen=True)
class device:  # noqa: N801 - PyTorch's name
    """The device of a tensor, which is the CPU.

    Raises:
        UnsupportedError: another one.
    """

    type: str
    index: int | None = None

    def __post_init__(self) -> None:
        name, colon, number = self.type.partition(":")
        if name != "cpu" or (colon and not number.isdigit()):
            raise UnsupportedError(
                f"device {self.type!r} is not supported: tensors lie in the memory of the CPU; use device='cpu'"
            )
        if colon:
            object.__setattr__(self, "type", name)
            object.__setattr__(self, "index", int(number))

    def __repr__(self) -> str:
        return f"device(type={self.type!r}" + (")" if self.index is None else f", index={self.index})")

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"


cpu = device("cpu")


_device_name = re.compile(r"(cpu|cuda|hip|hpu|ipu|maia|meta|mps|mtia|xla|xpu|privateuseone)(:\d+)?")


def names_device(value: object) -> bool:
    """Whether it is a device, or PyTorch's name of one."""
    return isinstance(value, device) or (isinstance(value, str) and _device_name.fullmatch(value) is not None)


def check_device(wanted: Any) -> None:
    """Takes None and what names the CPU.

    Raises:
        UnsupportedError: another device.
    """
    if wanted is not None and not isinstance(wanted, device):
        device(str(wanted))


def check_format(wanted: Any, ndim: int) -> MemoryFormat:
    """A memory format that tensors of `ndim` dimensions can have.

    Raises:
        DTypeError: it is no memory format.
        ShapeError: channels_last, of a tensor that does not have four dimensions.
    """
    if not isinstance(wanted, MemoryFormat):
        raise DTypeError(f"argument 'memory_format' must be a memory format, not {type(wanted).__name__}")
    if wanted is channels_last and ndim != 4:
        raise ShapeError("required rank 4 tensor to use channels_last format")
    return wanted


def is_in_format(array: Array, wanted: MemoryFormat) -> bool:
    """Whether the elements lie in this order."""
    if wanted is channels_last:
        return array.ndim == 4 and bool(array.transpose(0, 2, 3, 1).flags.c_contiguous)
    return bool(array.flags.c_contiguous)
