"""Functions that read and write where a mask is true, and that find where something is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import bool_, type_name
from chainrule.engine.errors import ArgumentError, DTypeError, ShapeError
from chainrule.engine.functions.arguments import Number, c_name, number_like
from chainrule.engine.functions.shapes import broadcast_pair, expand, reshape, vector
from chainrule.engine.ops import shape as shaping
from chainrule.engine.watching import watched

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

__all__ = ["argwhere", "bucketize", "masked_fill", "masked_scatter", "masked_select", "nonzero", "searchsorted"]

# ---- Masks ----


@watched
def masked_fill(input: Tensor, mask: Tensor, value: Number | Tensor) -> Tensor:
    """`value` where `mask` is true, `input` elsewhere; both broadcast to one shape.

    Raises:
        DTypeError: the mask is not of bool.
        ShapeError: it does not broadcast, or the value has dimensions.
    """
    if mask.data.dtype != bool_:
        raise DTypeError(f"masked_fill_ only supports boolean masks, but got mask with dtype {c_name(mask.dtype)}")
    if isinstance(value, Variable) and value.data.ndim:
        raise ShapeError(
            "masked_fill_ only supports a 0-dimensional value tensor, but got tensor with "
            f"{value.data.ndim} dimension(s)."
        )
    shape = broadcast_pair(mask.shape, input.shape)
    x = input if input.shape == shape else expand(input, shape)
    return shaping.masked_fill(x, number_like(value, input.dtype), mask=np.broadcast_to(mask.data, shape).copy())


@watched
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where `mask` is true, in a vector; both broadcast to one shape.

    Raises:
        DTypeError: the mask is not of bool.
    """
    if mask.data.dtype != bool_:
        raise DTypeError("masked_select: expected BoolTensor for mask")
    shape = broadcast_pair(mask.shape, input.shape)
    x = input if input.shape == shape else expand(input, shape)
    if not shape:
        x, shape = reshape(x, 1), (1,)
    return shaping.take(x, index=np.broadcast_to(mask.data, shape).nonzero())


@watched
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """`input` with the elements where `mask` is true replaced by the first ones of `source`, in order.

    Raises:
        DTypeError: the mask is not of bool, or the dtypes differ.
        ShapeError: there are too few.
    """
    if mask.data.dtype != bool_:
        raise DTypeError(f"masked_scatter_ only supports boolean masks, but got mask with dtype {c_name(mask.dtype)}")
    if input.dtype != source.dtype:
        raise DTypeError(
            f"masked_scatter: expected self and source to have same dtypes but got{type_name(input.dtype)} and "
            f"{type_name(source.dtype)}"
        )
    shape = broadcast_pair(mask.shape, input.shape)
    x = input if input.shape == shape else expand(input, shape)
    where = np.broadcast_to(mask.data, shape).reshape(shape or (1,)).nonzero()
    count = len(where[0])
    if source.data.size < count:
        raise ShapeError("Number of elements of source < number of ones in mask")
    values = shaping.narrow(reshape(source, source.data.size), start=0, length=count, dim=0)
    return reshape(shaping.overwrite(vector(x), values, index=where), shape)


# ---- Where something is ----


@watched
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The indices of the elements that are not zero: rows of a matrix, or a tuple of one vector for each dimension."""
    if as_tuple:
        return tuple(map(Variable.wrap, np.atleast_1d(input.data).nonzero()))
    return Variable.wrap(np.ascontiguousarray(np.argwhere(input.data)))


@watched
def argwhere(input: Tensor) -> Tensor:
    """The indices of the elements that are not zero, as the rows of a matrix."""
    return Variable.wrap(np.ascontiguousarray(np.argwhere(input.data)))


@watched
def searchsorted(
    sorted_sequence: Tensor,
    input: Tensor | Number,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Where in the sorted last dimension each element would go: before equal ones, or after them on the right.

    Args:
        sorted_sequence: a vector, or (..., N) with the same leading dimensions as `input`.
        input: what is to be placed.
        out_int32: gives int32 rather than int64.
        right: whether to go after equal ones.
        side: "left" or "right", the same by another name.
        sorter: the indices that sort the last dimension, of a sequence that is not.

    Raises:
        ShapeError: the leading dimensions differ.
        ArgumentError: the side is neither.
    """
    if side not in (None, "left", "right"):
        raise ArgumentError("torch.searchsorted(): side can only be 'left' or 'right'")
    where = side or ("right" if right else "left")
    edges = sorted_sequence.data if sorter is None else np.take_along_axis(sorted_sequence.data, sorter.data, -1)
    values = np.asarray(input.data if isinstance(input, Variable) else input)
    if edges.ndim == 1:
        found = np.asarray(np.searchsorted(edges, values, where))  # type: ignore[call-overload]
    elif edges.shape[:-1] != values.shape[:-1] or edges.ndim != values.ndim:
        raise ShapeError(
            "torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 dimensions of boundaries "
            f"tensor and input value tensor must match, but we got boundaries tensor {list(edges.shape)} and input "
            f"value tensor {list(values.shape)}"
        )
    else:
        found = np.empty(values.shape, np.int64)
        for place in np.ndindex(edges.shape[:-1]):
            found[place] = np.searchsorted(edges[place], values[place], where)  # type: ignore[call-overload]
    return Variable.wrap(found.astype(np.int32 if out_int32 else np.int64))


def bucketize(input: Tensor | Number, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """Between which of the sorted boundaries, a vector, each element lies; see `searchsorted`."""
    if boundaries.data.ndim != 1:
        raise ShapeError(f"boundaries tensor must be 1 dimension, but got dim({boundaries.data.ndim})")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)
