"""What functions of tensors do with their arguments before they call an operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import Array, bool_
from chainrule.engine.errors import DimensionError, DTypeError
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
            raise DTypeError(f"{name}(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}")
        return op(input)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def require_tensor(name: str, input: object) -> None:
    """Raises DTypeError unless `input` is a tensor."""
    if not isinstance(input, Variable):
        raise DTypeError(f"{name}(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}")


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
    if not -limit <= dim < limit:
        raise DimensionError(
            f"Dimension out of range (expected to be in range of [{-limit}, {limit - 1}], but got {dim})"
        )
    return dim % limit


def ints(values: Sequence[int | Sequence[int]]) -> tuple[int, ...]:
    """The integers of f(2, 3) or of f((2, 3))."""
    if len(values) == 1 and not isinstance(values[0], int | np.integer | Variable):
        return tuple(int(value) for value in values[0])
    return tuple(int(value) for value in values)  # type: ignore[arg-type]


def index_of(index: Any) -> Any:
    """An index with arrays in place of its tensors."""
    if isinstance(index, tuple):
        return tuple(index_of(part) for part in index)
    if isinstance(index, Variable):
        return index.data.copy() if index.data.ndim or index.data.dtype == bool_ else int(index)  # type: ignore[call-overload]
    return index
