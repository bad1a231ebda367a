"""What an operator takes is a small multiple of what is compared with the limits before it is computed."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from onnx import helper

import chainrule.engine as cr
from chainrule.engine import graph
from chainrule.engine.dtypes import Array
from chainrule.engine.graph import program
from tests.engine.graph.hostile import fixed, model_of, node, value

COUNT = 2**16
TIMES = 5
"""The result, and what is made on the way to it, as `Limits` says."""
SLACK = 2**16


def of(dtype: Any, *shape: int) -> Array:
    return (np.arange(np.prod(shape)).reshape(shape) % 3).astype(dtype)


NARROW = (np.bool_, np.int8, np.uint8, np.float16, np.float32)
ELEMENTWISE = ("Not", "Neg", "Abs", "Exp", "Sqrt", "Relu", "Sigmoid", "Mish", "Softplus", "IsNaN", "Round", "Sign")
ALONG = ("Softmax", "LogSoftmax", "Hardmax", "ArgMax", "ReduceSum", "ReduceMean", "ReduceLogSumExp", "ReduceProd")
CASES: dict[str, tuple[Any, list[Any], list[Array]]] = {
    **{f"{op} of {np.dtype(t)}": (node(op, "x", "y"), [], [of(t, COUNT)]) for op in ELEMENTWISE for t in NARROW},
    **{f"{op} of {np.dtype(t)}": (node(op, "x", "y"), [], [of(t, 256, 256)]) for op in ALONG for t in NARROW},
    **{
        f"Cast of {np.dtype(t)} to {to}": (node("Cast", "x", "y", to=to), [], [of(t, COUNT)])
        for t in NARROW
        for to in (1, 7, 11)
    },
    **{
        f"{op} of {np.dtype(t)}": (node(op, "x z", "y"), [], [of(t, COUNT), of(t, COUNT) + t(1)])
        for op in ("Add", "Div", "Pow", "Mod", "Max", "Mean", "Equal")
        for t in NARROW[1:]
    },
    "CastLike": (node("CastLike", "x z", "y"), [], [of(np.int8, COUNT), of(np.float64, 1)]),
    "Add of an integer and a float": (node("Add", "x z", "y"), [], [of(np.int8, COUNT), of(np.float64, 1)]),
    "Where": (node("Where", "x z z", "y"), [], [of(np.bool_, COUNT), of(np.float32, COUNT)]),
    "OneHot to doubles": (
        node("OneHot", "x n v", "y"),
        [fixed("n", 64), fixed("v", 0, 1, kind=np.float64)],
        [of(np.uint8, COUNT // 16)],
    ),
    "NonZero": (node("NonZero", "x", "y"), [], [np.ones((256, 256), np.bool_)]),
    "TopK": (node("TopK", "x n", "y i"), [fixed("n", 256)], [of(np.float16, 256, 256)]),
    "CumSum": (node("CumSum", "x n", "y"), [fixed("n", 1)], [of(np.int8, 256, 256)]),
    "EyeLike": (node("EyeLike", "x", "y", dtype=11), [], [of(np.int8, 256, 256)]),
    "Gather": (node("Gather", "z x", "y"), [], [of(np.uint8, COUNT), of(np.int8, 3)]),
    "GatherElements": (node("GatherElements", "z x", "y"), [], [of(np.int8, COUNT), of(np.int8, 3)]),
    "ScatterElements": (node("ScatterElements", "z x z", "y"), [], [of(np.int8, 3), of(np.int8, 3)]),
    "Tile": (node("Tile", "x n", "y"), [fixed("n", COUNT)], [of(np.int8, 4)]),
    "Expand": (node("Expand", "x n", "y"), [fixed("n", COUNT, 4)], [of(np.float16, 4)]),
    "Pad at the edge": (node("Pad", "x n", "y", mode="edge"), [fixed("n", 0, COUNT)], [of(np.float16, 4)]),
    "Range": (node("Range", "x z n", "y"), [fixed("n", 1)], [of(np.int64, 1), np.array([COUNT])]),
    "ConstantOfShape": (node("ConstantOfShape", "x", "y"), [], [np.array([COUNT])]),
    "Resize": (
        node("Resize", "x r n", "y", mode="linear"),
        [fixed("r", kind=np.float32), fixed("n", 1, 1, 64, 64, kind=np.float32)],
        [of(np.float32, 1, 1, 4, 4)],
    ),
    "Concat": (node("Concat", "x z", "y", axis=0), [], [of(np.int8, COUNT), of(np.int8, COUNT)]),
    "MatMul of integers": (node("MatMul", "x z", "y"), [], [of(np.int8, 256, 1), of(np.int8, 1, 256)]),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_an_operator_takes_no_more_than_it_is_said_to(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, initialisers, given = CASES[name]
    inputs = [
        value(n, *x.shape, kind=helper.np_dtype_to_tensor_dtype(x.dtype)) for n, x in zip("xz", given, strict=False)
    ]
    module = graph.load(model_of([made], initialisers, inputs).SerializeToString()).eval()
    stated: list[int] = []

    def noted(call: program.Call, args: Any, limit: int) -> None:
        low = 0
        while low < limit:  # the least limit under which it is not refused
            middle = (low + limit) // 2
            try:
                checked(call, args, middle)
                limit = middle
            except graph.GraphError:
                low = middle + 1
        stated.append(low)

    checked = program.check
    monkeypatch.setattr(program, "check", noted)
    tensors = [cr.tensor(x) for x in given]
    with cr.no_grad(), suppress(graph.GraphError):  # not every dtype is computed with
        module(*tensors)  # what is made once, however large the inputs are, is made now
    module._program._plans.clear()
    stated.clear()
    tracemalloc.start()
    with cr.no_grad(), suppress(graph.GraphError):
        module(*tensors)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken <= TIMES * sum(stated) + SLACK
