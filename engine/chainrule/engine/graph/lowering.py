"""scikit-learn's linear models in ONNX's own operators: what they have as attributes becomes weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from chainrule.engine.graph.errors import GraphError
from chainrule.engine.graph.registry import ML_DOMAIN

_TRANSFORMS = {"SOFTMAX": "Softmax", "LOGISTIC": "Sigmoid"}


def lower(model: ModelProto) -> list[str]:
    """Put Gemm, and what follows it, in the place of LinearRegressor and LinearClassifier, and remove ZipMap.

    Weights are called `<node>.weight` (outputs, features) and `<node>.bias`. Other nodes are left as they are.

    Returns:
        What is different in what the graph gives.

    Raises:
        GraphError: attributes that contradict each other.
    """
    if not any(node.domain == ML_DOMAIN for node in model.graph.node):
        return []
    lowering = _Lowering(model)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes += lowering.replaced(node) if node.domain == ML_DOMAIN else [node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    if lowering.added and not any(entry.domain in ("", "ai.onnx") for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", 13))
    return lowering.warnings


class _Lowering:
    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.taken = {tensor.name for tensor in self.graph.initializer} | {value.name for value in self.graph.input}
        self.warnings: list[str] = []
        self.added = False

    def replaced(self, node: NodeProto) -> list[NodeProto]:
        """The nodes for one."""
        match node.op_type:
            case "LinearRegressor" if _text(node, "post_transform") in ("", "NONE"):
                self.added = True
                return self.linear(node, _int(node, "targets", 1), node.output[0])
            case "LinearClassifier" if _text(node, "post_transform") in ("", "NONE", *_TRANSFORMS):
                return self.classifier(node)
            case "ZipMap":
                return self.without_zip(node)
        return [node]

    def linear(self, node: NodeProto, rows: int, output: str) -> list[NodeProto]:
        """y = x · wᵀ + b"""
        name, coefficients, intercepts = (
            node.name or node.op_type,
            _floats(node, "coefficients"),
            _floats(node, "intercepts"),
        )
        if rows < 1 or not coefficients.size or coefficients.size % rows or intercepts.size not in (0, rows):
            raise GraphError(
                f'node "{name}" ({node.op_type}): {coefficients.size} coefficients and {intercepts.size} intercepts '
                f"do not make {rows} outputs"
            )
        inputs = [f"{name}.x", self.weight(f"{name}.weight", coefficients.reshape(rows, -1))]
        if intercepts.size:
            inputs.append(self.weight(f"{name}.bias", intercepts))
        return [
            helper.make_node("Cast", [node.input[0]], inputs[:1], f"{name}/Cast", to=TensorProto.FLOAT),
            helper.make_node("Gemm", inputs, [output], name, transB=1),
        ]

    def classifier(self, node: NodeProto) -> list[NodeProto]:
        """The scores, or probabilities, and the label of the largest if that is an integer, else its place."""
        name, labels = node.name or node.op_type, _ints(node, "classlabels_ints")
        strings = next((len(entry.strings) for entry in node.attribute if entry.name == "classlabels_strings"), 0)
        count = labels.size or strings
        if _floats(node, "intercepts").size == 1 and count == 2:
            return [node]  # one score for two classes has rules of its own
        self.added = True
        label, score = (*node.output, "", "")[:2]
        score = score or f"{name}.scores"
        transform = _TRANSFORMS.get(_text(node, "post_transform"))
        raw = f"{name}.logits" if transform else score
        nodes = self.linear(node, count, raw)
        if transform == "Softmax":
            nodes.append(helper.make_node("Softmax", [raw], [score], f"{name}/Softmax", axis=1))
        elif transform:
            nodes.append(helper.make_node(transform, [raw], [score], f"{name}/{transform}"))
        if label and labels.size:
            table = self.weight(f"{name}.labels", labels)
            place = f"{name}.place"
            nodes.append(helper.make_node("ArgMax", [raw], [place], f"{name}/ArgMax", axis=1, keepdims=0))
            nodes.append(helper.make_node("Gather", [table, place], [label], f"{name}/Gather"))
        elif label:
            nodes.append(helper.make_node("ArgMax", [raw], [label], f"{name}/ArgMax", axis=1, keepdims=0))
            self.as_tensor(label, TensorProto.INT64)
            self.warnings.append(f'node "{name}": its labels are text; "{label}" is the place of the class, from 0')
        return nodes

    def without_zip(self, node: NodeProto) -> list[NodeProto]:
        """What goes in, instead of a dict for each example."""
        self.added = True
        self.as_tensor(node.output[0], TensorProto.FLOAT)
        self.warnings.append(
            f'node "{node.name or "ZipMap"}": "{node.output[0]}" is a tensor here, not a dict for each example; '
            "export with options={id(model): {'zipmap': False}} to have the same elsewhere"
        )
        return [helper.make_node("Identity", [node.input[0]], [node.output[0]], node.name)]

    def weight(self, name: str, array: Any) -> str:
        """A new initialiser."""
        fresh, i = name, 1
        while fresh in self.taken:
            i += 1
            fresh = f"{name}_{i}"
        self.taken.add(fresh)
        self.graph.initializer.append(numpy_helper.from_array(array, fresh))
        return fresh

    def as_tensor(self, name: str, kind: int) -> None:
        """Has an output of the graph be what it has become, and those that only pass it on."""
        same = {name}
        for node in self.graph.node:
            if node.op_type == "Identity" and same.intersection(node.input):
                same.update(node.output)
        for value in self.graph.output:
            if value.name in same:
                value.type.Clear()
                value.type.tensor_type.elem_type = kind


def _attribute(node: NodeProto, name: str) -> Any:
    return next((entry for entry in node.attribute if entry.name == name), None)


def _floats(node: NodeProto, name: str) -> Any:
    entry = _attribute(node, name)
    return np.array([] if entry is None else entry.floats, np.float32)


def _ints(node: NodeProto, name: str) -> Any:
    entry = _attribute(node, name)
    return np.array([] if entry is None else entry.ints, np.int64)


def _int(node: NodeProto, name: str, default: int) -> int:
    entry = _attribute(node, name)
    return default if entry is None else int(entry.i)


def _text(node: NodeProto, name: str) -> str:
    entry = _attribute(node, name)
    return "" if entry is None else entry.s.decode(errors="replace")
