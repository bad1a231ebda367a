"""The functions of the top level that are more than one operation: `cr.cat`, `cr.where`, `cr.max`, ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np

from chainrule.engine.dtypes import promote
from chainrule.engine.errors import ShapeError
from chainrule.engine.ops import elementwise, shape
from chainrule.engine.tensor import Extreme, Number, Operand, Tensor


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors one after another along `dim`; they agree in every other dimension.

    Raises:
        ShapeError: there are none, or they do not agree.
    """
    if not tensors:
        raise ShapeError("cat(): expected a non-empty list of Tensors")
    axis = tensors[0]._axis(dim)
    dtype = promote([x.dtype for x in tensors])
    rests = {(*x.shape[:axis], *x.shape[axis + 1 :]) for x in tensors}
    if len(rests) > 1 or len({x.ndim for x in tensors}) > 1:
        raise ShapeError(f"Sizes of tensors must match except in dimension {axis}. Got {[x.shape for x in tensors]}")
    return shape.cat(*[x.to(dtype) for x in tensors], dim=axis)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors, all of one shape, along a new dimension.

    Raises:
        ShapeError: there are none, or their shapes differ.
    """
    if len({x.shape for x in tensors}) > 1:
        raise ShapeError(f"stack expects each tensor to be equal size, but got {[x.shape for x in tensors]}")
    return cat([x.unsqueeze(dim) for x in tensors], dim)


def where(condition: Tensor, input: Operand, other: Operand) -> Tensor:
    """`input` where the condition is true, `other` elsewhere."""
    return elementwise.where(condition, input, other)


@overload
def max(input: Tensor, dim: None = None) -> Tensor: ...
@overload
def max(input: Tensor, dim: int, keepdim: bool = False) -> Extreme: ...
def max(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | Extreme:
    """See `Tensor.max`."""
    return input.max() if dim is None else input.max(dim, keepdim)


@overload
def min(input: Tensor, dim: None = None) -> Tensor: ...
@overload
def min(input: Tensor, dim: int, keepdim: bool = False) -> Extreme: ...
def min(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | Extreme:
    """See `Tensor.min`."""
    return input.min() if dim is None else input.min(dim, keepdim)


def clamp(input: Tensor, min: Number | None = None, max: Number | None = None) -> Tensor:
    """See `Tensor.clamp`."""
    return input.clamp(min, max)


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """input @ other"""
    return input @ other


def mean(input: Tensor, dim: int | tuple[int, ...] | list[int] | None = None, keepdim: bool = False) -> Tensor:
    """See `Tensor.mean`."""
    return input.mean(dim, keepdim)


def reshape(input: Tensor, shape: Sequence[int]) -> Tensor:
    """See `Tensor.reshape`."""
    return input.reshape(shape)


def permute(input: Tensor, dims: Sequence[int]) -> Tensor:
    """See `Tensor.permute`."""
    return input.permute(dims)


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """See `Tensor.transpose`."""
    return input.transpose(dim0, dim1)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """See `Tensor.flatten`."""
    return input.flatten(start_dim, end_dim)


def squeeze(input: Tensor, dim: int | None = None) -> Tensor:
    """See `Tensor.squeeze`."""
    return input.squeeze(dim)


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """See `Tensor.unsqueeze`."""
    return input.unsqueeze(dim)


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether |input − other| ≤ atol + rtol · |other| everywhere."""
    return bool(np.allclose(input.data, other.data, rtol=rtol, atol=atol, equal_nan=equal_nan))


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether the tensors have one shape and the same elements."""
    return input.shape == other.shape and bool((input.data == other.data).all())
