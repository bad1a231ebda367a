"""What a module computes: its operations in order, followed while it is called once.

Values are told apart by their arrays. One that no operation of the call made, and that is neither an input nor part of
the module's state, is a constant.
"""

from __future__ import annotations

import inspect
import linecache
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chainrule.engine.autograd.mode import state as mode
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import Array, DType
from chainrule.engine.graph.errors import GraphError
from chainrule.engine.nn.module import Module
from chainrule.engine.tensor import Tensor
from chainrule.engine.watching import watching

INPUT, STATE, CONSTANT, RESULT = "input", "state", "constant", "result"


@dataclass(slots=True, eq=False)
class Value:
    """What a tensor held."""

    number: int
    """In the order in which they were met, which is the same for every call of the module."""
    kind: str
    """INPUT, STATE, CONSTANT or RESULT."""
    shape: tuple[Any, ...]
    """Numbers; where two calls were compared, also multiples of the batch (`symbols.Batch`)."""
    dtype: DType
    name: str = ""
    """Of an input or a part of the state."""
    data: Array | None = None
    """Of a constant, its elements."""


@dataclass(slots=True)
class Call:
    """An operation that was computed."""

    key: Any
    """The operation, or the name of a function that is followed as a whole."""
    arguments: dict[str, Any]
    """By name, tensors as Values; of an operation whose inputs are many, these are a tuple."""
    outputs: tuple[Value, ...]
    path: str
    """Of the module that was being called."""

    @property
    def name(self) -> str:
        """Of the operation, for messages."""
        return self.key if isinstance(self.key, str) else self.key.__name__


@dataclass(slots=True)
class Trace:
    """A call of a module."""

    calls: list[Call]
    values: list[Value]
    result: Any
    """What the module returned, tensors as Values."""


@dataclass(slots=True)
class _Known:
    """A value and the array it was in, whose version says whether it still is."""

    value: Value
    array: Array
    counter: Any = None
    version: int = 0


@dataclass(slots=True)
class Tracer:
    """Follows one call.

    Args:
        whole: for a function that is watched, whether it is followed as a whole with these arguments, rather than
            operation by operation; None for functions that are not known.
        paths: of modules, by id.
        parameters: names of the state that is learnt.
    """

    whole: Mapping[str, Callable[[Mapping[str, Any]], bool]]
    paths: Mapping[int, str]
    parameters: frozenset[str] = frozenset()
    calls: list[Call] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    _known: dict[int, _Known] = field(default_factory=dict)
    _detached: dict[int, tuple[Value, Any]] = field(default_factory=dict)
    """By the tensor's id, and the tensor, so that it stays alive."""
    _stack: list[str] = field(default_factory=list)
    _inside: int = 0

    # ---- Values ----

    def enter(self, x: Tensor, kind: str, name: str) -> Value:
        """An input, or a part of the state."""
        return self._know(x, Value(len(self.values), kind, x.data.shape, x.data.dtype, name))

    def _know(self, x: Any, value: Value) -> Value:
        if value.number == len(self.values):
            self.values.append(value)
        known = self._known[id(x.data)] = _Known(value, x.data)
        known.counter, known.version = x.counter, x.counter.value
        return value

    def value_of(self, x: Any) -> Value:
        """The value that a tensor holds.

        Raises:
            GraphError: its memory was written to through another tensor.
        """
        detached = self._detached.get(id(x))
        if detached is not None:
            return detached[0]
        known = self._known.get(id(x.data))
        if known is not None and (known.counter is not x.counter or known.version == x.counter.value):
            return known.value
        if known is not None and known.value.kind != CONSTANT:
            raise GraphError(
                f"{self.where()}: a tensor of shape {list(x.shape)} was written to through a view of it, or through "
                "what it is a view of, which a graph cannot say; compute a new tensor instead, with cat or where, say"
            )
        return self._know(x, self._constant(x.data))

    def _constant(self, array: Array) -> Value:
        return Value(len(self.values), CONSTANT, array.shape, array.dtype, data=np.array(array))

    def followed(self, argument: Any) -> Any:
        """An argument, with Values in place of tensors and of the arrays that tensors hold."""
        if isinstance(argument, Variable):
            return self.value_of(argument)
        if isinstance(argument, np.ndarray):
            known = self._known.get(id(argument))
            return argument.copy() if known is None else known.value
        if isinstance(argument, tuple | list):
            parts = [self.followed(part) for part in argument]
            return type(argument)(*parts) if hasattr(argument, "_fields") else type(argument)(parts)
        if isinstance(argument, dict):
            return {name: self.followed(part) for name, part in argument.items()}
        return argument

    def where(self) -> str:
        """The path of the module that is being called, for messages."""
        return f'module "{self._stack[-1]}"' if self._stack and self._stack[-1] else "the module itself"

    # ---- What it is told ----

    def read(self, x: Any) -> None:
        """Refuses to have elements read that are others for other inputs, or after a step of training.

        Raises:
            GraphError: they depend on the input or on parameters.
        """
        known = self._known.get(id(x.data))
        if self._inside or known is None:
            return
        origins = self._origins(known.value)
        learnt = [value.name for value in origins if value.kind == STATE and value.name in self.parameters]
        if any(value.kind == INPUT for value in origins):
            what = "that depends on the input"
        elif learnt:
            what = f'that depends on the parameter "{learnt[0]}"'
        else:
            names = [value.name for value in origins if value.kind == STATE]
            if names:
                warnings.warn(
                    f'{self.where()}: elements of the buffer "{names[0]}" are read ({_line_of_the_user()}): the graph '
                    "has them as they are now, whatever is loaded into it",
                    UserWarning,
                    stacklevel=2,
                )
            return
        raise GraphError(
            f"{self.where()}: elements of a tensor {what} are read, which a graph cannot say: {_line_of_the_user()}. "
            "Compute with tensors instead, with where(), say; what decides nothing, as an assertion, may read `.data`"
        )

    def _origins(self, value: Value) -> list[Value]:
        """The inputs and parts of the state that a value was computed from."""
        makers = {y.number: call for call in self.calls for y in call.outputs}
        found, seen, waiting = [], {value.number}, [value]
        while waiting:
            one = waiting.pop()
            if one.kind in (INPUT, STATE):
                found.append(one)
            for part in values_in(makers[one.number].arguments) if one.number in makers else ():
                if part.number not in seen:
                    seen.add(part.number)
                    waiting.append(part)
        return found

    def operation(self, op: Any, inputs: tuple[Any, ...], attributes: dict[str, Any], y: Any) -> None:
        """Notes an operation."""
        if self._inside:
            return
        given: dict[str, Any]
        if op.variadic:
            given = {op.inputs[0]: self.followed(tuple(inputs))}
        else:
            given = dict(zip(op.inputs, map(self.followed, inputs), strict=False))
        arguments = {**op.defaults, **given, **{name: self.followed(value) for name, value in attributes.items()}}
        self._note(op, arguments, (y,))

    def _note(self, key: Any, arguments: dict[str, Any], outputs: Sequence[Any]) -> None:
        made = [self._know(y, Value(len(self.values), RESULT, y.data.shape, y.data.dtype)) for y in outputs]
        path = self._stack[-1] if self._stack else ""
        self.calls.append(Call(key, arguments, tuple(made), path))
        if not mode.recording and key != "detach":
            for y in outputs:
                self.detached(y, y)

    def written(self, x: Any, result: Any) -> None:
        """The tensor holds the result from now on."""
        if not self._inside:
            self._know(x, self.value_of(result))

    def detached(self, x: Any, y: Any) -> None:
        """Notes that no gradient passes. The two share their array, so it is the one that an operation takes next."""
        if self._inside:
            return
        value = self.value_of(x)
        if value.kind == RESULT:
            path = self._stack[-1] if self._stack else ""
            made = Value(len(self.values), RESULT, x.data.shape, x.data.dtype)
            self.values.append(made)
            self.calls.append(Call("detach", {"input": value}, (made,), path))
            self._detached[id(y)] = made, y

    def function(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a function, and notes it as a whole if it is to be."""
        if self._inside:
            return function(*args, **kwargs)
        if function.__name__ == "_applied":
            raise GraphError(
                f"{self.where()}: {function.__self__.__name__}.apply is an operation of the user's own, "  # type: ignore[attr-defined]
                "whose gradient a graph cannot say; compute it with the engine's operations"
            )
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        if not self.whole.get(function.__name__, _never)(bound.arguments):
            return function(*args, **kwargs)
        arguments = self.followed(dict(bound.arguments))
        self._inside += 1
        try:
            result = function(*args, **kwargs)
        finally:
            self._inside -= 1
        outputs = tensors_in(result)
        self._note(function.__name__, arguments, outputs)
        return result

    def module(self, module: Any, call: Callable[[], Any]) -> Any:
        """Calls a module; what is computed meanwhile is computed there."""
        self._stack.append(self.paths.get(id(module), self._stack[-1] if self._stack else ""))
        try:
            return call()
        finally:
            self._stack.pop()


def _never(_: Mapping[str, Any]) -> bool:
    return False


def _line_of_the_user() -> str:
    """The innermost line that is not the engine's."""
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("chainrule.engine."):
        frame = frame.f_back
    path, number = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(path, number).strip()
    return f"{path}, line {number}{f': {text}' if text else ''}"


def values_in(structure: Any) -> list[Value]:
    """The Values of a structure, in order."""
    if isinstance(structure, Value):
        return [structure]
    if isinstance(structure, dict):
        structure = list(structure.values())
    if isinstance(structure, tuple | list):
        return [value for part in structure for value in values_in(part)]
    return []


def tensors_in(result: Any) -> list[Any]:
    """The tensors of a structure, in order."""
    if isinstance(result, Variable):
        return [result]
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, tuple | list):
        return [x for part in result for x in tensors_in(part)]
    return []


def trace(
    module: Module,
    inputs: Sequence[Tensor],
    whole: Mapping[str, Callable[[Mapping[str, Any]], bool]],
) -> Trace:
    """One call of the module.

    Raises:
        GraphError: something in it that no graph can say; the message names the module and the operation.
    """
    paths = {id(part): path for path, part in module.named_modules()}
    tracer = Tracer(whole, paths, frozenset(name for name, _ in module.named_parameters(remove_duplicate=False)))
    for number, x in enumerate(inputs):
        tracer.enter(x, INPUT, str(number))
    seen = set()
    for name, x in module.state_dict(keep_vars=True).items():
        if id(x.data) not in seen:
            seen.add(id(x.data))
            tracer.enter(x, STATE, name)
    with watching(tracer):
        result = module(*inputs)
        return Trace(tracer.calls, tracer.values, tracer.followed(result))
