"""How an operation is declared: a forward on arrays and, beside it, the gradient of each input as a lambda.

    mul = elementwise("Mul", np.multiply, a=lambda g, b: g * b, b=lambda g, a: g * a)

The names of a gradient's parameters say what it uses, and so what is saved:

    g                   the gradient of the output
    y                   the output
    <input>             the input of that name
    <input>_shape       its shape alone (of a variadic input: the shapes of all)
    <attribute>         a keyword-only argument of the forward
    <intermediate>      what the forward returned beside its output, `return y, {"offsets": offsets}`
    position            of a variadic input: which one the gradient is for

Called with arrays, an operation computes arrays. Called with Tensors, it computes a Tensor and records how, if one of
them requires a gradient. So one formula serves twice: on arrays in an ordinary backward pass, and on Tensors where the
gradient itself is to be differentiated.
"""

# mypy: disable-error-code=has-type
# A formula may name operations declared further down.

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.engine.autograd.graph import Node, OpNode, Saved, widened
from chainrule.engine.autograd.mode import state
from chainrule.engine.autograd.variable import Variable, no_version
from chainrule.engine.dtypes import (
    Array,
    DType,
    as_dtype,
    bfloat16,
    bool_,
    default_dtype,
    float16,
    float32,
    is_floating,
    is_low_precision,
    promote,
)
from chainrule.engine.errors import DimensionError, DTypeError, ShapeError

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

Gradient = Callable[..., Any]
Refusal = Callable[[list[Any], DType], str | None]
Scalar = (bool, int, float)
_none: dict[str, Any] = {}  # no intermediates; never written to
Arrays = (np.ndarray, np.generic)
_public_names = {"a": "input", "x": "input", "b": "other", "w": "weight"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What recording and its backward do when a given set of inputs requires gradients."""

    formulas: tuple[tuple[int, Gradient, Callable[[list[Any]], tuple[Any, ...]] | None], ...]
    """Position of the input, its gradient, and what picks its arguments from `g`, the saved and the others; None if
    these are the arguments."""
    edges: tuple[int | None, ...]
    """The inputs that have a gradient, by position; None for one that requires none."""
    saved_names: tuple[str, ...]
    """The inputs (and `y`) to save."""
    saved_positions: tuple[int | None, ...]
    """Where each of them is among the inputs; None for `y`."""
    other_names: tuple[str, ...]
    """What else the gradients use: attributes, intermediates, shapes; of a variadic operation last the position."""
    shape_names: tuple[tuple[str, int | None], ...]
    """The shapes to keep, and the input each is of; None for those of a variadic input."""


class Op:
    """A differentiable operation; see the module.

    Args:
        name: as in `grad_fn`: "Mul" gives MulBackward0.
        forward: arrays in, an array out, or a pair of it and a dict of named intermediates.
        gradients: for each input that has one, its gradient.
        inputs: the names of the inputs; by default the positional parameters of `forward`.
        saves: the names of the intermediates.
        view: whether the output may share memory with the first input.
        one_of_many: whether it is one of several views that are made together, as by `split`.
        exact: whether float16 and bfloat16 go into the forward as they are, rather than as float32.
        converts: whether its gradients are of other dtypes than the output's, which they see to themselves.
        native: whether forward and gradients take float16 and bfloat16 as they are: their kernels see to it.
        half: a forward of its own for float16 and bfloat16; the gradients take them as they are, too.
    """

    def __init__(
        self,
        name: str,
        forward: Callable[..., Any],
        gradients: dict[str, Gradient],
        *,
        inputs: Sequence[str] | None = None,
        saves: Sequence[str] = (),
        view: bool = False,
        one_of_many: bool = False,
        exact: bool = False,
        converts: bool = False,
        native: bool = False,
        half: Callable[..., Any] | None = None,
    ) -> None:
        self.name = name
        self.forward = forward
        self.view = view
        self.one_of_many = one_of_many
        self.exact = exact or view or native
        self.converts = converts
        self.half = half
        self.native = native or converts or half is not None
        self.broadcasts = False
        self.variadic = False
        self.defaults: dict[str, Any] = {}
        attributes: list[str] = []
        if inputs is None:
            inputs = []
            for parameter in inspect.signature(forward).parameters.values():
                if parameter.kind is parameter.KEYWORD_ONLY:
                    attributes.append(parameter.name)
                    if parameter.default is not parameter.empty:
                        self.defaults[parameter.name] = parameter.default
                else:
                    inputs.append(parameter.name)
                    self.variadic = parameter.kind is parameter.VAR_POSITIONAL
        self.inputs = tuple(inputs)
        self.attributes = tuple(attributes)
        self._most = sys.maxsize if self.variadic else len(inputs)
        plain = isinstance(forward, FunctionType) and forward.__name__[0].isalpha()
        self.__name__ = forward.__name__ if plain else name.lower()  # of a ufunc or a helper, what PyTorch calls it
        self.__doc__ = forward.__doc__
        self._gradients = {name: (formula, _parameters(formula)) for name, formula in gradients.items()}
        self._plans: dict[tuple[bool, ...], Plan | None] = {}
        self._check({"g", "y", "position"}, {*self.inputs, *self.attributes, *saves})

    def _check(self, reserved: set[str], own: set[str]) -> None:
        """Refuses a declaration whose formulas could not be computed."""
        if reserved & own:
            raise TypeError(f"{self.name}: {sorted(reserved & own)} has a meaning of its own in a gradient")
        known = reserved | own | {f"{name}_shape" for name in self.inputs}
        for input_name, (_, names) in self._gradients.items():
            if input_name not in self.inputs or not known.issuperset(names):
                unknown = sorted(set(names) - known) or [input_name]
                raise TypeError(f"{self.name}: the gradient of {input_name} uses {unknown}, which is not there")

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    @property
    def is_differentiable(self) -> bool:
        """Whether any input has a gradient."""
        return bool(self._gradients)

    # The static type is of the public use, Tensors in and a Tensor out. Formulas, which are untyped, also pass arrays.
    def __call__(self, *inputs: Any, **attributes: Any) -> Tensor:
        if len(inputs) > self._most:
            inputs, extra = inputs[: len(self.inputs)], inputs[len(self.inputs) :]
            if len(extra) > len(self.attributes):
                raise TypeError(f"{self.__name__}() takes {len(self.inputs) + len(self.attributes)} arguments")
            attributes.update(zip(self.attributes, extra, strict=False))
        for x in inputs:
            if isinstance(x, Variable):
                return self._record(self.prepare(inputs), attributes)
        if inputs and not isinstance(inputs[0], Arrays) and not any(isinstance(x, Arrays) for x in inputs):
            self._refuse(inputs[0])
        result = self.forward(*inputs, **attributes)
        return result[0] if type(result) is tuple else result  # type: ignore[no-any-return]

    def _refuse(self, x: object) -> None:
        raise DTypeError(
            f"{self.__name__}(): argument '{self.inputs[0]}' (position 1) must be Tensor, not {type(x).__name__}"
        )

    def _record(self, inputs: tuple[Any, ...], attributes: dict[str, Any]) -> Tensor:
        arrays = []
        needs = []
        for x in inputs:
            if isinstance(x, Variable):
                arrays.append(x.data)
                needs.append(x._requires_grad or (x._view is not None and x.requires_grad))
            else:
                arrays.append(x)
                needs.append(False)
        first = arrays[0]
        try:
            if self.exact or (type(first) is np.ndarray and first.dtype is float32):
                result = self.forward(*arrays, **attributes)
            else:
                result = self._compute(arrays, attributes)
        except np.exceptions.AxisError as error:
            raise DimensionError(f"{self.__name__}(): Dimension out of range: {error}") from None
        except ValueError as error:  # numpy's word for shapes that do not fit
            raise ShapeError(self.misfit(arrays, error)) from None
        intermediates: dict[str, Any] = _none
        if type(result) is tuple:
            result, intermediates = result
        array = result if type(result) is np.ndarray else np.asarray(result)
        recording = state.recording
        if self.view and shares_memory(array, first):
            y = Variable.wrap(array, counter=inputs[0].counter)
            y.view_of(inputs[0], one_of_many=self.one_of_many)
        else:
            y = Variable.wrap(array, counter=None if recording or not state.inference else no_version)
        if recording and True in needs and (array.dtype is float32 or array.dtype.kind in "fV"):
            key = tuple(needs)
            plan = self._plans.get(key) or self._plan(key)
            if plan is not None:
                self._remember(plan, inputs, y, self.shapes(plan, inputs), attributes, intermediates)
        return y

    def _compute(self, arrays: list[Any], attributes: dict[str, Any]) -> Any:
        """The forward; of half precision in float32, rounded once at the end."""
        low = [x.dtype for x in arrays if isinstance(x, np.ndarray) and x.dtype in (float16, bfloat16)]
        if not low:
            return self.forward(*arrays, **attributes)
        if self.half is not None:
            return self.half(*arrays, **attributes)
        result = self.forward(*map(widened, arrays), **attributes)
        y, intermediates = result if type(result) is tuple else (result, {})
        if y.dtype == float32 and float32 not in [x.dtype for x in arrays if isinstance(x, np.ndarray)]:
            y = np.asarray(y).astype(low[0])
        return y, intermediates

    def _remember(
        self,
        plan: Plan,
        inputs: tuple[Any, ...],
        y: Tensor,
        shapes: tuple[Any, ...],
        attributes: dict[str, Any],
        intermediates: dict[str, Any],
    ) -> None:
        """Gives `y` the node that turns its gradient into those of the inputs."""
        edges: list[Node | None] = []
        for position in plan.edges:
            if position is None:
                edges.append(None)
                continue
            x = inputs[position]
            edges.append(x._grad_fn if x._view is None and x._grad_fn is not None else x.gradient_edge())
        saved: list[Any] = []
        for position in plan.saved_positions:
            if position is None:
                saved.append(Saved.output(y))
            else:
                x = inputs[position]
                saved.append(Saved.input(x) if isinstance(x, Variable) else x)
        y._grad_fn = OpNode.make(self, plan, tuple(edges), tuple(saved), shapes, attributes, intermediates)
        y._requires_grad = True

    def _plan(self, needs: tuple[bool, ...]) -> Plan | None:
        try:
            return self._plans[needs]
        except KeyError:
            return self._plans.setdefault(needs, self._make_plan(needs))

    def _make_plan(self, needs: tuple[bool, ...]) -> Plan | None:
        needed_gradients = []
        for position, needed in enumerate(needs):
            input_name = self.inputs[0 if self.variadic else position]
            if needed and input_name in self._gradients:
                needed_gradients.append((position, *self._gradients[input_name]))
        if not needed_gradients:
            return None
        used = dict.fromkeys(name for _, _, names in needed_gradients for name in names)  # an ordered set
        saved = [name for name in used if name == "y" or name in self.inputs]
        others = [name for name in used if name not in ("g", "position", *saved)] + ["position"] * self.variadic
        values = ("g", *saved, *others)
        shapes = {f"{name}_shape": position for position, name in enumerate(self.inputs)}
        return Plan(
            formulas=tuple(
                (position, formula, None if names == values else _picking([values.index(name) for name in names]))
                for position, formula, names in needed_gradients
            ),
            edges=tuple(
                position if needed else None
                for position, needed in enumerate(needs)
                if self.variadic or self.inputs[position] in self._gradients
            ),
            saved_names=tuple(saved),
            saved_positions=tuple(None if name == "y" else self.inputs.index(name) for name in saved),
            other_names=tuple(others),
            shape_names=tuple((name, None if self.variadic else shapes[name]) for name in used if name in shapes),
        )

    # What a kind of operations may do its own way.

    def prepare(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """The inputs as the forward takes them; at least one is a Tensor."""
        return inputs

    def shapes(self, plan: Plan, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """The shapes of the inputs, if a gradient uses one or has to be fitted to one."""
        if not plan.shape_names:
            return ()
        if len(inputs) == 1:
            return (inputs[0].data.shape,)
        return tuple(map(np.shape, map(_data, inputs)))

    def fit(self, gradient: Any, shape: tuple[int, ...]) -> Any:
        """The gradient in the shape of the input it is for, if that was broadcast."""
        return sum_to(gradient, shape=shape)

    def misfit(self, arrays: list[Any], error: ValueError) -> str:  # noqa: ARG002
        """What to say of arrays whose shapes do not fit."""
        return f"{self.__name__}(): {error}"


def op(
    name: str,
    *,
    saves: Sequence[str] = (),
    view: bool = False,
    exact: bool = False,
    converts: bool = False,
    native: bool = False,
    **gradients: Gradient,
) -> Callable[[Callable[..., Any]], Op]:
    """Declares the decorated forward as an operation, with the gradients of its inputs; see the module."""

    def declare(forward: Callable[..., Any]) -> Op:
        return Op(name, forward, gradients, saves=saves, view=view, exact=exact, converts=converts, native=native)

    return declare


# ---- Elementwise: dtypes are promoted, shapes broadcast ----


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
                self._remember(plan, (a, b), y, shapes, _none, _none)
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


def shares_memory(y: Array, x: Array) -> bool:
    """Whether `y`, made of `x`, is a view of it."""
    owner = y.base
    return owner is not None and (owner is x or owner is x.base or np.may_share_memory(y, x))


def _data(x: Any) -> Any:
    return x.data if isinstance(x, Variable) else x


def _parameters(formula: Gradient) -> tuple[str, ...]:
    return tuple(inspect.signature(formula).parameters)


def _picking(places: list[int]) -> Callable[[list[Any]], tuple[Any, ...]]:
    """The function that gives the values at those places as a tuple."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: tuple([values[place] for place in places])


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
