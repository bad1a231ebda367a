"""Small files of any kind, and what refusing them may cost."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from chainrule.engine import graph
from chainrule.engine.graph import GraphError, Limits

LIMITS = Limits(
    fields=2_000,
    numbers=10_000,
    nodes=300,
    weight_bytes=2**18,
    folded_bytes=2**18,
    tensor_bytes=2**19,
    activation_bytes=2**20,
)
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def to_load(content: bytes, limits: Limits = LIMITS) -> int:
    """The bytes that loading may take at most, as the limits' docstring says."""
    counted = 2**10 * limits.fields + 96 * limits.numbers + 2**13 * limits.nodes
    return 3 * len(content) + counted + limits.weight_bytes + 2 * limits.folded_bytes


@contextmanager
def at_most(count: int) -> Iterator[None]:
    """At no moment are more bytes allocated."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak <= count


def refused(model: onnx.ModelProto | bytes, message: str, limits: Limits = LIMITS) -> GraphError:
    """The error of loading, which costs no more than it may."""
    content = model if isinstance(model, bytes) else model.SerializeToString()
    with at_most(to_load(content, limits)), pytest.raises(GraphError, match=message) as caught:
        graph.load(content, limits=limits)
    return caught.value


# ---- Files ----


def value(name: str, *shape: Any, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def fixed(name: str, *numbers: Any, kind: Any = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(numbers, kind), name)


def node(op: str, inputs: str, outputs: str, name: str = "culprit", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), name=name, **attributes)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    initialisers: Sequence[onnx.TensorProto] = (),
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
    output: str = "y",
    opset: int = 18,
    **settings: Any,
) -> onnx.ModelProto:
    entering = [value("x", 2, 3)] if inputs is None else inputs
    made = helper.make_graph(
        list(nodes), "g", list(entering), [helper.make_empty_tensor_value_info(output)], list(initialisers)
    )
    settings.setdefault("opset_imports", [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)])
    return helper.make_model(made, ir_version=8, **settings)
