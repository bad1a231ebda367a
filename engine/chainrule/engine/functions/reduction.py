"""Functions that reduce dimensions: sums, means, extremes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, overload

from chainrule.engine.dtypes import is_floating, type_name
from chainrule.engine.errors import DTypeError
from chainrule.engine.ops import loss, reduction, shape
from chainrule.engine.ops.reduction import Dim

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

__all__ = ["amax", "amin", "argmax", "argmin", "log_softmax", "logsumexp", "max", "mean", "min", "softmax", "sum"]


class Extreme(NamedTuple):
    """What `max` and `min` along a dimension find."""

    values: Tensor
    indices: Tensor


def sum(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Σ x over `dim`"""
    return reduction.sum(input, dim=dim, keepdim=keepdim)


def mean(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The mean over `dim`; of floating tensors only.

    Raises:
        DTypeError: the tensor is of integers or bools.
    """
    if not is_floating(input.data.dtype):
        raise DTypeError(
            "mean(): could not infer output dtype. Input dtype must be either a floating point or complex dtype. "
            f"Got: {type_name(input.dtype)}"
        )
    return reduction.mean(input, dim=dim, keepdim=keepdim)


@overload
def max(input: Tensor, dim: None = None) -> Tensor: ...
@overload
def max(input: Tensor, dim: int, keepdim: bool = False) -> Extreme: ...
def max(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | Extreme:
    """The largest element (ties share the gradient), or along `dim` the first largest ones and their indices."""
    if dim is None:
        return reduction.amax(input)
    return _pick(input, reduction.argmax(input, dim=dim, keepdim=True), dim, keepdim)


@overload
def min(input: Tensor, dim: None = None) -> Tensor: ...
@overload
def min(input: Tensor, dim: int, keepdim: bool = False) -> Extreme: ...
def min(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | Extreme:
    """The smallest element (ties share the gradient), or along `dim` the first smallest ones and their indices."""
    if dim is None:
        return reduction.amin(input)
    return _pick(input, reduction.argmin(input, dim=dim, keepdim=True), dim, keepdim)


def _pick(input: Tensor, indices: Tensor, dim: int, keepdim: bool) -> Extreme:
    values = shape.gather(input, dim=dim, index=indices.data)
    return Extreme(values, indices) if keepdim else Extreme(values.squeeze(dim), indices.squeeze(dim))


def amax(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The largest element over `dim`; ties share the gradient."""
    return reduction.amax(input, dim=dim, keepdim=keepdim)


def amin(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The smallest element over `dim`; ties share the gradient."""
    return reduction.amin(input, dim=dim, keepdim=keepdim)


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the first largest element, in the flattened tensor or along `dim`."""
    return reduction.argmax(input, dim=dim, keepdim=keepdim)


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the first smallest element, in the flattened tensor or along `dim`."""
    return reduction.argmin(input, dim=dim, keepdim=keepdim)


def logsumexp(input: Tensor, dim: Dim, keepdim: bool = False) -> Tensor:
    """log Σ eˣ over `dim`"""
    return reduction.logsumexp(input, dim=dim, keepdim=keepdim)


def softmax(input: Tensor, dim: int) -> Tensor:
    """eˣ / Σ eˣ along `dim`"""
    return loss.softmax(input, dim=dim)


def log_softmax(input: Tensor, dim: int) -> Tensor:
    """x − log Σ eˣ along `dim`"""
    return loss.log_softmax(input, dim=dim)
