"""Functions that reduce dimensions, or run along one: sums, products, means, variances, norms, extremes."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import DType, as_dtype, bool_, float32, int64, is_floating, type_name
from chainrule.engine.errors import DimensionError, DTypeError, ShapeError, UnsupportedError
from chainrule.engine.functions.arguments import axis_of, require_tensor
from chainrule.engine.functions.autocast import active, raised
from chainrule.engine.functions.ordering import Selected, indices_along, selected
from chainrule.engine.ops import elementwise, loss, ordering, reduction, scan, shape
from chainrule.engine.ops.reduction import Dim
from chainrule.engine.watching import watched

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

__all__ = [
    "amax",
    "amin",
    "aminmax",
    "argmax",
    "argmin",
    "count_nonzero",
    "cumprod",
    "cumsum",
    "dist",
    "log_softmax",
    "logcumsumexp",
    "logsumexp",
    "max",
    "mean",
    "min",
    "nanmean",
    "nansum",
    "norm",
    "prod",
    "softmax",
    "std",
    "std_mean",
    "sum",
    "var",
    "var_mean",
]

# ---- Sums, means, products ----


def sum(input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: npt.DTypeLike | None = None) -> Tensor:
    """Σ x over `dim`, of integers and bools in int64."""
    require_tensor("sum", input)
    return reduction.sum(_summed(input, dtype), dim=dim, keepdim=keepdim)


def nansum(input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: npt.DTypeLike | None = None) -> Tensor:
    """Σ x over `dim`, where nan counts as 0."""
    require_tensor("nansum", input)
    if is_floating(input.data.dtype):
        input = elementwise.where(elementwise.isnan(input), 0.0, input)
    return sum(input, dim, keepdim, dtype=dtype)


def mean(input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: npt.DTypeLike | None = None) -> Tensor:
    """The mean over `dim`; of floating tensors only.

    Raises:
        DTypeError: the tensor is of integers or bools.
    """
    require_tensor("mean", input)
    if dtype is not None:
        input = _as(input, as_dtype(dtype))
    if not is_floating(input.data.dtype):
        raise DTypeError(
            f"mean(): could not infer output dtype. {'Input' if dtype is None else 'Optional'} dtype must be either a "
            f"floating point or complex dtype. Got: {type_name(input.data.dtype)}"
        )
    return reduction.mean(input, dim=dim, keepdim=keepdim)


def nanmean(input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: npt.DTypeLike | None = None) -> Tensor:
    """The mean over `dim` of what is not nan."""
    require_tensor("nanmean", input)
    if not is_floating(input.data.dtype):
        raise DTypeError(
            f"nanmean(): expected input to have floating point or complex dtype but got {type_name(input.data.dtype)}"
        )
    numbers = elementwise.logical_not(elementwise.isnan(input))
    return elementwise.div(nansum(input, dim, keepdim, dtype=dtype), sum(numbers, dim, keepdim))


def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: npt.DTypeLike | None = None) -> Tensor:
    """Π x along `dim`, or of all elements; of integers and bools in int64."""
    require_tensor("prod", input)
    if active:
        (input,) = raised(input)
    input = _summed(input, dtype)
    if dim is None:
        return _product_of_all(input, keepdim)
    return scan.prod(input, dim=axis_of(input, dim), keepdim=keepdim)


def _product_of_all(input: Tensor, keepdim: bool) -> Tensor:
    """The product of all elements."""
    y = scan.prod(shape.reshape(input, shape=(input.data.size,)), dim=0)
    return shape.reshape(y, shape=(1,) * input.data.ndim) if keepdim else y


def cumsum(input: Tensor, dim: int, *, dtype: npt.DTypeLike | None = None) -> Tensor:
    """yᵢ = x₀ + … + xᵢ along `dim`"""
    require_tensor("cumsum", input)
    return scan.cumsum(_summed(input, dtype), dim=axis_of(input, dim))


def cumprod(input: Tensor, dim: int, *, dtype: npt.DTypeLike | None = None) -> Tensor:
    """yᵢ = x₀ · … · xᵢ along `dim`"""
    require_tensor("cumprod", input)
    return scan.cumprod(_summed(input, dtype), dim=axis_of(input, dim))


@watched
def count_nonzero(input: Tensor, dim: Dim = None) -> Tensor:
    """How many elements are other than 0, over `dim`."""
    require_tensor("count_nonzero", input)
    axes = reduction.axes_of(input.data.ndim, dim)
    return Variable.wrap(np.asarray(np.count_nonzero(input.data != 0, axis=axes), np.int64))


def _summed(input: Tensor, dtype: npt.DTypeLike | None) -> Tensor:
    """The tensor in the dtype it is added up in."""
    if dtype is not None:
        return _as(input, as_dtype(dtype))
    return input if is_floating(input.data.dtype) else _as(input, int64)


def _as(input: Tensor, dtype: DType) -> Tensor:
    return input if input.data.dtype == dtype else elementwise.cast(input, dtype=dtype)


# ---- Logarithms of sums ----


def logsumexp(input: Tensor, dim: Dim, keepdim: bool = False) -> Tensor:
    """log Σ eˣ over `dim`"""
    require_tensor("logsumexp", input)
    return reduction.logsumexp(_floating(input), dim=dim, keepdim=keepdim)


def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """log of the running sums of eˣ along `dim`"""
    require_tensor("logcumsumexp", input)
    if not is_floating(input.data.dtype):
        raise DTypeError(f"\"logcumsumexp_out_cpu\" not implemented for '{type_name(input.data.dtype)}'")
    return scan.logcumsumexp(input, dim=axis_of(input, dim))


def softmax(input: Tensor, dim: int, dtype: npt.DTypeLike | None = None) -> Tensor:
    """eˣ / Σ eˣ along `dim`"""
    return loss.softmax(_normalizable("softmax", input, dim, dtype), dim=dim)


def log_softmax(input: Tensor, dim: int, dtype: npt.DTypeLike | None = None) -> Tensor:
    """x − log Σ eˣ along `dim`"""
    return loss.log_softmax(_normalizable("log_softmax", input, dim, dtype), dim=dim)


def _normalizable(name: str, input: Tensor, dim: int, dtype: npt.DTypeLike | None) -> Tensor:
    require_tensor(name, input)
    if dtype is not None:
        input = _as(input, as_dtype(dtype))
    axis = axis_of(input, dim)
    if not is_floating(input.data.dtype):
        where = "_lastdim" if axis in (input.data.ndim - 1, -1 % (input.data.ndim or 1)) else ""
        raise DTypeError(f"\"{name}{where}_kernel_impl\" not implemented for '{type_name(input.data.dtype)}'")
    return input


def _floating(input: Tensor) -> Tensor:
    return input if is_floating(input.data.dtype) else _as(input, float32)


# ---- Spread ----


def var(
    input: Tensor,
    dim: Dim | bool = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Σ (x − x̄)² / (n − correction) over `dim`.

    Args:
        unbiased: an older word: correction 1 if true (the default), else 0; var(False) means unbiased=False.
    """
    dim, correction = _freedom("var", input, dim, unbiased, correction)
    return reduction.var(input, dim=dim, keepdim=keepdim, correction=correction)


def std(
    input: Tensor,
    dim: Dim | bool = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The square root of `var`."""
    dim, correction = _freedom("std", input, dim, unbiased, correction)
    return reduction.std(input, dim=dim, keepdim=keepdim, correction=correction)


def var_mean(
    input: Tensor,
    dim: Dim | bool = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`var` and `mean`."""
    dim, correction = _freedom("var_mean", input, dim, unbiased, correction)
    return reduction.var(input, dim=dim, keepdim=keepdim, correction=correction), mean(input, dim, keepdim)


def std_mean(
    input: Tensor,
    dim: Dim | bool = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`std` and `mean`."""
    dim, correction = _freedom("std_mean", input, dim, unbiased, correction)
    return reduction.std(input, dim=dim, keepdim=keepdim, correction=correction), mean(input, dim, keepdim)


def _freedom(
    name: str, input: Tensor, dim: Dim | bool, unbiased: bool | None, correction: float | None
) -> tuple[Dim, float]:
    """The dimensions, and what is taken from the count of elements."""
    require_tensor(name, input)
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if unbiased is not None and correction is not None:
        raise DTypeError(f"{name}() received an invalid combination of arguments: unbiased and correction are one")
    if not is_floating(input.data.dtype):
        what = name if name.endswith("_mean") else "std and var"
        raise DTypeError(f"{what} only support floating point and complex dtypes")
    if correction is None:
        correction = 0 if unbiased is False else 1
    if reduction.count(input.data.shape, dim) <= correction:
        warnings.warn(
            f"{name}(): degrees of freedom is <= 0. Correction should be strictly less than the reduction factor "
            "(input numel divided by output numel).",
            UserWarning,
            stacklevel=3,
        )
    return dim, correction


# ---- Norms ----


def norm(
    input: Tensor,
    p: float | str | None = "fro",
    dim: Dim = None,
    keepdim: bool = False,
    *,
    dtype: npt.DTypeLike | None = None,
) -> Tensor:
    """(Σ |x|ᵖ)^(1/p) over `dim`; "fro" and None are p = 2.

    Raises:
        UnsupportedError: a norm of matrices.
        DTypeError: the tensor is of integers or bools.
    """
    require_tensor("norm", input)
    if isinstance(p, str) and p != "fro":
        raise UnsupportedError(f"norm(p={p!r}): norms of matrices are not supported; p is a number or 'fro'")
    if dtype is not None:
        input = _as(input, as_dtype(dtype))
    if not is_floating(input.data.dtype):
        raise DTypeError(
            "linalg.vector_norm: Expected a floating point or complex tensor as input. Got "
            f"{type_name(input.data.dtype)}"
        )
    order = 2.0 if p is None or isinstance(p, str) else float(p)
    if (order < 0 or math.isinf(order)) and not reduction.count(input.data.shape, dim):
        raise ShapeError(
            f"linalg.vector_norm cannot compute the {order} norm on an empty tensor because the operation does not "
            "have an identity"
        )
    return reduction.norm(input, p=order, dim=dim, keepdim=keepdim)


def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of input − other."""
    return norm(elementwise.sub(input, other), p)


# ---- Extremes ----


@overload
def max(input: Tensor, dim: None = None, *, other: None = None) -> Tensor: ...
@overload
def max(input: Tensor, dim: Tensor | None = None, *, other: Tensor | None = None) -> Tensor: ...
@overload
def max(input: Tensor, dim: int, keepdim: bool = False) -> Selected: ...
@watched
def max(
    input: Tensor, dim: int | Tensor | None = None, keepdim: bool = False, *, other: Tensor | None = None
) -> Tensor | Selected:
    """The largest element (ties share the gradient), or along `dim` the first largest ones and their indices.

    Of two tensors, `maximum`.
    """
    require_tensor("max", input)
    if isinstance(dim, Variable) or other is not None:
        return elementwise.maximum(input, dim if isinstance(dim, Variable) else other)
    if dim is None:
        _require_elements("max", input)
        return reduction.max_of_all(input)
    axis = _axis_with_elements("max", input, dim)
    index = indices_along(input, axis, lambda x, axis: np.argmax(x, axis=axis, keepdims=True))
    return selected("max", ordering.max, input, axis, index, keepdim)


@overload
def min(input: Tensor, dim: None = None, *, other: None = None) -> Tensor: ...
@overload
def min(input: Tensor, dim: Tensor | None = None, *, other: Tensor | None = None) -> Tensor: ...
@overload
def min(input: Tensor, dim: int, keepdim: bool = False) -> Selected: ...
@watched
def min(
    input: Tensor, dim: int | Tensor | None = None, keepdim: bool = False, *, other: Tensor | None = None
) -> Tensor | Selected:
    """The smallest element (ties share the gradient), or along `dim` the first smallest ones and their indices.

    Of two tensors, `minimum`.
    """
    require_tensor("min", input)
    if isinstance(dim, Variable) or other is not None:
        return elementwise.minimum(input, dim if isinstance(dim, Variable) else other)
    if dim is None:
        _require_elements("min", input)
        return reduction.min_of_all(input)
    axis = _axis_with_elements("min", input, dim)
    index = indices_along(input, axis, lambda x, axis: np.argmin(x, axis=axis, keepdims=True))
    return selected("min", ordering.min, input, axis, index, keepdim)


def amax(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The largest element over `dim`; ties share the gradient."""
    _check_dims("amax", input, dim)
    return reduction.amax(input, dim=dim, keepdim=keepdim)


def amin(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The smallest element over `dim`; ties share the gradient."""
    _check_dims("amin", input, dim)
    return reduction.amin(input, dim=dim, keepdim=keepdim)


class aminmax_(NamedTuple):  # noqa: N801 - its name is what prints
    """What `aminmax` finds."""

    min: Tensor
    max: Tensor


aminmax_.__name__ = aminmax_.__qualname__ = "aminmax"


def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> aminmax_:
    """The smallest and the largest element, of all or along `dim`."""
    require_tensor("aminmax", input)
    if dim is None and not input.data.size:
        raise ShapeError("aminmax(): cannot compute aminmax over an empty dimension as the operation has no identity.")
    if dim is not None and input.data.ndim and not input.data.shape[axis_of(input, dim)]:
        raise DimensionError(f"aminmax: Expected reduction dim {axis_of(input, dim)} to have non-zero size.")
    return aminmax_(amin(input, dim, keepdim), amax(input, dim, keepdim))


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the first largest element, in the flattened tensor or along `dim`."""
    axis = _check_arg("argmax", input, dim)
    return reduction.argmax(input, dim=axis, keepdim=keepdim)


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the first smallest element, in the flattened tensor or along `dim`."""
    axis = _check_arg("argmin", input, dim)
    return reduction.argmin(input, dim=axis, keepdim=keepdim)


def _check_arg(name: str, input: Tensor, dim: int | None) -> int | None:
    require_tensor(name, input)
    if input.data.dtype == bool_:
        raise DTypeError(f"{name}(): does not support bool input")
    if dim is None:
        if not input.data.size:
            raise DimensionError(f"{name}(): Expected reduction dim to be specified for input.numel() == 0.")
        return None
    axis = _axis_with_elements(name, input, dim)
    return axis if input.data.ndim else None


def _check_dims(name: str, input: Tensor, dim: Dim) -> None:
    require_tensor(name, input)
    if input.data.size:
        return
    if dim is None or dim == ():
        _require_elements(name, input)
    for axis in reduction.axes_of(input.data.ndim, dim):
        _axis_with_elements(name, input, axis)


def _require_elements(name: str, input: Tensor) -> None:
    if not input.data.size:
        raise ShapeError(
            f"{name}(): Expected reduction dim to be specified for input.numel() == 0. Specify the reduction dim with "
            "the 'dim' argument."
        )


def _axis_with_elements(name: str, input: Tensor, dim: int) -> int:
    axis = axis_of(input, dim)
    if input.data.ndim and not input.data.shape[axis]:
        raise DimensionError(f"{name}(): Expected reduction dim {axis} to have non-zero size.")
    return axis
