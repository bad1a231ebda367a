"""Which numbers of a trace are multiples of the batch: found by comparing two calls with batches of other sizes.

What is the same in both is a constant of the module; what grows as the batch does is so many times the batch. Whatever
else differs, a graph cannot say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NoReturn

import numpy as np

from chainrule.engine.dtypes import Array
from chainrule.engine.graph.errors import GraphError
from chainrule.engine.graph.tracing import CONSTANT, Call, Trace, Value


@dataclass(frozen=True, slots=True)
class Batch:
    """`times` the size of the batch."""

    times: int = 1

    def __str__(self) -> str:
        return "N" if self.times == 1 else f"{self.times}*N"


Size = int | Batch


@dataclass(frozen=True, slots=True)
class Repeated:
    """A constant that is the same for every example: `row` has length one where the shape has a batch."""

    row: Array
    shape: tuple[Size, ...]


class _Differs(Exception):  # noqa: N818 - a verdict, which becomes an error where the operation is known
    """Two traces differ; how, for the message."""


class Comparison:
    """Two calls of one module, with batches of different sizes.

    Args:
        first, second: the calls.
        sizes: their batches.
    """

    def __init__(self, first: Trace, second: Trace, sizes: tuple[int, int]) -> None:
        self.first = first
        self.second = second
        self.sizes = sizes

    def run(self) -> Trace:
        """One trace for every batch: its numbers are ints or `Batch`, its constants arrays or `Repeated`.

        Raises:
            GraphError: the calls differ in another way; the message names where.
        """
        for a, b in zip(self.first.calls, self.second.calls, strict=False):
            if a.key is not b.key and a.key != b.key:
                self._refuse(
                    a,
                    f'is computed for one input where "{b.name}" is computed for another: which operations there are '
                    "depends on the input's values or on how many examples there are",
                )
            arguments = {name: self._compare(a, name, x, b.arguments.get(name)) for name, x in a.arguments.items()}
            a.arguments = arguments
        if len(self.first.calls) != len(self.second.calls):
            fewer, more = sorted((self.first.calls, self.second.calls), key=len)
            self._refuse(
                more[len(fewer)],
                "is computed for one input and not for another: which operations there are depends on the input's "
                "values or on how many examples there are",
            )
        others = {value.number: value for value in self.second.values}
        for value in self.first.values:
            value.shape = self._shape_of(value, others[value.number])
        result = self._structure(self.first.result, self.second.result, lambda x, y: self.unify(x, y))
        return Trace(self.first.calls, self.first.values, result)

    def _shape_of(self, a: Value, b: Value) -> tuple[Size, ...]:
        try:
            shape: tuple[Size, ...] = self.unify(a.shape, b.shape)
        except _Differs as difference:
            maker = next((call for call in self.first.calls if a in call.outputs), None)
            if maker is None:
                raise GraphError(f"an input's shape is no multiple of the batch: {difference}") from None
            self._refuse(maker, f"has a result whose shape is no multiple of the batch: {difference}")
        return shape

    def _compare(self, call: Call, name: str, a: Any, b: Any) -> Any:
        try:
            return self.unify(a, b)
        except _Differs as difference:
            self._refuse(call, f"takes `{name}`, which is not the same for every input: {difference}")

    @staticmethod
    def _refuse(call: Call, message: str) -> NoReturn:
        where = f'module "{call.path}"' if call.path else "the module itself"
        raise GraphError(f'{where}: the operation "{call.name.strip("_")}" {message}')

    # ---- Of two, one ----

    def unify(self, a: Any, b: Any) -> Any:
        """What stands for both."""
        return self._structure(a, b, self._leaf)

    def _structure(self, a: Any, b: Any, leaf: Callable[[Any, Any], Any]) -> Any:
        if isinstance(a, tuple | list) and type(a) is type(b) and len(a) == len(b):
            parts = [self.unify(x, y) for x, y in zip(a, b, strict=True)]
            return type(a)(*parts) if hasattr(a, "_fields") else type(a)(parts)
        if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
            return {name: self.unify(x, b[name]) for name, x in a.items()}
        if isinstance(a, slice) and isinstance(b, slice):
            return slice(*(self.unify(x, y) for x, y in ((a.start, b.start), (a.stop, b.stop), (a.step, b.step))))
        return leaf(a, b)

    def _leaf(self, a: Any, b: Any) -> Any:
        if isinstance(a, Value) and isinstance(b, Value):
            return self._value(a, b)
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            return self._array(a, b)
        if isinstance(a, bool | float | str | np.dtype) or a is None or callable(a):
            same = a == b or (a != a and b != b)
            if not same or type(a) is not type(b):
                raise _Differs(f"{a} and {b}; it depends on how many examples there are, or on their values")
            return a
        if isinstance(a, int | np.integer) and isinstance(b, int | np.integer):
            return self._number(int(a), int(b))
        if type(a) is type(b):
            return a
        raise _Differs(f"{type(a).__name__} and {type(b).__name__}")

    def _number(self, a: int, b: int) -> Size:
        n, m = self.sizes
        if a == b:
            return a
        if a * m == b * n and a % n == 0:
            return Batch(a // n)
        raise _Differs(f"{a} for {n} examples and {b} for {m}")

    def _value(self, a: Value, b: Value) -> Value:
        if a.number != b.number or a.kind != b.kind or a.name != b.name or a.dtype != b.dtype:
            raise _Differs("tensors that were computed in different ways")
        if a.kind == CONSTANT and isinstance(a.data, np.ndarray) and b.data is not None:
            found = self._array(a.data, b.data)
            a.data = found
        return a

    def _array(self, a: Array, b: Array) -> Any:
        if a.dtype == b.dtype and a.shape == b.shape:
            if np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
                return a
        elif a.dtype == b.dtype and a.ndim == b.ndim:
            shape = self.unify(a.shape, b.shape)
            row, other = _row(a, shape), _row(b, shape)
            if row is not None and other is not None and np.array_equal(row, other):
                return Repeated(row, shape)
        raise _Differs("an array that depends on the input's values or size, or on random draws")


def _row(x: Array, shape: tuple[Size, ...]) -> Array | None:
    """`x` with one element along the dimensions of the batch, if all of them are the same."""
    row = x[tuple(slice(0, 1) if isinstance(n, Batch) else slice(None) for n in shape)]
    return row if math.prod(row.shape) and np.array_equal(np.broadcast_to(row, x.shape), x) else None


# ---- Training and evaluation ----

_OF_TRAINING = ("_dropped", "_alpha_dropped")


def difference(training: Trace, evaluation: Trace) -> str:
    """Where a module first computes something else in evaluation than in training."""
    trains = [call for call in training.calls if call.key not in _OF_TRAINING]
    for a, b in zip_longest(trains, evaluation.calls):
        if a is not None and b is not None and _told(a) == _told(b):
            continue
        where = f'module "{path}"' if (path := (a or b).path) else "the module itself"
        first, second = (f'"{one.name.strip("_")}"' if one is not None else "nothing more" for one in (a, b))
        if first == second:
            return f"{where}: {first} is computed with other arguments in training than in evaluation"
        return f"{where}: {first} is computed in training, and {second} in evaluation"
    return "the module gives something else in evaluation than the same operations do in training"


def _told(call: Call) -> tuple[str, dict[str, Any]]:
    """An operation, and what it is told beside tensors."""
    plain = (bool, int, float, str)
    told = {
        name: x for name, x in call.arguments.items() if isinstance(x, plain) and name not in ("training", "momentum")
    }
    return call.name.removesuffix("_with_statistics"), told
