"""What exporters write in a roundabout way is computed: parts of lists, averages of columns, names of Keras."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest

import chainrule.engine as cr
from chainrule.engine import graph
from tests.engine.graph.making import content, draw, node, value


def agrees(file: bytes, *shape: int) -> graph.GraphModule:
    """The module, whose output is onnxruntime's."""
    x, module = draw(*shape), graph.load(file).eval()
    (expected,) = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    for _ in range(2):
        y = module(cr.tensor(x))
        assert isinstance(y, cr.Tensor)
        np.testing.assert_allclose(y.numpy(force=True), expected, rtol=1e-5, atol=1e-6)
    return module


@pytest.mark.parametrize("sections", [np.array([1, 2, 1]), np.array(3), np.array(2), None], ids=str)
@pytest.mark.parametrize("position", [0, 1, -1])
def test_a_part_of_a_list_is_taken_out_of_the_tensor(sections: Any, position: int) -> None:
    weights = {"p": np.array(position), **({} if sections is None else {"s": sections})}
    parts = node("SplitToSequence", "x" if sections is None else "x s", "parts", axis=1)
    agrees(content([parts, node("SequenceAt", "parts p", "h"), node("Neg", "h", "y")], weights), 2, 4)


def test_a_list_that_is_used_otherwise_is_refused() -> None:
    nodes = [node("SplitToSequence", "x", "parts", axis=1), node("SequenceLength", "parts", "y")]
    with pytest.raises(graph.UnsupportedError) as caught:
        graph.load(content(nodes))
    assert [op for _, op, _, _ in caught.value.nodes] == ["ai.onnx::SplitToSequence", "ai.onnx::SequenceLength"]


def test_averages_of_columns() -> None:
    pool = node("AveragePool", "x", "y", kernel_shape=[3, 1, 1], pads=[1, 0, 0, 1, 0, 0], strides=[2, 1, 1])
    agrees(content([pool], inputs=[value("x", ("N", 1, 5, 2, 3))]), 2, 1, 5, 2, 3)


def test_names_of_keras_are_kept() -> None:
    """As tf2onnx writes a Dense and a BatchNormalization; its own constants are not learnt."""
    dense, norm = "model/dense", "model/batch_normalization"
    nodes = [
        node("MatMul", f"x {dense}/MatMul/ReadVariableOp:0", "h", f"{dense}/MatMul"),
        node("Add", f"h {dense}/BiasAdd/ReadVariableOp:0", "b", f"{dense}/BiasAdd"),
        node(
            "BatchNormalization",
            f"b {norm}/gamma:0 {norm}/beta:0 {norm}/mean:0 {norm}/variance:0",
            "n",
            f"{norm}/Fused",
        ),
        node("Mul", "n const_fold_opt__9", "y", "scale"),
    ]
    weights = {
        f"{dense}/MatMul/ReadVariableOp:0": draw(4, 5),
        f"{dense}/BiasAdd/ReadVariableOp:0": draw(5),
        f"{norm}/gamma:0": draw(5),
        f"{norm}/beta:0": draw(5),
        f"{norm}/mean:0": draw(5),
        f"{norm}/variance:0": np.ones(5, np.float32),
        "const_fold_opt__9": np.full(5, 2, np.float32),
    }
    module = agrees(content(nodes, weights, producer="tf2onnx"), 3, 4)
    assert set(dict(module.named_parameters())) == {
        f"{dense}/MatMul/ReadVariableOp:0",
        f"{dense}/BiasAdd/ReadVariableOp:0",
        f"{norm}/Fused.weight",
        f"{norm}/Fused.bias",
    }
    assert module.names[f"{norm}/Fused.weight"] == f"{norm}/gamma:0"
    assert f"{norm}/Fused.running_mean" in dict(module.named_buffers())
