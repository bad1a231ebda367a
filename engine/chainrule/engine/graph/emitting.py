"""Nodes of ONNX as they are written one after another, and the names of what they compute."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from chainrule.engine.dtypes import Array, DType, bfloat16
from chainrule.engine.graph.errors import GraphError
from chainrule.engine.graph.symbols import Batch, Repeated, Size
from chainrule.engine.graph.tracing import CONSTANT, STATE, Call, Value
from chainrule.engine.graph.translations import local

END = 2**63 - 1
"""As far as a slice goes."""


def type_of(dtype: DType) -> int:
    """ONNX's number of a dtype."""
    if dtype == bfloat16:
        return int(onnx.TensorProto.BFLOAT16)
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def tensor_of(array: Array, name: str) -> onnx.TensorProto:
    """An array as ONNX has it, row by row."""
    array = np.ascontiguousarray(array).reshape(array.shape)
    if array.dtype == bfloat16:
        proto = onnx.TensorProto(name=name, data_type=onnx.TensorProto.BFLOAT16, dims=array.shape)
        proto.raw_data = array.view(np.uint16).astype("<u2").tobytes()
        return proto
    return numpy_helper.from_array(array, name)


class Emitter:
    """The nodes so far.

    Args:
        batch_of: the name of an input whose first dimension is the batch.
        names: those of inputs and of the state, by the number of the value.
        opset: the version of ONNX's operators.
        momenta: with which running means move, by their names.
        aliases: further names of parameters, with the first.
    """

    def __init__(
        self,
        batch_of: str,
        names: dict[int, str],
        opset: int,
        momenta: Mapping[str, float | None],
        aliases: Mapping[str, str],
    ) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.functions: dict[str, onnx.FunctionProto] = {}
        self.names = dict(names)
        self.taken: Counter[str] = Counter([*names.values(), *aliases])
        self._batch_of = batch_of
        self._momenta = momenta
        self._aliases = aliases
        self._written: set[str] = set()
        self._path = ""
        self._constants: dict[tuple[Any, ...], str] = {}
        self._batches: dict[int, str] = {}

    # ---- Names ----

    def at(self, call: Call) -> None:
        """The nodes that follow are of this call."""
        self._path = call.path

    def at_top(self) -> None:
        """The nodes that follow are of no module inside."""
        self._path = ""

    def reserve(self, name: str) -> None:
        """Nothing that follows has this name."""
        self.taken[name] += 1

    def momentum_of(self, mean: Value) -> float | None:
        """With which a running mean moves."""
        if mean.name not in self._momenta:
            raise GraphError("batch normalisation whose running mean is no buffer of a BatchNorm cannot be exported")
        return self._momenta[mean.name]

    def _unique(self, wanted: str) -> str:
        name, number = wanted, 0
        while name in self.taken:
            number += 1
            name = f"{wanted}_{number}"
        self.taken[name] += 1
        return name

    def name(self, x: Any, like: DType | None = None) -> str:
        """The name of a value, of a constant array, or of a number in the dtype `like`; "" for None."""
        if x is None:
            return ""
        if isinstance(x, str):
            return x
        if isinstance(x, Value):
            if x.number not in self.names:
                if x.kind != CONSTANT:
                    raise GraphError(f"a tensor of shape {list(x.shape)} is used before it is computed")
                self.names[x.number] = self.name(x.data)
            return self._alias_here(self.names[x.number]) if x.kind == STATE else self.names[x.number]
        if isinstance(x, Repeated):
            repeated: str = self.node("Expand", self.constant(x.row), self.ints(x.shape))
            return repeated
        if isinstance(x, Batch):
            return str(
                self.node(
                    "Cast",
                    self.node("Squeeze", self.batch(x.times), self.ints([0])),
                    to=type_of(np.dtype(np.int64) if like is None else like),
                )
            )
        return self.constant(np.asarray(x, like) if like is not None else np.asarray(x))

    def _alias_here(self, name: str) -> str:
        """The name that a parameter with several has in the module that is called."""
        for alias, first in self._aliases.items():
            if first == name and alias.rpartition(".")[0] == self._path != name.rpartition(".")[0]:
                if alias not in self._written:
                    self._written.add(alias)
                    self.nodes.append(helper.make_node("Identity", [name], [alias], name=f"{alias}/Identity"))
                return alias
        return name

    def constant(self, array: Array) -> str:
        """The name of an array's elements, written once."""
        key = (str(array.dtype), array.shape, np.ascontiguousarray(array).tobytes())
        if key not in self._constants:
            name = self._unique(f"constant_{len(self._constants)}")
            node = helper.make_node("Constant", [], [name], name=name, value=tensor_of(array, ""))
            self.nodes.append(node)
            self._constants[key] = name
        return self._constants[key]

    # ---- Numbers that may be multiples of the batch ----

    def batch(self, times: int) -> str:
        """A vector of one number: so many times the batch."""
        if times not in self._batches:
            path, self._path = self._path, ""
            if times == 1:
                found = self.node("Shape", self._batch_of, start=0, end=1)
            else:
                found = self.node("Mul", self.batch(1), self.ints([times]))
            self._path = path
            self._batches[times] = found
        return self._batches[times]

    def ints(self, numbers: Iterable[Size]) -> str:
        """A vector of int64."""
        given = list(numbers)
        if not any(isinstance(n, Batch) for n in given):
            return self.constant(np.array(given, np.int64))
        parts = [self.batch(n.times) if isinstance(n, Batch) else self.ints([n]) for n in given]
        joined: str = parts[0] if len(parts) == 1 else self.node("Concat", *parts, axis=0)
        return joined

    # ---- Nodes ----

    def node(
        self,
        op: str,
        *inputs: Any,
        out: Sequence[Value] | int = 1,
        domain: str = "",
        **attributes: Any,
    ) -> Any:
        """Writes a node.

        Args:
            inputs: Values, names, arrays, or None for what is left out.
            out: the values it computes, or how many results it has.

        Returns:
            The name of its result, or a list of them if there are several.
        """
        names = [self.name(x) for x in inputs]
        while names and not names[-1]:
            names.pop()
        title = self._unique(f"{self._path}/{op}" if self._path else op)
        count = out if isinstance(out, int) else len(out)
        results = [self._unique(f"{title}_output" if count == 1 else f"{title}_output_{i}") for i in range(count)]
        given = {name: value for name, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(op, names, results, name=title, domain=domain, **given))
        if not isinstance(out, int):
            self.names.update({value.number: name for value, name in zip(out, results, strict=True)})
        return results[0] if count == 1 else results

    def local(self, function: local.Local, *inputs: Any, out: Sequence[Value] | int = 1, **attributes: Any) -> Any:
        """Writes a node of chainrule's own, whose meaning in ONNX's operators the model carries as a function."""
        self.functions[function.name] = function.proto(self.opset)
        return self.node(function.name, *inputs, out=out, domain=local.DOMAIN, **attributes)

    def alias(self, value: Value, name: str) -> None:
        """The value is what already has this name."""
        self.names[value.number] = name


Translate = Callable[[Emitter, Call], None]


def count_of(shape: Sequence[Size]) -> Size:
    """How many elements; a multiple of the batch at most once.

    Raises:
        GraphError: the batch is in it twice.
    """
    batches = [n for n in shape if isinstance(n, Batch)]
    if len(batches) > 1:
        raise GraphError(f"a shape with the batch in it twice: {[str(n) for n in shape]}")
    rest = math.prod(n for n in shape if not isinstance(n, Batch))
    return Batch(batches[0].times * rest) if batches else rest
