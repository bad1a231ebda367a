"""Rows: Running sums and products, and products."""

from __future__ import annotations

from chainrule.engine.ops import scan
from tests.engine.cases.case import Case, away_from_zero, given, normal, transposed

one_zero = given([[1.5, 0.0, -2.0, 0.5], [1.0, 2.0, 3.0, -1.0]])
two_zeros = given([[1.5, 0.0, -2.0, 0.0], [1.0, 2.0, 3.0, -1.0]])

CASES = (
    Case("scan.cumsum", lambda m, x: x.cumsum(1), (normal(2, 4),)),
    Case("scan.cumsum", lambda m, x: x.cumsum(0), (transposed(3, 2, 2),), note="not-contiguous"),
    Case("scan.cumsum", lambda m, x: x.cumsum(0), (normal(),), note="0d"),
    Case("scan.cumsum", lambda m, x: x.cumsum(0), (normal(0, 2),), note="empty"),
    Case("scan.cumprod", lambda m, x: x.cumprod(1), (away_from_zero(2, 4),)),
    Case("scan.cumprod", lambda m, x: x.cumprod(-1), (one_zero,), note="zero"),
    Case("scan.cumprod", lambda m, x: x.cumprod(-1), (two_zeros,), note="zeros"),
    Case("scan.cumprod", lambda m, x: x.cumprod(0), (away_from_zero(),), note="0d"),
    Case("scan.cumprod", lambda m, x: x.cumprod(0), (given(0.0),), note="0d-zero"),
    Case("scan.cumprod", lambda m, x: x.cumprod(0), (normal(0, 2),), note="empty"),
    Case("scan.logcumsumexp", lambda m, x: x.logcumsumexp(1), (normal(2, 4),)),
    Case("scan.logcumsumexp", lambda m, x: x.logcumsumexp(0), (normal(),), note="0d"),
    Case("scan.logcumsumexp", lambda m, x: x.logcumsumexp(0), (normal(0, 2),), note="empty"),
    Case("scan.recurrence", lambda m, x, a: scan.recurrence(x, a, dim=1), (normal(2, 4), normal(2, 4)), torch=False),
    Case("scan.prod", lambda m, x: x.prod(), (away_from_zero(2, 3),)),
    Case("scan.prod", lambda m, x: x.prod(1), (away_from_zero(2, 3),), note="dim"),
    Case("scan.prod", lambda m, x: x.prod(0, keepdim=True), (away_from_zero(2, 3),), note="keepdim"),
    Case("scan.prod", lambda m, x: x.prod(1), (one_zero,), note="zero"),
    Case("scan.prod", lambda m, x: x.prod(1), (two_zeros,), note="zeros"),
    Case("scan.prod", lambda m, x: x.prod(), (two_zeros,), note="zeros-of-all"),
    Case("scan.prod", lambda m, x: x.prod(), (given(0.0),), note="0d-zero"),
    Case("scan.prod", lambda m, x: x.prod(0), (normal(),), note="0d"),
    Case("scan.prod", lambda m, x: x.prod(0), (normal(0, 2),), note="empty"),
)
