"""Functions that put tensors together and take them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import DType, promote
from chainrule.engine.errors import ArgumentError, DimensionError, DTypeError, ShapeError
from chainrule.engine.functions.arguments import axis_of, require_tensor
from chainrule.engine.functions.autocast import active, promoted
from chainrule.engine.functions.shapes import new_axis, reshape, unsqueeze
from chainrule.engine.ops import shape as shaping
from chainrule.engine.ops.op import Op

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

__all__ = [
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "cat",
    "chunk",
    "column_stack",
    "concat",
    "concatenate",
    "diff",
    "dsplit",
    "dstack",
    "hsplit",
    "hstack",
    "narrow",
    "row_stack",
    "select",
    "split",
    "stack",
    "tensor_split",
    "unbind",
    "vsplit",
    "vstack",
]

# ---- Together ----


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors one after another along `dim`; they agree in every other dimension.

    Raises:
        ArgumentError: there are none.
        ShapeError: they do not agree, or one is 0-d.
    """
    dtype = _common_dtype("cat", tensors)
    if active:
        tensors = promoted(*tensors)
        dtype = _common_dtype("cat", tensors)
    for position, x in enumerate(tensors):
        if x.data.ndim == 0:
            raise ShapeError(f"zero-dimensional tensor (at position {position}) cannot be concatenated")
    parts = [x for x in tensors if x.data.shape != (0,)] or tensors[:1]  # PyTorch's empty tensors fit everywhere
    first = parts[0]
    axis = axis_of(first, dim)
    for position, x in enumerate(tensors):
        if x.data.shape == (0,):
            continue
        if x.data.ndim != first.data.ndim:
            raise ShapeError(f"Tensors must have same number of dimensions: got {first.data.ndim} and {x.data.ndim}")
        for other, (n, m) in enumerate(zip(first.shape, x.shape, strict=True)):
            if n != m and other != axis:
                raise ShapeError(
                    f"Sizes of tensors must match except in dimension {axis}. Expected size {n} but got size {m} for "
                    f"tensor number {position} in the list."
                )
    return shaping.cat(*[x if x.data.dtype == dtype else x.to(dtype) for x in parts], dim=axis)


concat = concatenate = cat


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors, all of one shape, along a new dimension.

    Raises:
        ShapeError: there are none, or their shapes differ.
    """
    if not isinstance(tensors, Variable) and not tensors:
        raise ShapeError("stack expects a non-empty TensorList")
    dtype = _common_dtype("stack", tensors)
    if active:
        tensors = promoted(*tensors)
        dtype = _common_dtype("stack", tensors)
    for position, x in enumerate(tensors):
        if x.data.shape != tensors[0].data.shape:
            raise ShapeError(
                f"stack expects each tensor to be equal size, but got {list(tensors[0].shape)} at entry 0 and "
                f"{list(x.shape)} at entry {position}"
            )
    axis = new_axis(tensors[0], dim)
    return shaping.stack(*[x if x.data.dtype == dtype else x.to(dtype) for x in tensors], dim=axis)


def _common_dtype(name: str, tensors: Sequence[Tensor]) -> DType:
    if isinstance(tensors, Variable) or not isinstance(tensors, Sequence):
        raise DTypeError(
            f"{name}(): argument 'tensors' (position 1) must be tuple of Tensors, not {type(tensors).__name__}"
        )
    if not tensors:
        raise ArgumentError(f"torch.{name}(): expected a non-empty list of Tensors")
    for position, x in enumerate(tensors):
        if not isinstance(x, Variable):
            raise DTypeError(f"expected Tensor as element {position} in argument 0, but got {type(x).__name__}")
    return promote([x.data.dtype for x in tensors])


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors side by side: along the second dimension, or along the first of vectors."""
    parts = _all_at_least("hstack", tensors, 1)
    return cat(parts, 0 if parts[0].data.ndim == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors one below another; vectors are rows."""
    return cat(_all_at_least("vstack", tensors, 2), 0)


row_stack = vstack


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors one behind another, along the third dimension."""
    return cat(_all_at_least("dstack", tensors, 3), 2)


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors side by side; vectors are columns."""
    parts = _all_at_least("column_stack", tensors, 0)
    return hstack([reshape(x, x.data.size, 1) if x.data.ndim <= 1 else x for x in parts])


def _all_at_least(name: str, tensors: Sequence[Tensor], ndim: int) -> list[Tensor]:
    if not isinstance(tensors, Variable) and not tensors:
        raise ShapeError(f"{name} expects a non-empty TensorList")
    _common_dtype(name, tensors)
    return [_at_least(x, ndim) for x in tensors]


def _at_least(x: Tensor, ndim: int) -> Tensor:
    """With new dimensions of length one, in front; the third behind."""
    while x.data.ndim < min(ndim, 2):
        x = unsqueeze(x, 0)
    return unsqueeze(x, -1) if x.data.ndim < ndim else x


def _each_at_least(tensors: tuple[Tensor | Sequence[Tensor], ...], ndim: int) -> Any:
    if len(tensors) == 1 and isinstance(tensors[0], Variable):
        return _at_least(tensors[0], ndim)
    given: Any = tensors[0] if len(tensors) == 1 else tensors
    return tuple(_at_least(x, ndim) for x in given)


def atleast_1d(*tensors: Tensor | Sequence[Tensor]) -> Any:
    """The tensor, or each of several, with one dimension at least."""
    return _each_at_least(tensors, 1)


def atleast_2d(*tensors: Tensor | Sequence[Tensor]) -> Any:
    """The tensor, or each of several, with two dimensions at least."""
    return _each_at_least(tensors, 2)


def atleast_3d(*tensors: Tensor | Sequence[Tensor]) -> Any:
    """The tensor, or each of several, with three dimensions at least."""
    return _each_at_least(tensors, 3)


# ---- Apart: what split, chunk and unbind give cannot be written to while autograd records ----


def split(tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Parts along `dim`, of one length (the last may be shorter) or of the given lengths.

    Raises:
        ShapeError: the lengths are negative or do not add up.
    """
    if tensor.data.ndim == 0:
        raise ShapeError("split expects at least a 1-dimensional tensor")
    axis = axis_of(tensor, dim)
    length = tensor.shape[axis]
    if isinstance(split_size_or_sections, int | np.integer):
        size = int(split_size_or_sections)
        if size < 0:
            raise ShapeError(f"split expects split_size be non-negative, but got split_size={size}")
        if size == 0 and length:
            raise ShapeError(f"split_size can only be 0 if dimension size is 0, but got dimension size of {length}")
        sections = [min(size, length - start) for start in range(0, length, size or 1)] or [0]
    else:
        sections = [int(size) for size in split_size_or_sections]
        if min(sections, default=0) < 0:
            raise ShapeError(
                f"split_with_sizes expects split_sizes have only non-negative entries, but got split_sizes={sections}"
            )
        if sum(sections) != length:
            raise ShapeError(
                f"split_with_sizes expects split_sizes to sum exactly to {length} (input tensor's size at dimension "
                f"{axis}), but got split_sizes={sections}"
            )
    return _parts(shaping.split, tensor, sections, axis)


def _parts(part: Op, x: Tensor, sections: Sequence[int], axis: int) -> tuple[Tensor, ...]:
    parts, start = [], 0
    for size in sections:
        parts.append(part(x, start=start, length=size, dim=axis))
        start += size
    return tuple(parts)


def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """`split` into the given lengths."""
    return split(input, list(split_sizes), dim)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most so many parts along `dim`, of one length but for the last.

    Raises:
        ShapeError: the number is not positive, or the tensor is 0-d.
    """
    if input.data.ndim == 0:
        raise ShapeError("chunk expects at least a 1-dimensional tensor")
    if chunks <= 0:
        raise ShapeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    length = input.shape[axis_of(input, dim)]
    return split(input, -(-length // chunks), dim) if length else split(input, [0] * chunks, dim)


def tensor_split(input: Tensor, indices_or_sections: int | Sequence[int] | Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """So many parts along `dim`, whose lengths differ by one at most; or the parts between the given indices.

    Raises:
        ShapeError: the number is not positive, or the tensor is 0-d.
    """
    if input.data.ndim == 0:
        raise ShapeError("tensor_split expected at least a 1-dimensional tensor, but got a tensor with 0 dims")
    axis = axis_of(input, dim)
    length = input.shape[axis]
    where: Any = indices_or_sections
    if isinstance(where, Variable):
        where = where.data.tolist()
    if isinstance(where, int | np.integer):
        if where <= 0:
            raise ShapeError(f"number of sections must be larger than 0, got {where}")
        share, rest = divmod(length, int(where))
        return _parts(shaping.narrow, input, [share + (part < rest) for part in range(int(where))], axis)
    bounds = [slice(start, end).indices(length)[:2] for start, end in zip([0, *where], [*where, None], strict=True)]
    return tuple(shaping.narrow(input, start=start, length=max(end - start, 0), dim=axis) for start, end in bounds)


def hsplit(input: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """`tensor_split` along the second dimension, or along the first of a vector, into parts of one length."""
    if input.data.ndim < 1:
        raise ShapeError(
            "torch.hsplit requires a tensor with at least 1 dimension, but got a tensor with 0 dimensions!"
        )
    return _split_evenly("hsplit", input, indices_or_sections, 0 if input.data.ndim == 1 else 1)


def vsplit(input: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """`tensor_split` along the first of two dimensions at least, into parts of one length."""
    if input.data.ndim < 2:
        raise ShapeError(
            "torch.vsplit requires a tensor with at least 2 dimension, but got a tensor with "
            f"{input.data.ndim} dimensions!"
        )
    return _split_evenly("vsplit", input, indices_or_sections, 0)


def dsplit(input: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """`tensor_split` along the third dimension, into parts of one length."""
    if input.data.ndim < 3:
        raise ShapeError(
            "torch.dsplit requires a tensor with at least 3 dimension, but got a tensor with "
            f"{input.data.ndim} dimensions!"
        )
    return _split_evenly("dsplit", input, indices_or_sections, 2)


def _split_evenly(name: str, x: Tensor, where: int | Sequence[int], axis: int) -> tuple[Tensor, ...]:
    if isinstance(where, int) and (where <= 0 or x.shape[axis] % where):
        raise ShapeError(
            f"torch.{name} attempted to split along dimension {axis}, but the size of the dimension {x.shape[axis]} "
            f"is not divisible by the split_size {where}!"
        )
    return tensor_split(x, where, axis)


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along `dim`, without that dimension.

    Raises:
        DimensionError: the tensor is 0-d.
    """
    if input.data.ndim == 0:
        raise DimensionError(f"Dimension specified as {dim} but tensor has no dimensions")
    axis = axis_of(input, dim)
    before = (slice(None),) * axis
    return tuple(shaping.unbind(input, index=(*before, i)) for i in range(input.shape[axis]))


# ---- One part ----


def narrow(input: Tensor, dim: int, start: int | Tensor, length: int) -> Tensor:
    """The view of `length` elements along `dim` from `start` on.

    Raises:
        DimensionError: `start` is too far out.
        ShapeError: the part does not lie in the tensor.
    """
    if input.data.ndim == 0:
        raise ShapeError("narrow() cannot be applied to a 0-dim tensor.")
    if length < 0:
        raise ShapeError("narrow(): length must be non-negative.")
    axis = axis_of(input, dim)
    size, first = input.shape[axis], int(start)
    if not -size <= first <= size:
        raise DimensionError(f"start out of range (expected to be in range of [{-size}, {size}], but got {first})")
    if first < 0:
        first += size
    if first + length > size:
        raise ShapeError(f"start ({first}) + length ({length}) exceeds dimension size ({size}).")
    return shaping.narrow(input, start=first, length=length, dim=axis)


def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor:
    """yᵢ = xᵢ₊₁ − xᵢ along `dim`, done n times; of booleans whether neighbours differ.

    Raises:
        ShapeError: the tensor has no dimensions, n is negative, or what is put before or after it does not fit.
    """
    require_tensor("diff", input)
    if input.data.ndim == 0:
        raise ShapeError("diff expects input to be at least one-dimensional")
    if n < 0:
        raise ShapeError(f"order must be non-negative but got {n}")
    parts = [part for part in (prepend, input, append) if part is not None]
    dim = axis_of(input, dim)
    y = cat(parts, dim) if len(parts) > 1 else input
    for _ in range(min(n, y.shape[dim])):
        size = max(y.shape[dim] - 1, 0)
        later, earlier = narrow(y, dim, y.shape[dim] - size, size), narrow(y, dim, 0, size)
        y = later != earlier if y.data.dtype.kind == "b" else later - earlier
    return y


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """The view of what lies at `index` along `dim`.

    Raises:
        DimensionError: there is nothing.
    """
    if input.data.ndim == 0:
        raise DimensionError("select() cannot be applied to a 0-dim tensor.")
    axis = axis_of(input, dim)
    if not -input.shape[axis] <= index < input.shape[axis]:
        raise DimensionError(
            f"select(): index {index} out of range for tensor of size {list(input.shape)} at dimension {axis}"
        )
    return shaping.select(input, index=(*((slice(None),) * axis), int(index)))
