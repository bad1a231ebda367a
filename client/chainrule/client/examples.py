"""The arrays of a dataset, converted to what its blob holds."""

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chainrule.client.errors import InvalidInputError


def to_inputs(
    values: ArrayLike, *, tokens: bool = False, first_row: int = 0
) -> NDArray[np.float32] | NDArray[np.int64]:
    """The column "inputs" of a dataset, (N, ...): float32 or, if they are tokens, int64; C-contiguous.

    Whether it makes sense is the server's to say; here numbers must only convert: to float32 without overflow, whole
    ones to int64.

    Args:
        first_row: number of the first example, for errors, where these are some of many.

    Raises:
        InvalidInputError: they do not.
    """
    array = np.asarray(values)
    return to_int64(array, "inputs", "tokens", first_row) if tokens else to_float32(array)


def to_targets(
    values: ArrayLike, *, regression: bool = False, first_row: int = 0
) -> NDArray[np.float32] | NDArray[np.int64]:
    """The column "targets", (N, ...): int64 or, where they come as floats or are numbers to predict, float32; otherwise
    as `to_inputs`."""
    array = np.asarray(values)
    if regression or array.dtype.kind == "f":
        return to_float32(array, "targets")
    return to_int64(array, "targets", "class labels", first_row)


def in_order(names: Collection[str]) -> list[str]:
    """The columns of a dataset in their order: inputs, targets, and then the others by name."""
    usual = ("inputs", "targets")
    return [*(name for name in usual if name in names), *sorted(name for name in names if name not in usual)]


def to_column(values: ArrayLike, name: str, *, first_row: int = 0) -> NDArray[np.float32] | NDArray[np.int64]:
    """A column (N, ...) besides inputs and targets, C-contiguous: whole numbers and truth values as int64, numbers of a
    floating dtype as float32.

    Raises:
        InvalidInputError: they do not convert without loss of meaning.
    """
    array = to_array(values, name)
    if array.dtype.kind not in "fiub":
        raise InvalidInputError(
            f"{name} have dtype {array.dtype}; a column of arrays holds numbers: texts become classes in a table, "
            "a dict or a frame"
        )
    if array.dtype.kind == "f":
        return to_float32(array, name)
    return to_int64(array, name, "numbers", first_row)


def to_array(values: ArrayLike, name: str) -> NDArray[Any]:
    """Values as an array. Raises InvalidInputError, in which they have this name, if rows are of different lengths."""
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InvalidInputError(f"{name} make no array: {error}; give rows of one length") from error


def to_float32(array: NDArray[np.generic], name: str = "inputs") -> NDArray[np.float32]:
    """Numbers as float32, in C order. Raises InvalidInputError, in which the array has this name."""
    if array.dtype.kind not in "fiub":
        raise InvalidInputError(f"{name} have dtype {array.dtype}; they must be real numbers, to be sent as float32")
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype=np.float32).reshape(array.shape)
    if np.isinf(converted).sum() != (np.isinf(array).sum() if array.dtype.kind == "f" else 0):
        raise InvalidInputError(f"{name} of dtype {array.dtype} hold values beyond the range of float32; scale them")
    return converted


def to_int64(array: NDArray[np.generic], name: str, meaning: str, first_row: int = 0) -> NDArray[np.int64]:
    """Whole numbers as int64, in C order. Raises InvalidInputError, in which the array has this name and meaning."""
    if array.dtype.kind not in "fiub":
        raise InvalidInputError(f"{name} have dtype {array.dtype}; they must be {meaning}: whole numbers from 0")
    with np.errstate(invalid="ignore"):
        converted = np.ascontiguousarray(array, dtype=np.int64).reshape(array.shape)
    changed = np.argwhere(converted != array)
    if changed.size:
        place = ", ".join(map(str, (changed[0][0] + first_row, *changed[0][1:]) if changed[0].size else ()))
        raise InvalidInputError(
            f"{name}[{place}] is {array[tuple(changed[0])]}; {meaning} must be whole numbers that fit int64"
        )
    return converted
