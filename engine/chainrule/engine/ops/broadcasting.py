"""Operations on each element: their inputs are promoted to one dtype and broadcast to one shape.

A gradient comes in the shape of the output; `sum_to`, the reverse of broadcasting, brings it into that of the input.
"""

# mypy: disable-error-code=has-type
# A formula may name operations declared further down.

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.engine.autograd.mode import state
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import (
    DType,
    as_dtype,
    bfloat16,
    bool_,
    default_dtype,
    float32,
    is_floating,
    is_low_precision,
    promote,
    widened,
)
from chainrule.engine.errors import DTypeError, ShapeError
from chainrule.engine.ops.op import NONE, Gradient, Op, Plan, op
from chainrule.engine.watching import tell_operation, watchers

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

Refusal = Callable[[list[Any], DType], str | None]
Scalar = (bool, int, float)
_public_names = {"a": "input", "x": "input", "b": "other", "w": "weight"}


class Elementwise(Op):
    """An operation on each element: its inputs are promoted to one dtype and broadcast to one shape.

    Args:
        floating: whether integers become float32 first, as for exp.
        exempt: an input that keeps its dtype, as a condition does.
        refuse: what is wrong with tensors and numbers that are no float tensors of one dtype, given them and the dtype
            they are promoted to; None if nothing is.
        integral: whether `refuse` is asked of float tensors of one dtype, too, as by what takes integers only.
        half: see `Op`.
    """

    def __init__(
        self,
        name: str,
        forward: Callable[..., Any],
        gradients: dict[str, Gradient],
        *,
        inputs: Sequence[str] | None = None,
        floating: bool = False,
        exempt: str | None = None,
        refuse: Refusal | None = None,
        integral: bool = False,
        half: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(name, forward, gradients, inputs=inputs, half=half)
        self.floating = floating
        self.refuse = refuse
        self.broadcasts = True
        self._quick = "" if integral else "fV"
        self.exempt = -1 if exempt is None else self.inputs.index(exempt)

    def of_two(self, a: Any, b: Any) -> Tensor:
        """The operation of `a` and `b`, as a call; of float32 tensors, nearly always meant, by a shorter way."""
        if not (isinstance(a, Variable) and a.data.dtype is float32 and state.recording):
            return self(a, b)
        x = a.data
        a_needs = a._requires_grad or (a._view is not None and a.requires_grad)
        if isinstance(b, Variable) and b.data.dtype is float32:
            z = b.data
            broadcast = x.shape != z.shape
            b_needs = b._requires_grad or (b._view is not None and b.requires_grad)
        elif type(b) in Scalar:
            z, broadcast, b_needs = b, False, False
        else:
            return self(a, b)
        try:
            array = self.forward(x, z)
        except ValueError as error:
            raise ShapeError(self.misfit([x, z], error)) from None
        y = Variable.wrap(array if type(array) is np.ndarray else np.asarray(array))
        if a_needs or b_needs:
            key = a_needs, b_needs
            plan = self._plans.get(key) or self._plan(key)
            if plan is not None:
                shapes = self.shapes(plan, (a, b)) if broadcast or plan.shape_names else ()
                self._remember(plan, (a, b), y, shapes, NONE, NONE)
        if watchers:
            tell_operation(self, (a, b), NONE, y)
        return y

    def prepare(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        dtype: DType | None = None
        for x in inputs:
            if isinstance(x, Variable):
                if dtype is None:
                    dtype = x.data.dtype
                elif x.data.dtype is not dtype:
                    break
            elif type(x) not in Scalar:
                break
        else:
            if dtype is not None and dtype.kind in self._quick:
                return inputs  # tensors of one floating dtype, and Python numbers: nearly always
        return self._promote(inputs)

    def _promote(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        operands = [self._operand(position, x) for position, x in enumerate(inputs)]
        mixed = [x for position, x in enumerate(operands) if position != self.exempt]
        tensors = [x for x in mixed if isinstance(x, Variable)]
        dtype = promote(
            [x.data.dtype for x in tensors if x.data.ndim],
            [x.data.dtype for x in tensors if not x.data.ndim],
            [x for x in mixed if not isinstance(x, Variable)],
        )
        if self.floating and not is_floating(dtype):
            dtype = default_dtype
        message = None if self.refuse is None else self.refuse(mixed, dtype)
        if message is not None:
            raise DTypeError(message)
        return tuple([x if i == self.exempt else _promoted(x, dtype, bool(tensors)) for i, x in enumerate(operands)])

    def _operand(self, position: int, x: Any) -> Any:
        if isinstance(x, Variable) or type(x) in Scalar:
            return x
        if isinstance(x, np.ndarray):
            as_dtype(x.dtype)
            return Variable.wrap(x)
        if isinstance(x, bool | int | float | np.bool_ | np.integer | np.floating | bfloat16.type):
            return float(x) if isinstance(x, bfloat16.type) else np.asarray(x).item()
        name = _public_names.get(self.inputs[position], self.inputs[position])
        raise DTypeError(
            f"{self.__name__}(): argument '{name}' (position {position + 1}) must be Tensor, not {type(x).__name__}"
        )

    def fit(self, gradient: Any, shape: tuple[int, ...]) -> Any:
        return sum_to(gradient, shape=shape)

    def misfit(self, arrays: list[Any], error: ValueError) -> str:
        shapes = [np.shape(x) for x in arrays]
        size = [1] * max(map(len, shapes))
        for shape in shapes:
            for axis in range(-1, -len(shape) - 1, -1):
                if 1 not in (shape[axis], size[axis]) and shape[axis] != size[axis]:
                    return (
                        f"The size of tensor a ({size[axis]}) must match the size of tensor b ({shape[axis]}) at "
                        f"non-singleton dimension {len(size) + axis}"
                    )
                size[axis] = shape[axis] if size[axis] == 1 else size[axis]
        return super().misfit(arrays, error)

    def shapes(self, plan: Plan, inputs: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG002
        return tuple(
            [x.data.shape if isinstance(x, Variable) else () if type(x) in Scalar else np.shape(x) for x in inputs]
        )


def elementwise(
    name: str,
    forward: Callable[..., Any],
    *,
    inputs: Sequence[str] | None = None,
    floating: bool = False,
    exempt: str | None = None,
    refuse: Refusal | None = None,
    integral: bool = False,
    half: Callable[..., Any] | None = None,
    **gradients: Gradient,
) -> Elementwise:
    """Declares an elementwise operation; of a numpy ufunc the inputs are those that have a gradient."""
    if inputs is None and isinstance(forward, np.ufunc):
        inputs = tuple(gradients)
    return Elementwise(
        name,
        forward,
        gradients,
        inputs=inputs,
        floating=floating,
        exempt=exempt,
        refuse=refuse,
        integral=integral,
        half=half,
    )


def _promoted(x: Any, dtype: DType, beside_tensors: bool) -> Any:
    """A tensor or a number in another dtype; a number beside floats stays as it is, beside integers it wraps."""
    if isinstance(x, Variable):
        return x if x.data.dtype == dtype else x.to(dtype)  # type: ignore[attr-defined]
    if is_floating(dtype):
        return x if beside_tensors else dtype.type(x)
    return np.bool_(x) if dtype == bool_ else np.int64(x).astype(dtype)


# ---- Broadcasting and its reverse, which elementwise gradients need ----


@op("Expand", view=True, x=lambda g, x_shape: sum_to(g, shape=x_shape))
def expand(x: Any, *, shape: tuple[int, ...]) -> Any:
    """`x` repeated along new dimensions and those of length one, without copying."""
    if x.size == math.prod(shape):
        return x.reshape(shape)
    y = np.broadcast_to(x, shape)
    y.flags.writeable = x.flags.writeable  # a part of it may well be written to; see `Variable.check_writable`
    return y


@op("SumToSize", x=lambda g, x_shape: expand(g, shape=x_shape))
def sum_to(x: Any, *, shape: tuple[int, ...]) -> Any:
    """The reverse of broadcasting: `x` summed over what `expand` would have repeated."""
    extra = x.ndim - len(shape)
    axes = tuple(range(extra))
    if x.shape[extra:] != shape:
        axes += tuple(extra + axis for axis, n in enumerate(shape) if n == 1 and x.shape[extra + axis] != 1)
    y = np.add.reduce(widened(x), axis=axes, dtype=float32 if is_low_precision(x.dtype) else x.dtype)
    return y.astype(x.dtype, copy=False).reshape(shape)
