"""Elementary operators compute what onnxruntime computes, or ONNX's reference where it has no such kernel."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import chainrule.engine as cr
from chainrule.engine import graph
from chainrule.engine.autograd import gradcheck
from chainrule.engine.dtypes import Array, is_floating
from chainrule.engine.graph.registry import find
from tests.engine.graph import test_neural_operators

# ---- Cases ----


@dataclass(frozen=True)
class Case:
    """A node and what it is given."""

    op: str
    opset: int
    inputs: tuple[Array | None, ...]
    outputs: int = 1
    attributes: dict[str, Any] = field(default_factory=dict)
    flat: bool = False
    """Whether numeric differences say nothing of its gradient: it steps, or has a kink at what it is given."""

    def __str__(self) -> str:
        shapes = ",".join("none" if x is None else "x".join(map(str, x.shape)) or "()" for x in self.inputs)
        settings = ",".join(f"{name}={value}" for name, value in self.attributes.items() if not _is_message(value))
        return f"{self.op}-{self.opset}-{shapes}-{settings}"


def _is_message(value: Any) -> bool:
    return isinstance(value, onnx.TensorProto)


def case(op: str, opset: int, *inputs: Array | None, outputs: int = 1, flat: bool = False, **attributes: Any) -> Case:
    return Case(op, opset, inputs, outputs, attributes, flat)


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([7, seed, *shape]).standard_normal(shape).astype(np.float32)


def positive(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([8, seed, *shape]).uniform(0.5, 1.5, shape).astype(np.float32)


def inside(*shape: int) -> Array:
    """Between −1 and 1."""
    return np.random.default_rng([9, *shape]).uniform(-0.9, 0.9, shape).astype(np.float32)


def whole(*numbers: Any) -> Array:
    return np.array(numbers, np.int64)


def number(value: float, dtype: Any = np.float32) -> Array:
    return np.array(value, dtype)


def truths(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([10, seed, *shape]).random(shape) < 0.5


def tensor(array: Array) -> onnx.TensorProto:
    return numpy_helper.from_array(array)


NAN = np.array([1.5, np.nan, np.inf, -np.inf, 0.0], np.float32)
HALVES = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.3, -7.7], np.float32)
BYTES, MORE_BYTES = np.array([1, 130, 255, 64], np.uint8), np.array([3, 2, 7, 1], np.uint8)
SIGNED, DIVISORS = np.array([7, -7, 7, -7, 6], np.int64), np.array([3, 3, -3, -3, 2], np.int64)
SIGNS = {op: np.array([1, -1, 1], np.float32) for op in ("ReduceL1", "ReduceL2", "ReduceSumSquare")}
GRID = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
LIMITS: tuple[dict[str, Any], ...] = ({}, {"min": -0.4}, {"max": 0.2}, {"min": -0.4, "max": 0.2})

UNARY = [
    *(case(op, 13, draw(2, 3)) for op in ("Abs", "Exp", "Neg", "Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh", "Asinh")),
    *(case(op, 13, draw(2, 3)) for op in ("Erf", "Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Sign")),
    *(case(op, 6, positive(2, 3)) for op in ("Log", "Sqrt", "Reciprocal", "Abs", "Exp", "Neg")),
    *(case(op, 13, inside(5)) for op in ("Acos", "Asin", "Atanh")),
    *(case(op, 13, HALVES, flat=True) for op in ("Ceil", "Floor", "Round")),
    case("Acosh", 13, 1 + positive(4)),
    case("Abs", 13, whole(-3, 0, 2)),
    case("Neg", 13, whole(-3, 0, 2)),
    case("Sign", 13, whole(-3, 0, 2)),
    case("Not", 13, truths(5)),
    case("BitwiseNot", 18, whole(0, 5, -3)),
    case("BitwiseNot", 18, BYTES),
    case("IsNaN", 13, NAN),
    case("IsInf", 20, NAN),
    case("IsInf", 10, NAN, detect_negative=0),
    case("IsInf", 10, NAN, detect_positive=0),
    case("IsInf", 20, NAN, detect_positive=0, detect_negative=0),
    case("Abs", 13, draw(0, 3)),
    case("Exp", 13, draw()),
]

ACTIVATIONS = [
    case("LeakyRelu", 6, draw(2, 5)),
    case("LeakyRelu", 16, draw(2, 5), alpha=0.3),
    case("PRelu", 7, draw(2, 3, 2), number(0.2).reshape(1)),
    case("PRelu", 16, draw(2, 3, 2), positive(3, 1)),
    case("ThresholdedRelu", 10, draw(9)),
    case("ThresholdedRelu", 22, draw(9), alpha=0.1),
    case("Elu", 6, draw(9)),
    case("Elu", 22, draw(9), alpha=0.5),
    case("Celu", 12, draw(9)),
    case("Celu", 12, draw(9), alpha=0.5),
    case("Selu", 6, draw(9)),
    case("Selu", 22, draw(9), alpha=1.2, gamma=0.7),
    case("HardSigmoid", 6, 3 * draw(9)),
    case("HardSigmoid", 22, 3 * draw(9), alpha=1 / 6, beta=0.5),
    case("HardSwish", 14, 3 * draw(9)),
    case("Mish", 18, draw(9)),
    case("Gelu", 20, draw(9)),
    case("Gelu", 20, draw(9), approximate="tanh"),
    case("Swish", 24, draw(9)),
    case("Swish", 24, draw(9), alpha=1.7),
    case("Shrink", 9, draw(9)),
    case("Shrink", 9, draw(9), lambd=0.3, bias=0.2),
    *(case(op, 13, draw(2, 3, 4)) for op in ("Softmax", "LogSoftmax")),
    *(case(op, 11, draw(2, 3, 4)) for op in ("Softmax", "LogSoftmax")),
    *(case(op, opset, draw(2, 3, 4), axis=1) for op in ("Softmax", "LogSoftmax") for opset in (11, 13)),
    *(case("Softmax", opset, draw(2, 3, 4), axis=0) for opset in (1, 12, 22)),
    case("Softmax", 11, draw(2, 3, 4), axis=-2),
    *(case("Hardmax", opset, draw(2, 3, 4), flat=True) for opset in (11, 13)),
    case("Hardmax", 11, draw(2, 3, 4), flat=True, axis=0),
    case("Hardmax", 13, draw(2, 3, 4), flat=True, axis=1),
    case("Dropout", 7, draw(2, 3), ratio=0.4),
    case("Dropout", 10, draw(2, 3), outputs=1),
    case("Dropout", 12, draw(2, 3), number(0.3)),
    case("Dropout", 13, draw(2, 3), number(0.3), np.array(False), outputs=2),
    case("Dropout", 13, draw(2, 3)),
]

ARITHMETIC = [
    *(case(op, 7, draw(2, 3), positive(3)) for op in ("Add", "Sub", "Mul", "Div")),
    *(case(op, 14, draw(2, 1, 3), positive(4, 1)) for op in ("Add", "Sub", "Mul", "Div")),
    *(case(op, 14, SIGNED, DIVISORS) for op in ("Add", "Sub", "Mul", "Div", "Mod")),
    case("Mod", 13, SIGNED, DIVISORS, fmod=1),
    case("Mod", 13, 3 * draw(6), positive(6), fmod=1),
    *(case("BitShift", 11, BYTES, MORE_BYTES, direction=direction) for direction in ("LEFT", "RIGHT")),
    *(case(op, 18, SIGNED, DIVISORS) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    *(case(op, 7, truths(2, 3), truths(3, seed=1)) for op in ("And", "Or", "Xor")),
    *(case(op, 13, GRID % 3, GRID[0] % 2) for op in ("Equal", "Greater", "Less")),
    *(case(op, 16, GRID % 3, GRID[0] % 2) for op in ("GreaterOrEqual", "LessOrEqual")),
    *(case(op, 13, SIGNED, DIVISORS) for op in ("Equal", "Greater", "Less")),
    case("Equal", 13, truths(6), truths(6, seed=1)),
    case("Pow", 7, positive(2, 3), number(2)),
    case("Pow", 13, positive(2, 3), draw(3)),
    case("Pow", 13, draw(2, 3), whole(3)),
    case("Pow", 15, whole(2, 3, -4), whole(2)),
    case("Pow", 13, positive(3), np.array([[[0.5]]], np.float32)),
    *(case(op, 8, draw(2, 3), draw(3), draw(2, 1)) for op in ("Max", "Min", "Sum", "Mean")),
    *(case(op, 13, draw(2, 3)) for op in ("Max", "Min", "Sum", "Mean")),
    *(case(op, 13, SIGNED, DIVISORS) for op in ("Max", "Min")),
    case("Where", 9, truths(2, 3), draw(3), draw(2, 1)),
    case("Where", 16, truths(3), SIGNED[:3], number(4, np.int64)),
    *(case("Clip", 6, draw(9), **limits) for limits in LIMITS),
    case("Clip", 11, draw(9)),
    case("Clip", 11, draw(9), number(-0.4)),
    case("Clip", 13, draw(9), None, number(0.2)),
    case("Clip", 13, draw(9), number(-0.4), number(0.2)),
    case("Clip", 13, SIGNED, number(-2, np.int64), number(6, np.int64)),
    case("Clip", 13, draw(9), number(0.5), number(-0.5), flat=True),
    *(case("Cast", 13, 3 * draw(9), flat=True, to=int(to)) for to in (TensorProto.INT64, TensorProto.INT32)),
    *(case("Cast", 9, np.array([0, 0.5, -2], np.float32), to=int(to)) for to in (TensorProto.BOOL, TensorProto.INT8)),
    case("Cast", 13, draw(9), to=TensorProto.DOUBLE),
    case("Cast", 13, draw(9), to=TensorProto.FLOAT16),
    case("Cast", 13, truths(5), to=TensorProto.FLOAT),
    case("Cast", 13, SIGNED, to=TensorProto.FLOAT),
    case("CastLike", 15, SIGNED, draw(1)),
    case("CastLike", 15, draw(4), whole(1), flat=True),
]

PRODUCTS = [
    *(case("MatMul", 13, draw(*a), draw(*b, seed=1)) for a, b in [((2, 3), (3, 4)), ((3,), (3, 2)), ((2, 3), (3,))]),
    case("MatMul", 1, draw(2, 1, 2, 3), draw(2, 3, 2)),
    case("MatMul", 13, draw(4), draw(4, seed=1)),
    case("Gemm", 13, draw(2, 3), draw(3, 4)),
    case("Gemm", 7, draw(2, 3), draw(3, 4), draw(4)),
    case("Gemm", 11, draw(2, 3), draw(4, 3), draw(4), transB=1),
    case("Gemm", 13, draw(3, 2), draw(4, 3), draw(2, 1), transA=1, transB=1, alpha=0.5, beta=2.0),
    case("Gemm", 13, draw(2, 3), draw(3, 2), draw(), beta=0.5),
    case("Einsum", 12, draw(2, 3, 4), draw(2, 4, 2), equation="bij,bjk->bik"),
    case("Einsum", 12, draw(3, 3), equation="ii->i"),
    case("Einsum", 12, draw(2, 3), draw(3), equation="ij,j"),
    case("Einsum", 12, draw(2, 2, 3), draw(4, 3), equation="...d, hd -> ...h"),
]

REDUCES = [f"Reduce{how}" for how in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum")]
REDUCES += ["ReduceSumSquare"]
REDUCTIONS = [
    *(
        made
        for op in REDUCES
        for made in (
            case(op, 11, positive(2, 3, 2)),
            case(op, 11, positive(2, 3, 2), axes=[1], keepdims=0),
            case(op, 11, positive(2, 3, 2), axes=[-1, 0]),
            case(op, 18, positive(2, 3, 2)),
            case(op, 18, positive(2, 3, 2), whole(0, -1), keepdims=0),
            case(op, 18, positive(2, 3, 2), whole(1)),
            case(op, 18, positive(2, 3) * SIGNS.get(op, 1), noop_with_empty_axes=1),
            case(op, 18, positive()),
        )
    ),
    case("ReduceSum", 13, positive(2, 3, 2), whole(1)),
    case("ReduceSum", 13, SIGNED),
    case("ReduceMean", 18, np.array([[7, -7, 3]], np.int32), whole(1)),
    case("ReduceMax", 18, SIGNED),
    case("ReduceProd", 18, SIGNED),
    *(
        made
        for op in ("ArgMax", "ArgMin")
        for made in (
            case(op, 11, GRID % 5),
            case(op, 13, GRID % 3, axis=-1, keepdims=0),
            case(op, 13, GRID % 3, axis=1, select_last_index=1),
            case(op, 13, GRID % 3, axis=-1, keepdims=0, select_last_index=1),
            case(op, 13, SIGNED),
        )
    ),
    case("TopK", 9, draw(2, 5), outputs=2, k=2),
    case("TopK", 10, draw(2, 5), whole(3), outputs=2),
    case("TopK", 11, draw(4, 2), whole(2), outputs=2, axis=0, largest=0),
    case("TopK", 11, GRID % 3, whole(2), outputs=2, flat=True, axis=-1),
    case("CumSum", 11, draw(2, 3), number(1, np.int64)),
    case("CumSum", 14, draw(2, 3), number(-2, np.int64), exclusive=1),
    case("CumSum", 14, draw(2, 3), number(1, np.int32), reverse=1),
    case("CumSum", 14, SIGNED, number(0, np.int64), exclusive=1, reverse=1),
    case("CumProd", 26, positive(2, 3), number(1, np.int64)),
    case("CumProd", 26, positive(2, 3), number(0, np.int64), exclusive=1, reverse=1),
]

SHAPES = [
    case("Identity", 13, draw(2, 3)),
    case("Shape", 13, draw(2, 0, 4)),
    case("Shape", 15, draw(2, 3, 4), start=1),
    case("Shape", 15, draw(2, 3, 4), start=-2, end=-1),
    case("Size", 13, draw(2, 3)),
    case("Reshape", 5, draw(2, 6), whole(3, -1)),
    case("Reshape", 13, draw(2, 3, 4), whole(0, -1)),
    case("Reshape", 14, draw(0, 3), whole(3, 0), allowzero=1),
    case("Reshape", 14, draw(1, 1), np.zeros(0, np.int64)),
    *(case("Flatten", 13, draw(2, 3, 4), axis=axis) for axis in (0, 1, 3, -1)),
    case("Flatten", 9, draw(2, 3, 4)),
    case("Squeeze", 11, draw(1, 2, 1)),
    case("Squeeze", 11, draw(1, 2, 1), axes=[-1]),
    case("Squeeze", 13, draw(1, 2, 1), whole(0, 2)),
    case("Squeeze", 13, draw(1, 2, 1)),
    case("Unsqueeze", 11, draw(2, 3), axes=[0, 3]),
    case("Unsqueeze", 13, draw(2, 3), whole(-1, 1)),
    case("Transpose", 13, draw(2, 3, 4)),
    case("Transpose", 1, draw(2, 3, 4), perm=[1, 2, 0]),
    case("DepthToSpace", 1, draw(1, 8, 1, 2), blocksize=2),
    case("DepthToSpace", 11, draw(1, 8, 1, 2), blocksize=2, mode="CRD"),
    case("SpaceToDepth", 13, draw(1, 2, 2, 4), blocksize=2),
    case("Expand", 8, draw(3, 1), whole(2, 1, 4)),
    case("Expand", 13, draw(3, 1), whole(1)),
    case("Tile", 6, draw(2, 3), whole(2, 1)),
    case("Tile", 13, draw(2, 3), whole(1, 3)),
    case("Concat", 4, draw(2, 3), draw(2, 1), axis=1),
    case("Concat", 13, draw(2, 3), draw(1, 3), draw(2, 3), axis=-2),
    case("Concat", 13, SIGNED, DIVISORS, axis=0),
    case("Split", 2, draw(4, 2), outputs=2),
    case("Split", 11, draw(2, 5), outputs=2, axis=1, split=[2, 3]),
    case("Split", 13, draw(2, 5), whole(4, 1), outputs=2, axis=-1),
    case("Split", 18, draw(2, 5), outputs=3, axis=1, num_outputs=3),
    case("Pad", 2, draw(2, 3), pads=[0, 1, 2, 0], value=1.5),
    case("Pad", 2, draw(2, 3), pads=[0, 1, 0, 2], mode="reflect"),
    case("Pad", 11, draw(2, 3), whole(1, 0, 0, 2), number(0.7)),
    case("Pad", 11, draw(2, 3), whole(-1, 1, 0, -1)),
    case("Pad", 13, draw(1, 2, 3), whole(0, 0, 2, 0, 0, 1), mode="reflect"),
    case("Pad", 13, draw(1, 2, 3), whole(0, 1, 2, 0, 0, 1), mode="edge"),
    case("Pad", 18, draw(2, 3), whole(1, 2), None, whole(-1)),
    case("Pad", 19, draw(2, 3), whole(0, 2, 0, 1), mode="wrap"),
    case("Pad", 13, SIGNED, whole(1, 2), number(9, np.int64)),
    case("ConstantOfShape", 9, whole(2, 3)),
    case("ConstantOfShape", 9, whole(2), value=tensor(whole(7))),
    case("ConstantOfShape", 9, np.zeros(0, np.int64)),
    case("EyeLike", 9, draw(3, 4), k=1),
    case("EyeLike", 9, draw(3, 4), k=-2, dtype=TensorProto.INT64),
    case("Range", 11, number(1), number(2.1), number(0.25)),
    case("Range", 11, number(5, np.int64), number(-3, np.int64), number(-2, np.int64)),
    case("Range", 11, number(5, np.int64), number(3, np.int64), number(2, np.int64)),
    case("Constant", 13, value=tensor(draw(2, 3))),
    case("Constant", 12, value_float=0.5),
    case("Constant", 12, value_floats=[0.5, 0.1]),
    case("Constant", 12, value_int=3),
    case("Constant", 12, value_ints=[3, -1]),
]

POSITIONS = [
    case("Slice", 9, draw(3, 4), starts=[0, 1], ends=[2, 100]),
    case("Slice", 1, draw(3, 4), starts=[-2], ends=[-1], axes=[1]),
    case("Slice", 10, draw(3, 5), whole(0, 4), whole(3, 0), whole(0, 1), whole(2, -2)),
    case("Slice", 13, draw(3, 5), whole(-1), whole(-(2**62)), whole(-1), whole(-1)),
    case("Slice", 13, draw(3, 5), whole(1), whole(2**62)),
    case("Slice", 13, draw(3, 5), whole(4), whole(2), whole(1)),
    *(case("Trilu", 14, draw(3, 4), upper=upper) for upper in (0, 1)),
    case("Trilu", 14, draw(2, 3, 3), number(-1, np.int64), upper=1),
    case("Trilu", 14, draw(3, 3), number(1, np.int64), upper=0),
    case("Gather", 1, draw(4, 2), whole([0, 3], [1, 1])),
    case("Gather", 13, draw(2, 4), whole(-1, 0), axis=1),
    case("Gather", 13, draw(2, 4, 3), number(2, np.int64), axis=1),
    case("Gather", 11, draw(2, 4, 3), whole([0, 1]), axis=-1),
    case("GatherElements", 11, draw(3, 3), whole([1, 2, 0], [-2, 0, 0]), axis=0),
    case("GatherElements", 13, draw(2, 3), whole([1, 2], [-1, 0]), axis=1),
    case("GatherND", 11, draw(2, 2, 3), whole([0, 1], [1, -1])),
    case("GatherND", 12, draw(2, 2, 3), whole([1], [0]), batch_dims=1),
    case("Compress", 9, draw(3, 2), np.array([True, False, True]), axis=0),
    case("Compress", 11, draw(3, 2), np.array([False, True, True, False])),
    case("NonZero", 13, np.array([[1, 0], [0, 2]], np.float32)),
    case("Scatter", 9, draw(3, 3), whole([1, 0, 2]), draw(1, 3), axis=0),
    case("ScatterElements", 11, draw(1, 5), whole([1, -2]), draw(1, 2), axis=1),
    case("ScatterElements", 16, draw(1, 5), whole([1, 1]), draw(1, 2), axis=1, reduction="add"),
    case("ScatterND", 11, draw(4, 2), whole([3], [-4]), draw(2, 2)),
    case("ScatterND", 16, draw(4, 2), whole([1, 0], [1, 0]), draw(2), reduction="add"),
    case("OneHot", 9, whole(0, 2, -1, 7), whole(3), draw(2)),
    case("OneHot", 11, whole([0, 2], [1, -3]), number(3, np.int64), whole(5, 9), axis=0),
    case("OneHot", 11, whole([0, 2], [1, 1]), whole(3), draw(2), axis=1),
]

CASES = [*UNARY, *ACTIVATIONS, *ARITHMETIC, *PRODUCTS, *REDUCTIONS, *SHAPES, *POSITIONS]

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
    attributes: dict[str, Any] = {
        k: v if not _is_message(v) else retyped(v, dtype) for k, v in given.attributes.items()
    }
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
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(y) for y in session.run(None, feeds)]


def results_of(module: graph.GraphModule, inputs: Sequence[Any]) -> list[Any]:
    y = module(*inputs)
    return list(y.values()) if isinstance(y, dict) else [y]


# ---- Claims ----


@pytest.mark.parametrize("given", CASES, ids=str)
def test_it_computes_what_onnxruntime_computes(given: Case) -> None:
    model = model_of(given)
    module = graph.load(model.SerializeToString()).eval()
    expected = theirs(given, model)
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
