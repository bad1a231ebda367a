"""A module's forward pass as its operations, one after the other, to be computed again on other arrays of these shapes.

Most of the time that a small network takes lies between its operations: modules that call functions that check their
arguments and make them regular, tensors, the question who records. For given shapes the same comes of it each time, so
it is done once, and what is left are calls of the operations' forwards on arrays. The bits are those of the module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chainrule.engine.autograd.mode import no_grad
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import Array, bfloat16, float16, float32
from chainrule.engine.nn.module import Module
from chainrule.engine.tensor import Tensor
from chainrule.engine.watching import watching


@dataclass(frozen=True, slots=True)
class Step:
    """One operation."""

    forward: Callable[..., Any]
    inputs: tuple[int, ...]
    """The slots of its inputs."""
    attributes: Mapping[str, Any]
    output: int
    """The slot of its result."""
    over: tuple[int, ...]
    """The slots that are not read any more."""


class Replay:
    """A forward pass on arrays. `record` makes one."""

    def __init__(self, steps: Sequence[Step], slots: Sequence[Any], result: int) -> None:
        self._steps = tuple(steps)
        self._slots = tuple(slots)  # constants; the first ones are the inputs', the others those of results
        self._result = result

    def __call__(self, *arrays: Array) -> Array:
        """The result for arrays of the shapes and dtypes that were recorded."""
        slots = [*arrays, *self._slots[len(arrays) :]]
        for step in self._steps:
            y = step.forward(*[slots[i] for i in step.inputs], **step.attributes)
            if type(y) is tuple:
                y = y[0]
            slots[step.output] = y if type(y) is np.ndarray else np.asarray(y)
            for slot in step.over:
                slots[slot] = None
        result: Array = slots[self._result]
        return result


def record(module: Module, *arrays: Array) -> Replay | None:
    """What replays the module's forward on arrays of these shapes.

    It is for modules that decide nothing by values, and whose state is not written to any more. Two calls are followed,
    each on elements of its own. What they differ in, but for the arrays that operations make, cannot be replayed, and
    neither can what writes in place, computes with half precision, or returns other than one tensor.

    Args:
        module: in evaluation mode.
        arrays: their shapes and dtypes, float32 or float64; by the values of whole numbers a module may decide.

    Returns:
        None if the module's forward is none of those that can be replayed.
    """
    if module.training or not all(array.dtype.kind == "f" and array.dtype != float16 for array in arrays):
        return None
    draw = np.random.default_rng(0)
    ones, others = ([draw.standard_normal(x.shape).astype(x.dtype) for x in arrays] for _ in range(2))
    followed, again = _followed(module, ones), _followed(module, others)
    if followed is None or again is None or not _is_same(followed, again):
        return None
    replay = followed.replay()
    return replay if np.array_equal(replay(*others), again.result, equal_nan=True) else None


# ---- Following a call ----


@dataclass(slots=True)
class _Follower:
    """Watches a call: every array that an operation takes or makes has a slot."""

    slots: list[Any] = field(default_factory=list)
    """The array of each slot, so that it stays alive and its id its own."""
    made: set[int] = field(default_factory=set)
    """The slots of inputs and of results; the others hold constants."""
    steps: list[tuple[Any, tuple[int, ...], dict[str, Any], int]] = field(default_factory=list)
    is_plain: bool = True
    """Whether all that was done can be done again."""
    result: Any = None
    places: dict[int, int] = field(default_factory=dict)

    def slot_of(self, value: Any) -> int:
        """Of the array of an input; where none is known, it is a constant's."""
        array = value.data if isinstance(value, Variable) else value
        return self.places[id(array)] if id(array) in self.places else self.enter(array)

    def enter(self, array: Any, *, made: bool = False) -> int:
        """A slot for an array."""
        slot = self.places[id(array)] = len(self.slots)
        self.slots.append(array)
        if made:
            self.made.add(slot)
        return slot

    def operation(self, op: Any, inputs: tuple[Any, ...], attributes: dict[str, Any], y: Any) -> None:
        read = tuple(map(self.slot_of, inputs))
        first = self.slots[read[0]] if read else None
        is_half = any(
            isinstance(x, np.ndarray) and x.dtype in (float16, bfloat16) for x in map(self.slots.__getitem__, read)
        )
        self.is_plain &= not is_half or op.exact or getattr(first, "dtype", None) == float32
        self.steps.append((op, read, dict(attributes), self.enter(y.data, made=True)))

    def written(self, x: Any, result: Any) -> None:  # noqa: ARG002
        self.is_plain = False

    def detached(self, x: Any, y: Any) -> None:
        pass  # they share their array

    def read(self, x: Any) -> None:
        if self.places.get(id(x.data)) in self.made:  # something may be decided by it
            self.is_plain = False

    def function(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return function(*args, **kwargs)

    def module(self, module: Any, call: Callable[[], Any]) -> Any:  # noqa: ARG002
        return call()

    def replay(self) -> Replay:
        """What does the same again."""
        result = self.places[id(self.result)]
        last = {slot: i for i, (_, read, _, _) in enumerate(self.steps) for slot in read if slot in self.made}
        steps = [
            Step(op.forward, read, attributes, output, tuple(s for s in {*read} if last.get(s) == i and s != result))
            for i, (op, read, attributes, output) in enumerate(self.steps)
        ]
        return Replay(steps, [None if slot in self.made else x for slot, x in enumerate(self.slots)], result)


def _followed(module: Module, arrays: Sequence[Array]) -> _Follower | None:
    """A call that was followed; None if it cannot be replayed."""
    follower = _Follower()
    for array in arrays:
        follower.enter(array, made=True)
    with no_grad(), watching(follower):
        y = module(*[Variable.wrap(array) for array in arrays])
    if not isinstance(y, Tensor) or not follower.is_plain or follower.places.get(id(y.data)) not in follower.made:
        return None
    follower.result = y.data
    return follower


def _is_same(one: _Follower, other: _Follower) -> bool:
    """Whether two calls did the same but for the elements of what they computed with."""
    if len(one.steps) != len(other.steps) or one.made != other.made or len(one.slots) != len(other.slots):
        return False
    constants = (slot for slot in range(len(one.slots)) if slot not in one.made)
    return (
        all(_is_equal(one.slots[slot], other.slots[slot]) for slot in constants)
        and all(
            a is b and read == re_read and output == re_output and _is_equal(given, re_given)
            for (a, read, given, output), (b, re_read, re_given, re_output) in zip(one.steps, other.steps, strict=True)
        )
        and one.places[id(one.result)] == other.places[id(other.result)]
    )


def _is_equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(map(_is_equal, a, b))
    if isinstance(a, dict):
        return (
            isinstance(b, dict) and a.keys() == b.keys() and all(_is_equal(value, b[name]) for name, value in a.items())
        )
    return bool(a == b)
