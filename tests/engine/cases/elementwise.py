"""Rows: Elementwise operations, and broadcasting."""

from __future__ import annotations

import numpy as np

from chainrule.engine.ops import broadcasting
from tests.engine.cases.case import Case, Make, apart, away_from_zero, given, normal, positive, transposed, truth, whole


def within(low: float, high: float, *size: int) -> Make:
    return lambda draws: np.asarray(draws.uniform(low, high, size))


def between_wholes(*size: int) -> Make:
    """Numbers that no small step rounds differently."""
    return lambda draws: draws.integers(-4, 4, size) + draws.uniform(0.1, 0.4, size)


CASES = (
    Case("broadcasting.expand", lambda m, x: x.expand(4, 3, 2), (normal(3, 1),)),
    Case("broadcasting.expand", lambda m, x: x.expand(2, 3), (normal(),), note="0d"),
    Case("broadcasting.sum_to", lambda m, x: broadcasting.sum_to(x, shape=(3, 1)), (normal(2, 3, 4),), torch=False),
    # arithmetic
    Case("elementwise.add", lambda m, a, b: a + b, (normal(2, 3), normal(2, 3))),
    Case("elementwise.add", lambda m, a, b: a + b, (normal(2, 1, 3), normal(4, 1)), note="broadcast"),
    Case("elementwise.add", lambda m, a, b: a + b, (normal(0, 3), normal(3)), note="empty"),
    Case("elementwise.add", lambda m, a: 2 + a, (normal(2, 3),), note="number"),
    Case("elementwise.sub", lambda m, a, b: a - b, (normal(3), normal())),
    Case("elementwise.sub", lambda m, a: 1.5 - a, (normal(3),), note="number"),
    Case("elementwise.mul", lambda m, a, b: a * b, (normal(2, 3), normal(3))),
    Case("elementwise.mul", lambda m, a, b: a * b, (transposed(2, 3), normal(2, 3)), note="not-contiguous"),
    Case("elementwise.mul", lambda m, a, b: a * b, (normal(), normal()), note="0d"),
    Case("elementwise.mul", lambda m, a: a * a, (normal(3),), note="twice"),
    Case("elementwise.div", lambda m, a, b: a / b, (normal(2, 3), away_from_zero(2, 1))),
    Case("elementwise.div", lambda m, a: 3 / a, (away_from_zero(4),), note="number"),
    Case("elementwise.neg", lambda m, a: -a, (normal(3),)),
    Case("elementwise.pow", lambda m, a, b: a**b, (positive(2, 3), normal(3))),
    Case("elementwise.pow", lambda m, a: a**3, (normal(4),), note="cube"),
    Case("elementwise.pow", lambda m, a: a**2.5, (positive(4),), note="fraction"),
    Case("elementwise.pow", lambda m, a: a**-1, (away_from_zero(4),), note="negative"),
    Case("elementwise.pow", lambda m, a: a**0, (normal(4),), note="zero"),
    Case("elementwise.pow", lambda m, b: 2**b, (normal(4),), note="of-number"),
    Case(
        "elementwise.pow", lambda m, a, b: m.pow(a, b), (transposed(2, 3), whole(2, 3)), note="of-integers", torch=False
    ),
    Case("elementwise.pow", lambda m, a: m.square(a), (transposed(2, 3),), note="square"),
    Case("elementwise.add", lambda m, a, b: m.add(a, b, alpha=0.5), (transposed(2, 3), normal(3)), note="alpha"),
    Case("elementwise.sub", lambda m, a, b: m.sub(a, b, alpha=2), (normal(2, 3), normal(3)), note="alpha"),
    Case("elementwise.sub", lambda m, a, b: m.rsub(a, b, alpha=2), (normal(2, 3), normal(3)), note="reflected"),
    Case("elementwise.reciprocal", lambda m, a: m.reciprocal(a), (away_from_zero(2, 3),)),
    Case("elementwise.mul", lambda m, x, k: m.ldexp(x, k), (normal(4), whole(4)), note="ldexp", torch=False),
    Case("elementwise.lerp", lambda m, a, b: m.lerp(a, b, 0.3), (normal(2, 3), normal(3)), note="number"),
    Case("elementwise.lerp", lambda m, a, b, w: m.lerp(a, b, w), (normal(2, 3), normal(3), within(0.0, 1.0, 2, 1))),
    Case("elementwise.lerp", lambda m, a, b: a.lerp(b, 0.8), (normal(0, 3), normal(3)), note="empty"),
    Case("elementwise.addcmul", lambda m, x, a, b: m.addcmul(x, a, b), (normal(2, 3), normal(3), normal(2, 1))),
    Case("elementwise.addcmul", lambda m, x, a: x.addcmul(a, a, value=-0.5), (normal(2), normal()), note="0d"),
    Case("elementwise.addcdiv", lambda m, x, a, b: m.addcdiv(x, a, b), (normal(2, 3), normal(3), away_from_zero(2, 1))),
    Case("elementwise.addcdiv", lambda m, x, a: x.addcdiv(a, a, value=2), (normal(2), away_from_zero(2)), note="value"),
    # exponentials
    Case("elementwise.exp2", lambda m, x: m.exp2(x), (normal(2, 3),)),
    Case("elementwise.expm1", lambda m, x: m.expm1(x), (normal(2, 3),)),
    Case("elementwise.log2", lambda m, x: m.log2(x), (positive(2, 3),)),
    Case("elementwise.log10", lambda m, x: m.log10(x), (positive(2, 3),)),
    Case("elementwise.log1p", lambda m, x: m.log1p(x), (positive(2, 3),)),
    Case("elementwise.rsqrt", lambda m, x: m.rsqrt(x), (positive(2, 3),)),
    Case("elementwise.logit", lambda m, x: m.logit(x), (within(0.1, 0.9, 2, 3),)),
    Case(
        "elementwise.logit", lambda m, x: m.logit(x, 0.2), (lambda draws: np.array([0.1, 0.3, 0.5, 0.9]),), note="eps"
    ),
    Case("elementwise.logaddexp", lambda m, a, b: m.logaddexp(a, b), (normal(2, 3), normal(3))),
    Case("elementwise.logaddexp2", lambda m, a, b: m.logaddexp2(a, b), (normal(2, 3), normal(3))),
    Case("elementwise.xlogy", lambda m, a, b: m.xlogy(a, b), (normal(2, 3), positive(3))),
    Case("elementwise.xlogy", lambda m, b: m.xlogy(2, b), (positive(3),), note="number"),
    Case("elementwise.exp", lambda m, x: m.exp(x), (normal(2, 3),)),
    Case("elementwise.log", lambda m, x: m.log(x), (positive(2, 3),)),
    Case("elementwise.sqrt", lambda m, x: m.sqrt(x), (positive(2, 3),)),
    Case("elementwise.tanh", lambda m, x: m.tanh(x), (normal(2, 3),)),
    Case("elementwise.sigmoid", lambda m, x: m.sigmoid(x), (normal(2, 3),)),
    Case("elementwise.sigmoid", lambda m, x: m.sigmoid(200 * x), (away_from_zero(4),), note="far"),
    # angles
    Case("elementwise.sin", lambda m, x: m.sin(x), (normal(2, 3),)),
    Case("elementwise.cos", lambda m, x: m.cos(x), (transposed(2, 3),)),
    Case("elementwise.tan", lambda m, x: m.tan(x), (within(-1.0, 1.0, 5),)),
    Case("elementwise.asin", lambda m, x: m.asin(x), (within(-0.9, 0.9, 5),)),
    Case("elementwise.acos", lambda m, x: m.acos(x), (within(-0.9, 0.9, 5),)),
    Case("elementwise.atan", lambda m, x: m.atan(x), (normal(0, 2),), note="empty"),
    Case("elementwise.atan", lambda m, x: m.atan(x), (normal(5),)),
    Case("elementwise.sinh", lambda m, x: m.sinh(x), (normal(),), note="0d"),
    Case("elementwise.cosh", lambda m, x: m.cosh(x), (normal(5),)),
    Case("elementwise.asinh", lambda m, x: m.asinh(x), (normal(5),)),
    Case("elementwise.acosh", lambda m, x: m.acosh(x), (within(1.2, 3.0, 5),)),
    Case("elementwise.atanh", lambda m, x: m.atanh(x), (within(-0.9, 0.9, 5),)),
    Case("elementwise.atan2", lambda m, a, b: m.atan2(a, b), (away_from_zero(2, 3), away_from_zero(3))),
    Case("elementwise.hypot", lambda m, a, b: m.hypot(a, b), (away_from_zero(2, 3), away_from_zero(3))),
    # pieces
    Case("elementwise.floor", lambda m, x: m.floor(x), (between_wholes(5),)),
    Case("elementwise.ceil", lambda m, x: m.ceil(x), (between_wholes(5),)),
    Case("elementwise.round", lambda m, x: m.round(x), (between_wholes(5),)),
    Case("elementwise.round_decimals", lambda m, x: m.round(x, decimals=1), (within(0.11, 0.14, 3),)),
    Case("elementwise.round_decimals", lambda m, x: m.round(x, decimals=-1), (within(11, 14, 3),), note="tens"),
    Case("elementwise.trunc", lambda m, x: m.trunc(x), (between_wholes(5),)),
    Case("elementwise.frac", lambda m, x: m.frac(x), (between_wholes(5),)),
    Case("elementwise.copysign", lambda m, a, b: m.copysign(a, b), (away_from_zero(2, 3), away_from_zero(3))),
    Case("elementwise.copysign", lambda m, a: m.copysign(a, -2), (away_from_zero(3),), note="number"),
    Case("elementwise.heaviside", lambda m, a, b: m.heaviside(a, b), (away_from_zero(2, 3), normal(3)), torch=False),
    Case("elementwise.nan_to_num", lambda m, x: m.nan_to_num(x), (normal(2, 3),)),
    Case("elementwise.abs", lambda m, x: m.abs(x), (away_from_zero(5),)),
    Case("elementwise.sign", lambda m, x: m.sign(x), (away_from_zero(5),)),
    Case("elementwise.relu", lambda m, x: m.relu(x), (away_from_zero(2, 5),)),
    Case("elementwise.relu", lambda m, x: m.relu(x), (away_from_zero(2, 64),), note="long-rows"),
    Case("elementwise.maximum", lambda m, a, b: m.maximum(a, b), (apart(2, 3), normal(3))),
    Case("elementwise.minimum", lambda m, a, b: m.minimum(a, b), (apart(2, 3), normal(3))),
    Case("elementwise.where", lambda m, c, a, b: m.where(c, a, b), (truth(2, 3), normal(2, 3), normal(3))),
    Case("elementwise.where", lambda m, c, a: m.where(c, a, 0.0), (truth(3), normal(2, 3)), note="number"),
    Case("elementwise.clamp", lambda m, x: m.clamp(x, -0.5, 0.7), (normal(8),)),
    Case("elementwise.clamp", lambda m, x: m.clamp(x, min=0.1), (normal(8),), note="below"),
    Case("elementwise.where", lambda m, c, a: a.where(c, -a), (truth(3), normal(2, 3)), note="method"),
    Case("elementwise.fmax", lambda m, a, b: m.fmax(a, b), (apart(2, 3), normal(3))),
    Case("elementwise.fmin", lambda m, a, b: m.fmin(a, b), (apart(2, 3), normal(3))),
    Case("elementwise.clamp_between", lambda m, x, a, b: m.clamp(x, a, b), (normal(2, 5), normal(5), normal(2, 1))),
    Case("elementwise.clamp_min", lambda m, x, a: m.clamp(x, a), (apart(2, 3), normal(3))),
    Case("elementwise.clamp_max", lambda m, x, a: m.clamp_max(x, a), (apart(2, 3), normal(3))),
    # comparisons
    Case("elementwise.isinf", lambda m, a: m.isinf(a), (given([1.0, np.nan, -np.inf]),)),
    Case("elementwise.isfinite", lambda m, a: m.isfinite(a), (given([1.0, np.nan, -np.inf]),)),
    Case("elementwise.isclose", lambda m, a, b: m.isclose(a, b, 0.1), (positive(2, 30), positive(30))),
    Case("elementwise.logical_and", lambda m, a, b: m.logical_and(a, b), (whole(2, 9), truth(9))),
    Case("elementwise.logical_or", lambda m, a, b: m.logical_or(a, b), (whole(2, 9), truth(9))),
    Case("elementwise.logical_xor", lambda m, a, b: m.logical_xor(a, b), (whole(2, 9), truth(9))),
    Case("elementwise.logical_not", lambda m, a: m.logical_not(a), (whole(9),)),
    Case("elementwise.bitwise_xor", lambda m, a, b: a ^ b, (whole(2, 9), whole(9))),
    Case("elementwise.left_shift", lambda m, a: a << 2, (whole(9),)),
    Case("elementwise.right_shift", lambda m, a: a >> 1, (whole(9),)),
    Case("elementwise.eq", lambda m, a, b: a == b, (apart(4), apart(4))),
    Case("elementwise.ne", lambda m, a, b: a != b, (apart(4), apart(4))),
    Case("elementwise.lt", lambda m, a, b: a < b, (normal(2, 3), normal(3))),
    Case("elementwise.le", lambda m, a, b: a <= b, (normal(2, 3), normal(3))),
    Case("elementwise.gt", lambda m, a: a > 0, (normal(4),)),
    Case("elementwise.ge", lambda m, a: a >= 0, (normal(4),)),
    Case("elementwise.bitwise_and", lambda m, a, b: a & b, (truth(6), truth(6))),
    Case("elementwise.bitwise_or", lambda m, a, b: a | b, (truth(6), truth(6))),
    Case("elementwise.bitwise_not", lambda m, a: ~a, (truth(6),)),
    Case("elementwise.isnan", lambda m, a: m.isnan(a), (given([1.0, np.nan, np.inf]),)),
    # copies
    Case("elementwise.clone", lambda m, x: x.clone(), (transposed(2, 3),)),
    Case("elementwise.cast", lambda m, x: x.to(m.float64), (normal(3),)),
    Case("elementwise.zeros_like", lambda m, x: m.zeros_like(x), (normal(3),)),
)
