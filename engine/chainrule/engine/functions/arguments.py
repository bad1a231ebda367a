"""What functions of tensors do with their arguments before they call an operation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import index
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import Array, DType, finfo, is_floating
from chainrule.engine.errors import ArgumentError, DimensionError, DTypeError, ShapeError
from chainrule.engine.ops.elementwise import cast
from chainrule.engine.ops.op import Op

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

Number = bool | int | float
Operand: TypeAlias = "Tensor | Array | Number"

operand_types = (Variable, np.ndarray, np.generic, bool, int, float)


def elementwise_function(op: Op, name: str, doc: str) -> Callable[[Tensor], Tensor]:
    """The function of one tensor that `op` is."""

    def function(input: Tensor) -> Tensor:
        if not isinstance(input, Variable):
            raise no_tensor(name, input)
        return op(input)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def require_tensor(name: str, input: object) -> None:
    """Raises DTypeError unless `input` is a tensor."""
    if not isinstance(input, Variable):
        raise no_tensor(name, input)


def no_tensor(name: str, input: object) -> DTypeError:
    """The error of a function that is given something else, which is often the array that `x.data` is."""
    remedy = "; use x.detach() rather than x.data, or from_numpy(array)" if isinstance(input, np.ndarray) else ""
    return DTypeError(f"{name}(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}{remedy}")


def as_operand(value: object) -> Tensor:
    """A tensor, or an array as one.

    Raises:
        DTypeError: something else.
    """
    if isinstance(value, Variable):
        return value  # type: ignore[return-value]
    if isinstance(value, np.ndarray):
        return Variable.wrap(value)
    raise DTypeError(f"expected a Tensor, got {type(value).__name__}: {value!r}")


def axis_of(input: Tensor, dim: int) -> int:
    """The dimension `dim` means, counted from 0.

    Raises:
        DimensionError: the tensor does not have it.
    """
    limit = input.data.ndim or 1
    if not hasattr(dim, "__index__"):
        raise DTypeError(f"argument 'dim' must be int, not {type(dim).__name__}")
    if not -limit <= dim < limit:
        raise DimensionError(
            f"Dimension out of range (expected to be in range of [{-limit}, {limit - 1}], but got {dim})"
        )
    return dim % limit


def axes_of(input: Tensor, dims: int | Sequence[int]) -> tuple[int, ...]:
    """The dimensions that one or several mean, counted from 0; a 0-d tensor has none.

    Raises:
        DimensionError: the tensor does not have one of them.
        ShapeError: one is named twice.
    """
    axes: list[int] = []
    for dim in (dims,) if isinstance(dims, int | np.integer) else dims:
        axis = axis_of(input, int(dim))
        if axis in axes:
            raise ShapeError(f"dim {axis} appears multiple times in the list of dims")
        axes.append(axis)
    return tuple(axes)


def ints(values: Sequence[int | Sequence[int]], name: str = "size") -> tuple[int, ...]:
    """The integers of f(2, 3) or of f((2, 3)).

    Raises:
        DTypeError: one is no integer.
    """
    given: Any = values
    if len(values) == 1 and (not hasattr(values[0], "__index__") or np.ndim(getattr(values[0], "data", 0))):
        given = values[0]  # a sequence, or a tensor or array of them
    try:
        return tuple(map(index, given))
    except TypeError:
        raise DTypeError(f"argument '{name}' must be tuple of ints, not {_first_non_int(given)}") from None


def with_keyword(values: tuple[Any, ...], named: Any) -> tuple[Any, ...]:
    """The integers of f(2, 3), or those of f(size=(2, 3)) as f((2, 3)) has them."""
    return values if named is None else (*values, named)


def _first_non_int(given: Any) -> str:
    for value in given if isinstance(given, Sequence) and not isinstance(given, str) else (given,):
        if not hasattr(value, "__index__"):
            return type(value).__name__
    return type(given).__name__


def check_fits(number: Number, dtype: DType) -> None:
    """Raises ArgumentError if a dtype cannot hold the number; negative ones wrap in uint8, as in PyTorch."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        lowest = -int(limits.max) if dtype.kind == "u" else int(limits.min)
        if not lowest <= number <= int(limits.max):
            raise ArgumentError(f"value cannot be converted to type {dtype}_t without overflow: {number}")
    elif is_floating(dtype) and math.isfinite(number) and abs(number) > finfo(dtype).max:
        raise ArgumentError(f"value cannot be converted to type {c_name(dtype)} without overflow: {number}")


def number_like(value: Number | Tensor, dtype: DType) -> Tensor:
    """A number as a 0-d tensor of the dtype.

    Raises:
        ArgumentError: the dtype cannot hold it.
    """
    if isinstance(value, Variable):
        return value if value.data.dtype == dtype else cast(value, dtype=dtype)
    check_fits(value, dtype)
    return Variable.wrap(np.asarray(value).astype(dtype))


def c_name(dtype: DType) -> str:
    """What a dtype is called in C++, which some messages of PyTorch show."""
    return _c_names.get(str(dtype), str(dtype))


_c_names = {
    "float16": "c10::Half",
    "bfloat16": "c10::BFloat16",
    "float32": "float",
    "float64": "double",
    "int8": "signed char",
    "int16": "short int",
    "int32": "int",
    "int64": "long int",
    "uint8": "unsigned char",
    "bool": "bool",
}
