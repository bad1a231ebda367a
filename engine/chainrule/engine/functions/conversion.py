"""Functions that copy a tensor, or convert it to another dtype or memory layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy.typing as npt

from chainrule.engine.dtypes import as_dtype, float32, float64, int64
from chainrule.engine.ops import elementwise
from chainrule.engine.ops import shape as shaping

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

__all__ = ["clone"]


def clone(input: Tensor) -> Tensor:
    """A copy, through which gradients flow."""
    return elementwise.clone(input)


def contiguous(input: Tensor) -> Tensor:
    """The tensor with its elements in memory row by row: itself if they are, else a copy."""
    return input if input.data.flags.c_contiguous else shaping.contiguous(input)


def to(input: Tensor, dtype: npt.DTypeLike) -> Tensor:
    """The elements in another dtype, the tensor itself if they are in it."""
    dtype = as_dtype(dtype)
    return input if input.data.dtype == dtype else elementwise.cast(input, dtype=dtype)


def float(input: Tensor) -> Tensor:
    """The elements as float32."""
    return to(input, float32)


def double(input: Tensor) -> Tensor:
    """The elements as float64."""
    return to(input, float64)


def long(input: Tensor) -> Tensor:
    """The elements as int64."""
    return to(input, int64)
