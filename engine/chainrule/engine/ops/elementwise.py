"""Operations on each element: arithmetic, exponentials, angles, pieces, choices, comparisons."""

# mypy: disable-error-code=has-type
# A formula may name operations declared further down.

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule.engine import kernels
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import DType, bool_, is_floating, type_name
from chainrule.engine.ops.broadcasting import Elementwise, Refusal, Scalar, elementwise
from chainrule.engine.ops.op import op


def quiet(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` without numpy's warnings: as in PyTorch, infinity and nan come without a word."""

    @np.errstate(all="ignore")
    def _forward(*arrays: Any) -> Any:
        return forward(*arrays)

    return _forward


def lacks(kernel: str, kinds: str) -> Refusal:
    """Refuses results of some kinds of dtypes, in the words of PyTorch's kernels."""
    return lambda _, dtype: f"\"{kernel}\" not implemented for '{type_name(dtype)}'" if dtype.kind in kinds else None


# ---- Arithmetic ----


def _no_bools(operands: list[Any], _: DType) -> str | None:
    bools = [type(x) is bool or getattr(x, "dtype", None) == bool_ for x in operands]
    if False not in bools:
        return (
            "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or `logical_xor()` "
            "operator instead."
        )
    if True in bools:
        return (
            "Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying to invert a mask, "
            "use the `~` or `logical_not()` operator instead."
        )
    return None


def _no_bool(_: list[Any], dtype: DType) -> str | None:
    return (
        "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert a mask, use the "
        "`~` or `logical_not()` operator instead."
        if dtype == bool_
        else None
    )


add = elementwise("Add", np.add, half=kernels.add, a=lambda g: g, b=lambda g: g)
sub = elementwise("Sub", np.subtract, a=lambda g: g, b=lambda g: -g, refuse=_no_bools)
mul = elementwise("Mul", np.multiply, a=lambda g, b: g * b, b=lambda g, a: g * a)
div = elementwise(
    "Div",
    quiet(np.divide),
    inputs=("a", "b"),
    a=lambda g, b: g / b,
    b=lambda g, a, b: -g * (a / b / b),  # b·b would leave the range of floats long before b does
    floating=True,
)
neg = elementwise("Neg", np.negative, x=lambda g: -g, refuse=_no_bool)
reciprocal = elementwise("Reciprocal", quiet(lambda x: 1 / x), inputs=("x",), x=lambda g, y: -g * y * y, floating=True)


def _no_fractions(operands: list[Any], dtype: DType) -> str | None:
    if dtype == bool_ and type(operands[1]) is not bool:
        return "\"pow\" not implemented for 'Bool'"
    if not is_floating(dtype) and type(operands[1]) is int and operands[1] < 0:
        return "Integers to negative integer powers are not allowed."
    if dtype.kind in "iu" and type(operands[1]) is int and operands[1] > np.iinfo(dtype).max:
        return f"value cannot be converted to type {dtype}_t without overflow: {operands[1]}"
    return None


def _pow(a: Any, b: Any) -> Any:
    if np.result_type(a, b) == bool_:
        return np.logical_or(a, np.logical_not(b))
    if np.result_type(a, b).kind != "i" or np.all(np.greater_equal(b, 0)):
        return np.power(a, b)
    odd = np.bitwise_and(b, 1) == 1
    inverse = np.where(a == 1, 1, np.where(a == -1, np.where(odd, -1, 1), 0)).astype(np.result_type(a, b))
    return np.where(np.less(b, 0), inverse, np.power(a, np.maximum(b, 0)))


def _power_slope(a: Any, b: Any) -> Any:
    """d(aᵇ)/da = b·aᵇ⁻¹, and 0 where b = 0, also at a = 0."""
    if type(b) in Scalar:
        return zeros_like(a) if b == 0 else b * a ** (b - 1)
    return b * a ** where(b == 0, 0.0, b - 1)


def _exponent_slope(a: Any, b: Any, y: Any) -> Any:
    """d(aᵇ)/db = aᵇ·ln a, and 0 where a = 0 and b ≥ 0."""
    a = a + zeros_like(b)  # a number becomes an array of y's dtype
    zero = (a == 0) & (b >= 0)
    return where(zero, 0.0, y * log(where(zero, 1.0, a)))


pow = elementwise(
    "Pow",
    quiet(_pow),
    inputs=("a", "b"),
    a=lambda g, a, b: g * _power_slope(a, b),
    b=lambda g, a, b, y: g * _exponent_slope(a, b, y),
    refuse=_no_fractions,
)

# ---- Arithmetic of three ----


def _lerp(a: Any, b: Any, w: Any) -> Any:
    """From the nearer end, so that w = 1 gives b."""
    return np.where(np.less(np.abs(w), 0.5), a + w * (b - a), b - (b - a) * (1 - w))


lerp = elementwise(
    "Lerp",
    _lerp,
    inputs=("a", "b", "w"),
    a=lambda g, w: g * (1 - w),
    b=lambda g, w: g * w,
    w=lambda g, a, b: g * (b - a),
    refuse=lacks("lerp_kernel_scalar", "biu"),
)


def _addcmul(x: Any, a: Any, b: Any, *, value: float) -> Any:
    """y = x + value·a·b."""
    return x + np.asarray(value).astype(x.dtype) * a * b


@np.errstate(all="ignore")
def _addcdiv(x: Any, a: Any, b: Any, *, value: float) -> Any:
    """y = x + value·a/b."""
    return x + x.dtype.type(value) * a / b


addcmul = elementwise(
    "Addcmul",
    _addcmul,
    x=lambda g: g,
    a=lambda g, b, value: g * (b * value),
    b=lambda g, a, value: g * (a * value),
    refuse=lacks("addcmul_cpu_out", "b"),
)
addcdiv = elementwise(
    "Addcdiv",
    _addcdiv,
    x=lambda g: g,
    a=lambda g, b, value: g * (value / b),
    b=lambda g, a, b, value: -g * (value * a / (b * b)),
)

# ---- Exponentials ----

exp = elementwise("Exp", quiet(np.exp), inputs=("x",), x=lambda g, y: g * y, floating=True)
exp2 = elementwise("Exp2", quiet(np.exp2), inputs=("x",), x=lambda g, y: g * y * math.log(2), floating=True)
expm1 = elementwise("Expm1", quiet(np.expm1), inputs=("x",), x=lambda g, y: g * (y + 1), floating=True)
log = elementwise("Log", quiet(np.log), inputs=("x",), x=lambda g, x: g / x, floating=True)
log2 = elementwise("Log2", quiet(np.log2), inputs=("x",), x=lambda g, x: g / (x * math.log(2)), floating=True)
log10 = elementwise("Log10", quiet(np.log10), inputs=("x",), x=lambda g, x: g / (x * math.log(10)), floating=True)
log1p = elementwise("Log1P", quiet(np.log1p), inputs=("x",), x=lambda g, x: g / (x + 1), floating=True)
sqrt = elementwise("Sqrt", quiet(np.sqrt), inputs=("x",), x=lambda g, y: g / (2 * y), floating=True)
rsqrt = elementwise(
    "Rsqrt", quiet(lambda x: 1 / np.sqrt(x)), inputs=("x",), x=lambda g, y: g * (-0.5 * y * y * y), floating=True
)
tanh = elementwise("Tanh", np.tanh, x=lambda g, y: g * (1 - y * y), floating=True)


def _sigmoid(x: Any) -> Any:
    z = np.exp(-np.abs(x))  # never overflows
    return np.where(x >= 0, 1, z) / (1 + z)


sigmoid = elementwise("Sigmoid", _sigmoid, x=lambda g, y: g * y * (1 - y), floating=True)


@np.errstate(all="ignore")
def _logit(x: Any, *, eps: float | None = None) -> Any:
    """y = ln(x / (1 − x)), of x limited to [eps, 1 − eps]."""
    x = x if eps is None else np.clip(x, eps, 1 - eps)
    return np.log(x / (1 - x))


def _logit_slope(x: Any, eps: float | None) -> Any:
    low, beyond = (0.0, math.nan) if eps is None else (eps, 0.0)
    outside = (x < low) | (x > 1 - low)
    inner = where(outside, 0.5, x)
    return where(outside, beyond, 1 / (inner * (1 - inner)))


logit = elementwise("Logit", _logit, x=lambda g, x, eps: g * _logit_slope(x, eps), floating=True)
logaddexp = elementwise(
    "Logaddexp",
    quiet(np.logaddexp),
    inputs=("a", "b"),
    a=lambda g, a, b: g * sigmoid(a - b),
    b=lambda g, a, b: g * sigmoid(b - a),
    refuse=lacks("logaddexp_cpu", "biu"),
)
logaddexp2 = elementwise(
    "Logaddexp2",
    quiet(np.logaddexp2),
    inputs=("a", "b"),
    a=lambda g, a, b: g * sigmoid((a - b) * math.log(2)),
    b=lambda g, a, b: g * sigmoid((b - a) * math.log(2)),
    refuse=lacks("logaddexp2_cpu", "biu"),
)


def _xlogy(a: Any, b: Any) -> Any:
    """a·ln b, and 0 where a = 0, unless b is nan."""
    b = np.asarray(b, None if isinstance(b, np.ndarray) else a.dtype)
    return np.where(np.equal(a, 0) & ~np.isnan(b), 0, a * np.log(b))


def _log_where(a: Any, b: Any) -> Any:
    """ln b, and 0 where a = 0 and b ≤ 0."""
    b = b + zeros_like(a)  # a number becomes an array of a's dtype
    zero = (a == 0) & (b <= 0)
    return log(where(zero, 1.0, b))


xlogy = elementwise(
    "Xlogy",
    quiet(_xlogy),
    inputs=("a", "b"),
    a=lambda g, a, b: g * _log_where(a, b),
    b=lambda g, a, b: g * a / b,
    floating=True,
)

# ---- Angles ----

sin = elementwise("Sin", quiet(np.sin), inputs=("x",), x=lambda g, x: g * cos(x), floating=True)
cos = elementwise("Cos", quiet(np.cos), inputs=("x",), x=lambda g, x: -g * sin(x), floating=True)
tan = elementwise("Tan", quiet(np.tan), inputs=("x",), x=lambda g, y: g * (1 + y * y), floating=True)
asin = elementwise("Asin", quiet(np.arcsin), inputs=("x",), x=lambda g, x: g * rsqrt(1 - x * x), floating=True)
acos = elementwise("Acos", quiet(np.arccos), inputs=("x",), x=lambda g, x: -g * rsqrt(1 - x * x), floating=True)
atan = elementwise("Atan", np.arctan, x=lambda g, x: g / (x * x + 1), floating=True)
sinh = elementwise("Sinh", quiet(np.sinh), inputs=("x",), x=lambda g, x: g * cosh(x), floating=True)
cosh = elementwise("Cosh", quiet(np.cosh), inputs=("x",), x=lambda g, x: g * sinh(x), floating=True)
asinh = elementwise("Asinh", np.arcsinh, x=lambda g, x: g * rsqrt(x * x + 1), floating=True)
acosh = elementwise("Acosh", quiet(np.arccosh), inputs=("x",), x=lambda g, x: g * rsqrt(x * x - 1), floating=True)
atanh = elementwise("Atanh", quiet(np.arctanh), inputs=("x",), x=lambda g, x: g / (1 - x * x), floating=True)


def _per_radius(x: Any, a: Any, b: Any) -> Any:
    """x / (a² + b²), without overflow, and 0 at the origin."""
    r = hypot(a, b)
    r = where(r == 0, 1.0, r)
    return x / r / r


atan2 = elementwise(
    "Atan2",
    np.arctan2,
    a=lambda g, a, b: g * _per_radius(b, a, b),
    b=lambda g, a, b: -g * _per_radius(a, a, b),
    floating=True,
)
hypot = elementwise(
    "Hypot",
    quiet(np.hypot),
    inputs=("a", "b"),
    a=lambda g, a, y: g * (a / y),
    b=lambda g, b, y: g * (b / y),
    refuse=lacks("hypot_cpu", "biu"),
)

# ---- Pieces ----


def _sign(x: Any) -> Any:
    """−1, 0 or 1; of nan 0, of bools themselves."""
    if x.dtype == bool_:
        return x.copy()
    return np.greater(x, 0).astype(x.dtype) - np.less(x, 0).astype(x.dtype)


def _copysign_slope(a: Any, y: Any) -> Any:
    return where(a == 0, 0.0, y / where(a == 0, 1.0, a))


def _heaviside(operands: list[Any], _: DType) -> str | None:
    a, b = operands
    return None if a.dtype == b.dtype else "heaviside is not yet implemented for tensors with different dtypes."


def _step(name: str, forward: Callable[..., Any], kernel: str, kinds: str) -> Elementwise:
    """An operation whose slope is zero."""
    return elementwise(name, forward, inputs=("x",), x=lambda g: zeros_like(g), refuse=lacks(kernel, kinds))


abs = elementwise("Abs", np.absolute, x=lambda g, x: g * sign(x), refuse=lacks("abs_cpu", "b"))
sign = elementwise("Sign", _sign, x=lambda g: zeros_like(g))
floor = _step("Floor", np.floor, "floor_vml_cpu", "b")
ceil = _step("Ceil", np.ceil, "ceil_vml_cpu", "b")
round = _step("Round", lambda x: x.copy() if x.dtype.kind in "iu" else np.rint(x), "round_vml_cpu", "b")
round_decimals = elementwise(
    "RoundDecimals",
    lambda x, *, decimals: np.round(x, decimals),
    x=lambda g: zeros_like(g),
    refuse=lacks("round_cpu", "biu"),
)
trunc = _step("Trunc", np.trunc, "trunc_vml_cpu", "b")
frac = elementwise(
    "Frac", quiet(lambda x: x - np.trunc(x)), inputs=("x",), x=lambda g: g, refuse=lacks("frac_cpu", "biu")
)


relu = elementwise(
    "Relu",
    kernels.relu,
    inputs=("x",),
    half=kernels.relu,
    x=lambda g, y: g * (y != 0) if isinstance(g, Variable) else kernels.relu_gradient(g, y),
    refuse=lambda _, dtype: "Boolean inputs not supported for relu" if dtype == bool_ else None,
)
copysign = elementwise(
    "Copysign",
    np.copysign,
    a=lambda g, a, y: g * _copysign_slope(a, y),
    b=lambda g: zeros_like(g),
    floating=True,
)
heaviside = elementwise(
    "Heaviside",
    lambda a, b: np.where(a == 0, b, (a > 0).astype(a.dtype)),
    a=lambda g: zeros_like(g),
    b=lambda g, a: g * (a == 0),
    refuse=_heaviside,
)
nan_to_num = elementwise(
    "NanToNum",
    lambda x, *, nan, posinf, neginf: np.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf),
    x=lambda g, x: g * isfinite(x),
)

# ---- Choices ----

maximum = elementwise(
    "Maximum",
    np.maximum,
    a=lambda g, a, b: where(a == b, g / 2, where(a < b, 0.0, g)),
    b=lambda g, a, b: where(a == b, g / 2, where(a > b, 0.0, g)),
)
minimum = elementwise(
    "Minimum",
    np.minimum,
    a=lambda g, a, b: where(a == b, g / 2, where(a > b, 0.0, g)),
    b=lambda g, a, b: where(a == b, g / 2, where(a < b, 0.0, g)),
)
fmax = elementwise(
    "Fmax",
    np.fmax,
    a=lambda g, a, b: where((a >= b) | isnan(b), g, 0.0),
    b=lambda g, a, b: where((a >= b) | isnan(b), 0.0, g),
)
fmin = elementwise(
    "Fmin",
    np.fmin,
    a=lambda g, a, b: where((a <= b) | isnan(b), g, 0.0),
    b=lambda g, a, b: where((a <= b) | isnan(b), 0.0, g),
)
where = elementwise(
    "Where",
    np.where,
    inputs=("condition", "a", "b"),
    exempt="condition",
    a=lambda g, condition: where(condition, g, 0.0),
    b=lambda g, condition: where(condition, 0.0, g),
)


@op("Clamp", x=lambda g, x, min, max: g * _inside(x, min, max))
def clamp(x: Any, *, min: float | None = None, max: float | None = None) -> Any:
    """`x` limited to [min, max]; the gradient passes on the closed interval."""
    return np.clip(x, min, max)


def _inside(x: Any, low: float | None, high: float | None) -> Any:
    inside = x == x
    if low is not None:
        inside = inside & (x >= low)
    if high is not None:
        inside = inside & (x <= high)
    return inside


clamp_between = elementwise(
    "Clamp",
    lambda x, low, high: np.clip(x, low, high),
    x=lambda g, x, low, high: g * ((x >= low) & (x <= high)),
    low=lambda g, x, low, high: g * ((low < high) & (x < low)),
    high=lambda g, x, low, high: g * ((x > high) | (high < low)),
)
clamp_min = elementwise(
    "ClampMin",
    lambda x, low: np.maximum(x, low),
    x=lambda g, x, low: g * (x >= low),
    low=lambda g, x, low: g * (x < low),
)
clamp_max = elementwise(
    "ClampMax",
    lambda x, high: np.minimum(x, high),
    x=lambda g, x, high: g * (x <= high),
    high=lambda g, x, high: g * (x > high),
)

# ---- Comparisons, which have no gradient ----

eq = elementwise("Eq", np.equal, inputs=("a", "b"))
ne = elementwise("Ne", np.not_equal, inputs=("a", "b"))
lt = elementwise("Lt", np.less, inputs=("a", "b"))
le = elementwise("Le", np.less_equal, inputs=("a", "b"))
gt = elementwise("Gt", np.greater, inputs=("a", "b"))
ge = elementwise("Ge", np.greater_equal, inputs=("a", "b"))
isnan = elementwise("Isnan", np.isnan, inputs=("x",))
isinf = elementwise("Isinf", np.isinf, inputs=("x",))
isfinite = elementwise("Isfinite", np.isfinite, inputs=("x",))


@np.errstate(all="ignore")
def _isclose(a: Any, b: Any, *, rtol: float, atol: float, equal_nan: bool) -> Any:
    """|a − b| ≤ atol + rtol·|b|, or a = b."""
    close = a == b
    if equal_nan:
        close = close | ((a != a) & (b != b))
    if rtol == 0 and atol == 0:
        return close
    if a.dtype == bool_:
        a, b = a.astype(np.int64), b.astype(np.int64)
    error = np.abs(a - b)
    bound = atol + np.abs(rtol * (b if is_floating(b.dtype) else b.astype(np.float32)))
    return close | (np.isfinite(error) & (error <= bound))


isclose = elementwise("Isclose", _isclose)

# ---- Logic ----

logical_and = elementwise("LogicalAnd", np.logical_and, inputs=("a", "b"))
logical_or = elementwise("LogicalOr", np.logical_or, inputs=("a", "b"))
logical_xor = elementwise("LogicalXor", np.logical_xor, inputs=("a", "b"))
logical_not = elementwise("LogicalNot", np.logical_not, inputs=("x",))


def _of_bits(name: str, forward: np.ufunc, kernel: str, kinds: str = "fV") -> Elementwise:
    """An operation on the bits of integers, and of bools."""
    inputs = ("a", "b") if forward.nin == 2 else ("x",)
    return elementwise(name, forward, inputs=inputs, refuse=lacks(kernel, kinds), integral=True)


bitwise_and = _of_bits("BitwiseAnd", np.bitwise_and, "bitwise_and_cpu")
bitwise_or = _of_bits("BitwiseOr", np.bitwise_or, "bitwise_or_cpu")
bitwise_xor = _of_bits("BitwiseXor", np.bitwise_xor, "bitwise_xor_cpu")
bitwise_not = _of_bits("BitwiseNot", np.bitwise_not, "bitwise_not_cpu")
left_shift = _of_bits("LeftShift", np.left_shift, "lshift_cpu", "bfV")
right_shift = _of_bits("RightShift", np.right_shift, "rshift_cpu", "bfV")

# ---- Copies ----


@op("Clone", exact=True, x=lambda g: g)
def clone(x: Any) -> Any:
    """A copy in the same memory layout."""
    return np.copy(x, order="K")


@op("ToCopy", saves=("source",), exact=True, converts=True, x=lambda g, source: cast(g, dtype=source))
def cast(x: Any, *, dtype: DType) -> Any:
    """`x` in another dtype; its gradient goes back in the first."""
    return x.astype(dtype), {"source": x.dtype}


@op("ZerosLike")
def zeros_like(x: Any) -> Any:
    """Zeros in the shape, dtype and layout of `x`."""
    return np.zeros_like(x)
