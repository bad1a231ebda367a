"""The graph that recording leaves behind: a node per operation, and one per leaf to receive its gradient."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from chainrule.engine.dtypes import Array, float32, is_low_precision, type_name, widened
from chainrule.engine.errors import AutogradError
from chainrule.engine.hooks import RemovableHandle

if TYPE_CHECKING:
    from chainrule.engine.autograd.variable import Variable, VersionCounter
    from chainrule.engine.autograd.views import CopySlices
    from chainrule.engine.ops.op import Op, Plan

# A node takes its number when it is made, after the nodes it consumes: falling order is a topological order.
_sequence = itertools.count()
_new = object.__new__

Hook = Callable[..., Any]


FREED = (
    "Trying to backward through the graph a second time (or directly access saved tensors after they have already been "
    "freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). Specify "
    "retain_graph=True if you need to backward through the graph a second time or if you need to access saved tensors "
    "after calling backward."
)


class Region(Protocol):
    """A part of the graph that saves nothing, and is computed again for what it would have saved."""

    def fill(self, node: Node) -> None:
        """Gives `node` what it would have saved."""


class Extra:
    """What few nodes have: hooks, notes, and where they were recorded."""

    __slots__ = ("hooks", "metadata", "prehooks", "recorded_at", "region", "retained", "tensor_hooks")

    def __init__(self) -> None:
        self.tensor_hooks: OrderedDict[int, Hook] = OrderedDict()
        """Of the gradient of the output; what they return replaces it."""
        self.prehooks: OrderedDict[int, Hook] = OrderedDict()
        """Of the gradients of the outputs, before the node runs."""
        self.hooks: OrderedDict[int, Hook] = OrderedDict()
        """Of the gradients of inputs and outputs, after it ran."""
        self.metadata: dict[Any, Any] = {}
        self.recorded_at: list[str] | None = None
        """The stack of the forward call, in anomaly mode."""
        self.retained: weakref.ref[Variable] | None = None
        """The output, if it keeps its gradient."""
        self.region: Region | None = None
        """Where it finds what it saved, if it is checkpointed."""


class Node:
    """What a tensor's `grad_fn` is: it turns the gradient of its output into the gradients of its inputs."""

    __slots__ = ("__weakref__", "extra", "sequence", "within")

    saves: ClassVar[bool] = False
    """Whether nodes of this kind save tensors."""

    sequence: int
    extra: Extra | None
    edges: tuple[Node | None, ...]
    within: weakref.ref[CopySlices] | None
    """The node of the base, if the output was written into a part of that; it keeps this node."""

    @property
    def number_of_outputs(self) -> int:
        """How many outputs the operation has."""
        return 1

    def _enter(self) -> None:
        """Takes the next number; the nodes it consumes have theirs."""
        self.sequence = next(_sequence)
        self.extra = None
        self.within = None
        if _watchers:
            for watch in _watchers:
                watch(self)

    def name(self) -> str:
        """PyTorch's name of the node, `MulBackward0` say."""
        raise NotImplementedError

    @property
    def shown(self) -> Node:
        """The node as users see it; an `Output` stands for the node whose output it is."""
        return self

    @property
    def next_functions(self) -> tuple[tuple[Node | None, int], ...]:
        """The nodes that receive the gradients of the inputs, and as which of their outputs; None where none is."""
        return tuple(
            (None, 0) if edge is None else (edge.shown, edge.position if isinstance(edge, Output) else 0)
            for edge in self.edges
        )

    @property
    def metadata(self) -> dict[Any, Any]:
        """A dict for the user's own notes."""
        return self.more().metadata

    def more(self) -> Extra:
        """The node's extra, made when it is first asked for."""
        if self.extra is None:
            with _extra_lock:  # else of two threads that add a hook, one would add it in vain
                if self.extra is None:
                    self.extra = Extra()
        return self.extra

    def register_hook(self, hook: Hook) -> RemovableHandle:
        """Calls hook(grad_inputs, grad_outputs), two tuples, after the node ran; what it returns replaces the first."""
        return add_hook(self.more().hooks, hook)

    def register_prehook(self, hook: Hook) -> RemovableHandle:
        """Calls hook(grad_outputs), a tuple, before the node runs; a tuple it returns replaces it."""
        return add_hook(self.more().prehooks, hook)

    def gradients(self, g: Any, *, recording: bool) -> Sequence[Any]:
        """The gradients of the inputs that require one: one for each edge that is not None; None for a zero.

        Args:
            g: the gradient of the output: an array, or a Tensor where `recording`.
            recording: whether saved values are handed out as Tensors with their history.

        Raises:
            AutogradError: the graph was freed, or a saved tensor was overwritten.
        """
        raise NotImplementedError

    def free(self) -> None:
        """Lets go of what was saved, for good."""

    def forget(self) -> None:
        """Lets go of what was saved, for now; a node that saved nothing can be walked through again."""

    def take_over(self, other: Node) -> None:
        """Saves what another node of the same kind has saved."""

    def of_output(self) -> Node:
        """The node of the output: this, or that of the part of the base that the output was written into."""
        whole = None if self.within is None else self.within()
        return self if whole is None else whole.part()

    def recover(self) -> None:
        """Gets back what was saved, if the node is checkpointed.

        Raises:
            AutogradError: it was freed.
        """
        region = None if self.extra is None else self.extra.region
        if region is None:
            raise AutogradError(FREED)
        region.fill(self)

    def __repr__(self) -> str:
        return f"<{self.name()} object at {id(self):#x}>"


def add_hook(hooks: OrderedDict[int, Hook], hook: Hook) -> RemovableHandle:
    """Puts `hook` behind the others."""
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    return handle


_watchers: tuple[Callable[[Node], None], ...] = ()


@contextmanager
def watching(watch: Callable[[Node], None]) -> Iterator[None]:
    """Calls `watch` with every node made meanwhile, in any thread."""
    global _watchers
    with _watchers_lock:
        _watchers = (*_watchers, watch)
    try:
        yield
    finally:
        with _watchers_lock:
            _watchers = tuple(other for other in _watchers if other is not watch)


_watchers_lock = threading.Lock()
_extra_lock = threading.Lock()


class AccumulateGrad(Node):
    """The node of a leaf: adds what arrives to `variable.grad`."""

    __slots__ = ("variable",)

    edges = ()

    def __init__(self, variable: Variable) -> None:
        self.variable = variable
        self._enter()

    def name(self) -> str:
        return "AccumulateGrad"


# Reentrant: adding gradients that are recorded makes the nodes of others, which may have the same lock.
_locks = [threading.RLock() for _ in range(64)]


def lock_of(variable: Variable) -> threading.RLock:
    """The lock under which a leaf's gradient is added to."""
    return _locks[(id(variable) >> 4) % len(_locks)]


class OutputGradients(dict[int, Any]):
    """The gradients of several outputs of one node, as they add up on arrival."""

    def __add__(self, other: dict[int, Any]) -> OutputGradients:
        merged = OutputGradients(self)
        for position, g in other.items():
            merged[position] = merged[position] + g if position in merged else g
        return merged


class Output(Node):
    """One output of a node that has several: hands the gradient on with its position."""

    __slots__ = ("edges", "position")

    def __init__(self, node: Node, position: int) -> None:
        self.edges = (node,)
        self.position = position
        self._enter()

    @property
    def shown(self) -> Node:
        (node,) = self.edges
        assert node is not None
        return node

    def name(self) -> str:
        return self.shown.name()

    def gradients(self, g: Any, *, recording: bool) -> Sequence[Any]:  # noqa: ARG002
        return (OutputGradients({self.position: g}),)


class Saved:
    """A tensor as it was when an operation used it; knows whether it has been written to since."""

    __slots__ = ("__dict__", "array", "counter", "tensor", "version")

    array: Array
    counter: VersionCounter
    version: int
    tensor: Variable | None
    """The tensor itself, unless it would hold the node in turn: the node's own output, or a view."""
    position = 0
    """Of an output: which of the node's it is."""
    view: weakref.ref[Variable] | None = None
    history: Node | None = None
    """Of a view: the node whose output it is."""

    # These two are called for nearly every operation: what makes them an object is cheaper than a constructor.

    @staticmethod
    def input(x: Variable) -> Saved:
        """What a node is to save of a tensor that is not its own output."""
        saved = _new(Saved)
        saved.array = x.data
        saved.counter = counter = x.counter
        saved.version = counter.value
        saved.tensor = x
        if x._view is not None:
            saved._let_go(x)
        return saved

    @staticmethod
    def output(y: Variable) -> Saved:
        """What a node is to save of its own output."""
        saved = _new(Saved)
        saved.array = y.data
        saved.counter = counter = y.counter
        saved.version = counter.value
        saved.tensor = None
        return saved

    @property
    def is_output(self) -> bool:
        """Whether it is the node's own output."""
        return self.tensor is None and self.view is None

    def _let_go(self, view: Variable) -> None:
        """Does not hold a view: it holds its base, into which the result is written by `x[1:] = w * x[:-1]`, say."""
        self.history = view._recorded()
        if self.history is not None or not view.requires_grad:  # else it is a leaf, and holds nothing in turn
            self.view = weakref.ref(view)
            self.tensor = None

    def original(self) -> Variable | None:
        """The tensor itself, where it is still there and has its memory, so that what is asked of it is up to date."""
        tensor = self.tensor if self.view is None else self.view()
        return None if tensor is None or tensor.data is not self.array else tensor

    def check(self, owner: Node) -> None:
        """Raises AutogradError if the memory was written to since `owner` saved it."""
        if self.counter.value == self.version:
            return
        tensor = self.original()
        node = owner if self.is_output else self.history if tensor is None else tensor.grad_fn
        what = "" if node is None else f", which is output 0 of {node.name().removesuffix('Backward0')},"
        raise AutogradError(
            "one of the variables needed for gradient computation has been modified by an inplace operation: "
            f"[{type_name(self.array.dtype)}Tensor {list(self.array.shape)}]{what} is at version "
            f"{self.counter.value}; expected version {self.version} instead. Hint: enable anomaly detection to find "
            "the operation that failed to compute its gradient, with autograd.set_detect_anomaly(True, "
            "check_nan=False), or clone() the tensor before writing to it."
        )


class OpNode(Node):
    """The node of an operation, with what its gradients use."""

    __slots__ = ("attributes", "edges", "intermediates", "op", "plan", "saved", "shapes")

    saves = True

    op: Op
    plan: Plan
    edges: tuple[Node | None, ...]
    saved: tuple[Any, ...] | None
    shapes: tuple[Any, ...]
    attributes: dict[str, Any]
    intermediates: dict[str, Any]

    @staticmethod
    def make(
        op: Op,
        plan: Plan,
        edges: tuple[Node | None, ...],
        saved: tuple[Any, ...],
        shapes: tuple[Any, ...],
        attributes: dict[str, Any],
        intermediates: dict[str, Any],
    ) -> OpNode:
        """A node of the graph; cheaper than a constructor, which every operation would have to call."""
        node = _new(OpNode)
        node.op = op
        node.plan = plan
        node.edges = edges
        node.saved = saved
        node.shapes = shapes
        node.attributes = attributes
        node.intermediates = intermediates
        node.sequence = next(_sequence)  # as `_enter` does
        node.extra = node.within = None
        if _watchers:
            for watch in _watchers:
                watch(node)
        return node

    def name(self) -> str:
        return f"{self.op.name}Backward0"

    def free(self) -> None:
        self.forget()
        if self.extra is not None:
            self.extra.region = None

    def forget(self) -> None:
        if self.saved or (self.intermediates and not self.op.converts):  # a dtype takes no memory
            self.saved = None
            self.intermediates = {}

    def take_over(self, other: Node) -> None:
        assert isinstance(other, OpNode)
        self.saved, self.intermediates = other.saved, other.intermediates

    def gradients(self, g: Any, *, recording: bool, memories: dict[int, Array] | None = None) -> list[Any]:
        """As of any node; those of the inputs at the positions in `memories` are computed there."""
        if self.saved is None:
            self.recover()
        assert self.saved is not None
        plan, op = self.plan, self.op
        low = None
        if not recording and g.dtype is not float32 and is_low_precision(g.dtype) and not op.native:
            low = g.dtype
        values = [g]
        for saved in self.saved:
            if type(saved) is not Saved:
                values.append(saved)
            elif recording or saved.counter.value != saved.version:
                values.append(self._unpack(saved, recording))
            else:
                values.append(saved.array)
        if plan.other_names:
            values.extend(self._others())
        if low is not None:  # computed in float32, and rounded once
            values = [widened(value) for value in values]
        shapes = self.shapes
        gradients = []
        for position, formula, arguments in plan.formulas:
            if op.variadic:
                values[-1] = position
            given = values if arguments is None else arguments(values)
            if memories and position in memories:
                gradient = op.into[position](*given, memories[position])
            else:
                gradient = formula(*given)
            if shapes and op.broadcasts and gradient.shape != shapes[position]:
                gradient = op.fit(gradient, shapes[position])
            gradients.append(gradient if low is None or gradient.dtype != float32 else gradient.astype(low))
        return gradients

    def _others(self) -> list[Any]:
        """The values of the plan's other names; of a variadic operation, the position is put in their last place."""
        known = {**self.op.defaults, **self.attributes, **self.intermediates, "position": None}
        for name, position in self.plan.shape_names:
            known[name] = self.shapes if position is None else self.shapes[position]
        return [known[name] for name in self.plan.other_names]

    def _unpack(self, saved: Saved, recording: bool) -> Array | Variable:
        saved.check(self)
        if not recording:
            return saved.array
        original = saved.original()
        if original is not None:
            return original
        from chainrule.engine.autograd.variable import Variable  # which is built on this module

        history = self.of_output() if saved.is_output else saved.history
        return Variable.wrap(saved.array, counter=saved.counter, grad_fn=history)


def is_alias(gradient: Array, g: Array) -> bool:
    """Whether a gradient is (a view of) the gradient it was computed from: a formula returns that, or a new array."""
    return gradient is g or (gradient.base is not None and np.may_share_memory(gradient, g))
