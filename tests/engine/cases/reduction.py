"""Rows: Reductions."""

from __future__ import annotations

from tests.engine.cases.case import Case, apart, away_from_zero, given, normal, transposed

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
    Case("reduction.amax", lambda m, x: x.amax((0, 2), keepdim=True), (apart(3, 4, 2),), note="dims"),
    Case("reduction.amax", lambda m, x: x.amax(1), (normal(0, 4),), note="empty"),
    Case("reduction.max_of_all", lambda m, x: x.max(), (apart(3, 4),)),
    Case("reduction.min_of_all", lambda m, x: x.min(), (apart(3, 4),)),
    Case("reduction.median_of_all", lambda m, x: x.median(), (apart(3, 4),)),
    Case("reduction.nanmedian_of_all", lambda m, x: x.nanmedian(), (apart(3, 5),)),
    Case("reduction.amin", lambda m, x: x.amin(0, keepdim=True), (apart(3, 4),)),
    Case("reduction.argmax", lambda m, x: x.argmax(1), (apart(3, 4),)),
    Case("reduction.argmin", lambda m, x: x.argmin(), (apart(3, 4),)),
    Case("reduction.logsumexp", lambda m, x: m.logsumexp(x, 1), (normal(3, 4),)),
    Case("reduction.logsumexp", lambda m, x: m.logsumexp(x, (0, 1), keepdim=True), (normal(3, 4),), note="keepdim"),
    Case("reduction.sum", lambda m, x: m.nansum(x, 1), (normal(3, 4),), note="nansum"),
    Case("reduction.sum", lambda m, x: x.sum(0, dtype=m.float64), (normal(3, 4),), note="dtype"),
    Case("reduction.sum", lambda m, x: m.nanmean(x, 1), (normal(3, 4),), note="nanmean"),
    Case("reduction.mean", lambda m, x: x.mean(), (normal(),), note="0d"),
    Case("reduction.var", lambda m, x: x.var(), (normal(2, 3),)),
    Case("reduction.var", lambda m, x: x.var(1, keepdim=True), (transposed(2, 3),), note="keepdim"),
    Case("reduction.var", lambda m, x: x.var((0, 2), correction=0), (normal(2, 3, 4),), note="dims"),
    Case("reduction.var", lambda m, x: m.var_mean(x, 0)[0], (normal(4, 3),), note="var-mean"),
    Case("reduction.std", lambda m, x: x.std(), (normal(2, 3),)),
    Case("reduction.std", lambda m, x: x.std(0, unbiased=False), (normal(4, 3),), note="unbiased"),
    Case("reduction.std", lambda m, x: m.std_mean(x, 0, correction=1.5)[0], (normal(4, 3),), note="std-mean"),
    Case("reduction.norm", lambda m, x: x.norm(), (normal(2, 3),)),
    Case("reduction.norm", lambda m, x: x.norm(1, 1), (away_from_zero(2, 3),), note="1"),
    Case("reduction.norm", lambda m, x: x.norm(0, 1), (away_from_zero(2, 3),), note="0"),
    Case("reduction.norm", lambda m, x: x.norm(3, (0, 1)), (away_from_zero(2, 3),), note="3"),
    Case("reduction.norm", lambda m, x: x.norm(1.5, 0, True), (away_from_zero(2, 3),), note="fraction"),
    Case("reduction.norm", lambda m, x: x.norm(0.5), (away_from_zero(2, 3),), note="root"),
    Case("reduction.norm", lambda m, x: x.norm(float("inf"), 1), (apart(2, 3),), note="inf"),
    Case("reduction.norm", lambda m, x: x.norm(-float("inf")), (given([1.5, -0.5, 2.0]),), note="minus-inf"),
    Case("reduction.norm", lambda m, a, b: m.dist(a, b, 3), (normal(2, 3), normal(3)), note="dist"),
    Case("reduction.logsumexp", lambda m, x: m.logsumexp(x, 0), (normal(0, 3),), note="empty"),
)
