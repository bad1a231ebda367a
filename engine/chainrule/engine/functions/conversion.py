"""Functions that copy a tensor, or convert it to another dtype or memory layout."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import (
    DType,
    as_dtype,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    supported,
    type_name,
    uint8,
)
from chainrule.engine.dtypes import bfloat16 as bfloat16_dtype
from chainrule.engine.errors import ArgumentError, UnsupportedError
from chainrule.engine.layout import (
    MemoryFormat,
    channels_last,
    check_device,
    check_format,
    contiguous_format,
    is_in_format,
    names_device,
    preserve_format,
)
from chainrule.engine.ops import elementwise
from chainrule.engine.ops import shape as shaping

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

__all__ = ["clone"]

# ---- Memory ----


def clone(input: Tensor, *, memory_format: MemoryFormat = preserve_format) -> Tensor:
    """A copy, through which gradients flow.

    Raises:
        ShapeError: channels_last is asked for, and there are not four dimensions.
    """
    if memory_format is preserve_format:
        return elementwise.clone(input)
    wanted = check_format(memory_format, input.data.ndim)
    return shaping.contiguous(input, channels_last=wanted is channels_last)


def contiguous(input: Tensor, memory_format: MemoryFormat = contiguous_format) -> Tensor:
    """The tensor with its elements in this order in memory: itself if they are, else a copy.

    Raises:
        ShapeError: channels_last is asked for, and there are not four dimensions.
    """
    if memory_format is contiguous_format and input.data.flags.c_contiguous:
        return input
    wanted = check_format(memory_format, input.data.ndim)
    if is_in_format(input.data, wanted):
        return input
    return shaping.contiguous(input, channels_last=wanted is channels_last)


def is_contiguous(input: Tensor, memory_format: MemoryFormat = contiguous_format) -> builtins.bool:
    """Whether the elements lie in this order in memory."""
    return is_in_format(input.data, memory_format)


# ---- Dtypes ----


def to(
    input: Tensor,
    *args: Any,
    dtype: Any = None,
    device: Any = None,
    non_blocking: builtins.bool = False,  # noqa: ARG001 - PyTorch's argument
    copy: builtins.bool = False,
    memory_format: MemoryFormat = preserve_format,
) -> Tensor:
    """The tensor in another dtype or memory layout: itself if it has both, unless a copy is asked for.

    Args:
        input: any.
        args: to(dtype), to(device), to(device, dtype) or to(other), which gives the dtype of another tensor.
        dtype: the dtype.
        device: "cpu".
        non_blocking: has no effect.
        copy: copies in any case.
        memory_format: the layout.

    Raises:
        UnsupportedError: another device.
        DTypeError: what is given is no dtype.
    """
    if len(args) == 1 and isinstance(args[0], np.dtype) and not copy and memory_format is preserve_format:
        return input if input.data.dtype == args[0] else elementwise.cast(input, dtype=as_dtype(args[0]))
    rest = list(args)
    if rest and isinstance(rest[0], Variable):
        dtype = rest.pop(0).data.dtype
    elif rest and (rest[0] is None or names_device(rest[0])):
        device = rest.pop(0)
        dtype = rest.pop(0) if rest else dtype
    elif rest:
        dtype = rest.pop(0)
    if rest:
        rest.pop(0)  # non_blocking
    copy = builtins.bool(rest.pop(0)) if rest else copy
    check_device(device)
    wanted = input.data.dtype if dtype is None else as_dtype(dtype)
    y = input if wanted == input.data.dtype else elementwise.cast(input, dtype=wanted)
    if memory_format is not preserve_format and not is_in_format(y.data, check_format(memory_format, y.data.ndim)):
        return contiguous(y, memory_format)
    return clone(y, memory_format=memory_format) if copy and y is input else y


def type_as(input: Tensor, other: Tensor) -> Tensor:
    """The elements in the dtype of another tensor."""
    return to(input, other.data.dtype)


_types = {f"torch.{type_name(known)}Tensor": known for known in supported}


def type(input: Tensor, dtype: Any = None, non_blocking: builtins.bool = False) -> Any:  # noqa: ARG001
    """The elements in another dtype, also by PyTorch's name "torch.DoubleTensor"; without one, that name of its own.

    Raises:
        ArgumentError: there is no such type.
    """
    if dtype is None:
        return f"torch.{type_name(input.data.dtype)}Tensor"
    if isinstance(dtype, str):
        if dtype not in _types:
            raise ArgumentError(f"invalid type: {dtype!r}; known are {', '.join(_types)}")
        return to(input, _types[dtype])
    return to(input, as_dtype(dtype))


def cpu(input: Tensor, memory_format: MemoryFormat = preserve_format) -> Tensor:
    """The tensor itself, which lies in the CPU's memory."""
    return to(input, memory_format=memory_format)


def cuda(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ARG001 - what it takes in PyTorch
    """Not supported.

    Raises:
        UnsupportedError: always.
    """
    raise UnsupportedError("cuda() is not supported: tensors lie in the memory of the CPU")


def _as(input: Tensor, dtype: DType, memory_format: MemoryFormat) -> Tensor:
    if memory_format is preserve_format:
        return input if input.data.dtype == dtype else elementwise.cast(input, dtype=dtype)
    return to(input, dtype, memory_format=memory_format)


def half(input: Tensor, memory_format: MemoryFormat = preserve_format) -> Tensor:
    """The elements as float16."""
    return _as(input, float16, memory_format)


def bfloat16(input: Tensor, memory_format: MemoryFormat = preserve_format) -> Tensor:
    """The elements as bfloat16."""
    return _as(input, bfloat16_dtype, memory_format)


def double(input: Tensor, memory_format: MemoryFormat = preserve_format) -> Tensor:
    """The elements as float64."""
    return _as(input, float64, memory_format)


def byte(input: Tensor, memory_format: MemoryFormat = preserve_format) -> Tensor:
    """The elements as uint8."""
    return _as(input, uint8, memory_format)


def char(input: Tensor, memory_format: MemoryFormat = preserve_format) -> Tensor:
    """The elements as int8."""
    return _as(input, int8, memory_format)


def short(input: Tensor, memory_format: MemoryFormat = preserve_format) -> Tensor:
    """The elements as int16."""
    return _as(input, int16, memory_format)


def long(input: Tensor, memory_format: MemoryFormat = preserve_format) -> Tensor:
    """The elements as int64."""
    return _as(input, int64, memory_format)


def float(input: Tensor, memory_format: MemoryFormat = preserve_format) -> Tensor:
    """The elements as float32."""
    return _as(input, float32, memory_format)


def int(input: Tensor, memory_format: MemoryFormat = preserve_format) -> Tensor:
    """The elements as int32."""
    return _as(input, int32, memory_format)


def bool(input: Tensor, memory_format: MemoryFormat = preserve_format) -> Tensor:
    """Whether the elements are not zero."""
    return _as(input, bool_, memory_format)
