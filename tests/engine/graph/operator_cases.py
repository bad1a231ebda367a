"""What test_operators compares: nodes of elementary operators, each with what it is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from chainrule.engine.dtypes import Array


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
        settings = ",".join(f"{name}={value}" for name, value in self.attributes.items() if not is_message(value))
        return f"{self.op}-{self.opset}-{shapes}-{settings}"


def is_message(value: Any) -> bool:
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
    *(case("Hardmax", 11, draw(2, 3, 4), flat=True, axis=axis) for axis in (0, -1)),
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
    case("Pow", 7, 3 * draw(2, 3), number(2)),
    case(
        "Equal", 11, np.array([np.inf, -np.inf, np.nan, 0], np.float32), np.array([np.inf, 1, np.nan, -0.0], np.float32)
    ),
    case("Where", 9, truths(3, 2), whole(1, 2), number(0, np.int64)),
    *(case("Cast", 13, 3 * draw(9), flat=True, to=int(to)) for to in (TensorProto.FLOAT, TensorProto.BOOL)),
    case("CastLike", 15, draw(4), np.array(True), flat=True),
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
    case("Einsum", 12, draw(2, 3, 4), draw(2, 5, 4), equation="...ij,...kj->...ik"),
    case("Einsum", 12, draw(3, 4), equation="ij->ji"),
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
    case("TopK", 11, draw(2, 3, 4), whole(3), outputs=2, axis=1, largest=0),
    case("CumSum", 11, draw(2, 3, 4), number(1, np.int64), exclusive=1, reverse=1),
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
    *(case("Pad", 11, draw(1, 2, 2, 3), whole(0, 0, 1, 1, 0, 0, 1, 2), mode=mode) for mode in ("reflect", "edge")),
    case("Pad", 2, draw(1, 2, 2, 3), pads=[0, 0, 1, 1, 0, 0, 0, 2], mode="reflect"),
    case("Pad", 13, draw(1, 2, 2, 3), whole(1, 1, 0, 0, 0, 2, 0, 1), mode="edge"),
    case("DepthToSpace", 11, draw(1, 8, 2, 3), blocksize=2, mode="DCR"),
    case("Flatten", 11, draw(2, 3, 4), axis=2),
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
    case("Slice", 10, draw(2, 3, 4), whole(-1), whole(-1000), whole(2), whole(-2)),
    case("Slice", 10, draw(2, 3, 4), whole(2), whole(0), whole(1), whole(-1)),
    *(case("Trilu", 14, draw(3, 4), upper=upper) for upper in (0, 1)),
    *(case("Trilu", 14, draw(2, 3, 4), number(k, np.int64), upper=0) for k in (-1, 0)),
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
    case("OneHot", 9, whole([0, 2, 9], [1, -3, 7]), number(8, np.int64), whole(2, 5), axis=-1),
]

CASES = [*UNARY, *ACTIVATIONS, *ARITHMETIC, *PRODUCTS, *REDUCTIONS, *SHAPES, *POSITIONS]
