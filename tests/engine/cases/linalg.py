"""Rows: Products of matrices and vectors."""

from __future__ import annotations

from tests.engine.cases.case import Case, normal, transposed

CASES = (
    # products
    Case("linalg.dot", lambda m, a, b: a @ b, (normal(4), normal(4))),
    Case("linalg.mv", lambda m, a, b: a @ b, (normal(3, 4), normal(4))),
    Case("linalg.mm", lambda m, a, b: a @ b, (normal(2, 3), normal(3, 4))),
    Case("linalg.mm", lambda m, a, b: a @ b, (normal(2, 1), normal(1, 3)), note="column-and-row"),
    Case("linalg.mm", lambda m, a, b: a @ b, (transposed(2, 3), transposed(3, 4)), note="not-contiguous"),
    Case("linalg.mm", lambda m, a, b: a @ b, (normal(4), normal(4, 2)), note="vector"),
    Case("linalg.bmm", lambda m, a, b: a @ b, (normal(2, 1, 3, 4), normal(5, 4, 2))),
    Case("linalg.mv", lambda m, a, b: a @ b, (normal(2, 3, 4), normal(4)), note="batch"),
    Case("linalg.mm", lambda m, a, b: a @ b, (normal(2, 3, 4), normal(4, 2)), note="batch"),
    Case("linalg.bmm", lambda m, a, b: a @ b, (normal(3, 4), normal(2, 4, 2)), note="of-matrix"),
    Case("linalg.bmm", lambda m, a, b: m.bmm(a, b), (normal(2, 3, 4), normal(2, 4, 2)), note="bmm"),
    Case("linalg.mm", lambda m, a, b: m.inner(a, b), (normal(2, 3), normal(4, 5, 3)), note="inner"),
    Case(
        "linalg.mm",
        lambda m, a, b: m.tensordot(a, b, dims=([2, 0], [0, 1])),
        (normal(2, 3, 4), normal(4, 2, 5)),
        note="tensordot",
    ),
    Case("linalg.mm", lambda m, a, b: m.einsum("ij,kj->ik", a, b), (normal(2, 3), normal(4, 3)), note="einsum"),
    Case(
        "linalg.bmm",
        lambda m, a, b: m.einsum("...ij,...jk->k...i", a, b),
        (normal(2, 5, 3, 4), normal(5, 4, 2)),
        note="einsum",
    ),
    Case(
        "linalg.mm",
        lambda m, a, b, c: m.einsum("ii,ij,jk", a, b, c),
        (normal(3, 3), normal(3, 2), normal(2, 4)),
        note="einsum-of-three",
    ),
    Case("linalg.addmv", lambda m, x, a, b: m.addmv(x, a, b, beta=0.5, alpha=2), (normal(3), normal(3, 4), normal(4))),
    Case(
        "linalg.addmm",
        lambda m, x, a, b: m.addmm(x, a, b, beta=0.5, alpha=2),
        (normal(2), normal(3, 4), normal(4, 2)),
    ),
    Case(
        "linalg.addmm",
        lambda m, x, a, b: m.addbmm(x, a, b, alpha=2),
        (normal(3, 2), normal(2, 3, 4), normal(2, 4, 2)),
        note="addbmm",
    ),
    Case(
        "linalg.baddbmm",
        lambda m, x, a, b: m.baddbmm(x, a, b, beta=2, alpha=0.5),
        (normal(3, 1), normal(2, 3, 4), normal(2, 4, 2)),
    ),
    Case("linalg.bmm", lambda m, a, b: a @ b, (normal(4), normal(2, 4, 3)), note="of-vector"),
    Case(
        "linalg.linear",
        lambda m, x, w, b: m.nn.functional.linear(x, w, b),
        (normal(5, 3), normal(2, 3), normal(2)),
    ),
    Case("linalg.linear", lambda m, x, w: m.nn.functional.linear(x, w), (normal(2, 5, 3), normal(4, 3)), note="3d"),
    Case(
        "linalg.linear",
        lambda m, x, w, b: m.nn.functional.linear(x, w, b),
        (normal(4, 3), normal(6, 3), normal(6)),
        note="fewer-rows-than-features",
    ),
    Case("linalg.linear", lambda m, x, w: m.nn.functional.linear(x, w), (normal(1, 3), normal(4, 3)), note="one-row"),
)
