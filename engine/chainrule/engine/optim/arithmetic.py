"""What the updates of several optimizers compute on the way, on arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from chainrule.engine.dtypes import Array, bfloat16, float32

BLOCK = 65536
"""Elements of a block: with the results on the way, those of a parameter and its state fit a core's cache."""
SMALL = 8 * BLOCK
"""Elements up to which nothing is cut: the last cache holds them all, and each cut costs a few calls."""


def in_blocks(*arrays: Array | None) -> Iterable[Sequence[Any]]:
    """The arrays of one shape, cut alike into blocks that stay in the cache from one pass over them to the next.

    They are not cut where they are small, or lie differently in memory. None is cut into None.
    """
    first = arrays[0]
    if first is None or first.size <= SMALL:
        return (arrays,)
    given = [array for array in arrays if array is not None]
    if not all(array.flags.c_contiguous for array in given):
        order = sorted(range(first.ndim), key=lambda axis: -first.strides[axis])
        if any(array.strides != first.strides for array in given) or not first.transpose(order).flags.c_contiguous:
            return (arrays,)
        arrays = tuple(array if array is None else array.transpose(order) for array in arrays)
    flat = [array if array is None else array.reshape(-1) for array in arrays]
    return (
        [array if array is None else array[start : start + BLOCK] for array in flat]
        for start in range(0, first.size, BLOCK)
    )


def scratch_for(parameter: Array, gradient: Array) -> Array:
    """Memory for results on the way, in the dtype that products of both with a number have: float32 of bfloat16."""
    if parameter.dtype is float32 and gradient.dtype is float32:
        return np.empty_like(parameter)
    dtype = np.result_type(parameter, gradient)
    return np.empty_like(parameter, float32 if dtype == bfloat16 else dtype)


def direction(gradient: Array, parameter: Array, weight_decay: float, maximize: bool, scratch: Array) -> Array:
    """±g + λ·p, what is descended, with − if `maximize`; the gradient itself where nothing is to be done to it."""
    g = np.negative(gradient, out=np.empty_like(gradient)) if maximize else gradient
    if weight_decay == 0:
        return g
    np.multiply(parameter, weight_decay, out=scratch)
    return np.add(g, scratch, out=g if maximize else np.empty_like(parameter))


def move_average(average: Array, x: Array, keep: float, scratch: Array) -> None:
    """average ← average + (1 − keep)·(x − average), in place; from the nearer end, so that keep = 0 gives x itself."""
    np.subtract(x, average, out=scratch)
    if keep > 0.5:
        scratch *= 1 - keep
        average += scratch
    else:
        scratch *= keep
        np.subtract(x, scratch, out=average)
