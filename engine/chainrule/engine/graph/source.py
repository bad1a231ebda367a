"""A file as a graph of nodes: parsed, checked, functions inlined, in an order in which it can be computed."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto

from chainrule.engine.dtypes import Array, DType
from chainrule.engine.graph.errors import GraphError
from chainrule.engine.graph.limits import MAX_BYTES, Limits
from chainrule.engine.graph.node import Node
from chainrule.engine.graph.registry import find
from chainrule.engine.graph.tensors import dtype_of, to_array
from chainrule.engine.graph.wire import scan

_quoted = re.compile(r"'([^']*)'")
_Kind = AttributeProto.AttributeType


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that a graph takes or gives."""

    name: str
    dtype: DType
    shape: tuple[int | str | None, ...] | None
    """A length, the name of one that may vary, or None for one without a name; None as a whole if it is not said."""


@dataclass
class Block:
    """Nodes in an order in which they can be computed, and what comes out: a graph, or a branch of one."""

    nodes: list[Node]
    outputs: list[str]
    constants: dict[str, Array] = field(default_factory=dict)
    """The initialisers of a branch; a graph's own are in `Source.weights`."""


@dataclass
class Source:
    """What a file says."""

    block: Block
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    weights: dict[str, Array | TensorSpec]
    """The initialisers, in the order of the file; a TensorSpec where the data is elsewhere."""
    metadata: dict[str, str]
    producer: str
    buffers: dict[str, bool]
    """The initialisers that the file says are not learnt, and of each whether it is part of the state_dict."""
    own: frozenset[str]
    """Names of values that are the graph's own, and not of a function that was inlined."""


# ---- From bytes to messages ----


def parse(content: bytes, limits: Limits, max_bytes: int = MAX_BYTES) -> ModelProto:
    """The model in a file.

    Raises:
        GraphError: the file is too large, malformed, or beyond the limits.
    """
    if not isinstance(content, bytes | bytearray | memoryview):
        raise GraphError(f"a graph is loaded from bytes, not {type(content).__name__}; read the file first")
    content = bytes(content)
    if len(content) > max_bytes:
        raise GraphError(f"the file has {len(content)} bytes; at most {max_bytes} are taken")
    scan(content, ModelProto.DESCRIPTOR, limits)
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise GraphError(f"these bytes are no ONNX model: {error}; export the file again") from error
    if not model.HasField("graph") or not model.graph.output:
        raise GraphError("these bytes are no ONNX model: there is no graph with outputs in them; export the file again")
    return model


def read(model: ModelProto, limits: Limits, apart: Iterable[str] = ()) -> Source:
    """What a model says.

    Args:
        model: as parsed.
        limits: what it may ask for.
        apart: inputs of the graph that are weights.

    Raises:
        GraphError: it contradicts itself, or is beyond the limits.
    """
    try:
        return _Reader(model, limits).source(frozenset(apart))
    except UnicodeDecodeError as error:
        raise GraphError(f"a name in the file is no text: {error}; export the file again") from error


# ---- From messages to nodes ----


@dataclass
class _Scope:
    """What names stand for in one place: a graph, a branch, or a function that is inlined."""

    opsets: Mapping[str, int]
    prefix: str = ""
    """Before the names of values; short, so that names do not grow from call to call."""
    label: str = ""
    """Before the names of nodes: the outermost call."""
    names: dict[str, str] = field(default_factory=dict)
    outer: _Scope | None = None
    arguments: Mapping[str, Any] | None = None
    """Attributes of the function's call; None outside of functions."""
    depth: int = 0

    def look_up(self, name: str, title: str) -> str:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.outer
        raise GraphError(f'{title}: its input "{name}" is computed by no node, and is no input or initialiser')

    def define(self, name: str, title: str) -> str:
        if name in self.names:
            raise GraphError(f'{title}: the name "{name}" is given to two values')
        self.names[name] = self.prefix + name
        return self.names[name]


class _Reader:
    def __init__(self, model: ModelProto, limits: Limits) -> None:
        self.model = model
        self.limits = limits
        self.count = 0
        self.room = limits.folded_bytes + model.ByteSize()  # a function's tensors are there once for each call
        self.functions: dict[tuple[str, str, str], Any] = {}
        for function in model.functions:
            key = (_domain(function.domain), function.name, function.overload)
            if key in self.functions:
                raise GraphError(f'function "{key[0]}::{key[1]}" is defined twice')
            self.functions[key] = function

    def source(self, apart: frozenset[str]) -> Source:
        graph = self.model.graph
        scope = _Scope(_opsets(self.model.opset_import))
        if graph.sparse_initializer:
            name = graph.sparse_initializer[0].values.name
            raise GraphError(f'initialiser "{name}": it is sparse, which is not supported; store it as a dense one')
        weights: dict[str, Array | TensorSpec] = {}
        for tensor in graph.initializer:
            title = f'initialiser "{tensor.name}"'
            if not tensor.name:
                raise GraphError("an initialiser has no name")
            scope.define(tensor.name, title)
            weights[tensor.name] = to_array(tensor, title)
        inputs: list[TensorSpec] = []
        for value in graph.input:
            if value.name in weights:
                continue  # up to IR version 3 an initialiser is an input too
            spec = _spec(value, f'input "{value.name}"')
            scope.define(value.name, f'input "{value.name}"')
            if value.name in apart:
                weights[value.name] = _weight_apart(spec)
            else:
                inputs.append(spec)
        nodes = self.nodes(graph.node, scope)
        outputs = [scope.look_up(value.name, f'output "{value.name}"') for value in graph.output]
        specs = [_output(value) for value in graph.output]
        if len({spec.name for spec in specs}) != len(specs):
            raise GraphError("two outputs of the graph have one name")
        return Source(
            block=Block(ordered(nodes), outputs),
            inputs=inputs,
            outputs=specs,
            weights=weights,
            metadata={entry.key: entry.value for entry in self.model.metadata_props},
            producer=self.model.producer_name,
            buffers=_buffers(graph),
            own=frozenset(scope.names),
        )

    def nodes(self, protos: Any, scope: _Scope) -> list[Node]:
        """The nodes of a graph, with the functions they call in their place; not yet in order."""
        named = [(proto, _name(proto, i)) for i, proto in enumerate(protos)]
        for proto, name in named:  # all names first: a node may come before those it takes from
            for output in proto.output:
                if output:
                    scope.define(output, f'node "{name}" ({proto.op_type})')
        return [node for proto, name in named for node in self.node(proto, scope.label + name, scope)]

    def node(self, proto: Any, name: str, scope: _Scope) -> Iterator[Node]:
        self.count += 1
        if self.count > self.limits.nodes:
            raise GraphError(f"the graph has more than {self.limits.nodes} nodes, which is the limit")
        if scope.arguments is not None:
            self.take(proto.ByteSize(), scope.label)
        domain = _domain(proto.domain)
        title = f'node "{name}" ({proto.op_type})'
        inputs = tuple(scope.look_up(x, title) if x else "" for x in proto.input)
        outputs = tuple(scope.names[y] if y else "" for y in proto.output)
        attributes = self.attributes(proto, scope, title)
        function = self.functions.get((domain, proto.op_type, proto.overload))
        known = domain == "chainrule" and not isinstance(find(domain, proto.op_type, scope.opsets.get(domain, 0)), str)
        if function is not None and not known:  # its own operators say more than their bodies
            yield from self.inlined(function, name, inputs, outputs, attributes, scope)
            return
        if domain not in scope.opsets:
            raise GraphError(f'{title}: the file does not import a version of its domain "{domain or "ai.onnx"}"')
        opset = scope.opsets[domain]
        yield Node(name, domain, proto.op_type, opset, inputs, outputs, attributes, _path(proto), _class(proto))

    def inlined(
        self,
        function: Any,
        name: str,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        attributes: Mapping[str, Any],
        scope: _Scope,
    ) -> Iterator[Node]:
        """The nodes of a function's body, for one call."""
        title = f'node "{name}" ({function.name})'
        if scope.depth >= self.limits.depth:
            raise GraphError(f"{title}: functions call functions deeper than {self.limits.depth}, which is the limit")
        if len(inputs) > len(function.input) or len(outputs) > len(function.output):
            raise GraphError(f'{title}: more inputs or outputs than function "{function.name}" has')
        arguments = {entry.name: self.attribute(entry, scope, title) for entry in function.attribute_proto}
        inner = _Scope(
            _opsets(function.opset_import),
            prefix=f"#{self.count}/",
            label=scope.label or f"{name[:200]}/",
            arguments={**arguments, **attributes},
            depth=scope.depth + 1,
        )
        for formal, actual in zip(function.input, [*inputs, *[""] * len(function.input)], strict=False):
            inner.define(formal, title)
            inner.names[formal] = actual
        yield from self.nodes(function.node, inner)
        for formal, actual in zip(function.output, outputs, strict=False):
            if actual:
                yield Node(f"{name}/{formal}", "", "Identity", 1, (inner.look_up(formal, title),), (actual,))

    def attributes(self, proto: Any, scope: _Scope, title: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for entry in proto.attribute:
            if entry.name in values:
                raise GraphError(f'{title}: attribute "{entry.name}" is given twice')
            if not entry.ref_attr_name:
                values[entry.name] = self.attribute(entry, scope, title)
                if scope.arguments is not None:
                    self.take(_size(values[entry.name]), scope.label)
            elif scope.arguments is None:
                raise GraphError(f'{title}: attribute "{entry.name}" refers to a function\'s, outside of functions')
            elif entry.ref_attr_name in scope.arguments:
                values[entry.name] = scope.arguments[entry.ref_attr_name]
        return values

    def take(self, count: int, label: str) -> None:
        """Counts what a function's node holds, its names included: it is there once for each call."""
        self.room -= count
        if self.room < 0:
            raise GraphError(f'node "{label}": the functions of the file hold more than they may when they are inlined')

    def attribute(self, entry: Any, scope: _Scope, title: str) -> Any:
        where = f'{title}: attribute "{entry.name}"'
        match entry.type:
            case _Kind.FLOAT:
                return _shortest(entry.f)
            case _Kind.INT:
                return entry.i
            case _Kind.STRING:
                return entry.s.decode()
            case _Kind.TENSOR:
                return to_array(entry.t, where)
            case _Kind.FLOATS:
                return [_shortest(value) for value in entry.floats]
            case _Kind.INTS:
                return list(entry.ints)
            case _Kind.STRINGS:
                return [value.decode() for value in entry.strings]
            case _Kind.GRAPH:
                return self.branch(entry.g, scope, where)
        raise GraphError(f"{where} is of kind {entry.type}, which is not supported")

    def branch(self, graph: Any, outer: _Scope, title: str) -> Block:
        """A graph inside a node. It may have inputs (those of loops do), which then are nobody's output."""
        self.count += 1
        scope = _Scope(
            outer.opsets,
            prefix=f"#{self.count}/",
            label=outer.label,
            outer=outer,
            arguments=outer.arguments,
            depth=outer.depth + 1,
        )
        constants = {}
        for tensor in graph.initializer:
            where = f'{title}, initialiser "{tensor.name}"'
            constants[scope.define(tensor.name, where)] = to_array(tensor, where)
        for value in graph.input:
            if value.name not in scope.names:
                scope.define(value.name, f'{title}, input "{value.name}"')
        nodes = self.nodes(graph.node, scope)
        outputs = [scope.look_up(value.name, f'{title}, output "{value.name}"') for value in graph.output]
        return Block(ordered(nodes), outputs, constants)


def _name(proto: Any, i: int) -> str:
    return proto.name or f"{proto.op_type}_{i}"


def _path(proto: Any) -> str:
    """The path of the module that a node is of: layers.0.fc of /layers/layers.0/fc/MatMul, or as metadata has it."""
    for entry in proto.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes = _quoted.findall(entry.value)
            return scopes[-2] if len(scopes) > 1 else ""
    path: list[str] = []
    for part in proto.name.split("/")[1:-1] if proto.name.startswith("/") else ():
        if path and part.startswith(f"{path[-1]}."):
            path.pop()  # the name of an element of a Sequential has that of the Sequential in it
        path.append(part)
    return ".".join(path)


def _class(proto: Any) -> str:
    """The class of the module that a node is of, as metadata has it."""
    noted = next((e.value for e in proto.metadata_props if e.key == "pkg.torch.onnx.class_hierarchy"), "")
    kinds = _quoted.findall(noted)
    return str(kinds[-2]) if len(kinds) > 1 else ""


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _opsets(imports: Any) -> dict[str, int]:
    return {_domain(entry.domain): entry.version for entry in imports}


def _size(value: Any) -> int:
    """What it takes beside its message."""
    return value.nbytes if isinstance(value, np.ndarray) else 40 * len(value) if isinstance(value, list) else 0


def _shortest(value: float) -> float:
    return float(str(np.float32(value)))


def _buffers(graph: Any) -> dict[str, bool]:
    """What `torch.onnx.export(dynamo=True)` notes of initialisers that were buffers."""
    notes = "pkg.torch.export.graph_signature.InputSpec."
    found = {}
    for value in graph.value_info:
        noted = {entry.key.removeprefix(notes): entry.value for entry in value.metadata_props}
        if noted.get("kind") == "BUFFER":
            found[value.name] = noted.get("persistent") != "False"
    return found


# ---- Inputs and outputs ----


def _spec(value: Any, title: str) -> TensorSpec:
    if not value.name:
        raise GraphError("an input of the graph has no name")
    if not value.type.HasField("tensor_type"):
        raise GraphError(f"{title}: it is a {value.type.WhichOneof('value') or 'value without a type'}, not a tensor")
    return TensorSpec(value.name, dtype_of(value.type.tensor_type.elem_type, title), _dims(value, title))


def _output(value: Any) -> TensorSpec:
    """As far as the file says; what it says of outputs is not relied on."""
    known = value.type.HasField("tensor_type") and value.type.tensor_type.elem_type
    title = f'output "{value.name}"'
    return TensorSpec(value.name, dtype_of(known or 1, title), _dims(value, title) if known else None)


def _dims(value: Any, title: str) -> tuple[int | str | None, ...] | None:
    if not value.type.tensor_type.HasField("shape"):
        return None
    dims: list[int | str | None] = []
    for dim in value.type.tensor_type.shape.dim:
        if dim.HasField("dim_value"):
            if dim.dim_value < 0:
                raise GraphError(f"{title}: a dimension of {dim.dim_value}")
            dims.append(dim.dim_value)
        else:
            dims.append(dim.dim_param or None)
    return tuple(dims)


def _weight_apart(spec: TensorSpec) -> TensorSpec:
    if spec.shape is None or not all(isinstance(n, int) for n in spec.shape):
        raise GraphError(f'weight "{spec.name}": the architecture does not give its shape')
    return spec


# ---- Order ----


def ordered(nodes: list[Node]) -> list[Node]:
    """The nodes so that each comes after those it takes from, otherwise as they were.

    Raises:
        GraphError: some take from each other in a circle.
    """
    maker = {y: i for i, node in enumerate(nodes) for y in node.outputs if y}
    needs = [{maker[x] for x in reads(node) if x in maker} for node in nodes]
    if all(j < i for i, before in enumerate(needs) for j in before):
        return nodes
    waiting = [len(before) for before in needs]
    users: list[list[int]] = [[] for _ in nodes]
    for i, before in enumerate(needs):
        for j in before:
            users[j].append(i)
    ready = deque(i for i, n in enumerate(waiting) if n == 0)
    order: list[Node] = []
    while ready:
        i = ready.popleft()
        order.append(nodes[i])
        for user in users[i]:
            waiting[user] -= 1
            if waiting[user] == 0:
                ready.append(user)
    if len(order) < len(nodes):
        stuck = [nodes[i].title for i, n in enumerate(waiting) if n > 0]
        more = f" and {len(stuck) - 5} more" if len(stuck) > 5 else ""
        raise GraphError(f"the graph has a cycle, in or before {', '.join(stuck[:5])}{more}")
    return order


def reads(node: Node) -> Iterator[str]:
    """The values that a node takes from outside, those of its branches included."""
    yield from (x for x in node.inputs if x)
    for block in node.attributes.values():
        if isinstance(block, Block):
            made = {y for inner in block.nodes for y in inner.outputs} | set(block.constants)
            wanted = [x for inner in block.nodes for x in reads(inner)] + block.outputs
            yield from (x for x in wanted if x not in made)


def needed(block: Block) -> list[Node]:
    """The nodes that the outputs are computed from."""
    wanted = set(block.outputs)
    kept: list[Node] = []
    for node in reversed(block.nodes):
        if wanted.intersection(y for y in node.outputs if y):
            kept.append(node)
            wanted.update(reads(node))
    return kept[::-1]
