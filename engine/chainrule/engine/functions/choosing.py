"""Functions that read and write the elements that tensors of indices name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import Array, int32, int64, is_floating, type_name
from chainrule.engine.errors import BoundsError, DimensionError, DTypeError, ShapeError, UnsupportedError
from chainrule.engine.functions.arguments import Number, axis_of, number_like
from chainrule.engine.functions.autocast import active, promoted
from chainrule.engine.functions.indexing import getitem, resolve
from chainrule.engine.functions.shapes import broadcast_pair, expand, reshape, vector
from chainrule.engine.ops import elementwise
from chainrule.engine.ops import shape as shaping
from chainrule.engine.watching import watched

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

__all__ = [
    "gather",
    "index_add",
    "index_copy",
    "index_fill",
    "index_put",
    "index_select",
    "scatter",
    "scatter_add",
    "scatter_reduce",
    "take",
    "take_along_dim",
]

# ---- One index for each element: gather and scatter ----


@watched
def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """out[i][j] = input[index[i][j]][j], for dim = 0.

    Args:
        input: any shape.
        dim: along which the index counts.
        index: no larger than `input` in the other dimensions; the shape of the result.
        sparse_grad: False.

    Raises:
        ShapeError: the index does not fit, or points out of bounds; negative ones do.
        DTypeError: it is not of int64 or int32.
    """
    if sparse_grad:
        raise UnsupportedError("gather(sparse_grad=True): there are no sparse tensors; leave it False")
    axis = axis_of(input, dim)
    positions = _integers("gather", index, "int32/int64")
    if max(positions.ndim, 1) != max(input.data.ndim, 1):
        raise ShapeError("Index tensor must have the same number of dimensions as input tensor")
    if not positions.size:
        return reshape(getitem(reshape(input, -1), slice(0, 0)), positions.shape)  # nothing, with a history
    for other, (n, length) in enumerate(zip(positions.shape, input.shape, strict=False)):
        if other != axis and n > length:
            raise ShapeError(
                f"Size does not match at dimension {other} expected index {list(positions.shape)} to be no larger "
                f"than self {list(input.shape)} apart from dimension {axis}"
            )
    x = vector(input)
    _check_bounds(positions, x.shape[axis], axis)
    y = shaping.gather(x, dim=axis, index=np.atleast_1d(positions))
    return y if positions.ndim else reshape(y, ())


@watched
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather` that broadcasts the other dimensions and counts negative indices from the end; without `dim`, of the
    flattened tensors."""
    if dim is None:
        return gather(reshape(input, -1), 0, _counted(reshape(indices, -1), input.data.size))
    if input.data.ndim != indices.data.ndim:
        raise ShapeError(
            "torch.take_along_dim(): input and indices should have the same number of dimensions, but got "
            f"{input.data.ndim} dimensions for input, and {indices.data.ndim} dimensions for indices"
        )
    if input.data.ndim == 0:
        raise DimensionError(f"Dimension specified as {dim} but tensor has no dimensions")
    axis = axis_of(input, dim)
    rest = [tuple(n for other, n in enumerate(x.shape) if other != axis) for x in (input, indices)]
    shape = broadcast_pair(*rest)
    x = expand(input, (*shape[:axis], input.shape[axis], *shape[axis:]))
    counted = _counted(indices, input.shape[axis])
    return gather(x, axis, expand(counted, (*shape[:axis], indices.shape[axis], *shape[axis:])))


def _counted(indices: Tensor, length: int) -> Tensor:
    """Indices counted from the beginning."""
    positions = _integers("take_along_dim", indices, "int32/int64")
    return Variable.wrap(np.where(positions < 0, positions + length, positions))


@watched
def scatter(
    input: Tensor,
    dim: int,
    index: Tensor,
    src: Tensor | Number | None = None,
    *,
    value: Number | None = None,
    reduce: str | None = None,
) -> Tensor:
    """A copy of `input` with out[index[i][j]][j] = src[i][j], for dim = 0.

    Args:
        input: any shape.
        dim: along which the index counts.
        index: no larger than `src`, nor than `input` in the other dimensions.
        src: the values, a tensor or a number.
        value: the same, for a number by its name.
        reduce: "add" adds instead.

    Raises:
        ShapeError: the index does not fit, or points out of bounds.
        DTypeError: `src` has another dtype, or the index is not of int64 or int32.
        UnsupportedError: reduce="multiply".
    """
    source = value if src is None else src
    if source is None:
        raise DTypeError("scatter() missing 1 required positional argument: 'src' or 'value'")
    if reduce not in (None, "add", "multiply"):
        raise ShapeError("reduce argument must be either add or multiply.")
    if reduce == "multiply":
        raise UnsupportedError("scatter(reduce='multiply') has no gradient in PyTorch either; multiply by a gather")
    v: Tensor
    if isinstance(source, Variable):
        v = source
    else:
        v = number_like(source, input.dtype)
        v = expand(reshape(v, (1,) * index.data.ndim), index.shape)
    op = shaping.scatter_add if reduce == "add" else shaping.scatter_over
    return _scatter(op, "scatter", input, dim, index, v)


@watched
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """A copy of `input` with out[index[i][j]][j] += src[i][j], for dim = 0; see `scatter`."""
    return _scatter(shaping.scatter_add, "scatter", input, dim, index, src)


def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """`scatter_add`, or for reduce="mean" the mean of what meets; without `include_self`, of `src` alone.

    Raises:
        UnsupportedError: reduce is "prod", "amax" or "amin".
    """
    if reduce not in ("sum", "prod", "mean", "amax", "amin"):
        raise ShapeError(f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}")
    if reduce not in ("sum", "mean"):
        raise UnsupportedError(f"scatter_reduce(reduce={reduce!r}) is not supported; 'sum' and 'mean' are")
    base = input if include_self else scatter(input, dim, index, 0)
    total = scatter_add(base, dim, index, src)
    if reduce == "sum":
        return total
    ones = Variable.wrap(np.ones_like(src.data))
    start = Variable.wrap(np.full(input.shape, include_self, input.dtype))
    count = np.maximum(scatter_add(start, dim, index, ones).data, np.ones((), input.dtype))
    if is_floating(input.dtype):
        return elementwise.div(total, Variable.wrap(count))
    return Variable.wrap(total.data // count)


def _scatter(op: Any, name: str, input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    axis = axis_of(input, dim)
    positions = _integers(name, index, "int32/int64")
    for other, x in (("self", input), ("src", src)):
        if max(positions.ndim, 1) != max(x.data.ndim, 1):
            raise ShapeError(f"Index tensor must have the same number of dimensions as {other} tensor")
    if input.dtype != src.dtype:
        raise DTypeError(f"{name}(): Expected self.dtype to be equal to src.dtype")
    if not positions.size:
        return elementwise.clone(input)
    x, v, where = vector(input), vector(src), np.atleast_1d(positions)
    fits = all(n <= m for other, (n, m) in enumerate(zip(where.shape, x.shape, strict=True)) if other != axis)
    if not fits or any(n > m for n, m in zip(where.shape, v.shape, strict=True)):
        raise ShapeError(
            f"Expected index {list(positions.shape)} to be no larger than self {list(input.shape)} apart from "
            f"dimension {axis} and to be no larger size than src {list(src.shape)}"
        )
    _check_bounds(where, x.shape[axis], axis)
    if v.shape != where.shape:
        v = shaping.slice_(v, index=tuple(slice(n) for n in where.shape))
    y: Tensor = op(x, v, dim=axis, index=where)
    return y if input.data.ndim else reshape(y, ())


# ---- One index for each slice ----


@watched
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices along `dim` that `index`, a vector, names.

    Raises:
        DimensionError: one is not there; negative ones are not.
        DTypeError: the index is not of int64 or int32.
    """
    axis = axis_of(input, dim)
    positions = _integers("index_select", index, "int32 or int64")
    if positions.ndim > 1:
        raise DimensionError("index_select(): Index is supposed to be a vector")
    positions = np.atleast_1d(positions)
    x = vector(input)
    if input.data.ndim == 0 and positions.size != 1:
        raise BoundsError(f"index_select(): Index to scalar can have only 1 value, got {positions.size} value(s)")
    if positions.size and not (positions.min() >= 0 and positions.max() < x.shape[axis]):
        raise BoundsError("index out of range in self")
    y = shaping.index_select(x, index=(*((slice(None),) * axis), positions))
    return y if input.data.ndim else reshape(y, ())


@watched
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Number = 1) -> Tensor:
    """A copy of `input` to whose slices along `dim`, which `index` names, alpha · source is added.

    Raises:
        ShapeError: the slices do not fit, or one is not there.
        DTypeError: the dtypes differ.
    """
    axis = axis_of(input, dim)
    positions = _slices("index_add_", input, axis, index, source)
    if input.dtype != source.dtype:
        raise DTypeError(
            f"index_add_(): self ({type_name(input.dtype)}) and source ({type_name(source.dtype)}) must have the same "
            "scalar type"
        )
    if positions.size != vector(source).shape[axis]:
        raise ShapeError(
            f"index_add_(): Number of indices ({positions.size}) should be equal to source.size(dim): "
            f"({vector(source).shape[axis]}), for dim: {axis}"
        )
    if _without(input, axis) != _without(source, axis):
        raise ShapeError(_slice_shapes(input, source))
    x = vector(input)
    _check_bounds(positions, x.shape[axis], axis)
    v = vector(source if alpha == 1 else elementwise.mul(source, alpha))
    y = shaping.index_add(x, v, index=(*((slice(None),) * axis), positions))
    return y if input.data.ndim else reshape(y, ())


@watched
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy of `input` whose slices along `dim`, which `index` names, are those of `source`.

    Raises:
        DimensionError: one is not there, or there are not as many.
        ShapeError: the slices do not fit.
        DTypeError: the dtypes differ.
    """
    if active:
        input, source = promoted(input, source)
    axis = axis_of(input, dim)
    positions = _slices("index_copy_", input, axis, index, source)
    if index.data.dtype != int64:
        raise DTypeError(f"index_copy_(): Expected a long tensor for index, but got {type_name(index.dtype)}")
    if input.dtype != source.dtype:
        raise DTypeError(
            "index_copy_(): self and source expected to have the same dtype, but got (self) "
            f"{type_name(input.dtype)} and (source) {type_name(source.dtype)}"
        )
    if _without(input, axis) != _without(source, axis):
        raise ShapeError(
            "index_copy_(): Source/destination tensor must have same slice shapes. Destination slice shape: "
            f"{' '.join(map(str, _without(input, axis)))} at dimension {axis} and source slice shape: "
            f"{' '.join(map(str, _without(source, axis)))} at dimension {axis}."
        )
    x, v = vector(input), vector(source)
    if positions.size != v.shape[axis]:
        raise DimensionError(
            f"index_copy_(): Number of indices ({positions.size}) should be equal to source.size(dim) ({v.shape[axis]})"
        )
    wrong = positions[(positions < 0) | (positions >= x.shape[axis])]
    if wrong.size:
        raise DimensionError(
            f"index_copy_(): index {wrong[0]} is out of bounds for dimension {axis} with size {x.shape[axis]}"
        )
    y = shaping.index_copy(x, v, index=(*((slice(None),) * axis), positions))
    return y if input.data.ndim else reshape(y, ())


@watched
def index_fill(input: Tensor, dim: int, index: Tensor, value: Number | Tensor) -> Tensor:
    """A copy of `input` whose slices along `dim`, which `index` names, are one number.

    Raises:
        DimensionError: one is not there.
        ShapeError: the value has dimensions.
    """
    axis = axis_of(input, dim)
    if not isinstance(index, Variable) or index.data.dtype != int64:
        raise DimensionError("index_fill_(): Expected dtype int64 for index.")
    if index.data.ndim > 1:
        raise DimensionError("index_fill_(): Index is supposed to be a vector")
    if isinstance(value, Variable) and value.data.ndim:
        raise ShapeError(
            "index_fill_ only supports a 0-dimensional value tensor, but got tensor with "
            f"{value.data.ndim} dimension(s)."
        )
    x, positions = vector(input), np.atleast_1d(index.data).copy()
    length = x.shape[axis]
    wrong = positions[(positions < -length) | (positions >= length)]
    if wrong.size:
        raise DimensionError(f"index {wrong[0]} is out of bounds for dimension {axis} with size {length}")
    once = np.unique(positions % length) if length else positions  # what is named twice is filled once
    y = shaping.index_fill(x, number_like(value, input.dtype), index=(*((slice(None),) * axis), once))
    return y if input.data.ndim else reshape(y, ())


def _slices(name: str, input: Tensor, axis: int, index: Tensor, source: Tensor) -> Array:
    positions = _integers(name, index, "int32/int64")
    if positions.ndim > 1:
        raise DimensionError(
            f"{name}(): Index is supposed to be a vector, but got dim: {positions.ndim} with type: "
            f"{type_name(index.dtype)} and size: {list(positions.shape)}"
        )
    if name == "index_add_" and source.data.ndim != input.data.ndim:
        raise ShapeError(_slice_shapes(input, source))
    if source.data.ndim and input.data.ndim and source.data.ndim != input.data.ndim:
        raise ShapeError(
            f"{name}(): When source and destination are not scalars, their dimensionality must match. Source "
            f"dimensionality ({source.data.ndim}), destination dimensionality ({input.data.ndim})"
        )
    if source.data.ndim == 0 and axis > 0:
        raise ShapeError(f"{name}(): a 0-d source has no slices along dimension {axis} of {list(input.shape)}")
    return np.atleast_1d(positions)


def _slice_shapes(input: Tensor, source: Tensor) -> str:
    return (
        "source tensor shape must match self tensor shape, excluding the specified dimension. Got self.shape = "
        f"{list(input.shape)} source.shape = {list(source.shape)}"
    )


def _without(x: Tensor, axis: int) -> tuple[int, ...]:
    return x.shape[:axis] + x.shape[axis + 1 :]


# ---- An index for each dimension, or for all ----


@watched
def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements that `index` names in the flattened tensor; the result has its shape.

    Raises:
        DimensionError: one is not there.
        DTypeError: the index is not of int64.
    """
    if index.data.dtype != int64:
        raise DTypeError(f"take(): Expected a long tensor for index, but got {type_name(index.dtype)}")
    size = input.data.size
    wrong = index.data[(index.data < -size) | (index.data >= size)]
    if wrong.size:
        raise DimensionError(f"out of range: tried to access index {wrong.flat[0]} on a tensor of {size} elements.")
    flat = reshape(input, size)
    if index.data.ndim == 0:
        return reshape(shaping.take(flat, index=(index.data.reshape(1).copy(),)), ())
    return shaping.take(flat, index=(index.data.copy(),))


@watched
def index_put(input: Tensor, indices: Sequence[Tensor], values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy of `input` with `values` at [indices]; they replace what is there, or are added to it.

    Raises:
        DTypeError: the dtypes differ, or an argument is no tensor.
        ShapeError: the values do not broadcast to what is indexed.
    """
    if isinstance(indices, Variable) or not isinstance(indices, Sequence):
        raise DTypeError(
            f"index_put(): argument 'indices' (position 1) must be tuple of Tensors, not {type(indices).__name__}"
        )
    if not isinstance(values, Variable):
        raise DTypeError(f"index_put(): argument 'values' (position 2) must be Tensor, not {type(values).__name__}")
    for position, index in enumerate(indices):
        if not isinstance(index, Variable):
            raise DTypeError(f"expected Tensor as element {position} in argument 0, but got {type(index).__name__}")
    whole = [reshape(index, 1) if index.data.ndim == 0 and index.dtype == int64 else index for index in indices]
    _, chosen = resolve(input, tuple(whole))
    source = fitted(input, chosen, values)
    return (shaping.put_add if accumulate else shaping.overwrite)(input, source, index=chosen)


def fitted(part: Tensor, chosen: tuple[Any, ...] | None, values: Tensor) -> Tensor:
    """Values that can be written to the chosen elements of `part`.

    Raises:
        DTypeError: the dtypes differ.
        ShapeError: they do not broadcast.
    """
    if values.data.dtype != part.data.dtype:
        raise DTypeError(
            f"Index put requires the source and destination dtypes match, got {type_name(part.dtype)} for the "
            f"destination and {type_name(values.dtype)} for the source."
        )
    shape = np.broadcast_to(np.zeros((), bool), part.data.shape)[chosen].shape
    lead = values.data.ndim - len(shape)
    if lead > 0 and values.data.shape[:lead] == (1,) * lead:
        values = reshape(values, values.data.shape[lead:])
    try:
        np.broadcast_to(values.data, shape)
    except ValueError:
        raise ShapeError(
            f"shape mismatch: value tensor of shape {list(values.data.shape)} cannot be broadcast to indexing result "
            f"of shape {list(shape)}"
        ) from None
    return values


# ---- Arguments ----


def _integers(name: str, index: Tensor, expected: str) -> Array:
    """A copy of an index's array, which nothing written to the index later changes."""
    if not isinstance(index, Variable):
        raise DTypeError(f"{name}(): argument 'index' (position 2) must be Tensor, not {type(index).__name__}")
    if index.data.dtype not in (int32, int64):
        raise DTypeError(f"{name}(): Expected dtype {expected} for index")
    return index.data.astype(np.int64)


def _check_bounds(index: Array, length: int, axis: int) -> None:
    wrong = index[(index < 0) | (index >= length)]
    if wrong.size:
        raise BoundsError(f"index {wrong.flat[0]} is out of bounds for dimension {axis} with size {length}")
