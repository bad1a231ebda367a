"""Rows: Reductions."""

from __future__ import annotations

from tests.engine.cases.case import Case, apart, normal, transposed

CASES = (
    # reductions
    Case("reduction.sum", lambda m, x: x.sum(), (normal(2, 3),)),
    Case("reduction.sum", lambda m, x: x.sum(-1), (normal(2, 3),), note="dim"),
    Case("reduction.sum", lambda m, x: x.sum((0, 2), keepdim=True), (normal(2, 3, 4),), note="keepdim"),
    Case("reduction.sum", lambda m, x: x.sum(), (normal(),), note="0d"),
    Case("reduction.sum", lambda m, x: x.sum(0), (normal(0, 3),), note="empty"),
    Case("reduction.mean", lambda m, x: x.mean(), (normal(2, 3),)),
    Case("reduction.mean", lambda m, x: x.mean((1, 2)), (transposed(2, 3, 4),), note="dims"),
    Case("reduction.amax", lambda m, x: x.amax(1), (apart(3, 4),)),
    Case("reduction.amax", lambda m, x: x.max(), (apart(3, 4),), note="all"),
    Case("reduction.amin", lambda m, x: x.amin(0, keepdim=True), (apart(3, 4),)),
    Case("reduction.argmax", lambda m, x: x.argmax(1), (apart(3, 4),)),
    Case("reduction.argmin", lambda m, x: x.argmin(), (apart(3, 4),)),
    Case("reduction.logsumexp", lambda m, x: m.logsumexp(x, 1), (normal(3, 4),)),
    Case("reduction.logsumexp", lambda m, x: m.logsumexp(x, (0, 1), keepdim=True), (normal(3, 4),), note="keepdim"),
)
