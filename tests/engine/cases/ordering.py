"""Rows: Order, and elements picked by it."""

from __future__ import annotations

import numpy as np

from chainrule.engine.ops import ordering
from tests.engine.cases.case import Case, apart, normal

CASES = (
    Case("ordering.max", lambda m, x: x.max(1).values, (apart(3, 4),)),
    Case("ordering.max", lambda m, x: m.max(x, 0, keepdim=True)[0], (apart(3, 4),), note="keepdim"),
    Case("ordering.max", lambda m, x: x.max(0)[0], (normal(),), note="0d"),
    Case("ordering.max", lambda m, x: x.max(0)[0], (normal(2, 0),), note="empty"),
    Case("ordering.min", lambda m, x: x.min(1).values, (apart(3, 4),)),
    Case("ordering.sort", lambda m, x: x.sort().values, (apart(3, 4),)),
    Case("ordering.sort", lambda m, x: m.sort(x, 0, True)[0], (apart(3, 4),), note="falling"),
    Case("ordering.sort", lambda m, x: x.T.sort(0)[0], (apart(3, 4),), note="not-contiguous"),
    Case("ordering.sort", lambda m, x: m.msort(x), (apart(3, 4),), note="first-dimension"),
    Case("ordering.sort", lambda m, x: x.sort().values, (normal(),), note="0d"),
    Case("ordering.sort", lambda m, x: x.sort().values, (normal(0),), note="empty"),
    Case("ordering.topk", lambda m, x: x.topk(2).values, (apart(3, 4),)),
    Case("ordering.topk", lambda m, x: m.topk(x, 2, 0, largest=False)[0], (apart(3, 4),), note="smallest"),
    Case("ordering.topk", lambda m, x: x.topk(0).values, (apart(3, 4),), note="none"),
    Case("ordering.kthvalue", lambda m, x: x.kthvalue(2).values, (apart(3, 4),)),
    Case("ordering.kthvalue", lambda m, x: x.kthvalue(2, 0, True).values, (apart(3, 4),), note="keepdim"),
    Case("ordering.median", lambda m, x: x.median(1).values, (apart(3, 4),)),
    Case("ordering.nanmedian", lambda m, x: x.nanmedian(0).values, (apart(3, 4),)),
    Case("ordering.mode", lambda m, x: x.mode(1).values, (apart(3, 4),)),
    Case("ordering.place", lambda m, x: ordering.place(x, dim=1, index=np.array([[2, 0]] * 3), shape=(3, 4)),
         (normal(3, 2),), torch=False),
)  # fmt: skip
