"""Which initialisers of a file are learnt, which are running statistics, which are constants, and what they are called.

Decided by names, shapes and uses, never by the elements, so that an architecture without its weights is decided alike.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeGuard

import numpy as np

from chainrule.engine.dtypes import Array, DType, is_floating
from chainrule.engine.graph.errors import GraphError
from chainrule.engine.graph.node import Node
from chainrule.engine.graph.registry import find
from chainrule.engine.graph.rewriting import without_sequences
from chainrule.engine.graph.source import Block, Source, TensorSpec, needed, reads
from chainrule.engine.nn import Module

_generated = re.compile(
    r"(onnx::.*|\d+|_?val_\d+|const_fold_opt__\d+|.*const_fold_opt__\d+|Constant_.*|_v_\d+|scalar_tensor_default.*"
    r"|/.*_output_\d+|\w*cst\d*|const_\w+|new_.*|.*__\d+)"
)
"""Names that exporters make up for values that had none."""
_BATCH_NORM = "BatchNormalization"
_WITHOUT_GRADIENT = frozenset(
    {
        *(
            "And",
            "ArgMax",
            "ArgMin",
            "Ceil",
            "ConstantOfShape",
            "Equal",
            "EyeLike",
            "Floor",
            "Greater",
            "GreaterOrEqual",
        ),
        *("IsInf", "IsNaN", "Less", "LessOrEqual", "NonZero", "Not", "OneHot", "Or", "Range", "Round", "Shape", "Sign"),
        *("Size", "Xor"),
    }
)
APART = "chainrule.weights"
"""The entry of a model's metadata that names the graph inputs which are weights: a JSON list."""
BUFFERS = "chainrule.buffers"
"""The entry that names the weights which are kept but not learnt: a JSON list."""


@dataclass(frozen=True)
class Weight:
    """Something with a value that the module keeps."""

    name: str
    """Its key in the state_dict."""
    source: str
    """The initialiser that has its elements."""
    dtype: DType
    shape: tuple[int, ...]
    """As in the state_dict."""
    transposed: bool = False
    """Whether the state_dict has the transpose of what is in the file."""


@dataclass(frozen=True)
class Norm:
    """A batch normalisation whose statistics the module keeps."""

    path: str
    """Of the module."""
    features: int
    dtype: DType
    epsilon: float
    momentum: float
    affine: bool
    """Whether weight and bias are learnt; otherwise they are constants that are applied behind it."""


@dataclass
class Roles:
    """What becomes of a file's initialisers. The nodes are those of the file, adapted to it."""

    block: Block
    parameters: dict[str, Weight] = field(default_factory=dict)
    """By value name in the block."""
    buffers: dict[str, Weight] = field(default_factory=dict)
    """Those that are no statistics of a Norm, by value name in the block."""
    norms: dict[str, Norm] = field(default_factory=dict)
    """By the name of the node's first output."""
    norm_weights: list[Weight] = field(default_factory=list)
    """What the norms keep."""
    constants: dict[str, Array] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    """Further keys of the state_dict, and the parameter that they are, by key."""
    first_names: set[str] = field(default_factory=set)
    """Those of them that come before the parameter's own name."""
    copies: dict[str, str] = field(default_factory=dict)
    """Weights that begin as a copy of an initialiser, though the file has them share it, and the initialiser."""
    warnings: list[str] = field(default_factory=list)

    def weights(self) -> list[Weight]:
        """Everything that the state_dict has, in order."""
        return [*self.parameters.values(), *self.buffers.values(), *self.norm_weights]


def names_in(metadata: Mapping[str, str], key: str) -> list[str]:
    """The names that an entry of a model's metadata lists.

    Raises:
        GraphError: it is no list of names.
    """
    try:
        names = json.loads(metadata.get(key, "[]"))
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise GraphError(f'metadata "{key}" is not a JSON list of names')
    return names


def is_generated(name: str) -> bool:
    """Whether an exporter made the name up."""
    return _generated.fullmatch(name) is not None


def assign(source: Source) -> Roles:
    """What becomes of each initialiser of a file.

    Raises:
        GraphError: what is in the file does not go together.
    """
    return _Assignment(source).roles()


# ---- Private ----


class _Assignment:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.weights = dict(source.weights)
        self.nodes = without_sequences(needed(source.block), source.block.outputs)
        self.outputs = source.block.outputs
        self.found = Roles(Block([], self.outputs))
        self.names = _Names()
        self.traced = source.producer == "pytorch" and any(node.name.startswith("/") for node in self.nodes)
        self.trained = any(_is_training(node) for node in self.nodes)
        self.frozen = set(names_in(source.metadata, BUFFERS)) | {name for name, kept in source.buffers.items() if kept}
        self.copies = self.found.copies
        self.transposed: dict[str, str] = {}  # weights whose transpose the state_dict has, and their key there

    def roles(self) -> Roles:
        self._adopt_constants()
        self._resolve_identities()
        self._drop_unused_outputs()
        self._normalisations()
        self._transposed_linears()
        users = self._uses()
        reached = self._reached()
        for name in self.weights:
            self._decide(name, users[name], name in reached)
        self._second_names(users)
        self.found.block = Block(self.nodes, self.outputs)
        return self.found

    # Weights that are nodes, and weights with two names.

    def _adopt_constants(self) -> None:
        """Constant nodes that are weights become initialisers."""
        users = self._uses()
        kept = []
        for node in self.nodes:
            value = node.attributes.get("value") if node.op == "Constant" and not node.domain else None
            name = node.outputs[0] if node.outputs else ""
            if _is_weight(value) and name in self.source.own and any(_at_weight(user, i) for user, i in users[name]):
                self.weights[name] = self.source.weights[name] = value
            else:
                kept.append(node)
        self.nodes = kept

    def _resolve_identities(self) -> None:
        """`Identity(weight)` is how exporters write weights that are shared, or that are merely equal."""
        renamed: dict[str, str] = {}
        kept = []
        for node in self.nodes:
            source = renamed.get(node.inputs[0], node.inputs[0]) if node.op == "Identity" and node.inputs else ""
            if source not in self.weights or node.outputs[0] in self.outputs or not self._is_floating(source):
                kept.append(node)
                continue
            name, shape = node.outputs[0], self._shape(source)
            if is_generated(name):
                renamed[name] = source
            elif self.trained or len(shape) > 1:
                renamed[name] = source
                self.found.aliases[name] = source
            else:  # an export in evaluation mode writes equal vectors, such as new biases, once
                self.weights[name] = self.weights[source]
                self.copies[name] = source
        self.nodes = [_with_inputs(node, renamed) for node in kept]

    def _drop_unused_outputs(self) -> None:
        used = {x for x, users in self._uses().items() if users}.union(self.outputs)
        self.nodes = [replace(n, outputs=tuple(y if y in used else "" for y in n.outputs)) for n in self.nodes]

    # Batch normalisation.

    def _normalisations(self) -> None:
        fused = {node.inputs[0] for node in self.nodes if node.op == "FusedRelu" and node.domain == "chainrule"}
        for i, node in enumerate(self.nodes):
            if node.op != _BATCH_NORM or node.domain or len(node.inputs) < 5:
                continue
            x, scale, shift, mean, variance = node.inputs[:5]
            if not all(name in self.weights and self._is_floating(name) for name in (mean, variance)):
                continue
            shape, kind = self._shape(mean), self._dtype(mean)
            if len(shape) != 1 or self._shape(variance) != shape or not shape[0]:
                raise node.error(f"its statistics have the shapes {list(shape)} and {list(self._shape(variance))}")
            affine = all(self._is_learnt(name, shape) for name in (scale, shift))
            stem = mean.removesuffix(".running_mean")
            path = self.names.module(stem if stem != mean else node.name, mean)
            norm = Norm(path, shape[0], kind, node.float("epsilon", 1e-5), _rate(node.float("momentum", 0.9)), affine)
            if path not in {known.path for known in self.found.norms.values()}:
                parts = {"weight": scale, "bias": shift} if affine else {}
                parts |= {"running_mean": mean, "running_var": variance}
                self.found.norm_weights += [
                    Weight(f"{path}.{key}" if path else key, self.copies.get(name, name), kind, shape)
                    for key, name in parts.items()
                ]
            self.found.norms[node.outputs[0]] = norm
            inputs = (x,) if affine else (x, scale, shift)
            self.nodes[i] = replace(
                node,
                inputs=inputs,
                attributes={**node.attributes, "path": path, "rectify": int(affine and node.outputs[0] in fused)},
            )

    def _is_learnt(self, name: str, shape: tuple[int, ...]) -> bool:
        known = name in self.weights and self._is_floating(name) and self._shape(name) == shape
        return known and not is_generated(name) and name not in self.frozen

    # Names.

    def _transposed_linears(self) -> None:
        """A linear layer's weight that constant folding has transposed gets its name and its shape back.

        x · onnx::MatMul_12 + fc.bias, or a node /fc/MatMul: the weight was fc.weight, whose transpose this is.
        """
        users = self._uses()
        for node in self.nodes:
            if node.op != "MatMul" or node.domain or len(node.inputs) != 2:
                continue
            name = node.inputs[1]
            if name not in self.weights or not is_generated(name) or len(users[name]) != 1:
                continue
            stem = _stem_by_bias(node, users, self.weights) or node.scope
            key = f"{stem}.weight"
            if stem and len(self._shape(name)) == 2 and key not in self.weights and key not in self.found.aliases:
                self.transposed[name] = key

    def _decide(self, name: str, users: list[tuple[Node, int]], reached: bool) -> None:
        value = self.weights[name]
        is_output = name in self.outputs
        if not users and not is_output and not self._is_kept(name):
            return
        if isinstance(value, TensorSpec):
            learnt = name not in self.frozen and self._is_floating(name)
        elif name in self.frozen or self._is_integer_buffer(name, users):
            learnt = False
        elif not reached or self._is_constant(name, users):
            self.found.constants[name] = value
            return
        else:
            learnt = True
        key = self.names.weight(self.transposed.get(name, name))
        shape = self._shape(name)
        flipped = name in self.transposed
        weight = Weight(
            key, self.copies.get(name, name), self._dtype(name), shape[::-1] if flipped else shape, transposed=flipped
        )
        (self.found.parameters if learnt else self.found.buffers)[name] = weight

    def _reached(self) -> set[str]:
        """The values that the outputs have a gradient of."""
        if self.source.producer == "chainrule":
            return set(self.weights)  # what it writes as a parameter is one
        live = set(self.outputs)
        for node in reversed(self.nodes):
            if live.intersection(node.outputs) and (node.domain or node.op not in _WITHOUT_GRADIENT):
                inner = [block for block in node.attributes.values() if isinstance(block, Block)]
                live.update(reads(node) if inner else (x for i, x in enumerate(node.inputs) if not _at_host(node, i)))
        return live

    def _is_constant(self, name: str, users: list[tuple[Node, int]]) -> bool:
        """Whether it is part of a formula rather than learnt: by what it is, what takes it, and what it is called."""
        if not self._is_floating(name) or not self.source.buffers.get(name, True) or self._is_number(name):
            return True
        if users and all(_at_host(user, i) for user, i in users):
            return True
        if self._is_shift(name, users):
            return False
        return is_generated(name) and not any(_at_weight(user, i) for user, i in users)

    def _is_number(self, name: str) -> bool:
        """Whether it is a number in a formula; of files that name all their numbers, one without dimensions is, but for
        a variable of TensorFlow."""
        return (
            not self._shape(name) and self.source.producer in ("skl2onnx", "tf2onnx") and "ReadVariableOp" not in name
        )

    def _is_shift(self, name: str, users: list[tuple[Node, int]]) -> bool:
        """Whether it is the bias of a Conv1D, or the shift of a normalisation, which tf2onnx makes new constants of."""
        if self.source.producer != "tf2onnx" or not name.startswith("const_fold_opt__") or not self._shape(name):
            return False
        makers = {y: node for node in self.nodes for y in node.outputs}
        for user, i in users:
            scaled = makers.get(user.inputs[1 - i]) if user.op == "Add" and len(user.inputs) == 2 else None
            if scaled is not None and scaled.op == "Squeeze" and scaled.inputs[0] in makers:
                return makers[scaled.inputs[0]].op == "Conv"
            if scaled is not None and scaled.op == "Mul" and any("/batchnorm/" in x for x in scaled.inputs):
                return True
        return False

    def _is_integer_buffer(self, name: str, users: list[tuple[Node, int]]) -> bool:
        """Whether it is a buffer of integers: what has a name in a traced file is part of a module's state."""
        return (
            self.traced
            and not self._is_floating(name)
            and not is_generated(name)
            and bool(self._shape(name) and users)
            and not any(_at_host(user, i) for user, i in users)
        )

    def _second_names(self, users: Mapping[str, list[tuple[Node, int]]]) -> None:
        """A weight that a file of PyTorch has once, and two modules use, has a key for each of them.

        wte.weight, which nodes of wte and of lm_head take, is lm_head.weight too.
        """
        for name in [name for name in self.found.parameters if name.endswith(".weight")]:
            own = name.removesuffix(".weight")
            taking = [node.scope for node, i in users[name] if node.op == "Transpose" or _at_weight(node, i)]
            if own not in taking:
                continue
            for stem in dict.fromkeys(taking):
                key = f"{stem}.weight"
                is_called_again = re.sub(r"_\d+(?=\.|$)", "", stem) == own  # the second call of fc is fc_1
                other = stem != own and not is_called_again and not own.startswith(f"{stem}.")
                if stem and other and key not in self.weights:
                    self.found.aliases.setdefault(key, name)
                    if stem == taking[0]:
                        self.found.first_names.add(key)

    def _is_kept(self, name: str) -> bool:
        """Whether what nothing uses is part of the state all the same, as in what `export` writes."""
        norms = {weight.source for weight in self.found.norm_weights}
        counted = name.endswith(".num_batches_tracked") or name == "num_batches_tracked"
        return self.source.producer == "chainrule" and name not in norms and not counted

    # What is where.

    def _uses(self) -> dict[str, list[tuple[Node, int]]]:
        found: dict[str, list[tuple[Node, int]]] = defaultdict(list)
        waiting = [self.nodes]
        while waiting:
            for node in waiting.pop():
                for i, x in enumerate(node.inputs):
                    found[x].append((node, i))
                for inner in node.attributes.values():
                    if isinstance(inner, Block):
                        waiting.append(inner.nodes)
                        for y in inner.outputs:
                            found[y].append((node, -1))
        return found

    def _shape(self, name: str) -> tuple[int, ...]:
        shape = self.weights[name].shape
        assert shape is not None  # `source.read` sees to it
        return tuple(int(n or 0) for n in shape)

    def _dtype(self, name: str) -> DType:
        return self.weights[name].dtype

    def _is_floating(self, name: str) -> bool:
        return is_floating(self._dtype(name))


class _Names:
    """Keys of a state_dict: each once, and none that a module cannot have."""

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.modules: dict[str, str] = {}

    def weight(self, name: str) -> str:
        """A key for a weight: its name, if that can be one."""
        return self._new(_path(name))

    def module(self, name: str, statistics: str) -> str:
        """The path for a module, the same for the same statistics."""
        if statistics not in self.modules:
            self.modules[statistics] = self._new(_path(name))
        return self.modules[statistics]

    def _new(self, key: str) -> str:
        fresh, i = key, 1
        while fresh in self.taken:
            i += 1
            fresh = f"{key}_{i}"
        self.taken.add(fresh)
        return fresh


def _path(name: str) -> str:
    """A name whose parts between dots are names of modules: not empty, nor fields of every module."""
    return ".".join(f"{part}_" if part in _fields or not part else part for part in name.split("."))


_fields = frozenset(vars(Module()))


def _at_host(node: Node, i: int) -> bool:
    row = find(node.domain, node.op, node.opset)
    return not isinstance(row, str) and i in row.host


def _at_weight(node: Node, i: int) -> bool:
    row = find(node.domain, node.op, node.opset)
    return not isinstance(row, str) and i in row.weights


def _is_weight(value: object) -> TypeGuard[Array]:
    return isinstance(value, np.ndarray) and is_floating(value.dtype) and value.ndim > 0


def _is_training(node: Node) -> bool:
    """Whether only an export in training mode has such a node."""
    return node.op == "Dropout" or (node.op == _BATCH_NORM and node.attributes.get("training_mode") == 1)


def _with_inputs(node: Node, renamed: Mapping[str, str]) -> Node:
    """The node, with branches, where values have other names."""
    if not renamed:
        return node
    attributes = dict(node.attributes)
    for key, inner in node.attributes.items():
        if isinstance(inner, Block):
            nodes = [_with_inputs(one, renamed) for one in inner.nodes]
            attributes[key] = Block(nodes, [renamed.get(y, y) for y in inner.outputs], inner.constants)
    return replace(node, inputs=tuple(renamed.get(x, x) for x in node.inputs), attributes=attributes)


def _rate(momentum: float) -> float:
    """How far running statistics move, which is 1 − ONNX's momentum: 0.1 for the float32 nearest 0.9."""
    return round(1 - momentum, 7)


def _stem_by_bias(node: Node, users: Mapping[str, list[tuple[Node, int]]], weights: Mapping[str, object]) -> str:
    following = users[node.outputs[0]]
    if len(following) != 1 or following[0][0].op != "Add":
        return ""
    biases = [x for x in following[0][0].inputs if x in weights and x.endswith(".bias")]
    return biases[0].removesuffix(".bias") if len(biases) == 1 else ""
