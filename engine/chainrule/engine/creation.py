"""Functions that make tensors: from data, or filled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from chainrule.engine.dtypes import Array, DType, as_dtype, default_dtype, int64
from chainrule.engine.errors import DTypeError
from chainrule.engine.functions.arguments import Number
from chainrule.engine.random import sizes
from chainrule.engine.tensor import Tensor

Size = int | Sequence[int]


def tensor(data: Any, *, dtype: npt.DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor of a copy of `data`: numbers, nested sequences of them, an array or a Tensor.

    Python floats make float32, integers int64, bools bool; arrays and numpy's numbers keep their dtype.

    Raises:
        DTypeError: `data` does not hold numbers, or of a dtype that is not supported.
    """
    return Tensor(_as_array(data, dtype, copy=True), requires_grad=requires_grad)


def as_tensor(data: Any, *, dtype: npt.DTypeLike | None = None) -> Tensor:
    """`data` as a tensor; an array of the right dtype shares its memory, a Tensor of it is returned itself."""
    if isinstance(data, Tensor):
        return data if dtype is None else data.to(dtype)
    return Tensor(_as_array(data, dtype, copy=False))


def from_numpy(array: Array) -> Tensor:
    """A tensor that shares the array's memory.

    Raises:
        DTypeError: it is no array, or of a dtype that is not supported.
    """
    if not isinstance(array, np.ndarray):
        raise DTypeError(f"expected np.ndarray (got {type(array).__name__})")
    return Tensor(array)


def _as_array(data: Any, dtype: npt.DTypeLike | None, *, copy: bool) -> Array:
    if isinstance(data, Tensor):
        data = data.data
    if isinstance(data, np.ndarray | np.generic):
        array = np.array(data) if copy else np.asarray(data)
    else:
        try:
            array = np.array(_plain(data))
        except ValueError as error:
            raise DTypeError(f"cannot make a tensor of {type(data).__name__}: {error}") from None
        if array.dtype.kind == "f" and _is_python_number(data):
            array = array.astype(default_dtype)
        elif array.dtype.kind not in "bif":
            raise DTypeError(f"cannot make a tensor of {type(data).__name__} holding {array.dtype}: {data!r}")
    wanted = as_dtype(array.dtype if dtype is None else dtype)
    return array.astype(wanted, copy=False)


def _plain(data: Any) -> Any:
    """Nested sequences with numbers and arrays in place of tensors."""
    if isinstance(data, list | tuple):
        return [_plain(part) for part in data]
    return data.data if isinstance(data, Tensor) else data


def _is_python_number(data: Any) -> bool:
    """Whether the first number of nested sequences is Python's own: then PyTorch's default dtype applies."""
    while isinstance(data, list | tuple):
        if not data:
            return True
        data = data[0]
    return type(data) in (bool, int, float)


# ---- Filled ----


def zeros(*size: Size, dtype: npt.DTypeLike = default_dtype, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros."""
    return Tensor(np.zeros(sizes(size), as_dtype(dtype)), requires_grad=requires_grad)


def ones(*size: Size, dtype: npt.DTypeLike = default_dtype, requires_grad: bool = False) -> Tensor:
    """A tensor of ones."""
    return Tensor(np.ones(sizes(size), as_dtype(dtype)), requires_grad=requires_grad)


def empty(*size: Size, dtype: npt.DTypeLike = default_dtype, requires_grad: bool = False) -> Tensor:
    """A tensor of whatever the memory held."""
    return Tensor(np.empty(sizes(size), as_dtype(dtype)), requires_grad=requires_grad)


def full(
    size: Sequence[int], fill_value: Number, *, dtype: npt.DTypeLike | None = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of one number, in its dtype unless another is named."""
    resolved = _dtype_of(fill_value) if dtype is None else as_dtype(dtype)
    return Tensor(np.full(sizes((size,)), fill_value, resolved), requires_grad=requires_grad)


def arange(
    start: int | float,
    end: int | float | None = None,
    step: int | float = 1,
    *,
    dtype: npt.DTypeLike | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """The numbers start, start + step, … below end; with one bound, from 0."""
    if end is None:
        start, end = 0, start
    floating = any(isinstance(number, float) for number in (start, end, step))
    resolved = as_dtype(dtype) if dtype is not None else default_dtype if floating else int64
    return Tensor(np.arange(start, end, step).astype(resolved), requires_grad=requires_grad)


def linspace(
    start: float, end: float, steps: int, *, dtype: npt.DTypeLike = default_dtype, requires_grad: bool = False
) -> Tensor:
    """`steps` numbers from start to end, both included, evenly apart."""
    return Tensor(np.linspace(start, end, steps).astype(as_dtype(dtype)), requires_grad=requires_grad)


def eye(n: int, m: int | None = None, *, dtype: npt.DTypeLike = default_dtype, requires_grad: bool = False) -> Tensor:
    """The identity matrix (n, m)."""
    return Tensor(np.eye(n, m, dtype=as_dtype(dtype)), requires_grad=requires_grad)


def zeros_like(input: Tensor, *, dtype: npt.DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """Zeros in the shape, and unless named the dtype, of `input`."""
    return Tensor(np.zeros_like(input.data, dtype=_like(input, dtype)), requires_grad=requires_grad)


def ones_like(input: Tensor, *, dtype: npt.DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """Ones in the shape, and unless named the dtype, of `input`."""
    return Tensor(np.ones_like(input.data, dtype=_like(input, dtype)), requires_grad=requires_grad)


def empty_like(input: Tensor, *, dtype: npt.DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """Memory for the shape, and unless named the dtype, of `input`."""
    return Tensor(np.empty_like(input.data, dtype=_like(input, dtype)), requires_grad=requires_grad)


def full_like(
    input: Tensor, fill_value: Number, *, dtype: npt.DTypeLike | None = None, requires_grad: bool = False
) -> Tensor:
    """One number in the shape, and unless named the dtype, of `input`."""
    return Tensor(np.full_like(input.data, fill_value, dtype=_like(input, dtype)), requires_grad=requires_grad)


def _like(input: Tensor, dtype: npt.DTypeLike | None) -> DType:
    return input.dtype if dtype is None else as_dtype(dtype)


def _dtype_of(number: Number) -> DType:
    return _as_array(number, None, copy=False).dtype
