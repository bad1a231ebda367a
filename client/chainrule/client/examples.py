"""The arrays of a dataset, converted to what its blob holds."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chainrule.client.errors import InvalidInputError


def to_examples(
    *, inputs: ArrayLike, targets: ArrayLike, tokens: bool = False
) -> Mapping[str, NDArray[np.float32] | NDArray[np.int64]]:
    """The arrays of a dataset's blob: inputs (N, ...) float32 or, if they are tokens, int64; targets (N, ...)
    int64 or, where they come as floats, float32; both C-contiguous.

    Whether they make sense together is the server's to say; here they must only convert: numbers to float32
    without overflow, whole numbers to int64.

    Raises:
        InvalidInputError: they do not.
    """
    array, target = np.asarray(inputs), np.asarray(targets)
    return {
        "inputs": _to_int64(array, "inputs", "tokens") if tokens else _to_float32(array, "inputs"),
        "targets": _to_float32(target, "targets")
        if target.dtype.kind == "f"
        else _to_int64(target, "targets", "class labels"),
    }


def _to_float32(array: NDArray[np.generic], name: str) -> NDArray[np.float32]:
    if array.dtype.kind not in "fiub":
        raise InvalidInputError(f"{name} have dtype {array.dtype}; they must be real numbers, to be sent as float32")
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype=np.float32).reshape(array.shape)
    if np.isinf(converted).sum() != (np.isinf(array).sum() if array.dtype.kind == "f" else 0):
        raise InvalidInputError(f"{name} of dtype {array.dtype} hold values beyond the range of float32; scale them")
    return converted


def _to_int64(array: NDArray[np.generic], name: str, meaning: str) -> NDArray[np.int64]:
    if array.dtype.kind not in "fiub":
        raise InvalidInputError(f"{name} have dtype {array.dtype}; they must be {meaning}: whole numbers from 0")
    with np.errstate(invalid="ignore"):
        converted = np.ascontiguousarray(array, dtype=np.int64).reshape(array.shape)
    changed = np.argwhere(converted != array)
    if changed.size:
        place = ", ".join(map(str, changed[0]))
        raise InvalidInputError(
            f"{name}[{place}] is {array[tuple(changed[0])]}; {meaning} must be whole numbers that fit int64"
        )
    return converted
