"""Functions that give a tensor another shape: views where memory allows, copies elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import type_name
from chainrule.engine.errors import DimensionError, DTypeError, ShapeError, UnsupportedError
from chainrule.engine.functions.arguments import axes_of, axis_of, ints, with_keyword
from chainrule.engine.ops import broadcasting
from chainrule.engine.ops import shape as shaping

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

__all__ = [
    "broadcast_shapes",
    "broadcast_tensors",
    "broadcast_to",
    "flatten",
    "meshgrid",
    "moveaxis",
    "movedim",
    "permute",
    "ravel",
    "reshape",
    "squeeze",
    "swapaxes",
    "swapdims",
    "t",
    "transpose",
    "unflatten",
    "unsqueeze",
]

Sizes = int | Sequence[int]

# ---- The same elements in another shape ----


def reshape(input: Tensor, *size: Sizes, shape: Sizes | None = None) -> Tensor:
    """The elements, row by row, in another shape; -1 stands for what is left. Shares memory where it can.

    Raises:
        ShapeError: the shape does not hold as many elements.
    """
    return shaping.reshape(input, shape=shaping.infer_shape(input.data.size, ints(with_keyword(size, shape), "shape")))


def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """`reshape` to the shape of `other`."""
    return reshape(input, other.shape)


def view(input: Tensor, *shape: Any, size: Sizes | None = None) -> Tensor:
    """`reshape` that never copies, but for images that lie channels-last.

    Convolutions and pooling give those, whatever they are given. What they cannot be seen as without a copy is a copy,
    which can't be written to: a write would not reach the images.

    Raises:
        ShapeError: the memory layout does not allow it.
        UnsupportedError: a dtype is given instead of a shape.
    """
    if len(shape) == 1 and isinstance(shape[0], np.dtype | type):
        raise UnsupportedError(
            f"view({shape[0]}): memory cannot be seen as another dtype; use to(dtype), which converts the elements"
        )
    wanted = shaping.infer_shape(input.data.size, ints(with_keyword(shape, size)))
    viewed = shaping.reshape(input, shape=wanted)
    if input.data.size == 0 or np.may_share_memory(input.data, viewed.data):
        return viewed
    if input.data.ndim == 4 and input.data.transpose(0, 2, 3, 1).flags.c_contiguous:
        viewed.data.flags.writeable = False
        return viewed
    raise ShapeError(
        "view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
        "contiguous subspaces). Use .reshape(...) instead."
    )


def vector(input: Tensor) -> Tensor:
    """A 0-d tensor as one of one element; any other as it is."""
    return input if input.data.ndim else reshape(input, 1)


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """`view` in the shape of `other`."""
    return view(input, other.shape)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The dimensions from `start_dim` to `end_dim` made one.

    Raises:
        ShapeError: the first comes after the last.
    """
    start, end = axis_of(input, start_dim), axis_of(input, end_dim)
    if input.data.ndim == 0:
        return reshape(input, 1)
    if start > end:
        raise ShapeError("flatten() has invalid args: start_dim cannot come after end_dim")
    if start == end:
        return input
    count = math.prod(input.shape[start : end + 1])
    return shaping.reshape(input, shape=(*input.shape[:start], count, *input.shape[end + 1 :]))


def ravel(input: Tensor) -> Tensor:
    """All dimensions made one."""
    return reshape(input, -1) if input.data.size else reshape(input, 0)


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """One dimension made several, of lengths `sizes`, one of which may be -1.

    Raises:
        ShapeError: they do not multiply up to its length.
    """
    axis = axis_of(input, dim)
    if not sizes:
        raise ShapeError("unflatten: sizes must be non-empty")
    try:
        inner = shaping.infer_shape(input.shape[axis], tuple(sizes))
    except ShapeError:
        raise ShapeError(
            f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size of dim {axis} "
            f"({input.shape[axis]}) in the input tensor"
        ) from None
    return shaping.reshape(input, shape=(*input.shape[:axis], *inner, *input.shape[axis + 1 :]))


def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Without the dimensions of length one: all of them, or those of `dim`."""
    drop: Sequence[int] = range(input.data.ndim)
    if dim is not None:
        drop = axes_of(input, dim)
    shape = tuple(n for axis, n in enumerate(input.shape) if n != 1 or axis not in drop)
    return shaping.squeeze(input, shape=shape)


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a new dimension of length one at `dim`."""
    axis = new_axis(input, dim)
    return shaping.unsqueeze(input, shape=(*input.shape[:axis], 1, *input.shape[axis:]))


def new_axis(input: Tensor, dim: int) -> int:
    """Where among the dimensions of `input` a new one at `dim` goes.

    Raises:
        DimensionError: it is too far out.
    """
    ndim = input.data.ndim
    if not -ndim - 1 <= dim <= ndim:
        raise DimensionError(
            f"Dimension out of range (expected to be in range of [{-ndim - 1}, {ndim}], but got {dim})"
        )
    return dim % (ndim + 1)


# ---- Dimensions in another order ----


def permute(input: Tensor, *order: Sizes, dims: Sizes | None = None) -> Tensor:
    """The dimensions in another order.

    Raises:
        ShapeError: not every dimension is named once.
    """
    wanted = ints(with_keyword(order, dims), "dims")
    if len(wanted) != input.data.ndim:
        raise ShapeError(
            "permute(sparse_coo): number of dimensions in the tensor input does not match the length of the desired "
            f"ordering of dimensions i.e. input.dim() = {input.data.ndim} is not equal to len(dims) = {len(wanted)}"
        )
    axes = tuple([axis_of(input, dim) for dim in wanted])
    if len(set(axes)) != len(axes):
        raise ShapeError("permute(): duplicate dims are not allowed.")
    return shaping.permute(input, dims=axes)


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions swapped."""
    first, second = axis_of(input, dim0), axis_of(input, dim1)
    if input.data.ndim == 0:
        return shaping.reshape(input, shape=())
    return shaping.transpose(input, dim0=first, dim1=second)


def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """Two dimensions swapped."""
    return transpose(input, axis0, axis1)


def swapdims(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions swapped."""
    return transpose(input, dim0, dim1)


def movedim(input: Tensor, source: Sizes, destination: Sizes) -> Tensor:
    """The dimensions `source` moved to the positions `destination`; the others keep their order.

    Raises:
        ShapeError: they are not as many, or one is named twice.
    """
    sources, destinations = ints((source,)), ints((destination,))
    if len(sources) != len(destinations):
        raise ShapeError(
            f"movedim: Invalid source or destination dims: source ({list(sources)} dims) should contain the same "
            f"number of dims as destination ({list(destinations)} dims)"
        )
    start = [axis_of(input, dim) for dim in sources]
    end = [axis_of(input, dim) for dim in destinations]
    for name, axes, given in (("source", start, sources), ("destination", end, destinations)):
        if len(set(axes)) != len(axes):
            raise ShapeError(f"movedim: repeated dim in `{name}` ({list(given)})")
    order = [axis for axis in range(input.data.ndim) if axis not in start]
    for position, axis in sorted(zip(end, start, strict=True)):
        order.insert(position, axis)
    return shaping.permute(input, dims=tuple(order[: input.data.ndim]))


moveaxis = movedim


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix.

    Raises:
        ShapeError: the tensor has more than two dimensions.
    """
    if input.data.ndim > 2:
        raise ShapeError(f"t() expects a tensor with <= 2 dimensions, but self is {input.data.ndim}D")
    return transpose(input, 0, 1) if input.data.ndim == 2 else shaping.reshape(input, shape=input.shape)


def reversed_dims(input: Tensor) -> Tensor:
    """The dimensions in reverse order."""
    return shaping.permute(input, dims=tuple(range(input.data.ndim))[::-1])


def matrix_transpose(input: Tensor) -> Tensor:
    """The last two dimensions swapped.

    Raises:
        ShapeError: the tensor has fewer than two.
    """
    if input.data.ndim < 2:
        raise ShapeError(
            f"tensor.mT is only supported on matrices or batches of matrices. Got {input.data.ndim}-D tensor."
        )
    return shaping.transpose(input, dim0=input.data.ndim - 2, dim1=input.data.ndim - 1)


# ---- Repeated without copying ----


def expand(input: Tensor, *shape: Sizes, size: Sizes | None = None) -> Tensor:
    """Repeated along new dimensions and those of length one, without copying; -1 keeps a length.

    Raises:
        ShapeError: a dimension of another length than one would change.
    """
    wanted = ints(with_keyword(shape, size))
    new = len(wanted) - input.data.ndim
    if new < 0:
        raise ShapeError(
            f"expand(torch.{type_name(input.dtype)}Tensor{{{list(input.shape)}}}, size={list(wanted)}): the number of "
            f"sizes provided ({len(wanted)}) must be greater or equal to the number of dimensions in the tensor "
            f"({input.data.ndim})"
        )
    sizes = []
    for axis, n in reversed([*enumerate(wanted)]):
        length = input.shape[axis - new] if axis >= new else None
        if n == -1 and length is None:
            raise ShapeError(
                f"The expanded size of the tensor (-1) isn't allowed in a leading, non-existing dimension {axis}"
            )
        if length not in (None, 1, n) and n != -1:
            raise ShapeError(
                f"The expanded size of the tensor ({n}) must match the existing size ({length}) at non-singleton "
                f"dimension {axis}.  Target sizes: {list(wanted)}.  Tensor sizes: {list(input.shape)}"
            )
        sizes.append(length if n == -1 and length is not None else n)
    return broadcasting.expand(input, shape=tuple(sizes[::-1]))


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """`expand` to the shape of `other`."""
    return expand(input, other.shape)


def broadcast_to(input: Tensor, shape: Sequence[int]) -> Tensor:
    """`expand` to `shape`."""
    return expand(input, tuple(shape))


def broadcast_shapes(*shapes: Sizes) -> tuple[int, ...]:
    """The shape that all of `shapes` expand to.

    Raises:
        ShapeError: there is none.
    """
    sizes: tuple[int, ...] = ()
    for shape in shapes:
        sizes = broadcast_pair(sizes, ints((shape,)))
    return sizes


def broadcast_pair(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that both expand to.

    Raises:
        ShapeError: there is none.
    """
    ndim = max(len(a), len(b))
    first, second = (1,) * (ndim - len(a)) + a, (1,) * (ndim - len(b)) + b
    for axis in reversed(range(ndim)):
        if first[axis] != second[axis] and 1 not in (first[axis], second[axis]):
            raise ShapeError(
                f"The size of tensor a ({first[axis]}) must match the size of tensor b ({second[axis]}) at "
                f"non-singleton dimension {axis}"
            )
    return tuple(m if n == 1 else n for m, n in zip(first, second, strict=True))


def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors, expanded to one shape."""
    given: Any = tensors[0] if len(tensors) == 1 and not isinstance(tensors[0], Variable) else tensors
    shape = broadcast_shapes(*[x.shape for x in given])
    return tuple(expand(x, shape) for x in given)


def meshgrid(*tensors: Tensor | Sequence[Tensor], indexing: str | None = None) -> tuple[Tensor, ...]:
    """The coordinates of a grid: for each of the given lines one tensor with a dimension for each line.

    Args:
        tensors: of one dimension each, or 0-d, of one dtype.
        indexing: "ij", the default, or "xy", which swaps the first two dimensions.

    Raises:
        ShapeError: a tensor has more dimensions.
        DTypeError: the dtypes differ.
    """
    lines: Any = tensors[0] if len(tensors) == 1 and not isinstance(tensors[0], Variable) else tensors
    if not lines:
        raise ShapeError("meshgrid expects a non-empty TensorList")
    if indexing not in (None, "ij", "xy"):
        raise ShapeError(f'torch.meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}')
    if len({x.dtype for x in lines}) > 1:
        raise DTypeError("meshgrid expects all tensors to have the same dtype")
    for x in lines:
        if x.ndim > 1:
            raise ShapeError(f"torch.meshgrid: Expected 0D or 1D tensor in the tensor list but got: {list(x.shape)}")
    shape = tuple(x.data.size for x in lines)
    grids = []
    for axis, x in enumerate(lines):
        along = tuple(n if other == axis else 1 for other, n in enumerate(shape))
        grids.append(expand(reshape(x, along), shape))
    if indexing == "xy" and len(grids) > 1:
        return tuple(transpose(grid, 0, 1) for grid in grids)
    return tuple(grids)
