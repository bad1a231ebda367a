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
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.engine.autograd.graph import Node, OpNode, Saved
from chainrule.engine.autograd.mode import state
from chainrule.engine.autograd.variable import Variable, no_version
from chainrule.engine.dtypes import (
    Array,
    bfloat16,
    float16,
    float32,
    widened,
)
from chainrule.engine.errors import DimensionError, DTypeError, ShapeError
from chainrule.engine.watching import tell_operation, watchers

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

Gradient = Callable[..., Any]
NONE: dict[str, Any] = {}
"""No intermediates, no attributes; never written to."""
Arrays = (np.ndarray, np.generic)


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
    into: tuple[tuple[int, int], ...]
    """The inputs whose gradient can be computed into given memory, by position, and which of the edges is theirs."""


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
        into: for an input, its gradient of arrays once more, computed into an array that is the last argument.
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
        into: dict[str, Gradient] | None = None,
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
        self.into = {self.inputs.index(name): formula for name, formula in (into or {}).items()}
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
        intermediates: dict[str, Any] = NONE
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
        if watchers:
            tell_operation(self, inputs, attributes, y)
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
        edges = tuple(
            position if needed else None
            for position, needed in enumerate(needs)
            if self.variadic or self.inputs[position] in self._gradients
        )
        return Plan(
            formulas=tuple(
                (position, formula, None if names == values else _picking([values.index(name) for name in names]))
                for position, formula, names in needed_gradients
            ),
            edges=edges,
            saved_names=tuple(saved),
            saved_positions=tuple(None if name == "y" else self.inputs.index(name) for name in saved),
            other_names=tuple(others),
            shape_names=tuple((name, None if self.variadic else shapes[name]) for name in used if name in shapes),
            into=tuple((position, edges.index(position)) for position in self.into if position in edges),
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
        """The gradient in the shape of the input it is for, of an operation that `broadcasts`."""
        raise NotImplementedError

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
    into: dict[str, Gradient] | None = None,
    **gradients: Gradient,
) -> Callable[[Callable[..., Any]], Op]:
    """Declares the decorated forward as an operation, with the gradients of its inputs; see the module."""

    def declare(forward: Callable[..., Any]) -> Op:
        return Op(
            name, forward, gradients, saves=saves, view=view, exact=exact, converts=converts, native=native, into=into
        )

    return declare


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
