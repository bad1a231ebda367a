"""Operations that put elements in order, or pick some of them by their order; indices have no gradient."""

# mypy: disable-error-code=has-type
# A formula may name operations declared further down.

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.engine.dtypes import Array
from chainrule.engine.ops.op import Op, op

# ---- Picking: each index at most once ----


def _pick(x: Array, *, dim: int, index: Array) -> Array:
    return np.take_along_axis(x, index, axis=dim) if x.ndim else x.copy()


def _picking(name: str) -> Op:
    gradient = lambda g, x_shape, dim, index: place(g, dim=dim, index=index, shape=x_shape)
    return Op(name, _pick, {"x": gradient}, exact=True)


max = _picking("Max")
min = _picking("Min")
sort = _picking("Sort")
topk = _picking("Topk")
kthvalue = _picking("Kthvalue")
median = _picking("Median")
nanmedian = _picking("Nanmedian")
mode = _picking("Mode")


@op("Scatter", exact=True, x=lambda g, dim, index: sort(g, dim=dim, index=index))
def place(x: Any, *, dim: int, index: Array, shape: tuple[int, ...]) -> Any:
    """The reverse of picking: zeros of `shape`, with `x` at `index` along `dim`."""
    if not shape:
        return x.copy()
    y = np.zeros(shape, x.dtype)
    np.put_along_axis(y, index, x, axis=dim)
    return y


# ---- Where what is picked lies; `x` has dimensions, the result as many ----


def order(x: Array, dim: int, *, descending: bool = False) -> Array:
    """The indices that sort `x` along `dim`: nan is the largest, equal elements stay in order."""
    if not descending:
        return np.argsort(x, axis=dim, kind="stable")
    backwards = np.argsort(np.flip(x, dim), axis=dim, kind="stable")
    index: Array = x.shape[dim] - 1 - np.flip(backwards, dim)
    return index


def at(x: Array, dim: int, position: int) -> Array:
    """The index of the element at `position` in order."""
    return np.take(order(x, dim), [position], axis=dim)


def index_of_median(x: Array, dim: int, *, skip_nan: bool) -> Array:
    """The index of the lower median, of the first nan if there is one that is not to be skipped."""
    nans = np.isnan(x)
    numbers = np.sum(~nans, axis=dim, keepdims=True)
    index = np.take_along_axis(order(x, dim), np.maximum(numbers - 1, 0) // 2, axis=dim)
    return index if skip_nan else np.where(nans.any(dim, keepdims=True), nans.argmax(dim, keepdims=True), index)


def index_of_mode(x: Array, dim: int) -> Array:
    """The last index of the smallest of the most frequent elements."""
    along = order(x, dim)
    values = np.moveaxis(np.take_along_axis(x, along, axis=dim), dim, -1)
    starts = np.zeros(values.shape, np.int64)
    starts[..., 1:] = np.where(values[..., 1:] != values[..., :-1], np.arange(1, values.shape[-1]), 0)
    lengths = np.arange(values.shape[-1]) - np.maximum.accumulate(starts, axis=-1)
    return np.take_along_axis(along, np.moveaxis(lengths.argmax(-1, keepdims=True), -1, dim), axis=dim)
