"""Operations on each element."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.engine.dtypes import bool_, is_floating
from chainrule.engine.graph.errors import GraphError
from chainrule.engine.graph.tracing import Call, Value
from chainrule.engine.graph.translations import local
from chainrule.engine.graph.translations.registry import exports, exports_whole, standard
from chainrule.engine.ops import activation, division, elementwise, special
from chainrule.engine.ops.op import Op

if TYPE_CHECKING:
    from chainrule.engine.graph.emitting import Emitter

# ---- One node each ----

for _op, _name in (
    (elementwise.add, "Add"),
    (elementwise.sub, "Sub"),
    (elementwise.mul, "Mul"),
    (elementwise.div, "Div"),
    (elementwise.neg, "Neg"),
    (elementwise.reciprocal, "Reciprocal"),
    (elementwise.pow, "Pow"),
    (elementwise.exp, "Exp"),
    (elementwise.log, "Log"),
    (elementwise.sqrt, "Sqrt"),
    (elementwise.tanh, "Tanh"),
    (elementwise.sigmoid, "Sigmoid"),
    (elementwise.sin, "Sin"),
    (elementwise.cos, "Cos"),
    (elementwise.tan, "Tan"),
    (elementwise.asin, "Asin"),
    (elementwise.acos, "Acos"),
    (elementwise.atan, "Atan"),
    (elementwise.sinh, "Sinh"),
    (elementwise.cosh, "Cosh"),
    (elementwise.asinh, "Asinh"),
    (elementwise.acosh, "Acosh"),
    (elementwise.atanh, "Atanh"),
    (elementwise.abs, "Abs"),
    (elementwise.sign, "Sign"),
    (elementwise.floor, "Floor"),
    (elementwise.ceil, "Ceil"),
    (elementwise.round, "Round"),
    (elementwise.relu, "Relu"),
    (elementwise.maximum, "Max"),
    (elementwise.minimum, "Min"),
    (elementwise.eq, "Equal"),
    (elementwise.lt, "Less"),
    (elementwise.le, "LessOrEqual"),
    (elementwise.gt, "Greater"),
    (elementwise.ge, "GreaterOrEqual"),
    (elementwise.isnan, "IsNaN"),
    (elementwise.isinf, "IsInf"),
    (elementwise.bitwise_and, "BitwiseAnd"),
    (elementwise.bitwise_or, "BitwiseOr"),
    (elementwise.bitwise_xor, "BitwiseXor"),
    (elementwise.bitwise_not, "BitwiseNot"),
    (special.erf, "Erf"),
    (activation.prelu, "PRelu"),
    (activation.hardswish, "HardSwish"),
    (activation.mish, "Mish"),
):
    standard(_op, _name)
standard(activation.gelu, "Gelu")
standard(activation.gelu_tanh, "Gelu", approximate="tanh")


@exports(elementwise.ne)
def ne(g: Emitter, call: Call) -> None:
    """a ≠ b"""
    g.node("Not", g.node("Equal", *_operands(g, call, "a", "b")), out=call.outputs)


def _operands(g: Emitter, call: Call, *names: str) -> list[str]:
    """The names of operands, of which numbers have the dtype of the tensors."""
    given = [call.arguments[name] for name in names]
    like = next(x.dtype for x in given if isinstance(x, Value))
    return [g.name(x, like) for x in given]


@exports(elementwise.where)
def where(g: Emitter, call: Call) -> None:
    """`a` where the condition is true, else `b`."""
    condition = call.arguments["condition"]
    if condition.dtype != bool_:
        condition = g.node("Cast", condition, to=9)
    dtype = call.outputs[0].dtype
    g.node("Where", condition, *(g.name(call.arguments[name], dtype) for name in "ab"), out=call.outputs)


@exports(elementwise.clamp)
def clamp(g: Emitter, call: Call) -> None:
    """x limited to what numbers say."""
    x = call.arguments["x"]
    low, high = (None if n is None else g.name(n, x.dtype) for n in (call.arguments["min"], call.arguments["max"]))
    g.node("Clip", x, low, high, out=call.outputs)


@exports(elementwise.cast)
def cast(g: Emitter, call: Call) -> None:
    """Another dtype."""
    from chainrule.engine.graph.emitting import type_of

    g.node("Cast", call.arguments["x"], out=call.outputs, to=type_of(call.arguments["dtype"]))


@exports(elementwise.clone)
def clone(g: Emitter, call: Call) -> None:
    """A copy, which in a graph is the same."""
    g.alias(call.outputs[0], g.name(call.arguments["x"]))


@exports(elementwise.zeros_like)
def zeros_like(g: Emitter, call: Call) -> None:
    """Zeros."""
    y = call.outputs[0]
    g.node("Expand", np.zeros((1,) * len(y.shape), y.dtype), g.ints(y.shape), out=call.outputs)


# ---- Truths ----


def _logic(op: Op, name: str) -> None:
    @exports(op)
    def translate(g: Emitter, call: Call) -> None:
        truths = []
        for each in op.inputs:
            x = call.arguments[each]
            truths.append(x if not isinstance(x, Value) or x.dtype == bool_ else g.node("Cast", x, to=9))
        g.node(name, *truths, out=call.outputs)


for _op, _name in (
    (elementwise.logical_and, "And"),
    (elementwise.logical_or, "Or"),
    (elementwise.logical_xor, "Xor"),
    (elementwise.logical_not, "Not"),
):
    _logic(_op, _name)


@exports_whole("_over")
def over(g: Emitter, call: Call) -> None:
    """all and any"""
    x, dim = call.arguments["input"], call.arguments["dim"]
    axes = tuple(range(len(x.shape))) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    number = g.node("Cast", x if x.dtype == bool_ else g.node("Cast", x, to=9), to=6)
    op = "ReduceMin" if call.arguments["name"] == "all" else "ReduceMax"
    found = g.node(op, number, g.ints(axes), keepdims=int(call.arguments["keepdim"]))
    if call.outputs[0].dtype != bool_:
        raise GraphError(f'"{call.arguments["name"]}" of uint8 cannot be exported; convert it to bool first')
    g.node("Cast", found, out=call.outputs, to=9)


# ---- chainrule's own, of the same inputs and attributes ----


def _own(op: Op, function: local.Local, **renamed: str) -> None:
    """Enters an operation that is one of chainrule's own; `renamed`: its attributes by their names there."""

    @exports(op)
    def translate(g: Emitter, call: Call) -> None:
        tensors = [x for x in (call.arguments.get(name) for name in op.inputs) if isinstance(x, Value)]
        like = tensors[0].dtype
        if not is_floating(like):
            _refuse_integers(op)
        attributes = {there: float(call.arguments[here]) for there, here in renamed.items()}
        names = [g.name(call.arguments.get(name), like) for name in op.inputs]
        g.local(function, *names, out=call.outputs, **attributes)


def _refuse_integers(op: Op) -> None:
    if op in (division.floor_divide, division.remainder, elementwise.clamp_min, elementwise.clamp_max):
        return
    raise GraphError(f'"{op.__name__}" of integers cannot be exported; convert them to floats first')


for _own_op, _function in (
    (elementwise.expm1, local.expm1),
    (elementwise.log1p, local.log1p),
    (elementwise.exp2, local.exp2),
    (elementwise.log2, local.log2),
    (elementwise.log10, local.log10),
    (elementwise.rsqrt, local.rsqrt),
    (elementwise.trunc, local.trunc),
    (elementwise.frac, local.frac),
    (elementwise.isfinite, local.isfinite),
    (elementwise.clamp_min, local.clamp_min),
    (elementwise.clamp_max, local.clamp_max),
    (elementwise.clamp_between, local.clamp_between),
    (elementwise.hypot, local.hypot),
    (elementwise.logaddexp, local.logaddexp),
    (elementwise.lerp, local.lerp),
    (activation.hardsigmoid, local.hardsigmoid),
    (activation.silu, local.silu),
    (activation.logsigmoid, local.logsigmoid),
):
    _own(_own_op, _function)
_own(elementwise.addcmul, local.addcmul, value="value")
_own(elementwise.addcdiv, local.addcdiv, value="value")
_own(activation.hardtanh, local.hardtanh, low="low", high="high")
_own(activation.threshold, local.threshold, threshold="threshold", value="value")
_own(activation.hardshrink, local.hardshrink, lambd="lambd")
_own(activation.softshrink, local.softshrink, lambd="lambd")


@exports(division.floor_divide, division.remainder)
def divided(g: Emitter, call: Call) -> None:
    """Division that rounds down, and what it leaves."""
    names = _operands(g, call, "a", "b")
    if not is_floating(call.outputs[0].dtype):
        if call.key is division.remainder:
            g.node("Mod", *names, out=call.outputs)
            return
        rest = g.node("Mod", *names)
        g.node("Div", g.node("Sub", names[0], rest), names[1], out=call.outputs)
        return
    function = local.remainder if call.key is division.remainder else local.floor_divide
    g.local(function, *names, out=call.outputs)


@exports(division.fmod)
def fmod(g: Emitter, call: Call) -> None:
    """What division that rounds towards zero leaves."""
    g.node("Mod", *_operands(g, call, "a", "b"), out=call.outputs, fmod=1)


# ---- Activations with settings ----


@exports(activation.leaky_relu)
def leaky_relu(g: Emitter, call: Call) -> None:
    """A line with two slopes."""
    g.node("LeakyRelu", call.arguments["x"], out=call.outputs, alpha=float(call.arguments["slope"]))


@exports(activation.elu)
def elu(g: Emitter, call: Call) -> None:
    """elu, or selu, which has a scale."""
    x, alpha, scale, steepness = (call.arguments[name] for name in ("x", "alpha", "scale", "steepness"))
    if steepness != 1:
        raise GraphError(f"elu with an inner scale of {steepness} cannot be exported; use celu")
    if scale == 1:
        g.node("Elu", x, out=call.outputs, alpha=float(alpha))
    elif math.isclose(alpha, 1.6732632423543772) and math.isclose(scale, 1.0507009873554805):
        g.node("Selu", x, out=call.outputs)
    else:
        g.node("Selu", x, out=call.outputs, alpha=float(alpha), gamma=float(scale))


@exports(activation.celu)
def celu(g: Emitter, call: Call) -> None:
    """celu"""
    g.node("Celu", call.arguments["x"], out=call.outputs, alpha=float(call.arguments["alpha"]))


@exports(activation.softplus)
def softplus(g: Emitter, call: Call) -> None:
    """log(1 + e^βx) / β; the threshold beyond which it is x shows in the gradient only."""
    settings: dict[str, Any] = {name: float(call.arguments[name]) for name in ("beta", "threshold")}
    g.local(local.softplus, call.arguments["x"], out=call.outputs, **settings)


@exports(activation.glu)
def glu(g: Emitter, call: Call) -> None:
    """One half times the sigmoid of the other."""
    g.local(local.glu, call.arguments["x"], out=call.outputs, axis=call.arguments["dim"])
