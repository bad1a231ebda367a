"""Operations that users define: a forward, and a backward that they write themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from chainrule.engine.autograd.graph import AccumulateGrad, Node, Output, OutputGradients, Saved
from chainrule.engine.autograd.mode import no_grad, state
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.autograd.views import MULTIPLE, OF_FUNCTION
from chainrule.engine.dtypes import is_floating
from chainrule.engine.errors import AutogradError, ShapeError
from chainrule.engine.watching import watcher_here, watchers

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor


class FunctionNode(Node):
    """The node of a `Function`, and the `ctx` of its forward and backward: users may set attributes on it."""

    saves = True

    def __init__(self, function: type[Function], inputs: Sequence[Any]) -> None:
        self.function = function
        self.needs_input_grad = tuple(isinstance(x, Variable) and x.requires_grad for x in inputs)
        self.inputs = tuple((x.data.shape, x.data.dtype) if isinstance(x, Variable) else None for x in inputs)
        self.outputs: list[tuple[tuple[int, ...], Any] | None] = []
        self.edges = tuple(x.gradient_edge() if x.requires_grad else None for x in inputs if isinstance(x, Variable))
        self.saved: tuple[Saved | None, ...] | None = ()
        self.to_save: tuple[Any, ...] = ()
        self.materialize_grads = True
        self.dirty: tuple[Any, ...] = ()
        self.non_differentiable: tuple[Any, ...] = ()
        self._enter()

    @property
    def number_of_outputs(self) -> int:
        return len(self.outputs)

    def name(self) -> str:
        return f"{self.function.__name__}Backward"

    # ---- For the forward ----

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keeps inputs and outputs for the backward, which finds them in `saved_tensors`."""
        for x in tensors:
            if x is not None and not isinstance(x, Variable):
                raise AutogradError(f"save_for_backward can only save variables, but got {type(x).__name__}; "
                                    "set anything else as an attribute of ctx")  # fmt: skip
        self.to_save = tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Says which inputs the forward writes to; it has to return them."""
        self.dirty = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Says which outputs have no gradient."""
        self.non_differentiable = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether the backward gets zeros for outputs that no gradient flows into; None otherwise."""
        self.materialize_grads = value

    # ---- For the backward ----

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What `save_for_backward` kept.

        Raises:
            AutogradError: the graph was freed, or a tensor was written to since.
        """
        if self.saved is None:
            self.recover()
        return tuple(None if saved is None else self._unpack(saved) for saved in self.saved or ())

    def _unpack(self, saved: Saved) -> Tensor:
        saved.check(self)
        original = saved.original()
        if original is not None:
            return original  # type: ignore[return-value]
        history = self._output_node(saved.position).of_output() if saved.is_output else saved.history
        return Variable.wrap(saved.array, counter=saved.counter, grad_fn=history)

    def _output_node(self, position: int) -> Node:
        return self if len(self.outputs) == 1 else Output(self, position)

    def gradients(self, g: Any, *, recording: bool) -> Sequence[Any]:
        arrived = g if isinstance(g, OutputGradients) else OutputGradients({0: g})
        given = [self._given(arrived.get(position), position) for position in range(len(self.outputs))]
        result = self.function.backward(self, *given)
        listed = result if isinstance(result, tuple) else (result,)
        expected = len(self.inputs)
        if len(listed) > expected and all(extra is None for extra in listed[expected:]):
            listed = listed[:expected]
        if len(listed) != expected:
            raise AutogradError(
                f"function {self.name()} returned an incorrect number of gradients (expected {expected}, got "
                f"{len(listed)})"
            )
        needed = [position for position, is_needed in enumerate(self.needs_input_grad) if is_needed]
        return [
            self._fitted(listed[position], position, recording, of_leaf=type(edge) is AccumulateGrad)
            for position, edge in zip(needed, filter(None, self.edges), strict=True)
        ]

    def _given(self, g: Any, position: int) -> Any:
        if g is not None:
            return g if isinstance(g, Variable) else Variable.wrap(np.asarray(g))
        described = self.outputs[position]
        if described is None or not self.materialize_grads:
            return None
        shape, dtype = described
        return Variable.wrap(np.zeros(shape, dtype))

    def _fitted(self, gradient: Any, position: int, recording: bool, *, of_leaf: bool) -> Any:
        """A gradient that the user's backward gave, in shape and dtype of its input.

        A leaf gets a copy, since it adds to what it keeps, which the user may keep too.
        """
        from chainrule.engine.ops.broadcasting import sum_to

        if gradient is None:
            return None
        if not isinstance(gradient, Variable):
            raise AutogradError(
                f"Function {self.name()} returned {type(gradient).__name__} at index {position}; "
                "expected a Tensor or None"
            )
        described = self.inputs[position]
        assert described is not None
        shape, dtype = described
        if gradient.data.shape != shape:
            if not _reduces_to(gradient.data.shape, shape):
                raise ShapeError(
                    f"Function {self.name()} returned an invalid gradient at index {position} - got "
                    f"{list(gradient.data.shape)} but expected shape compatible with {list(shape)}"
                )
            gradient = sum_to(gradient, shape=shape)
        gradient = gradient.to(dtype, copy=of_leaf)
        return gradient if recording else gradient.data

    # ---- Lifetime ----

    def record(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> tuple[Any, ...]:
        """The outputs of the forward, with this node as their history."""
        self.outputs = [(y.data.shape, y.data.dtype) if isinstance(y, Variable) else None for y in outputs]
        positions: dict[int, int] = {}
        known: dict[int, Any] = {}  # what is returned twice is one output, the last
        recorded = []
        for position, y in enumerate(outputs):
            made = known.get(id(y), y)
            if isinstance(y, Variable):
                is_input = _among(y, inputs)
                if is_floating(y.data.dtype) and not _among(y, self.non_differentiable):
                    made = self._as_output(made, position, is_input or (y._requires_grad and id(y) not in known))
                if not is_input:
                    known[id(y)] = made
                positions[id(made)] = position
            recorded.append(made)
        self.saved = tuple(None if x is None else self._saved(x, positions) for x in self.to_save)
        self.to_save = ()
        self.dirty = self.non_differentiable = ()
        return tuple(recorded)

    def _as_output(self, y: Any, position: int, is_foreign: bool) -> Any:
        node = self._output_node(position)
        if _among(y, self.dirty):
            y.check_writable(self.name())
            y.counter.bump()
            y.rewrite_history(node, y.gradient_edge() if y.requires_grad else None)
            return y
        if is_foreign:  # an input, or a tensor with a history of its own
            source, y = y, Variable.wrap(y.data.view())
            y.view_of(source)
        y.set_history(node)
        if y._view is not None:
            y._view.made = MULTIPLE if len(self.outputs) > 1 else OF_FUNCTION
        return y

    def _saved(self, x: Any, positions: dict[int, int]) -> Saved:
        position = positions.get(id(x))
        if position is None:
            return Saved.input(x)
        saved = Saved.output(x)
        saved.position = position
        return saved

    def free(self) -> None:
        self.forget()
        if self.extra is not None:
            self.extra.region = None

    def forget(self) -> None:
        if self.saved:
            self.saved = None

    def take_over(self, other: Node) -> None:
        assert isinstance(other, FunctionNode)
        self.saved = other.saved


class Function:
    """The base of operations with a backward of their own.

        class Square(Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x * x

            @staticmethod
            def backward(ctx, g):
                (x,) = ctx.saved_tensors
                return 2 * g * x

        y = Square.apply(x)

    `forward` may leave out `ctx` if the class defines `setup_context(ctx, inputs, output)`. `backward` gets a gradient
    for each thing that `forward` returned (None for what is no tensor), and returns one for each argument of `forward`,
    None where there is none.
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """What is computed; nothing inside is recorded."""
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        """Saves what the backward needs, if `forward` takes no `ctx`."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """The gradients of the inputs; recorded in turn under `create_graph`."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom autograd.Function to use it with "
            "backward mode AD."
        )

    def __init__(self) -> None:
        raise AutogradError(f"{type(self).__name__} should not be instantiated. Call {type(self).__name__}.apply(...).")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Calls `forward`, and records it if an argument requires a gradient."""
        if watchers and (watcher := watcher_here()) is not None:
            return watcher.function(cls._applied, args, kwargs)
        return cls._applied(*args, **kwargs)

    @classmethod
    def _applied(cls, *args: Any, **kwargs: Any) -> Any:
        node = FunctionNode(cls, args)
        with no_grad():
            if cls.setup_context is Function.setup_context:
                result = cls.forward(node, *args, **kwargs)
            else:
                result = cls.forward(*args, **kwargs)
                cls.setup_context(node, args, result)
        outputs = result if isinstance(result, tuple) else (result,)
        if not all(_among(x, outputs) for x in node.dirty):
            raise AutogradError(
                "Some elements marked as dirty during the forward method were not returned as output. The inputs that "
                "are modified inplace must all be outputs of the Function."
            )
        if state.recording and any(node.needs_input_grad):
            outputs = node.record(args, outputs)
        else:
            for y in node.dirty:
                y.counter.bump()
            outputs = tuple(y.detach() if _among(y, args) and not _among(y, node.dirty) else y for y in outputs)
        return outputs if isinstance(result, tuple) else outputs[0]


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a `backward` that cannot be differentiated itself: doing so raises."""

    @wraps(backward)
    def once(ctx: FunctionNode, *grad_outputs: Any) -> Any:
        with no_grad():
            result = backward(ctx, *grad_outputs)
        recorded = state.recording and any(isinstance(g, Variable) and g.requires_grad for g in grad_outputs)
        if not recorded:
            return result
        listed = result if isinstance(result, tuple) else (result,)
        wrapped = tuple(Variable.wrap(g.data, grad_fn=_Refusal()) if isinstance(g, Variable) else g for g in listed)
        return wrapped if isinstance(result, tuple) else wrapped[0]

    return once


class _Refusal(Node):
    """The node of a gradient that has none."""

    edges = ()

    def __init__(self) -> None:
        self._enter()

    def name(self) -> str:
        return "DelayedError"

    def gradients(self, g: Any, *, recording: bool) -> NoReturn:  # noqa: ARG002
        raise AutogradError("trying to differentiate twice a function that was marked with @once_differentiable")


def _among(x: Any, others: Sequence[Any]) -> bool:
    return any(x is other for other in others)


def _reduces_to(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether `target` broadcasts to `shape`."""
    if len(target) > len(shape):
        return False
    return all(n in (1, m) for m, n in zip(shape[len(shape) - len(target) :], target, strict=True))
