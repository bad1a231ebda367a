"""Functions that rearrange elements: turned, rolled, repeated, with corners cut, seen through windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import int32, int64, type_name
from chainrule.engine.errors import DimensionError, ShapeError, UnsupportedError
from chainrule.engine.functions.arguments import axes_of, axis_of, ints, require_tensor, with_keyword
from chainrule.engine.functions.shapes import Sizes, ravel, reshape, transpose
from chainrule.engine.ops import shape as shaping
from chainrule.engine.watching import watched

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

__all__ = [
    "diag",
    "diag_embed",
    "diagonal",
    "flip",
    "fliplr",
    "flipud",
    "repeat_interleave",
    "roll",
    "rot90",
    "tile",
    "tril",
    "triu",
]

# ---- Turned and repeated ----


def flip(input: Tensor, *axes: Sizes, dims: Sizes | None = None) -> Tensor:
    """A copy in reverse order along `dims`."""
    turned = axes_of(input, ints(with_keyword(axes, dims), "dims"))
    return shaping.flip(input, dims=turned if input.data.ndim else ())


def fliplr(input: Tensor) -> Tensor:
    """A copy with the columns in reverse order."""
    if input.data.ndim < 2:
        raise ShapeError("Input must be >= 2-d.")
    return flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    """A copy with the rows in reverse order."""
    if input.data.ndim < 1:
        raise ShapeError("Input must be >= 1-d.")
    return flip(input, 0)


def roll(input: Tensor, shifts: Sizes, dims: Sizes | None = None) -> Tensor:
    """A copy moved on by `shifts` along `dims`, or in its flattened order; what leaves comes in at the other end.

    Raises:
        ShapeError: there are not as many shifts as dimensions.
    """
    steps = ints((shifts,))
    axes = () if dims is None else ints((dims,))
    if dims is None and len(steps) == 1:
        return reshape(shaping.roll(reshape(input, input.data.size), shifts=steps, dims=(0,)), input.shape)
    if not steps:
        raise ShapeError("`shifts` required")
    if len(steps) != len(axes):
        raise ShapeError(f"shifts and dimensions must align. shifts: {len(steps)}, dims:{len(axes)}")
    return shaping.roll(input, shifts=steps, dims=tuple(axis_of(input, dim) for dim in axes))


def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """A copy turned by 90 degrees `k` times, from the first of `dims` towards the second.

    Raises:
        ShapeError: the dimensions are not two different ones.
    """
    if len(dims) != 2:
        raise ShapeError(f"expected total rotation dims == 2, but got dims = {len(dims)}")
    if input.data.ndim < 2:
        raise ShapeError(f"expected total dims >= 2, but got total dims = {input.data.ndim}")
    first, second = axis_of(input, dims[0]), axis_of(input, dims[1])
    if first == second:
        raise ShapeError(f"expected rotation dims to be different, but got dim0 = {dims[0]} and dim1 = {dims[1]}")
    match k % 4:
        case 1:
            return transpose(flip(input, second), first, second)
        case 2:
            return flip(input, first, second)
        case 3:
            return transpose(flip(input, first), first, second)
    return flip(input, ())


def repeat(input: Tensor, *times: Sizes, repeats: Sizes | None = None) -> Tensor:
    """A copy side by side with itself, so many times along each dimension; more numbers than dimensions add some.

    Raises:
        ShapeError: there are fewer numbers than dimensions, or one is negative.
    """
    counts = ints(with_keyword(times, repeats), "repeats")
    if len(counts) < input.data.ndim:
        raise ShapeError("Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor")
    lengths = (1,) * (len(counts) - input.data.ndim) + input.shape
    wanted = [n * m for n, m in zip(counts, lengths, strict=True)]
    if min(counts, default=0) < 0:
        worst = min(wanted)
        raise ShapeError(f"Trying to create tensor with negative dimension {worst}: {wanted}")
    return shaping.repeat(input, repeats=counts)


def tile(input: Tensor, *times: Sizes, dims: Sizes | None = None) -> Tensor:
    """`repeat` for which missing numbers are ones."""
    counts = ints(with_keyword(times, dims), "dims")
    return repeat(input, (1,) * (input.data.ndim - len(counts)) + counts)


@watched
def repeat_interleave(
    input: Tensor, repeats: int | Tensor | None = None, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Each element along `dim`, or of the flattened tensor, `repeats` times in a row.

    With one argument, a tensor of repeats, the indices 0, 1, … each so many times.

    Raises:
        ShapeError: a number is negative, or there are not as many as elements.
        UnsupportedError: the numbers are not integers.
    """
    require_tensor("repeat_interleave", input)
    if repeats is None:
        return Variable.wrap(np.repeat(np.arange(input.data.size), _repeats(input, input.data.size)))
    x, axis = (ravel(input), 0) if dim is None else (input, axis_of(input, dim))
    if x.data.ndim == 0:
        x = reshape(x, 1)
    times = _repeats(repeats, x.shape[axis])
    index = np.repeat(np.arange(x.shape[axis]), times)
    if output_size is not None and output_size != len(index):
        raise ShapeError(f"repeat_interleave: output_size {output_size} is not the {len(index)} the repeats add up to")
    return shaping.index_select(x, index=(slice(None),) * axis + (index,))


def _repeats(repeats: int | Tensor, length: int) -> Any:
    if isinstance(repeats, Variable):
        if repeats.data.dtype not in (int32, int64):
            raise UnsupportedError(f"\"repeat_interleave_cpu\" not implemented for '{type_name(repeats.data.dtype)}'")
        if repeats.data.ndim > 1:
            raise ShapeError("repeats must be 0-dim or 1-dim tensor")
        if repeats.data.size not in (1, length):
            raise ShapeError(
                "repeats must have the same size as input along dim, but got repeats.size(0) = "
                f"{repeats.data.size} and input.size(0) = {length}"
            )
    times = np.asarray(repeats.data if isinstance(repeats, Variable) else repeats)
    if (times < 0).any():
        raise ShapeError("repeats can not be negative" if times.ndim else "Repeats must be non-negative")
    return times


# ---- Corners and diagonals ----


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The matrices with zeros above a diagonal, 0 the main one, 1 the next above it."""
    if input.data.ndim < 2:
        raise ShapeError("tril: input tensor must have at least 2 dimensions")
    return shaping.tril(input, diagonal=diagonal)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The matrices with zeros below a diagonal, 0 the main one, 1 the next above it."""
    if input.data.ndim < 2:
        raise ShapeError("triu: input tensor must have at least 2 dimensions")
    return shaping.triu(input, diagonal=diagonal)


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A view of a diagonal of the matrices in two dimensions, as the last dimension.

    Raises:
        ShapeError: the dimensions are one.
    """
    first, second = axis_of(input, dim1), axis_of(input, dim2)
    if first == second:
        raise ShapeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    return shaping.diagonal(input, offset=offset, dim1=first, dim2=second)


def fill_diagonal_(input: Tensor, fill_value: Tensor | float, wrap: bool = False) -> Tensor:
    """Sets the diagonal of a matrix, in place.

    Raises:
        ShapeError: the tensor has fewer than two dimensions.
        UnsupportedError: it has more, or the diagonal of a tall matrix is to begin again below.
    """
    if input.data.ndim < 2:
        raise ShapeError("dimensions must larger than 1")
    if input.data.ndim > 2 or (wrap and input.data.shape[0] > input.data.shape[1] + 1):
        raise UnsupportedError(
            "fill_diagonal_() takes matrices, and wrap=True none that is tall; fill diagonal() views"
        )
    diagonal(input).fill_(fill_value)
    return input


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices of zeros in two new dimensions, with the last dimension of `input` on a diagonal.

    Raises:
        ShapeError: the dimensions are one.
    """
    ndim = input.data.ndim + 1
    for dim in (dim1, dim2):
        if not -ndim <= dim < ndim:
            raise DimensionError(
                f"Dimension out of range (expected to be in range of [{-ndim}, {ndim - 1}], but got {dim})"
            )
    first, second = dim1 % ndim, dim2 % ndim
    if first == second:
        raise ShapeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    shape = list(input.shape[:-1])
    size = input.shape[-1] + abs(offset)
    for axis in sorted((first, second)):
        shape.insert(axis, size)
    return shaping.on_diagonal(input, shape=tuple(shape), offset=offset, dim1=first, dim2=second)


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The matrix with a vector on a diagonal, or a copy of a diagonal of a matrix.

    Raises:
        ShapeError: the tensor is neither a vector nor a matrix.
    """
    match input.data.ndim:
        case 1:
            return diag_embed(input, diagonal)
        case 2:
            return shaping.contiguous(shaping.diagonal(input, offset=diagonal, dim1=0, dim2=1))
    raise ShapeError(f"diag(): Supports 1D or 2D tensors. Got {input.data.ndim}D")


# ---- Windows ----


def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """A view of the windows of `size` along a dimension, `step` apart, each in a new last dimension.

    Raises:
        ShapeError: the window is longer than the dimension, or the step not positive.
    """
    axis = axis_of(input, dimension)
    x = reshape(input, 1) if input.data.ndim == 0 else input
    if size < 0:
        raise ShapeError(f"size is {size} but must be >= 0")
    if size > x.shape[axis]:
        raise ShapeError(f"maximum size for tensor at dimension {axis} is {x.shape[axis]} but size is {size}")
    if step <= 0:
        raise ShapeError(f"step is {step} but must be > 0")
    if input.data.ndim == 0 and size == 0:
        return shaping.getitem(x, slice(0, 0))
    y = shaping.unfold(x, dim=axis, size=size, step=step)
    return y if input.data.ndim else reshape(y, -1)  # the one window of a number is a vector
