"""Indices as in `x[index]`: what they select, and the views and copies they give."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from operator import index as as_int
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import Array, int32, int64
from chainrule.engine.errors import ArgumentError, DimensionError, DTypeError
from chainrule.engine.ops import shape as shaping
from chainrule.engine.watching import watched

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

_all = slice(None)
_bounds = (int, type(None))


@watched
def getitem(input: Tensor, index: Any) -> Tensor:
    """input[index]: a view for integers, slices, None and `...`; a copy where tensors, lists or masks choose.

    Raises:
        DimensionError: there are more indices than dimensions, one is out of bounds, or a mask does not fit.
        ArgumentError: a slice has a step that is not positive.
    """
    if type(index) is int:
        return shaping.select(input, index=checked(input, index, 0))
    if type(index) is slice and input.data.ndim and _is_plain(index):
        return shaping.slice_(input, index=index)
    part, chosen = resolve(input, index)
    return part if chosen is None else shaping.take(part, index=chosen)


def resolve(input: Tensor, index: Any) -> tuple[Tensor, tuple[Any, ...] | None]:
    """What an index means: a view, and which elements of it; None for all.

    Integers, slices, None and `...` make the view, as in PyTorch; so an integer never counts among the arrays that
    numpy moves to the front. The elements are named by arrays of integers, with slices over whole dimensions between.
    """
    parts = _as_tuple(index)
    ndim = input.data.ndim
    arrays = [_as_array(part) for part in parts]
    consumed = sum(map(_consumes, parts, arrays))
    if consumed > ndim:
        if ndim == 0:
            raise DimensionError(
                "invalid index of a 0-dim tensor. Use `tensor.item()` in Python or `tensor.item<T>()` in C++ to "
                "convert a 0-dim tensor to a number"
            )
        raise DimensionError(f"too many indices for tensor of dimension {ndim}")
    basic: list[Any] = []
    chosen: list[Any] = []
    axis = 0
    for part, array in zip(parts, arrays, strict=True):
        if array is not None:
            if array.ndim == 0:  # a truth: a new dimension, of which it takes all or nothing
                basic.append(None)
                chosen.append(np.zeros(int(array), np.int64))
                continue
            span = array.ndim if array.dtype == bool else 1
            basic += [_all] * span
            chosen.append(array)
            axis += span
        elif part is None:
            basic.append(None)
            chosen.append(_all)
        elif part is ...:
            rest, ndim = ndim - consumed, consumed  # a second one stands for nothing
            basic += [_all] * rest
            chosen += [_all] * rest
            axis += rest
        elif isinstance(part, slice):
            basic.append(_checked_slice(part))
            chosen.append(_all)
            axis += 1
        else:
            basic.append(checked(input, as_int(part), axis))
            axis += 1
    selecting = any(isinstance(part, np.ndarray) for part in chosen)
    if selecting and all(part is _all for part in basic):
        return input, _to_arrays(input, chosen)
    part = shaping.getitem(input, tuple(basic))
    return part, _to_arrays(part, chosen) if selecting else None


def _is_plain(part: slice) -> bool:
    """Whether a slice is one of all elements from an integer to an integer, as nearly all are."""
    return part.step is None and type(part.start) in _bounds and type(part.stop) in _bounds


def _as_tuple(index: Any) -> tuple[Any, ...]:
    """The parts of an index; a short list that holds more than numbers is one of several."""
    if isinstance(index, tuple):
        return index
    if isinstance(index, list) and len(index) < 32:
        several = (Variable, np.ndarray, list, tuple, range, slice, type(None), type(...))
        if any(isinstance(part, several) for part in index):
            return tuple(index)
    return (index,)


def _as_array(part: Any) -> Array | None:
    """The array that chooses elements, of int64 or bool; None for a part that makes a view."""
    if part is None or part is ... or isinstance(part, slice):
        return None
    if isinstance(part, bool | np.bool_):
        return np.asarray(part)
    if isinstance(part, int | np.integer):
        return None
    if isinstance(part, Variable):
        array = part.data
    elif isinstance(part, np.ndarray):
        array = part
    elif isinstance(part, Sequence) and not isinstance(part, str):
        array = np.asarray([item.data.item() if isinstance(item, Variable) else item for item in part])
        if array.size == 0:
            array = array.astype(np.int64)
    else:
        raise DimensionError(
            "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices "
            f"(got {type(part).__name__})"
        )
    if array.dtype == np.uint8:
        warnings.warn(
            "indexing with dtype uint8 is now deprecated, please use a dtype bool instead.", UserWarning, stacklevel=4
        )
        return np.asarray(array != 0)
    if array.dtype == bool:
        return array.copy()
    if array.dtype not in (int32, int64) and not (isinstance(part, np.ndarray) and array.dtype.kind in "iu"):
        raise DimensionError("tensors used as indices must be long, int, byte or bool tensors")
    return None if array.ndim == 0 else array.astype(np.int64)


def _consumes(part: Any, array: Array | None) -> int:
    """How many dimensions a part of an index is for."""
    if array is None:
        return 0 if part is None or part is ... else 1
    return array.ndim if array.dtype == bool else 1


def checked(input: Tensor, i: int, axis: int) -> int:
    """An integer index, if there is such an element.

    Raises:
        DimensionError: there is none.
    """
    if not input.data.ndim:
        raise DimensionError(
            "invalid index of a 0-dim tensor. Use `tensor.item()` in Python or `tensor.item<T>()` in C++ to convert a "
            "0-dim tensor to a number"
        )
    length = input.data.shape[axis]
    if not -length <= i < length:
        raise DimensionError(f"index {i} is out of bounds for dimension {axis} with size {length}")
    return i


def _checked_slice(part: slice) -> slice:
    try:
        start, stop, step = [None if bound is None else as_int(bound) for bound in (part.start, part.stop, part.step)]
    except TypeError:
        raise DTypeError("slice indices must be integers or None or have an __index__ method") from None
    if step is not None and step <= 0:
        raise ArgumentError("step must be greater than zero; flip() turns a tensor around")
    return slice(start, stop, step)


def _to_arrays(part: Tensor, chosen: Sequence[Any]) -> tuple[Any, ...]:
    """The arrays that name elements of `part`: masks as positions, all of them within bounds and fitting together."""
    index: list[Any] = []
    for given in chosen:
        axis = len(index)
        if not isinstance(given, np.ndarray):
            index.append(given)
        elif given.dtype == bool:
            _check_mask(part, given, axis)
            index += given.nonzero()
        else:
            index.append(within(given, part.data.shape[axis], axis))
    while isinstance(index[-1], slice):
        index.pop()
    shapes = [array.shape for array in index if not isinstance(array, slice)]
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        listed = ", ".join(str(list(shape)) for shape in shapes)
        raise DimensionError(
            f"shape mismatch: indexing tensors could not be broadcast together with shapes {listed}"
        ) from None
    return tuple(index)


def _check_mask(part: Tensor, mask: Array, axis: int) -> None:
    for i, (n, length) in enumerate(zip(mask.shape, part.data.shape[axis:], strict=False)):
        if n != length:
            raise DimensionError(
                f"The shape of the mask {list(mask.shape)} at index {i} does not match the shape of the indexed "
                f"tensor {list(part.data.shape)} at index {axis + i}"
            )


def within(index: Array, length: int, axis: int) -> Array:
    """Indices along a dimension, counted from 0.

    Raises:
        DimensionError: one is out of bounds.
    """
    wrong = (index < -length) | (index >= length)
    if wrong.any():
        raise DimensionError(f"index {index[wrong].flat[0]} is out of bounds for dimension {axis} with size {length}")
    return np.where(index < 0, index + length, index)
