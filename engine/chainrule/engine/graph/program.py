"""A graph made ready to run: operators bound, constants folded, and for each shape of inputs a plan.

Values are of three levels. CONSTANT ones are known when the graph is loaded. SHAPE ones follow from the shapes of the
inputs (`Shape`, and what is computed from it): they are computed by the first forward with inputs of such shapes and
kept in its plan. DATA ones are computed in every forward. Nearly all that exporters write about shapes, masks and
positions is of the first two, so a planned forward is a list of calls with their arguments in numbered slots.
"""

from __future__ import annotations

import inspect
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chainrule.engine.autograd.mode import no_grad
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import Array, is_floating
from chainrule.engine.errors import ChainruleError
from chainrule.engine.graph.errors import GraphError, Refused, Unsupported, UnsupportedError
from chainrule.engine.graph.limits import Limits
from chainrule.engine.graph.node import Node
from chainrule.engine.graph.registry import Bounded, Compute, find
from chainrule.engine.graph.source import Block
from chainrule.engine.tensor import Tensor

CONSTANT, SHAPE, DATA = range(3)
NONE, UNUSED = range(2)
"""The slots of an optional input that is not there, and of outputs that nobody reads."""


@dataclass(frozen=True)
class Run:
    """What a forward is, for operators that depend on it."""

    training: bool
    module: Callable[[str], Any]
    """The module at a path, which keeps an operator's statistics."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a plan."""

    node: Node
    compute: Compute
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    stateful: bool
    done: tuple[int, ...] = ()
    """Slots that are not read again."""


@dataclass
class Call:
    """A bound node."""

    node: Node
    compute: Compute
    elements: Callable[..., int] | None
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    host: frozenset[int]
    level: int
    stateful: bool
    itemsize: int = 1


@dataclass
class Choice:
    """A bound `If`: which of two lists runs follows from the shapes of the inputs."""

    node: Node
    condition: int
    branches: tuple[list[Call | Choice], list[Call | Choice]]  # then, else
    results: tuple[list[int], list[int]]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """A forward for inputs of given shapes."""

    template: list[Any]
    """What every slot holds before the first call: constants, else None."""
    steps: list[Step]


# ---- Bounds ----


def check(call: Call, args: Sequence[Any], limit: int) -> None:
    """Refuse a call whose result would take more than `limit` bytes.

    Where an operator says nothing, its outputs are no larger than the shape that its tensors broadcast to, or than all
    of them together. Its elements are no wider than the widest of floats, or of any dtype where all are integers.

    Raises:
        GraphError: it would.
    """
    arrays = [x.data for x in args if isinstance(x, Variable)]
    if call.elements is not None:
        count = call.elements(*args)
    else:
        shapes = [array.shape for array in arrays]
        count = max(_broadcast(shapes), sum(math.prod(shape) for shape in shapes))
    least = 4 if any(is_floating(array.dtype) for array in arrays) else 8  # halves are computed with as float32
    width = max(call.itemsize, least, *(array.itemsize for array in arrays))
    if count * width > limit:
        raise call.node.error(f"its result would take {count * width} bytes; at most {limit} are allowed")


def _broadcast(shapes: Sequence[tuple[int, ...]]) -> int:
    ndim = max((len(shape) for shape in shapes), default=0)
    padded = [(1,) * (ndim - len(shape)) + shape for shape in shapes]
    return math.prod(max(lengths) if min(lengths) else 0 for lengths in zip(*padded, strict=True))


# ---- Binding ----


class Program:
    """A graph with everything bound; it holds no weights and never changes, but for the plans it remembers."""

    def __init__(
        self,
        block: Block,
        inputs: Sequence[str],
        weights: Sequence[str],
        constants: Mapping[str, Array],
        limits: Limits,
    ) -> None:
        """
        Args:
            block: the nodes.
            inputs: names of the values that a forward is given.
            weights: names of the values that the module keeps.
            constants: values that are known.
            limits: what may be allocated.

        Raises:
            UnsupportedError: nodes cannot be taken; it names all.
            GraphError: constants make no sense, or more of them than may be.
        """
        self.limits = limits
        self.source = b""  # the architecture that it was made of, to be pickled instead
        self.slots: dict[str, int] = {"": NONE}
        self.levels: list[int] = [CONSTANT, CONSTANT]
        self.dynamic: set[int] = set()
        self.known: dict[int, Array] = {}
        self.folded_bytes = 0
        self.refused: list[Unsupported] = []
        self.inputs = [self._new(name, DATA) for name in inputs]
        self.weights = [self._new(name, DATA) for name in weights]
        for name, array in constants.items():
            self.known[self._new(name, CONSTANT)] = array
        self.calls = self._bind(block)
        if self.refused:
            raise UnsupportedError(self.refused)
        self.outputs = [self.slots[name] for name in block.outputs]
        self.uses = _uses(self.calls, self.outputs)
        self._plans: OrderedDict[Any, Plan] = OrderedDict()
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        from chainrule.engine.graph.loading import compiled  # it makes programs

        return compiled, (self.source, self.limits)

    def plan(self, signature: Any) -> Plan | None:
        """The plan for inputs of such shapes and dtypes, if a forward with them has been made."""
        with self._lock:
            found = self._plans.get(signature)
            if found is not None:
                self._plans.move_to_end(signature)
            return found

    def remember(self, signature: Any, plan: Plan) -> None:
        """Keep a plan; the one that was longest not used goes."""
        with self._lock:
            self._plans[signature] = plan
            while len(self._plans) > self.limits.plans:
                self._plans.popitem(last=False)

    def _new(self, name: str, level: int) -> int:
        self.slots[name] = len(self.levels)
        self.levels.append(level)
        return self.slots[name]

    def _bind(self, block: Block) -> list[Call | Choice]:
        for name, array in block.constants.items():
            self.known[self._new(name, CONSTANT)] = array
        calls: list[Call | Choice] = []
        for node in block.nodes:
            calls += self._bound(node)
        return calls

    def _bound(self, node: Node) -> list[Call | Choice]:
        if node.op == "If" and not node.domain:
            return self._choice(node)
        row = find(node.domain, node.op, node.opset)
        inputs = tuple(self.slots[x] for x in node.inputs)
        bound: Any = None
        if isinstance(row, str):
            self._refuse(node, row)
        else:
            try:
                bound = row.bind(node)
            except Refused as refusal:
                self._refuse(node, str(refusal))
        level = max((self.levels[x] for x in inputs), default=CONSTANT)
        host = frozenset() if isinstance(row, str) else row.host
        dynamic = any(x in self.dynamic for x in inputs)
        if not isinstance(row, str):
            dynamic |= level == DATA and (row.dynamic or any(self.levels[x] == DATA for x in _at(inputs, host)))
            if row.of_shape and not dynamic:
                level = min(level, SHAPE)
            if row.stateful:
                level = DATA
        outputs = tuple(self._new(y, level) if y else UNUSED for y in node.outputs)
        if dynamic:
            self.dynamic.update(outputs)
        if bound is None:
            return []
        compute, elements = (bound.compute, bound.elements) if isinstance(bound, Bounded) else (bound, None)
        assert not isinstance(row, str)  # it is refused
        call = Call(node, compute, elements, inputs, outputs, host, level, row.stateful, row.itemsize)
        _check_arity(call)
        if level == CONSTANT and all(x in self.known or x == NONE for x in inputs):
            self._fold(call)
            return []
        return [call]

    def _refuse(self, node: Node, reason: str) -> None:
        self.refused.append((node.name, f"{node.domain or 'ai.onnx'}::{node.op}", node.opset, reason))

    def _fold(self, call: Call) -> None:
        args = [None if x == NONE else self.known[x] for x in call.inputs]
        left = self.limits.folded_bytes - self.folded_bytes
        with no_grad():
            results = apply(call, [x if x is None else Variable.wrap(x) for x in args], left)
        for slot, result in zip(call.outputs, results, strict=False):
            if slot != UNUSED:
                array = _data(result)
                self.known[slot] = array
                self.folded_bytes += (
                    0 if any(np.may_share_memory(array, x) for x in args if x is not None) else array.nbytes
                )
        if self.folded_bytes > self.limits.folded_bytes:
            raise call.node.error(f"constants would take more than {self.limits.folded_bytes} bytes")

    def _choice(self, node: Node) -> list[Call | Choice]:
        branches = [node.attributes.get(name) for name in ("then_branch", "else_branch")]
        if len(node.inputs) != 1 or not node.inputs[0] or not all(isinstance(block, Block) for block in branches):
            raise node.error("it needs a condition, a then_branch and an else_branch")
        if any(len(block.outputs) != len(node.outputs) for block in branches):  # type: ignore[union-attr]
            raise node.error("its branches do not give what it gives")
        condition = self.slots[node.inputs[0]]
        if condition in self.known:
            block: Any = branches[0 if self.known[condition].reshape(-1)[:1].all() else 1]
            calls = self._bind(block)
            for name, result in zip(node.outputs, block.outputs, strict=True):
                if name:
                    self.slots[name] = self.slots[result]
            return calls
        if self.levels[condition] == DATA:
            self._refuse(node, "its condition depends on the data; only one that follows from shapes is taken")
        lists, results = [], []
        for block in branches:
            lists.append(self._bind(block))
            results.append([self.slots[name] for name in block.outputs])
        outputs = []
        for name, slots in zip(node.outputs, zip(*results, strict=True), strict=True):
            slot = self._new(name, max(SHAPE, *(self.levels[x] for x in slots))) if name else UNUSED
            outputs.append(slot)
            if any(x in self.dynamic for x in slots):
                self.dynamic.add(slot)
        return [Choice(node, condition, (lists[0], lists[1]), (results[0], results[1]), tuple(outputs))]


def _check_arity(call: Call) -> None:
    """Raises GraphError if the node has inputs that its operator does not take, or lacks some that it needs."""
    args = [None] * (len(call.inputs) + call.stateful)
    try:
        inspect.signature(call.compute).bind(*args)
    except TypeError as error:
        raise call.node.error(f"it has {len(call.inputs)} inputs, which do not fit its operator ({error})") from None


def _uses(calls: list[Call | Choice], outputs: list[int]) -> dict[int, int]:
    """How many times each slot is read, in all branches."""
    uses: dict[int, int] = dict.fromkeys(outputs, 1)
    waiting = [calls]
    while waiting:
        for call in waiting.pop():
            if isinstance(call, Choice):
                waiting += call.branches
                read = [call.condition, *call.results[0], *call.results[1]]
            else:
                read = list(call.inputs)
            for slot in read:
                uses[slot] = uses.get(slot, 0) + 1
    return uses


def _at(inputs: Sequence[int], positions: frozenset[int]) -> list[int]:
    return [x for i, x in enumerate(inputs) if i in positions]


# ---- One call ----

_FAILURES = (ChainruleError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What operators raise when they are given what they cannot compute with."""


def apply(call: Call, args: list[Any], limit: int, run: Run | None = None) -> tuple[Any, ...]:
    """The results of a call, checked against the limit.

    Raises:
        GraphError: it fails, or would allocate too much; the message names the node.
    """
    args = [x.data if i in call.host and x is not None else x for i, x in enumerate(args)]
    try:
        check(call, args, limit)
        result = call.compute(run, *args) if call.stateful else call.compute(*args)
    except GraphError:
        raise
    except _FAILURES as error:
        raise failure(call.node, args, error) from error
    results = result if isinstance(result, tuple) else (result,)
    if len(results) < len([y for y in call.outputs if y != UNUSED]):
        raise call.node.error(f"it has {len(call.outputs)} outputs; {len(results)} are supported")
    if any(result is None for result in results):
        raise call.node.error("an input that it needs is not there")
    return results


def failure(node: Node, args: Sequence[Any], error: Exception) -> GraphError:
    """What went wrong in a node, as an error that names it."""
    if isinstance(error, GraphError):
        return error
    shapes = ", ".join("none" if x is None else str(list(x.shape)) for x in args)
    return node.error(f"it cannot be computed from inputs of shapes {shapes}: {error}")


def _data(result: Any) -> Array:
    array: Array = result.data if isinstance(result, Variable) else np.asarray(result)
    return array


# ---- A forward ----


@dataclass
class Tracer:
    """The first forward with inputs of some shapes: it computes the outputs and makes the plan."""

    program: Program
    run: Run
    values: list[Any] = field(default_factory=list)
    template: list[Any] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    left: dict[int, int] = field(default_factory=dict)
    """How many times each slot will still be read."""
    spent: int = 0
    """The bytes of all results so far."""

    def trace(self, given: Mapping[int, Tensor]) -> tuple[list[Tensor], Plan]:
        """The outputs and the plan, for the tensors in the slots of inputs and weights."""
        program = self.program
        self.values = [None] * len(program.levels)
        self.left = dict(program.uses)
        for slot, array in program.known.items():
            self.values[slot] = Variable.wrap(array)
        self.template = list(self.values)
        for slot, tensor in given.items():
            self.values[slot] = tensor
        self._go(program.calls)
        outputs = [self.values[slot] for slot in program.outputs]
        return outputs, Plan(self.template, _with_ends(self.steps, program.outputs, self.template))

    def _go(self, calls: list[Call | Choice]) -> None:
        for call in calls:
            if isinstance(call, Choice):
                self._choose(call)
            else:
                self._call(call)

    def _choose(self, choice: Choice) -> None:
        condition = self.values[choice.condition]
        taken = 0 if condition.data.reshape(-1)[:1].all() else 1
        self._go(choice.branches[taken])
        for slot, result in zip(choice.outputs, choice.results[taken], strict=True):
            if slot == UNUSED:
                continue
            self.values[slot] = self.values[result]
            if self.template[result] is not None:
                self.template[slot] = self.template[result]
            else:
                self.steps.append(Step(choice.node, _itself, (result,), (slot,), stateful=False))

    def _call(self, call: Call) -> None:
        limits = self.program.limits
        room = min(limits.tensor_bytes, limits.activation_bytes - self.spent)
        results = apply(call, [self.values[x] for x in call.inputs], room, self.run)
        for slot, result in zip(call.outputs, results, strict=False):
            if slot == UNUSED:
                continue
            self.spent += result.data.nbytes
            self.values[slot] = result
            if call.level < DATA:
                self.template[slot] = result
        if self.spent > limits.activation_bytes:
            raise call.node.error(f"the forward takes more than {limits.activation_bytes} bytes up to here")
        if call.level == DATA:
            self.steps.append(self._step(call))
        for slot in call.inputs:
            self.left[slot] -= 1
            if not self.left[slot] and slot != NONE:
                self.values[slot] = None

    def _step(self, call: Call) -> Step:
        compute, inputs, unknown = call.compute, list(call.inputs), []
        for i in call.host:
            if i < len(inputs) and inputs[i] != NONE:
                constant = self.template[inputs[i]]
                if constant is None:
                    unknown.append(i)
                else:
                    inputs[i] = len(self.template)
                    self.template.append(constant.data)
        if unknown:
            compute = _reading(compute, [i + call.stateful for i in unknown])
        return Step(call.node, compute, tuple(inputs), call.outputs, call.stateful)


def replay(plan: Plan, given: Mapping[int, Tensor], run: Run) -> list[Any]:
    """The values in all slots after a planned forward; those of outputs are there, others may not be."""
    values = plan.template.copy()
    for slot, tensor in given.items():
        values[slot] = tensor
    step = None
    try:
        for step in plan.steps:
            args = [values[x] for x in step.inputs]
            result = step.compute(run, *args) if step.stateful else step.compute(*args)
            if type(result) is tuple:
                for slot, value in zip(step.outputs, result, strict=False):
                    values[slot] = value
            else:
                values[step.outputs[0]] = result
            for slot in step.done:
                values[slot] = None
    except _FAILURES as error:
        assert step is not None
        raise failure(step.node, args, error) from error
    return values


def _with_ends(steps: list[Step], outputs: Sequence[int], template: list[Any]) -> list[Step]:
    """The steps, each with the slots that it is the last to read."""
    seen = {NONE, *outputs}  # UNUSED is emptied with the rest
    ended: list[Step] = []
    for step in reversed(steps):
        touched = dict.fromkeys((*step.inputs, *step.outputs))
        done = tuple(x for x in touched if x not in seen and template[x] is None)
        seen.update(touched)
        ended.append(Step(step.node, step.compute, step.inputs, step.outputs, step.stateful, done))
    return ended[::-1]


def _reading(compute: Compute, positions: Sequence[int]) -> Compute:
    """The computation, with the arrays of some tensors: numbers that are computed in every forward."""

    def reading(*args: Any) -> Any:
        return compute(*[x.data if i in positions else x for i, x in enumerate(args)])

    return reading


def _itself(x: Tensor) -> Tensor:
    return x
