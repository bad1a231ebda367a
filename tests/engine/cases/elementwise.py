"""Rows: Elementwise operations, and broadcasting."""

from __future__ import annotations

import numpy as np

from chainrule.engine.ops import op as declaring
from tests.engine.cases.case import Case, apart, away_from_zero, normal, positive, transposed, truth

CASES = (
    Case("op.expand", lambda m, x: x.expand(4, 3, 2), (normal(3, 1),)),
    Case("op.expand", lambda m, x: x.expand(2, 3), (normal(),), note="0d"),
    Case("op.sum_to", lambda m, x: declaring.sum_to(x, shape=(3, 1)), (normal(2, 3, 4),), torch=False),
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
    # exponentials
    Case("elementwise.exp", lambda m, x: m.exp(x), (normal(2, 3),)),
    Case("elementwise.log", lambda m, x: m.log(x), (positive(2, 3),)),
    Case("elementwise.sqrt", lambda m, x: m.sqrt(x), (positive(2, 3),)),
    Case("elementwise.tanh", lambda m, x: m.tanh(x), (normal(2, 3),)),
    Case("elementwise.sigmoid", lambda m, x: m.sigmoid(x), (normal(2, 3),)),
    Case("elementwise.sigmoid", lambda m, x: m.sigmoid(200 * x), (away_from_zero(4),), note="far"),
    # pieces
    Case("elementwise.abs", lambda m, x: m.abs(x), (away_from_zero(5),)),
    Case("elementwise.sign", lambda m, x: m.sign(x), (away_from_zero(5),)),
    Case("elementwise.relu", lambda m, x: m.relu(x), (away_from_zero(2, 5),)),
    Case("elementwise.maximum", lambda m, a, b: m.maximum(a, b), (apart(2, 3), normal(3))),
    Case("elementwise.minimum", lambda m, a, b: m.minimum(a, b), (apart(2, 3), normal(3))),
    Case("elementwise.where", lambda m, c, a, b: m.where(c, a, b), (truth(2, 3), normal(2, 3), normal(3))),
    Case("elementwise.where", lambda m, c, a: m.where(c, a, 0.0), (truth(3), normal(2, 3)), note="number"),
    Case("elementwise.clamp", lambda m, x: m.clamp(x, -0.5, 0.7), (normal(8),)),
    Case("elementwise.clamp", lambda m, x: m.clamp(x, min=0.1), (normal(8),), note="below"),
    # comparisons
    Case("elementwise.eq", lambda m, a, b: a == b, (apart(4), apart(4))),
    Case("elementwise.ne", lambda m, a, b: a != b, (apart(4), apart(4))),
    Case("elementwise.lt", lambda m, a, b: a < b, (normal(2, 3), normal(3))),
    Case("elementwise.le", lambda m, a, b: a <= b, (normal(2, 3), normal(3))),
    Case("elementwise.gt", lambda m, a: a > 0, (normal(4),)),
    Case("elementwise.ge", lambda m, a: a >= 0, (normal(4),)),
    Case("elementwise.bitwise_and", lambda m, a, b: a & b, (truth(6), truth(6))),
    Case("elementwise.bitwise_or", lambda m, a, b: a | b, (truth(6), truth(6))),
    Case("elementwise.bitwise_not", lambda m, a: ~a, (truth(6),)),
    Case("elementwise.isnan", lambda m, a: m.isnan(a), (lambda draws: np.array([1.0, np.nan, np.inf]),)),
    # copies
    Case("elementwise.clone", lambda m, x: x.clone(), (transposed(2, 3),)),
    Case("elementwise.cast", lambda m, x: x.to(m.float64), (normal(3),)),
    Case("elementwise.zeros_like", lambda m, x: m.zeros_like(x), (normal(3),)),
)
