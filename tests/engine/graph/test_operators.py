"""Elementary operators compute what onnxruntime computes, or ONNX's reference where it has no such kernel.

Each case is a file of one node, so that reading, folding and bounds are in it, too; and it is tried in every version of
its operator that can say it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import chainrule.engine as cr
from chainrule.engine import graph
from chainrule.engine.autograd import gradcheck
from chainrule.engine.dtypes import Array, is_floating
from chainrule.engine.graph.registry import find
from tests.engine.graph import test_neural_operators
from tests.engine.graph.operator_cases import CASES, Case, is_message, tensor

ELSEWHERE = {
    "BatchNormalization": "has statistics that the module keeps; test_zoo compares it",
}
"""Operators without a case here or in test_neural_operators."""

WITHOUT_KERNEL = {"CumProd", "Swish"}
"""What onnxruntime does not compute in any version here; ONNX's reference does."""

# ---- Models of one node ----


def model_of(given: Case, dtype: Any = None) -> onnx.ModelProto:
    """The node alone, with what decides shapes as initialisers; its floats in another dtype if that is given."""
    row = find("", given.op, given.opset)
    assert not isinstance(row, str), row
    inputs = [None if x is None else converted(x, dtype) for x in given.inputs]
    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    attributes: dict[str, Any] = {k: v if not is_message(v) else retyped(v, dtype) for k, v in given.attributes.items()}
    node = helper.make_node(given.op, names, [f"y{i}" for i in range(given.outputs)], name="n", **attributes)
    entered = [
        (n, x) for i, (n, x) in enumerate(zip(names, inputs, strict=True)) if x is not None and i not in row.host
    ]
    fixed = [(names[i], x) for i, x in enumerate(inputs) if x is not None and i in row.host]
    graph_proto = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in entered],
        [helper.make_empty_tensor_value_info(f"y{i}") for i in range(given.outputs)],
        [numpy_helper.from_array(x, n) for n, x in fixed],
    )
    opsets = [helper.make_opsetid("", given.opset)]
    return helper.make_model(graph_proto, opset_imports=opsets, ir_version=8 if given.opset < 20 else 10)


def converted(x: Array, dtype: Any) -> Array:
    return x.astype(dtype) if dtype is not None and is_floating(x.dtype) else x


def retyped(message: onnx.TensorProto, dtype: Any) -> onnx.TensorProto:
    return tensor(converted(numpy_helper.to_array(message), dtype))


def entering(given: Case) -> list[Array]:
    """What the model takes as inputs."""
    row = find("", given.op, given.opset)
    assert not isinstance(row, str)
    return [x for i, x in enumerate(given.inputs) if x is not None and i not in row.host]


def theirs(given: Case, model: onnx.ModelProto) -> list[Array]:
    names = [value.name for value in model.graph.input]
    feeds = dict(zip(names, entering(given), strict=True))
    if given.op in WITHOUT_KERNEL:
        return list(map(np.asarray, ReferenceEvaluator(model).run(None, feeds)))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(y) for y in session.run(None, feeds)]


def results_of(module: graph.GraphModule, inputs: Sequence[Any]) -> list[Any]:
    y = module(*inputs)
    return list(y.values()) if isinstance(y, dict) else [y]


# ---- Versions ----


@cache
def schemas() -> dict[str, list[Any]]:
    """What ONNX's own operators take, in each of their versions."""
    found: dict[str, list[Any]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain:
            found.setdefault(schema.name, []).append(schema)
    return found


def versions(given: Case) -> Iterator[Case]:
    """The case in the opset it names, and in every other in which its operator changed and can still say it."""
    yield given
    for schema in schemas()[given.op]:
        opset = schema.since_version
        if opset == given.opset or isinstance(find("", given.op, opset), str) or schema.deprecated:
            continue
        needed = {name for name, attribute in schema.attributes.items() if attribute.required}
        formal = [*schema.inputs, *schema.inputs[-1:] * len(given.inputs)]
        if (
            needed <= given.attributes.keys() <= schema.attributes.keys()
            and schema.min_input <= len(given.inputs) <= schema.max_input
            and schema.min_output <= given.outputs <= schema.max_output
            and all(x is None or _named(x) in f.types for f, x in zip(formal, given.inputs, strict=False))
        ):
            yield replace(given, opset=opset)


def _named(x: Array) -> str:
    kinds = {"float32": "float", "float64": "double"}
    return f"tensor({kinds.get(x.dtype.name, x.dtype.name)})"


# ---- Claims ----


@pytest.mark.parametrize("given", CASES, ids=str)
def test_it_computes_what_onnxruntime_computes(given: Case) -> None:
    for version in versions(given):
        model = model_of(version)
        try:
            expected = theirs(version, model)
        except NO_KERNEL:
            assert version is not given, "onnxruntime has no kernel for it: choose another opset"
            continue
        check(version, model, expected)


NO_KERNEL = tuple(
    getattr(onnxruntime.capi.onnxruntime_pybind11_state, name) for name in ("NotImplemented", "Fail", "InvalidGraph")
)


def check(given: Case, model: onnx.ModelProto, expected: list[Array]) -> None:
    """Raises AssertionError unless the file loads and gives what is expected."""
    module = graph.load(model.SerializeToString()).eval()
    for _ in range(2):  # the first forward makes a plan, the second follows it
        mine = [y.numpy() for y in results_of(module, [cr.tensor(x) for x in entering(given)])]
        assert [(y.dtype, y.shape) for y in mine] == [(e.dtype, e.shape) for e in expected]
        for y, e in zip(mine, expected, strict=True):
            np.testing.assert_allclose(y, e, rtol=1e-5, atol=1e-5)


def is_smooth(given: Case) -> bool:
    floats = any(is_floating(x.dtype) and x.size for x in entering(given))
    return floats and not given.flat and given.op not in FLAT


FLAT = {"ArgMax", "ArgMin", "EyeLike", "IsInf", "IsNaN", "NonZero", "Shape", "Size", "Equal", "Greater", "Less", "Cast"}
FLAT |= {"GreaterOrEqual", "LessOrEqual", "Sign", "CastLike"}


@pytest.mark.parametrize("given", [given for given in CASES if is_smooth(given)], ids=str)
def test_its_gradient_is_that_of_numeric_differences(given: Case) -> None:
    module = graph.load(model_of(given, np.float64).SerializeToString()).eval()
    inputs = [cr.tensor(converted(x, np.float64)) for x in entering(given)]
    learnt = [i for i, x in enumerate(inputs) if is_floating(x.dtype)]

    def function(*floats: Any) -> Any:
        values = list(inputs)
        for i, x in zip(learnt, floats, strict=True):
            values[i] = x
        return results_of(module, values)[0]

    assert gradcheck(function, [inputs[i].clone().requires_grad_() for i in learnt])


def test_every_operator_is_compared_with_another_implementation() -> None:
    source = inspect.getsource(test_neural_operators)
    compared = {given.op for given in CASES} | set(re.findall(r'"([A-Z]\w+)"', source)) | ELSEWHERE.keys()
    assert {row.op for row in graph.operators() if not row.domain} - compared == set()
    assert len(ELSEWHERE) <= 5
