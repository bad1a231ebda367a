"""Functions that give a tensor another shape: views where memory allows, copies elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from chainrule.engine.dtypes import promote
from chainrule.engine.errors import DimensionError, ShapeError
from chainrule.engine.functions.arguments import axis_of, ints
from chainrule.engine.ops import op
from chainrule.engine.ops import shape as shaping

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

__all__ = ["cat", "flatten", "permute", "reshape", "squeeze", "stack", "t", "transpose", "unsqueeze"]


def reshape(input: Tensor, *shape: int | Sequence[int]) -> Tensor:
    """The elements, row by row, in another shape; -1 stands for what is left. Shares memory where it can."""
    return shaping.reshape(input, shape=shaping.infer_shape(input.data.size, ints(shape)))


def view(input: Tensor, *shape: int | Sequence[int]) -> Tensor:
    """`reshape` that never copies.

    Raises:
        ShapeError: the memory layout does not allow it.
    """
    viewed = shaping.reshape(input, shape=shaping.infer_shape(input.data.size, ints(shape)))
    if input.data.size and not np.may_share_memory(input.data, viewed.data):
        raise ShapeError(
            "view size is not compatible with input tensor's size and stride (at least one dimension spans across "
            "two contiguous subspaces). Use .reshape(...) instead."
        )
    return viewed


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """`view` in the shape of `other`."""
    return view(input, *other.shape)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The dimensions from `start_dim` to `end_dim` made one."""
    if input.data.ndim == 0:
        return reshape(input, 1)
    start, end = axis_of(input, start_dim), axis_of(input, end_dim)
    if start > end:
        raise ShapeError(f"flatten() has invalid args: start_dim {start_dim} comes after end_dim {end_dim}")
    count = int(np.prod(input.shape[start : end + 1]))
    return shaping.reshape(input, shape=(*input.shape[:start], count, *input.shape[end + 1 :]))


def squeeze(input: Tensor, dim: int | None = None) -> Tensor:
    """Without the dimensions of length one, or without the one at `dim`."""
    drop = range(input.ndim) if dim is None else (() if input.ndim == 0 else (axis_of(input, dim),))
    shape = tuple(n for axis, n in enumerate(input.shape) if n != 1 or axis not in drop)
    return shaping.squeeze(input, shape=shape)


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a new dimension of length one at `dim`."""
    if not -input.ndim - 1 <= dim <= input.ndim:
        raise DimensionError(
            f"Dimension out of range (expected to be in range of [{-input.ndim - 1}, {input.ndim}], but got {dim})"
        )
    axis = dim % (input.ndim + 1)
    return shaping.unsqueeze(input, shape=(*input.shape[:axis], 1, *input.shape[axis:]))


def permute(input: Tensor, *dims: int | Sequence[int]) -> Tensor:
    """The dimensions in another order."""
    order = tuple(axis_of(input, dim) for dim in ints(dims))
    if sorted(order) != list(range(input.ndim)):
        raise ShapeError(f"permute(dims={list(order)}) must name each of the {input.ndim} dimensions once")
    return shaping.permute(input, dims=order)


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions swapped."""
    return shaping.transpose(input, dim0=axis_of(input, dim0), dim1=axis_of(input, dim1))


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix."""
    if input.ndim > 2:
        raise ShapeError(f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D")
    return reversed_dims(input)


def reversed_dims(input: Tensor) -> Tensor:
    """The dimensions in reverse order."""
    return shaping.permute(input, dims=tuple(range(input.ndim))[::-1])


def expand(input: Tensor, *shape: int | Sequence[int]) -> Tensor:
    """Repeated along new dimensions and those of length one, without copying; -1 keeps a length."""
    wanted = ints(shape)
    new = len(wanted) - input.ndim
    wanted = tuple(input.shape[i - new] if n == -1 and i >= new else n for i, n in enumerate(wanted))
    return op.expand(input, shape=wanted)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors one after another along `dim`; they agree in every other dimension.

    Raises:
        ShapeError: there are none, or they do not agree.
    """
    if not tensors:
        raise ShapeError("cat(): expected a non-empty list of Tensors")
    axis = axis_of(tensors[0], dim)
    dtype = promote([x.dtype for x in tensors])
    rests = {(*x.shape[:axis], *x.shape[axis + 1 :]) for x in tensors}
    if len(rests) > 1 or len({x.ndim for x in tensors}) > 1:
        raise ShapeError(f"Sizes of tensors must match except in dimension {axis}. Got {[x.shape for x in tensors]}")
    return shaping.cat(*[x.to(dtype) for x in tensors], dim=axis)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors, all of one shape, along a new dimension.

    Raises:
        ShapeError: there are none, or their shapes differ.
    """
    if len({x.shape for x in tensors}) > 1:
        raise ShapeError(f"stack expects each tensor to be equal size, but got {[x.shape for x in tensors]}")
    return cat([unsqueeze(x, dim) for x in tensors], dim)
