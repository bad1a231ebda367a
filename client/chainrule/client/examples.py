"""The arrays of a dataset, converted to what its blob holds."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chainrule.client.errors import InvalidInputError


def to_examples(
    *, inputs: ArrayLike, targets: ArrayLike, tokens: bool = False, regression: bool = False, first_row: int = 0
) -> Mapping[str, NDArray[np.float32] | NDArray[np.int64]]:
    """The arrays of a dataset's blob: inputs (N, ...) float32 or, if they are tokens, int64; targets (N, ...)
    int64 or, where they come as floats or are numbers to predict, float32; both C-contiguous.

    Whether they make sense together is the server's to say; here they must only convert: numbers to float32
    without overflow, whole numbers to int64.

    Args:
        first_row: number of the first example, for errors, where these are some of many.

    Raises:
        InvalidInputError: they do not.
    """
    array, target = np.asarray(inputs), np.asarray(targets)
    return {
        "inputs": to_int64(array, "inputs", "tokens", first_row) if tokens else to_float32(array),
        "targets": to_float32(target, "targets")
        if regression or target.dtype.kind == "f"
        else to_int64(target, "targets", "class labels", first_row),
    }


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
