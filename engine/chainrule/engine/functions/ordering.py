"""Functions that put elements in order, pick some by their order, or count equal ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import Array, bool_, float32, float64, is_floating, type_name, widened
from chainrule.engine.errors import AutogradError, DimensionError, DTypeError, ShapeError
from chainrule.engine.functions.arguments import Number, axis_of, require_tensor
from chainrule.engine.ops import ordering, reduction, shape
from chainrule.engine.ops.op import Op
from chainrule.engine.watching import watched

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

__all__ = [
    "argsort",
    "bincount",
    "histc",
    "kthvalue",
    "median",
    "mode",
    "msort",
    "nanmedian",
    "sort",
    "topk",
    "unique",
]


class Selected(NamedTuple):
    """Elements, and where along the dimension they were; prints with the name of the function."""

    values: Tensor
    indices: Tensor


_kinds: dict[str, type[Selected]] = {}


def selected(name: str, op: Op, input: Tensor, axis: int, index: Array, keepdim: bool = True) -> Selected:
    """What `op` picks by `index`, which has as many dimensions as the input, named after the function."""
    values = op(input, dim=axis, index=index)
    if not keepdim and input.data.ndim:
        index = index.squeeze(axis)
        values = shape.squeeze(values, shape=index.shape)
    kind = _kinds.get(name) or _kinds.setdefault(name, type(name, (Selected,), {"__slots__": (), "__reduce__": _plain}))
    return kind(values, Variable.wrap(index))


def _plain(result: Selected) -> tuple[Any, ...]:
    return Selected, tuple(result)


def indices_along(input: Tensor, axis: int, find: Callable[[Array, int], Array]) -> Array:
    """What `find` says of the elements along `axis`, in the dimensions of the input, which may be none."""
    array = widened(input.data)
    return find(array, axis) if array.ndim else find(array.reshape(1), 0).reshape(())


# ---- In order ----


@watched
def sort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = True) -> Selected:  # noqa: ARG001
    """The elements in order along `dim`, and where they were; nan counts as the largest.

    Args:
        stable: whether equal elements keep their order; they do in any case.
    """
    require_tensor("sort", input)
    axis = axis_of(input, dim)
    index = indices_along(input, axis, lambda x, axis: ordering.order(x, axis, descending=descending))
    return selected("sort", ordering.sort, input, axis, index)


def argsort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = True) -> Tensor:
    """Where the elements in order were; see `sort`."""
    return sort(input, dim, descending, stable=stable).indices


def msort(input: Tensor) -> Tensor:
    """The elements in order along the first dimension."""
    return sort(input, 0).values


@watched
def topk(
    input: Tensor,
    k: int,
    dim: int = -1,
    largest: bool = True,
    sorted: bool = True,  # noqa: ARG001 - PyTorch's argument
) -> Selected:
    """The k largest (or smallest) elements along `dim`, and where they were; in order, whatever `sorted` says.

    Raises:
        ShapeError: there are no k.
    """
    require_tensor("topk", input)
    axis = axis_of(input, dim)
    if input.data.dtype == bool_:
        raise DTypeError("topk does not support bool dtypes on CPU")
    if not 0 <= k <= (input.data.shape[axis] if input.data.ndim else 1):
        raise ShapeError("selected index k out of range")

    def first(x: Array, axis: int) -> Array:
        return np.take(ordering.order(x, axis, descending=largest), range(k), axis=axis)

    return selected("topk", ordering.topk, input, axis, indices_along(input, axis, first))


@watched
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Selected:
    """The k-th smallest element along `dim`, counted from 1, and where it was.

    Raises:
        ShapeError: there is none.
    """
    axis = _axis("kthvalue", input, dim)
    if input.data.dtype == bool_:
        raise DTypeError("\"kthvalue_cpu\" not implemented for 'Bool'")
    if not 1 <= k <= (input.data.shape[axis] if input.data.ndim else 1):
        raise ShapeError(f"kthvalue(): selected number k out of range for dimension {axis}")
    index = indices_along(input, axis, lambda x, axis: ordering.at(x, axis, k - 1))
    return selected("kthvalue", ordering.kthvalue, input, axis, index, keepdim)


# ---- In the middle ----


@overload
def median(input: Tensor, dim: None = None) -> Tensor: ...
@overload
def median(input: Tensor, dim: int, keepdim: bool = False) -> Selected: ...
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | Selected:
    """The median of all elements, or along `dim` with where it was; of an even number the lower one; nan if one is."""
    return _median("median", input, dim, keepdim)


@overload
def nanmedian(input: Tensor, dim: None = None) -> Tensor: ...
@overload
def nanmedian(input: Tensor, dim: int, keepdim: bool = False) -> Selected: ...
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | Selected:
    """`median` of what is not nan."""
    return _median("nanmedian", input, dim, keepdim)


def _median(name: str, input: Tensor, dim: int | None, keepdim: bool) -> Tensor | Selected:
    require_tensor(name, input)
    if input.data.dtype == bool_:
        raise DTypeError(f"\"median_{'cpu' if dim is None else 'out'}\" not implemented for 'Bool'")
    skip_nan = name == "nanmedian"
    if dim is None:
        return (reduction.nanmedian_of_all if skip_nan else reduction.median_of_all)(input)
    axis = _axis("median", input, dim)
    index = indices_along(input, axis, lambda x, axis: ordering.index_of_median(x, axis, skip_nan=skip_nan))
    return selected(name, ordering.nanmedian if skip_nan else ordering.median, input, axis, index, keepdim)


def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Selected:
    """The most frequent element along `dim`, the smallest of several, and where it was last."""
    axis = _axis("mode", input, dim)
    return selected("mode", ordering.mode, input, axis, indices_along(input, axis, ordering.index_of_mode), keepdim)


def _axis(name: str, input: Tensor, dim: int) -> int:
    require_tensor(name, input)
    axis = axis_of(input, dim)
    if input.data.ndim and not input.data.shape[axis]:
        raise DimensionError(f"{name}(): Expected reduction dim {axis} to have non-zero size.")
    return axis


# ---- Counting; without gradients ----


@watched
def unique(
    input: Tensor,
    sorted: bool = True,  # noqa: ARG001 - PyTorch's argument
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """The different elements in order, or along `dim` the different slices.

    Args:
        sorted: they are in order in any case.
        return_inverse: whether to return, too, which of them each element is.
        return_counts: whether to return, too, how often each is there.
    """
    require_tensor("unique", input)
    axis = None if dim is None else axis_of(input, dim)
    array = widened(input.data)
    values, inverse, counts = np.unique(array, return_inverse=True, return_counts=True, axis=axis, equal_nan=False)
    found = [Variable.wrap(values.astype(input.data.dtype, copy=False))]
    if return_inverse:
        found.append(Variable.wrap(inverse.reshape(array.shape if axis is None else -1)))
    if return_counts:
        found.append(Variable.wrap(counts))
    return tuple(found) if len(found) > 1 else found[0]


@watched
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each of 0, 1, 2, … is there, or the sum of its weights.

    Raises:
        AutogradError: the input is no vector of non-negative integers.
    """
    require_tensor("bincount", input)
    if input.data.dtype.kind not in "iu":
        raise DTypeError(f"\"bincount_cpu\" not implemented for '{type_name(input.data.dtype)}'")
    if input.data.ndim != 1 or (input.data.size and input.data.min() < 0):
        raise AutogradError("bincount only supports 1-d non-negative integral inputs.")
    if weights is None:
        return Variable.wrap(np.bincount(input.data, minlength=minlength))
    if weights.shape != input.shape:
        raise ShapeError("weights should be 1-d and have the same length as input")
    sums = np.bincount(input.data, widened(weights.data), minlength)
    return Variable.wrap(sums.astype(float32 if weights.data.dtype == float32 else float64))


def histc(input: Tensor, bins: int = 100, min: Number = 0, max: Number = 0) -> Tensor:
    """How many elements are in each of `bins` equal parts of [min, max], or of their own range if min = max = 0."""
    require_tensor("histc", input)
    if not is_floating(input.data.dtype):
        raise DTypeError(f"\"histogram_cpu\" not implemented for '{type_name(input.data.dtype)}'")
    array = widened(input.data).ravel()
    low, high = (min, max) if min != max or not array.size else (array.min(), array.max())
    if low > high:
        raise ShapeError("histc: max must be larger than min")
    low, high = (low - 1, high + 1) if low == high else (low, high)
    counts, _ = np.histogram(array, bins, (float(low), float(high)))
    return Variable.wrap(counts.astype(input.data.dtype))
