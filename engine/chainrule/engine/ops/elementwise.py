"""Operations on each element: arithmetic, exponentials, activations, choices, comparisons."""

# mypy: disable-error-code=has-type
# A formula may name operations declared further down.

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.engine.dtypes import DType
from chainrule.engine.ops.op import Scalar, elementwise, op

# ---- Arithmetic ----

add = elementwise("Add", np.add, a=lambda g: g, b=lambda g: g)
sub = elementwise("Sub", np.subtract, a=lambda g: g, b=lambda g: -g)
mul = elementwise("Mul", np.multiply, a=lambda g, b: g * b, b=lambda g, a: g * a)
div = elementwise("Div", np.divide, a=lambda g, b: g / b, b=lambda g, a, b: -g * a / (b * b), floating=True)
neg = elementwise("Neg", np.negative, x=lambda g: -g)


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
    np.power,
    a=lambda g, a, b: g * _power_slope(a, b),
    b=lambda g, a, b, y: g * _exponent_slope(a, b, y),
)

# ---- Exponentials ----

exp = elementwise("Exp", np.exp, x=lambda g, y: g * y, floating=True)
log = elementwise("Log", np.log, x=lambda g, x: g / x, floating=True)
sqrt = elementwise("Sqrt", np.sqrt, x=lambda g, y: g / (2 * y), floating=True)
tanh = elementwise("Tanh", np.tanh, x=lambda g, y: g * (1 - y * y), floating=True)


def _sigmoid(x: Any) -> Any:
    z = np.exp(-np.abs(x))  # never overflows
    return np.where(x >= 0, 1, z) / (1 + z)


sigmoid = elementwise("Sigmoid", _sigmoid, x=lambda g, y: g * y * (1 - y), floating=True)

# ---- Pieces ----

abs = elementwise("Abs", np.absolute, x=lambda g, x: g * sign(x))
sign = elementwise("Sign", np.sign, x=lambda g: zeros_like(g))
relu = elementwise("Relu", lambda x: np.maximum(x, 0), inputs=("x",), x=lambda g, y: g * (y > 0))
maximum = elementwise(
    "Maximum",
    np.maximum,
    a=lambda g, a, b: where(a == b, g / 2, where(a > b, g, 0.0)),
    b=lambda g, a, b: where(a == b, g / 2, where(a < b, g, 0.0)),
)
minimum = elementwise(
    "Minimum",
    np.minimum,
    a=lambda g, a, b: where(a == b, g / 2, where(a < b, g, 0.0)),
    b=lambda g, a, b: where(a == b, g / 2, where(a > b, g, 0.0)),
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


# ---- Comparisons, which have no gradient ----

eq = elementwise("Eq", np.equal, inputs=("a", "b"))
ne = elementwise("Ne", np.not_equal, inputs=("a", "b"))
lt = elementwise("Lt", np.less, inputs=("a", "b"))
le = elementwise("Le", np.less_equal, inputs=("a", "b"))
gt = elementwise("Gt", np.greater, inputs=("a", "b"))
ge = elementwise("Ge", np.greater_equal, inputs=("a", "b"))
bitwise_and = elementwise("BitwiseAnd", np.bitwise_and, inputs=("a", "b"))
bitwise_or = elementwise("BitwiseOr", np.bitwise_or, inputs=("a", "b"))
bitwise_not = elementwise("BitwiseNot", np.bitwise_not, inputs=("x",))
isnan = elementwise("Isnan", np.isnan, inputs=("x",))

# ---- Copies ----


@op("Clone", exact=True, x=lambda g: g)
def clone(x: Any) -> Any:
    """A copy in the same memory layout."""
    return np.copy(x, order="K")


@op("ToCopy", saves=("source",), exact=True, x=lambda g, source: cast(g, dtype=source))
def cast(x: Any, *, dtype: DType) -> Any:
    """`x` in another dtype; its gradient goes back in the first."""
    return x.astype(dtype), {"source": x.dtype}


@op("ZerosLike")
def zeros_like(x: Any) -> Any:
    """Zeros in the shape, dtype and layout of `x`."""
    return np.zeros_like(x)
