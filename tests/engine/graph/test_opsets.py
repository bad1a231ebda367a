"""Operators of elements, reductions, shapes and positions compute what onnxruntime computes, in several opsets.

Each case is loaded as a file of one node, so that reading, folding and bounds are in it, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

import chainrule.engine as cr
from chainrule.engine import graph
from chainrule.engine.dtypes import Array


@dataclass(frozen=True)
class Case:
    """A node, its inputs, and the opsets to try it in."""

    op: str
    inputs: tuple[Array | None, ...]
    opsets: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    given: tuple[int, ...] = (0,)
    """Which inputs are given to the forward; the others are initialisers."""
    domain: str = ""

    def __str__(self) -> str:
        settings = "-".join(
            f"{name}={value}" for name, value in self.attributes.items() if not isinstance(value, bytes)
        )
        shapes = "-".join("none" if x is None else f"{x.dtype.kind}{list(x.shape)}" for x in self.inputs)
        return f"{self.op}-{shapes}-{settings}"[:120]


def f(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def between(low: float, high: float, *shape: int) -> Array:
    return np.random.default_rng(list(shape)).uniform(low, high, shape).astype(np.float32)


def i(*values: Any, dtype: Any = np.int64) -> Array:
    return np.array(values, dtype)


def one(value: Any, dtype: Any = np.int64) -> Array:
    return np.array(value, dtype)


X = f(2, 3, 4)
NUMBERS = np.array([[-2.5, -1.5, -0.5, 0.0], [0.5, 1.5, 2.5, 7.0]], np.float32)
ODD = np.array([np.nan, np.inf, -np.inf, 1.0], np.float32)
TRUTHS = np.array([[True, False], [True, True]])
INTEGERS = np.array([[-7, 7, 5], [9, -3, 2]], np.int64)
Both = (0, 1)


def unary() -> list[Case]:
    plain = ("Abs", "Ceil", "Exp", "Floor", "Neg", "Relu", "Sigmoid", "Tanh", "Identity", "Softplus", "Softsign")
    cases = [Case(op, (NUMBERS,), (6 if op not in ("Identity", "Softplus", "Softsign") else 1, 13, 21)) for op in plain]
    cases += [Case(op, (between(0.1, 3, 2, 3),), (6, 13, 21)) for op in ("Log", "Sqrt", "Reciprocal")]
    cases += [Case(op, (between(-0.9, 0.9, 5),), (7, 22)) for op in ("Acos", "Asin", "Atan", "Cos", "Sin", "Tan")]
    cases += [Case(op, (between(-0.9, 0.9, 5),), (9, 22)) for op in ("Asinh", "Atanh", "Cosh", "Sinh", "Erf")]
    cases += [Case(op, (NUMBERS,), (9, 13)) for op in ("Sign",)]
    return [
        *cases,
        Case("Acosh", (between(1.1, 3, 5),), (9, 22)),
        Case("Round", (NUMBERS,), (11, 22)),
        Case("Mish", (NUMBERS,), (18, 22)),
        Case("HardSwish", (NUMBERS * 2,), (14, 22)),
        Case("Neg", (INTEGERS,), (13,)),
        Case("Abs", (INTEGERS,), (13,)),
        Case("IsNaN", (ODD,), (9, 13, 20)),
        Case("IsInf", (ODD,), (10, 20)),
        Case("IsInf", (ODD,), (10,), {"detect_negative": 0}),
        Case("IsInf", (ODD,), (10,), {"detect_positive": 0}),
        Case("Not", (TRUTHS,), (1, 13)),
        Case("BitwiseNot", (INTEGERS,), (18,)),
    ]


def activations() -> list[Case]:
    return [
        Case("LeakyRelu", (X,), (6, 16), {"alpha": 0.2}),
        Case("PRelu", (X, between(0.1, 0.5, 3, 1)), (7, 9, 16), given=Both),
        Case("PRelu", (X, between(0.1, 0.5, 1)), (9, 16), given=Both),
        Case("Elu", (X,), (6, 22), {"alpha": 0.7}),
        Case("Celu", (X,), (12,), {"alpha": 0.7}),
        Case("Selu", (X,), (6, 22)),
        Case("Selu", (X,), (6,), {"alpha": 1.1, "gamma": 0.9}),
        Case("ThresholdedRelu", (X,), (10, 22), {"alpha": 0.3}),
        Case("HardSigmoid", (X * 3,), (6, 22)),
        Case("HardSigmoid", (X * 3,), (6,), {"alpha": 1 / 6, "beta": 0.5}),
        Case("Gelu", (X,), (20,)),
        Case("Gelu", (X,), (20,), {"approximate": "tanh"}),
        Case("Shrink", (X,), (9,), {"lambd": 0.3}),
        Case("Shrink", (X,), (9,), {"lambd": 0.3, "bias": 0.2}),
        *[Case(op, (X,), (11, 13), {"axis": axis}) for op in ("Softmax", "LogSoftmax", "Hardmax") for axis in (1, -1)],
        *[Case(op, (X,), (1, 11, 13)) for op in ("Softmax", "LogSoftmax", "Hardmax")],
        Case("Dropout", (X,), (7, 10)),
        Case("Dropout", (X, one(0.3, np.float32), one(False, bool)), (12, 13, 22)),
        Case("Dropout", (X, one(0.3, np.float32)), (13,)),
        Case("Dropout", (X,), (12, 13), outputs=2),
    ]


def binary() -> list[Case]:
    y = f(3, 1, seed=1)
    arithmetic = [Case(op, (X, y), (7, 13, 14), given=Both) for op in ("Add", "Sub", "Mul", "Div")]
    comparisons = ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")
    return [
        *arithmetic,
        *[Case(op, (INTEGERS, i(2, -2, 3)), (7, 13), given=Both) for op in ("Add", "Sub", "Mul", "Div")],
        *[
            Case(
                op,
                (NUMBERS, i(0.5, 0, 0, 1, dtype=np.float32)),
                (12 if op.endswith("Equal") and op != "Equal" else 11, 16),
            )
            for op in comparisons
        ],
        *[Case(op, (INTEGERS, i(2, 2, 2)), (11, 13), given=Both) for op in ("Equal", "Greater", "Less")],
        *[Case(op, (TRUTHS, np.array([True, False])), (7,), given=Both) for op in ("And", "Or", "Xor")],
        Case("Equal", (TRUTHS, np.array([True, False])), (7, 13), given=Both),
        *[Case(op, (INTEGERS, i(3, 5, 6)), (18,), given=Both) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")],
        *[
            Case(
                "BitShift",
                (i(1, 4, 9, dtype=np.uint8), i(1, 2, 3, dtype=np.uint8)),
                (11,),
                {"direction": d},
                given=Both,
            )
            for d in ("LEFT", "RIGHT")
        ],
        Case("Pow", (between(0.1, 2, 2, 3), f(3)), (7, 13, 15), given=Both),
        Case("Pow", (NUMBERS, one(2.0, np.float32)), (7, 13)),
        Case("Pow", (NUMBERS, one(3)), (13,)),
        Case("Mod", (INTEGERS, i(3, -3, 4)), (10, 13), given=Both),
        Case("Mod", (INTEGERS, i(3, -3, 4)), (10,), {"fmod": 1}, given=Both),
        Case("Mod", (NUMBERS, one(1.3, np.float32)), (13,), {"fmod": 1}),
        *[Case(op, (X, f(4), f(3, 1)), (8, 13), given=(0, 1, 2)) for op in ("Max", "Min", "Sum", "Mean")],
        *[Case(op, (X,), (8, 13)) for op in ("Max", "Sum", "Mean")],
        Case("Max", (INTEGERS, i(0, 0, 3)), (12,), given=Both),
        Case("Where", (TRUTHS, f(2, 2), f(2)), (9, 16), given=(0, 1, 2)),
        Case("Where", (TRUTHS, i(1, 2), one(0)), (9,)),
        Case("Clip", (X,), (6, 10), {"min": -0.5, "max": 0.5}),
        Case("Clip", (X,), (6,), {"max": 0.5}),
        Case("Clip", (X, one(-0.5, np.float32), one(0.5, np.float32)), (11, 12, 13)),
        Case("Clip", (X, None, one(0.5, np.float32)), (11, 13)),
        Case("Clip", (INTEGERS, one(-1), one(5)), (12,)),
        *[Case("Cast", (NUMBERS,), (9, 13, 19, 21), {"to": to}) for to in (1, 6, 7, 9, 10, 11)],
        Case("Cast", (TRUTHS,), (13,), {"to": 1}),
        Case("CastLike", (NUMBERS, one(1)), (15, 19)),
    ]


def reductions() -> list[Case]:
    ops = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
    x, cases = between(0.2, 2, 2, 3, 4), []
    for op in ops:
        older = (1, 11, 12) if op == "Sum" else (1, 13, 17)
        newer = (13, 18) if op == "Sum" else (18,)
        for keep in (0, 1):
            cases += [Case(f"Reduce{op}", (x,), older, {"axes": [1, 2], "keepdims": keep})]
            cases += [Case(f"Reduce{op}", (x, i(-1, 0)), newer, {"keepdims": keep})]
        cases += [Case(f"Reduce{op}", (x,), (*older[-1:], *newer[-1:]))]
    cases += [Case("ReduceSum", (x,), (13,), {"noop_with_empty_axes": 1})]
    cases += [Case(op, (INTEGERS, i(1)), (18,)) for op in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd")]
    for op in ("ArgMax", "ArgMin"):
        cases += [Case(op, (X,), (1, 11, 13), {"axis": 1, "keepdims": keep}) for keep in (0, 1)]
        cases += [Case(op, (np.round(X),), (12, 13), {"axis": -1, "select_last_index": last}) for last in (0, 1)]
    return [
        *cases,
        Case("TopK", (X,), (1,), {"k": 2, "axis": 1}, outputs=2),
        Case("TopK", (X, i(2)), (10, 11), {"axis": -1}, outputs=2),
        Case("TopK", (X, i(3)), (11,), {"axis": 1, "largest": 0}, outputs=2),
        *[
            Case("CumSum", (X, one(axis)), (11, 14), {"exclusive": e, "reverse": r})
            for axis in (1, -1)
            for e in (0, 1)
            for r in (0, 1)
        ],
    ]


def shapes() -> list[Case]:
    image = f(1, 8, 2, 3)
    return [
        Case("Reshape", (X, i(0, -1)), (5, 13, 14, 21)),
        Case("Reshape", (X, i(4, 6)), (5, 19)),
        Case("Reshape", (f(0, 3), i(3, 0)), (14,), {"allowzero": 1}),
        *[Case("Flatten", (X,), (9 if axis >= 0 else 11, 13, 21), {"axis": axis}) for axis in (0, 1, 2, 3, -1)],
        Case("Squeeze", (f(1, 3, 1),), (1, 11), {"axes": [0]}),
        Case("Squeeze", (f(1, 3, 1), i(-1)), (13, 21)),
        Case("Squeeze", (f(1, 3, 1),), (11, 13)),
        Case("Unsqueeze", (X,), (1, 11), {"axes": [0, 2]}),
        Case("Unsqueeze", (X, i(-1, 1)), (13, 21)),
        Case("Transpose", (X,), (1, 13, 21), {"perm": [2, 0, 1]}),
        Case("Transpose", (X,), (1, 13)),
        *[Case("DepthToSpace", (image,), (11, 13), {"blocksize": 2, "mode": mode}) for mode in ("DCR", "CRD")],
        Case("SpaceToDepth", (f(1, 2, 4, 6),), (1, 13), {"blocksize": 2}),
        Case("Expand", (f(3, 1), i(2, 1, 4)), (8, 13)),
        Case("Expand", (f(3, 4), i(3, 1)), (8, 13)),
        Case("Tile", (X, i(1, 2, 3)), (6, 13)),
        *[Case("Concat", (X, f(2, 3, 4, seed=1)), (4, 11, 13), {"axis": axis}, given=Both) for axis in (1, 2)],
        Case("Concat", (X, X), (11,), {"axis": -1}, given=Both),
        Case("Split", (X,), (2, 11), {"axis": 2, "split": [1, 3]}, outputs=2),
        Case("Split", (X,), (2, 13), {"axis": 2}, outputs=2),
        Case("Split", (X, i(1, 2)), (13, 18), {"axis": 1}, outputs=2),
        Case("Split", (f(2, 5),), (18,), {"axis": 1, "num_outputs": 3}, outputs=3),
        *[
            Case("Pad", (image, i(0, 0, 1, 1, 0, 0, 1, 2)), (11, 13, 18), {"mode": m})
            for m in ("constant", "reflect", "edge")
        ],
        Case("Pad", (image,), (2, 10), {"pads": [0, 0, 1, 1, 0, 0, 0, 2], "value": 1.5}),
        Case("Pad", (image,), (2, 10), {"pads": [0, 0, 1, 1, 0, 0, 0, 2], "mode": "reflect"}),
        Case("Pad", (image, i(0, 1, 0, 0, 0, 2, 0, 0)), (13,), {"mode": "reflect"}),
        Case("Pad", (image, i(1, 1, 0, 0, 0, 2, 0, 1)), (13,), {"mode": "edge"}),
        Case("Pad", (image, i(0, 0, 0, -1, 0, 0, 0, 2), one(2.5, np.float32)), (11, 13)),
        Case("Pad", (image, i(1, 2), None, i(2)), (18,), {"mode": "constant"}),
        Case("Pad", (image, i(1, 2), None, i(3)), (19,), {"mode": "wrap"}),
        Case("Shape", (X,), (1, 13, 15, 21)),
        Case("Shape", (X,), (15,), {"start": 1, "end": -1}),
        Case("Size", (X,), (1, 13, 21)),
        Case("ConstantOfShape", (i(2, 3),), (9, 20), {"value": helper.make_tensor("v", 7, [1], [5])}, given=()),
        Case("ConstantOfShape", (i(2, 3),), (9,), given=()),
        *[Case("EyeLike", (f(3, 4),), (9, 22), {"k": k, "dtype": 7}) for k in (-1, 0, 2)],
        Case("Range", (one(1), one(10), one(3)), (11,), given=()),
        Case("Range", (one(3.0, np.float32), one(0.0, np.float32), one(-0.5, np.float32)), (11,), given=()),
        *[Case("Trilu", (f(2, 3, 4), one(k)), (14,), {"upper": upper}) for k in (-1, 0, 1) for upper in (0, 1)],
        *[
            Case("Constant", (), (12, 13), {name: value})
            for name, value in (
                ("value_float", 1.5),
                ("value_floats", [1.0, 2.0]),
                ("value_int", 3),
                ("value_ints", [4, 5]),
            )
        ],
        Case("Constant", (), (1, 13), {"value": helper.make_tensor("v", 1, [2], [1.0, 2.0])}),
    ]


def positions() -> list[Case]:
    return [
        Case("Slice", (X,), (1, 9), {"starts": [0, 1], "ends": [2, 1000], "axes": [0, 2]}),
        Case("Slice", (X, i(0, 1), i(2, 3)), (10, 13)),
        Case("Slice", (X, i(-1), i(-1000), i(2), i(-2)), (10, 13)),
        Case("Slice", (X, i(2), i(0), i(1), i(-1)), (13,)),
        Case("Slice", (X, i(1), i(9999999999), i(-1), i(2)), (13,)),
        Case("Gather", (X, i(1, 0, 1)), (1, 11, 13), given=Both),
        Case("Gather", (X, np.array([[0, -1], [2, 1]])), (11, 13), {"axis": 1}, given=Both),
        Case("Gather", (X, one(-1)), (11,), {"axis": 2}),
        Case("Gather", (f(5, 3), np.array([[0, 4], [2, 2]])), (13,), given=(1,)),
        Case("GatherElements", (X, np.array([[[0, -1, 1, 0]]])), (11, 13), {"axis": 0}, given=Both),
        Case("GatherND", (X, np.array([[0, 1], [1, -1]])), (11, 12, 13), given=Both),
        Case("GatherND", (X, np.array([[1], [2]])), (12, 13), {"batch_dims": 1}, given=Both),
        Case("ScatterElements", (f(3, 4), np.array([[0, 2, 1, 0]]), f(1, 4)), (11, 13, 16), {"axis": 0}, given=(0, 2)),
        Case(
            "ScatterElements",
            (f(3, 4), np.array([[0, 0]]), f(1, 2)),
            (16,),
            {"axis": 1, "reduction": "add"},
            given=(0, 2),
        ),
        Case("Scatter", (f(3, 4), np.array([[0, 2, 1, 0]]), f(1, 4)), (9, 10), {"axis": 0}, given=(0, 2)),
        Case("ScatterND", (f(3, 4), np.array([[2], [0]]), f(2, 4)), (11, 13, 16), given=(0, 2)),
        Case("ScatterND", (f(3, 4), np.array([[1], [1]]), f(2, 4)), (16,), {"reduction": "add"}, given=(0, 2)),
        Case("NonZero", (np.array([[1.0, 0.0], [2.0, 3.0]], np.float32),), (9, 13)),
        Case("Compress", (X, np.array([True, False, True])), (9, 11), {"axis": 1}, given=Both),
        Case("Compress", (f(2, 2), np.array([False, True, True])), (11,), given=Both),
        *[Case("OneHot", (INTEGERS, one(8), i(2, 5)), (9, 11), {"axis": axis}) for axis in (-1, 0, 1)],
        Case("OneHot", (i(0, 2), i(3), i(0, 1, dtype=np.float32)), (11,)),
    ]


def products() -> list[Case]:
    return [
        Case("MatMul", (f(2, 3, 4), f(4, 5)), (1, 9, 13), given=Both),
        Case("MatMul", (f(2, 1, 3, 4), f(5, 4, 2)), (13,), given=Both),
        Case("MatMul", (f(4), f(4, 3)), (13,), given=Both),
        Case("Gemm", (f(3, 4), f(4, 5), f(5)), (7, 9, 11, 13), given=(0, 1, 2)),
        Case("Gemm", (f(3, 4), f(5, 4)), (11, 13), {"transB": 1}, given=Both),
        Case("Gemm", (f(4, 3), f(4, 5), f(3, 1)), (13,), {"transA": 1, "alpha": 0.5, "beta": 2.0}, given=(0, 1, 2)),
        *[
            Case("Einsum", operands, (12,), {"equation": equation}, given=tuple(range(len(operands))))
            for equation, operands in (
                ("bij,bjk->bik", (f(2, 3, 4), f(2, 4, 5))),
                ("ij->ji", (f(3, 4),)),
                ("...ij,...kj->...ik", (f(2, 3, 4), f(2, 5, 4))),
                ("ij,jk", (f(3, 4), f(4, 2))),
            )
        ],
    ]


CASES = [*unary(), *activations(), *binary(), *reductions(), *shapes(), *positions(), *products()]
PARAMETERS = [pytest.param(case, opset, id=f"{case}-{opset}") for case in CASES for opset in case.opsets]


def file_of(case: Case, opset: int) -> tuple[bytes, dict[str, Array]]:
    """A file of the one node, and what its forward is given."""
    names = ["" if x is None else f"x{k}" for k, x in enumerate(case.inputs)]
    node = helper.make_node(
        case.op, names, [f"y{k}" for k in range(case.outputs)], "n", domain=case.domain, **case.attributes
    )
    given = {names[k]: x for k in case.given if k < len(case.inputs) and (x := case.inputs[k]) is not None}
    kinds = {name: helper.np_dtype_to_tensor_dtype(x.dtype) for name, x in given.items()}
    model = helper.make_model(
        helper.make_graph(
            [node],
            "one",
            [helper.make_tensor_value_info(name, kinds[name], x.shape) for name, x in given.items()],
            [helper.make_empty_tensor_value_info(f"y{k}") for k in range(case.outputs)],
            [
                onnx.numpy_helper.from_array(x, name)
                for name, x in zip(names, case.inputs, strict=True)
                if x is not None and name not in given
            ],
        ),
        opset_imports=[helper.make_opsetid(case.domain, opset)],
        ir_version=8 if opset < 20 else 10,
    )
    return model.SerializeToString(), given


def expected_of(content: bytes, given: dict[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return [np.asarray(y) for y in session.run(None, given)]


def outputs_of(result: cr.Tensor | dict[str, cr.Tensor]) -> list[cr.Tensor]:
    return list(result.values()) if isinstance(result, dict) else [result]


@pytest.mark.parametrize(("case", "opset"), PARAMETERS)
def test_it_computes_what_onnxruntime_computes(case: Case, opset: int) -> None:
    content, given = file_of(case, opset)
    try:
        expected = expected_of(content, given)
    except (
        onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented,
        onnxruntime.capi.onnxruntime_pybind11_state.Fail,
    ):
        pytest.skip("onnxruntime has no kernel for it in this opset")
    module = graph.load(content).eval()
    for _ in range(2):  # the second forward is a planned one
        found = outputs_of(module(**{name: cr.tensor(x) for name, x in given.items()}))
        assert len(found) == len(expected)
        for y, e in zip(found, expected, strict=True):
            assert y.dtype == e.dtype
            np.testing.assert_allclose(y.detach().numpy(), e, rtol=1e-5, atol=1e-6)


def test_every_case_that_is_skipped_is_tried_in_another_opset() -> None:
    """What onnxruntime has no kernel for, in any opset of a case, would not be compared at all."""
    for case in CASES:
        if len(case.opsets) > 1:
            assert any(_runs(*file_of(case, opset)) for opset in case.opsets), str(case)


def _runs(content: bytes, given: dict[str, Array]) -> bool:
    errors = onnxruntime.capi.onnxruntime_pybind11_state
    try:
        expected_of(content, given)
    except (errors.NotImplemented, errors.Fail):
        return False
    return True


# ---- Gradients ----

STEPS = {
    *(
        "ArgMax",
        "ArgMin",
        "Cast",
        "CastLike",
        "Ceil",
        "Equal",
        "EyeLike",
        "Floor",
        "Greater",
        "GreaterOrEqual",
        "Hardmax",
    ),
    *("IsInf", "IsNaN", "Less", "LessOrEqual", "Mod", "NonZero", "OneHot", "Round", "Shape", "Sign", "Size"),
}


def differentiable(case: Case) -> bool:
    given = [case.inputs[k] for k in case.given if k < len(case.inputs)]
    return bool(given) and case.op not in STEPS and all(x is not None and x.dtype == np.float32 for x in given)


@pytest.mark.parametrize("case", [pytest.param(case, id=str(case)) for case in CASES if differentiable(case)])
def test_gradients_are_those_of_differences(case: Case) -> None:
    """Along a random direction, in float64: ∂f/∂v = (f(x + εv) − f(x − εv)) / 2ε."""
    content, given = file_of(case, case.opsets[-1])
    module, draws, epsilon = graph.load(content).eval(), np.random.default_rng(3), 1e-6
    at = {name: x + draws.uniform(0.01, 0.02, x.shape) for name, x in given.items()}  # beside kinks
    along = {name: draws.standard_normal(x.shape) for name, x in at.items()}

    def value(tensors: dict[str, cr.Tensor]) -> cr.Tensor:
        y = outputs_of(module(**tensors))[0]
        return (y * cr.tensor(np.cos(np.arange(y.numel())).reshape(y.shape))).sum()

    tensors = {name: cr.tensor(x, requires_grad=True) for name, x in at.items()}
    value(tensors).backward()
    slope = sum(float((x.grad.numpy() * along[name]).sum()) for name, x in tensors.items() if x.grad is not None)
    high, low = (value({k: cr.tensor(x + e * along[k]) for k, x in at.items()}).item() for e in (epsilon, -epsilon))
    assert slope == pytest.approx((high - low) / (2 * epsilon), rel=1e-4, abs=1e-6)
