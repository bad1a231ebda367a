"""Small ONNX files, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from chainrule.engine.dtypes import Array

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def value(name: str, shape: Sequence[int | str | None] | None = ("N", 4), kind: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def tensor(name: str, array: Any) -> Any:
    return numpy_helper.from_array(np.asarray(array, order="C"), name)


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def model(
    nodes: Sequence[Any],
    weights: dict[str, Any] | None = None,
    *,
    inputs: Sequence[Any] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
    functions: Sequence[Any] = (),
    producer: str = "test",
    domains: Sequence[str] = (),
) -> ModelProto:
    """A model of these nodes, from x (N, 4) to y."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [value("x")] if inputs is None else list(inputs),
        [value(name, ("N", "M")) for name in outputs],
        [tensor(name, array) for name, array in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(
        graph, opset_imports=opsets, functions=list(functions), producer_name=producer, ir_version=8
    )


def content(*args: Any, **kwargs: Any) -> bytes:
    """`model` as a file."""
    return bytes(model(*args, **kwargs).SerializeToString())


def node(op: str, inputs: str, outputs: str, name: str = "", **attributes: Any) -> Any:
    """A node, its inputs and outputs separated by blanks; `-` for one that is not there."""
    names = [["" if x == "-" else x for x in text.split()] for text in (inputs, outputs)]
    return helper.make_node(op, names[0], names[1], name or op.lower(), **attributes)
