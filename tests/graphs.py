"""ONNX files for the tests of what takes them: a small network that trains, and others that nobody should take."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

FEATURES, HIDDEN, CLASSES = 8, 6, 10
OPSET = 17


def small_onnx(*, seed: int = 0, features: int = FEATURES, classes: int = CLASSES) -> bytes:
    """x → Linear → BatchNorm → ReLU → Linear, as PyTorch exports it in training mode, with its weights."""
    rng = np.random.default_rng(seed)
    weights = {
        "fc1.weight": rng.normal(size=(HIDDEN, features)).astype(np.float32),
        "fc1.bias": rng.normal(size=HIDDEN).astype(np.float32),
        "bn.weight": np.ones(HIDDEN, np.float32),
        "bn.bias": np.zeros(HIDDEN, np.float32),
        "bn.running_mean": np.zeros(HIDDEN, np.float32),
        "bn.running_var": np.ones(HIDDEN, np.float32),
        "fc2.weight": rng.normal(size=(classes, HIDDEN)).astype(np.float32),
        "fc2.bias": np.zeros(classes, np.float32),
    }
    norm = ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"]
    nodes = [
        helper.make_node("Gemm", ["x", "fc1.weight", "fc1.bias"], ["a"], name="/fc1/Gemm", transB=1),
        helper.make_node("BatchNormalization", ["a", *norm], ["b", "mean", "var"], name="/bn/Norm", training_mode=1),
        helper.make_node("Relu", ["b"], ["c"], name="/Relu"),
        helper.make_node("Gemm", ["c", "fc2.weight", "fc2.bias"], ["y"], name="/fc2/Gemm", transB=1),
    ]
    return model_of(nodes, weights, inputs={"x": ["batch", features]}, outputs={"y": ["batch", classes]})


def model_of(
    nodes: list[NodeProto],
    weights: dict[str, np.ndarray],
    *,
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    producer: str = "",
) -> bytes:
    """A model of float32 inputs and outputs. Nothing of it is checked."""
    taken, given = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
        for shapes in (inputs, outputs)
    )
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "network", taken, given, initializers)
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name=producer
    ).SerializeToString()
    return content


TOKENS, LENGTH = 12, 5


def two_inputs(*, seed: int = 0) -> bytes:
    """ids (N, 5) and mask (N, 5) → embedding → sum of what is not masked → kind (N, 3) and score (N, 1)."""
    rng = np.random.default_rng(seed)
    shapes = {"embedding": (TOKENS, 4), "kind.weight": (4, 3), "score.weight": (4, 1)}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Gather", ["embedding", "ids"], ["rows"], name="embed"),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"], name="column"),
        helper.make_node("Mul", ["rows", "column"], ["kept"], name="keep"),
        helper.make_node("ReduceSum", ["kept", "middle"], ["pooled"], name="pool", keepdims=0),
        helper.make_node("MatMul", ["pooled", "kind.weight"], ["kind"], name="kind"),
        helper.make_node("MatMul", ["pooled", "score.weight"], ["score"], name="score"),
    ]
    axes = {"last": np.array([2]), "middle": np.array([1])}
    model = ModelProto.FromString(
        model_of(
            nodes,
            {**weights, **axes},
            inputs={"ids": ["batch", LENGTH], "mask": ["batch", LENGTH]},
            outputs={"kind": ["batch", 3], "score": ["batch", 1]},
        )
    )
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    content: bytes = model.SerializeToString()
    return content


def folded() -> bytes:
    """x → Conv → mean → Linear, as PyTorch exports it for inference: BatchNorm is folded into the convolution, whose
    weights have no name any more."""
    weights = {
        "onnx::Conv_12": np.ones((2, 1, 3, 3), np.float32),
        "onnx::Conv_13": np.zeros(2, np.float32),
        "fc.weight": np.ones((CLASSES, 2), np.float32),
        "fc.bias": np.zeros(CLASSES, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "onnx::Conv_12", "onnx::Conv_13"], ["a"], name="/conv/Conv"),
        helper.make_node("GlobalAveragePool", ["a"], ["b"], name="/pool/GlobalAveragePool"),
        helper.make_node("Flatten", ["b"], ["c"], name="/Flatten"),
        helper.make_node("Gemm", ["c", "fc.weight", "fc.bias"], ["y"], name="/fc/Gemm", transB=1),
    ]
    shapes: dict[str, list[Any]] = {"x": ["batch", 1, 8, 8]}
    return model_of(nodes, weights, inputs=shapes, outputs={"y": ["batch", CLASSES]}, producer="pytorch")


def cyclic() -> bytes:
    """Two nodes, each of which takes what the other gives."""
    nodes = [
        helper.make_node("Relu", ["b"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="second"),
    ]
    return model_of(nodes, {}, inputs={"x": ["batch", 2]}, outputs={"b": ["batch", 2]})


def unsupported() -> bytes:
    """A network with two nodes that nobody can train, and one that can be."""
    nodes = [
        helper.make_node("StringNormalizer", ["x"], ["a"], name="clean up"),
        helper.make_node("Relu", ["a"], ["b"], name="fine"),
        helper.make_node("TfIdfVectorizer", ["b"], ["y"], name="count words"),
    ]
    return model_of(nodes, {}, inputs={"x": ["batch", 2]}, outputs={"y": ["batch", 2]})


def two_outputs() -> bytes:
    """A network that gives two tensors."""
    weight = np.ones((2, 2), np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], name="first"),
        helper.make_node("Relu", ["y"], ["z"], name="second"),
    ]
    return model_of(nodes, {"w": weight}, inputs={"x": ["batch", 2]}, outputs={"y": ["batch", 2], "z": ["batch", 2]})


def inflating(elements: int) -> bytes:
    """A network that repeats what it is given that many times, and then takes the mean."""
    sizes = numpy_helper.from_array(np.array([1, 1, elements], np.int64))
    nodes = [
        helper.make_node("Constant", [], ["sizes"], name="sizes", value=sizes),
        helper.make_node("Expand", ["x", "sizes"], ["large"], name="blow up"),
        helper.make_node("ReduceMean", ["large"], ["mean"], name="mean", axes=[2], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["y"], name="last"),
    ]
    weights = {"w": np.ones((2, 3), np.float32)}
    return model_of(nodes, weights, inputs={"x": ["batch", 2, 1]}, outputs={"y": ["batch", 3]})


def lying() -> bytes:
    """A weight that says that it has a thousand million elements, and brings four bytes."""
    model = ModelProto.FromString(small_onnx())
    model.graph.initializer[0].dims[0] = 10**9
    content: bytes = model.SerializeToString()
    return content


def huge(elements: int) -> bytes:
    """An architecture that asks for that many weights, and brings none."""
    shape = [elements // 1000, 1000]
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="large")
    inputs: dict[str, list[Any]] = {"x": ["batch", shape[0]], "w": [*shape]}
    model = ModelProto.FromString(model_of([node], {}, inputs=inputs, outputs={"y": ["batch", 1000]}))
    model.metadata_props.add(key="chainrule.weights", value='["w"]')
    content: bytes = model.SerializeToString()
    return content
