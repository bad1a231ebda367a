"""Functions of each element: arithmetic, exponentials, angles, pieces, choices."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import Array, DType, bool_, finfo, float32, float64, is_floating, promote, type_name
from chainrule.engine.errors import ArgumentError, AutogradError, DTypeError
from chainrule.engine.functions.arguments import Number, Operand, check_fits, elementwise_function, require_tensor
from chainrule.engine.ops import division, elementwise, special
from chainrule.engine.ops.op import Op

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

__all__ = [
    "abs",
    "absolute",
    "acos",
    "acosh",
    "add",
    "addcdiv",
    "addcmul",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "ceil",
    "clamp",
    "clamp_max",
    "clamp_min",
    "clip",
    "copysign",
    "cos",
    "cosh",
    "div",
    "divide",
    "erf",
    "exp",
    "exp2",
    "expm1",
    "float_power",
    "floor",
    "floor_divide",
    "fmax",
    "fmin",
    "fmod",
    "frac",
    "heaviside",
    "hypot",
    "ldexp",
    "lerp",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "logaddexp2",
    "logit",
    "maximum",
    "minimum",
    "mul",
    "multiply",
    "nan_to_num",
    "neg",
    "negative",
    "positive",
    "pow",
    "reciprocal",
    "relu",
    "remainder",
    "result_type",
    "round",
    "rsqrt",
    "rsub",
    "sgn",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "sub",
    "subtract",
    "tan",
    "tanh",
    "true_divide",
    "trunc",
    "where",
    "xlogy",
]

# ---- Sums, products, quotients ----


def add(input: Tensor, other: Operand, *, alpha: Number = 1) -> Tensor:
    """input + alpha · other"""
    return elementwise.add.of_two(input, other if type(alpha) is int and alpha == 1 else _scaled(input, other, alpha))


def sub(input: Tensor, other: Operand, *, alpha: Number = 1) -> Tensor:
    """input − alpha · other"""
    return elementwise.sub.of_two(input, other if type(alpha) is int and alpha == 1 else _scaled(input, other, alpha))


def rsub(input: Tensor, other: Operand, *, alpha: Number = 1) -> Tensor:
    """other − alpha · input"""
    return elementwise.sub(other, input if type(alpha) is int and alpha == 1 else _scaled(other, input, alpha))


def _scaled(input: Operand, other: Operand, alpha: Number) -> Operand:
    """alpha · other, where it is to be added to `input`."""
    dtype = result_type(input, other)
    if isinstance(alpha, bool) and dtype != bool_:
        raise DTypeError("Boolean alpha only supported for Boolean results.")
    if isinstance(alpha, float) and not is_floating(dtype):
        raise DTypeError("For integral input tensors, argument alpha must not be a floating point number.")
    return elementwise.mul(other, bool(alpha) if dtype == bool_ else alpha) if _is_array(other) else other * alpha


def mul(input: Tensor, other: Operand) -> Tensor:
    """input · other"""
    return elementwise.mul.of_two(input, other)


def div(input: Tensor, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """input / other, rounded to whole numbers towards zero ("trunc") or down ("floor") on request.

    Raises:
        DivisionError: integers are divided by zero, with a rounding mode.
        ArgumentError: no such rounding mode.
    """
    if rounding_mode is None:
        return elementwise.div.of_two(input, other)
    if rounding_mode not in ("trunc", "floor"):
        raise ArgumentError(
            f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found '{rounding_mode}'"
        )
    return (division.trunc_divide if rounding_mode == "trunc" else division.floor_divide)(input, other)


def true_divide(input: Tensor, other: Operand) -> Tensor:
    """input / other"""
    return elementwise.div(input, other)


def floor_divide(input: Tensor, other: Operand) -> Tensor:
    """⌊input / other⌋"""
    return division.floor_divide(input, other)


def remainder(input: Tensor | Number, other: Operand) -> Tensor:
    """input − other · ⌊input / other⌋, which has the sign of `other`."""
    return division.remainder(input, other)


def fmod(input: Tensor, other: Operand) -> Tensor:
    """input − other · trunc(input / other), which has the sign of `input`."""
    return division.fmod(input, other)


multiply = mul
divide = div
subtract = sub
neg = negative = elementwise_function(elementwise.neg, "neg", "−x")
reciprocal = elementwise_function(elementwise.reciprocal, "reciprocal", "1 / x")


def positive(input: Tensor) -> Tensor:
    """The tensor itself.

    Raises:
        DTypeError: it is of bools.
    """
    if input.data.dtype == bool_:
        raise DTypeError("The `+` operator, on a bool tensor is not supported.")
    return input


# ---- Powers ----


def pow(input: Tensor | Number, exponent: Operand) -> Tensor:
    """inputᵉˣᵖᵒⁿᵉⁿᵗ"""
    return elementwise.pow(input, exponent)


def float_power(input: Tensor | Number, exponent: Operand) -> Tensor:
    """inputᵉˣᵖᵒⁿᵉⁿᵗ in float64, whatever is given."""
    return elementwise.pow(_double(input), _double(exponent))


def square(input: Tensor) -> Tensor:
    """input²"""
    return elementwise.pow(input, 2)


def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """input · 2ᵒᵗʰᵉʳ"""
    return elementwise.mul(input, elementwise.pow(2.0, other))


def _double(x: Any) -> Any:
    return elementwise.cast(x, dtype=float64) if isinstance(x, Variable) else x


# ---- Exponentials ----

exp = elementwise_function(elementwise.exp, "exp", "eˣ")
exp2 = elementwise_function(elementwise.exp2, "exp2", "2ˣ")
expm1 = elementwise_function(elementwise.expm1, "expm1", "eˣ − 1, exact near 0")
log = elementwise_function(elementwise.log, "log", "ln x")
log2 = elementwise_function(elementwise.log2, "log2", "log₂ x")
log10 = elementwise_function(elementwise.log10, "log10", "log₁₀ x")
log1p = elementwise_function(elementwise.log1p, "log1p", "ln(1 + x), exact near 0")
sqrt = elementwise_function(elementwise.sqrt, "sqrt", "√x")
rsqrt = elementwise_function(elementwise.rsqrt, "rsqrt", "1 / √x")
tanh = elementwise_function(elementwise.tanh, "tanh", "tanh x")
erf = elementwise_function(special.erf, "erf", "2/√π ∫₀ˣ e^(−t²) dt")
sigmoid = elementwise_function(elementwise.sigmoid, "sigmoid", "1 / (1 + e⁻ˣ)")


def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """ln(x / (1 − x)), of x limited to [eps, 1 − eps]."""
    require_tensor("logit", input)
    return elementwise.logit(input, eps=eps)


def xlogy(input: Tensor | Number, other: Operand) -> Tensor:
    """input · ln(other), and 0 where input = 0, unless other is nan."""
    return elementwise.xlogy(input, other)


def _of_tensors(op: Op, name: str, doc: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The function of two tensors that `op` is; numbers are refused, as in PyTorch."""

    def function(input: Tensor, other: Tensor) -> Tensor:
        for position, (x, word) in enumerate(((input, "input"), (other, "other")), 1):
            if not _is_array(x):
                raise DTypeError(
                    f"{name}(): argument '{word}' (position {position}) must be Tensor, not {type(x).__name__}"
                )
        return op(input, other)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


logaddexp = _of_tensors(elementwise.logaddexp, "logaddexp", "ln(eᵃ + eᵇ)")
logaddexp2 = _of_tensors(elementwise.logaddexp2, "logaddexp2", "log₂(2ᵃ + 2ᵇ)")

# ---- Angles ----

sin = elementwise_function(elementwise.sin, "sin", "sin x")
cos = elementwise_function(elementwise.cos, "cos", "cos x")
tan = elementwise_function(elementwise.tan, "tan", "tan x")
asin = arcsin = elementwise_function(elementwise.asin, "asin", "arcsin x")
acos = arccos = elementwise_function(elementwise.acos, "acos", "arccos x")
atan = arctan = elementwise_function(elementwise.atan, "atan", "arctan x")
sinh = elementwise_function(elementwise.sinh, "sinh", "sinh x")
cosh = elementwise_function(elementwise.cosh, "cosh", "cosh x")
asinh = arcsinh = elementwise_function(elementwise.asinh, "asinh", "arsinh x")
acosh = arccosh = elementwise_function(elementwise.acosh, "acosh", "arcosh x")
atanh = arctanh = elementwise_function(elementwise.atanh, "atanh", "artanh x")
atan2 = arctan2 = _of_tensors(elementwise.atan2, "atan2", "The angle of the point (other, input).")
hypot = _of_tensors(elementwise.hypot, "hypot", "√(a² + b²)")

# ---- Pieces ----

abs = absolute = elementwise_function(elementwise.abs, "abs", "|x|")
sign = elementwise_function(elementwise.sign, "sign", "−1, 0 or 1, by the sign of x")
sgn = elementwise_function(elementwise.sign, "sgn", "−1, 0 or 1, by the sign of x")
floor = elementwise_function(elementwise.floor, "floor", "The whole number below.")
ceil = elementwise_function(elementwise.ceil, "ceil", "The whole number above.")
trunc = elementwise_function(elementwise.trunc, "trunc", "The whole number towards zero.")
frac = elementwise_function(elementwise.frac, "frac", "x − trunc x")
relu = elementwise_function(elementwise.relu, "relu", "max(x, 0)")


def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """The nearest number of so many decimals; halves to the even one."""
    require_tensor("round", input)
    return elementwise.round_decimals(input, decimals=decimals) if decimals else elementwise.round(input)


def copysign(input: Tensor, other: Operand) -> Tensor:
    """|input| with the sign of `other`"""
    return elementwise.copysign(input, other)


def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 below zero, 1 above, and at zero what `values` says."""
    require_tensor("heaviside", input)
    if not isinstance(values, Variable):
        raise DTypeError(f"heaviside(): argument 'values' (position 2) must be Tensor, not {type(values).__name__}")
    return elementwise.heaviside(input, values)


def nan_to_num(
    input: Tensor, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """Numbers in place of nan (0 by default) and of ±∞ (the largest and smallest of the dtype)."""
    require_tensor("nan_to_num", input)
    dtype = input.data.dtype
    if not is_floating(dtype):
        return elementwise.clone(input)
    limits = finfo(dtype)
    return elementwise.nan_to_num(
        input,
        nan=0.0 if nan is None else nan,
        posinf=limits.max if posinf is None else posinf,
        neginf=limits.min if neginf is None else neginf,
    )


# ---- Choices ----

maximum = _of_tensors(elementwise.maximum, "maximum", "The larger of both; equal ones share the gradient.")
minimum = _of_tensors(elementwise.minimum, "minimum", "The smaller of both; equal ones share the gradient.")
fmax = _of_tensors(elementwise.fmax, "fmax", "The larger of both, and of nan and a number the number.")
fmin = _of_tensors(elementwise.fmin, "fmin", "The smaller of both, and of nan and a number the number.")


def clamp(input: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """The elements limited to [min, max]; where min > max, max.

    Raises:
        AutogradError: neither limit is given.
    """
    require_tensor("clamp", input)
    if min is None and max is None:
        raise AutogradError("clamp: At least one of 'min' or 'max' must not be None")
    if _is_array(min) or _is_array(max):
        if max is None:
            return elementwise.clamp_min(input, min)
        return elementwise.clamp_max(input, max) if min is None else elementwise.clamp_between(input, min, max)
    dtype = result_type(input, *[limit for limit in (min, max) if limit is not None])
    if dtype == bool_:
        raise DTypeError("\"clamp_scalar_cpu\" not implemented for 'Bool'")
    for limit in (min, max):
        if isinstance(limit, int) and limit > 0:  # negative ones wrap in uint8, where all is above them
            check_fits(limit, dtype)
    return elementwise.clamp(_as(input, dtype), min=min, max=max)


def clamp_min(input: Tensor, min: Operand) -> Tensor:
    """The elements, or `min` where that is larger."""
    return clamp(input, min)


def clamp_max(input: Tensor, max: Operand) -> Tensor:
    """The elements, or `max` where that is smaller."""
    return clamp(input, None, max)


clip = clamp


@overload
def where(condition: Tensor) -> tuple[Tensor, ...]: ...
@overload
def where(condition: Tensor, input: Operand, other: Operand) -> Tensor: ...
def where(condition: Tensor, input: Operand | None = None, other: Operand | None = None) -> Tensor | tuple[Tensor, ...]:
    """`input` where the condition is true, `other` elsewhere; of the condition alone, the indices where it is true.

    Raises:
        DTypeError: the condition is not of bools.
    """
    array = condition.data if isinstance(condition, Variable) else condition
    if input is None and other is None and isinstance(condition, Variable):
        return tuple(Variable.wrap(index) for index in np.nonzero(array))
    if isinstance(array, np.ndarray) and array.dtype.name not in ("bool", "uint8"):
        raise DTypeError(
            f"where expected condition to be a boolean tensor, but got a tensor with dtype {type_name(array.dtype)}"
        )
    for number, x in ((input, other), (other, input)):
        if type(number) is int and isinstance(x, Variable):
            check_fits(number, x.data.dtype)
    return elementwise.where(condition, input, other)


# ---- Of three ----


def lerp(input: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    """input + weight · (end − input); all of one dtype."""
    require_tensor("lerp", input)
    if not is_floating(input.data.dtype):
        raise DTypeError(f"\"lerp_kernel_scalar\" not implemented for '{type_name(input.data.dtype)}'")
    for name, x in (("end", end), ("weight", weight)):
        if isinstance(x, Variable) and x.data.dtype != input.data.dtype:
            expected, got = _c_name(input.data.dtype), _c_name(x.data.dtype)
            raise DTypeError(f"expected dtype {expected} for `{name}` but got dtype {got}")
    return elementwise.lerp(input, end, weight)


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
    """input + value · tensor1 · tensor2"""
    _require_tensors("addcmul", tensor1, tensor2)
    return elementwise.addcmul(input, tensor1, tensor2, value=value)


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
    """input + value · tensor1 / tensor2

    Raises:
        DTypeError: integers would be divided.
    """
    _require_tensors("addcdiv", tensor1, tensor2)
    if not is_floating(result_type(tensor1, tensor2)):
        raise DTypeError(
            "Integer division with addcdiv is no longer supported, and in a future release addcdiv will perform a true "
            "division of tensor1 and tensor2. Use (input + value * trunc(tensor1 / tensor2)) for integers, or "
            "(input + value * tensor1 / tensor2) for floats."
        )
    return elementwise.addcdiv(input, tensor1, tensor2, value=value)


def _require_tensors(name: str, *tensors: object) -> None:
    for position, x in enumerate(tensors, 1):
        if not _is_array(x):
            raise DTypeError(
                f"{name}(): argument 'tensor{position}' (position {position + 1}) must be Tensor, "
                f"not {type(x).__name__}"
            )


def _c_name(dtype: DType) -> str:
    """What C++ calls a dtype, and PyTorch in a few messages."""
    return {float32: "float", float64: "double"}.get(dtype, f"c10::{type_name(dtype)}")


# ---- Dtypes ----


def result_type(*tensors: Operand) -> DType:
    """The dtype of an operation on these tensors and numbers."""
    arrays: list[Array] = [x.data if isinstance(x, Variable) else x for x in tensors if _is_array(x)]  # type: ignore[misc]
    return promote(
        [x.dtype for x in arrays if x.ndim],
        [x.dtype for x in arrays if not x.ndim],
        [np.asarray(x).item() for x in tensors if not _is_array(x)],
    )


def _as(input: Tensor, dtype: DType) -> Tensor:
    return input if input.data.dtype == dtype else elementwise.cast(input, dtype=dtype)


def _is_array(x: object) -> bool:
    return isinstance(x, Variable | np.ndarray)
