"""Rows: Products of matrices and vectors."""

from __future__ import annotations

from tests.engine.cases.case import Case, normal, transposed

CASES = (
    # products
    Case("linalg.dot", lambda m, a, b: a @ b, (normal(4), normal(4))),
    Case("linalg.mv", lambda m, a, b: a @ b, (normal(3, 4), normal(4))),
    Case("linalg.mm", lambda m, a, b: a @ b, (normal(2, 3), normal(3, 4))),
    Case("linalg.mm", lambda m, a, b: a @ b, (transposed(2, 3), transposed(3, 4)), note="not-contiguous"),
    Case("linalg.mm", lambda m, a, b: a @ b, (normal(4), normal(4, 2)), note="vector"),
    Case("linalg.bmm", lambda m, a, b: a @ b, (normal(2, 1, 3, 4), normal(5, 4, 2))),
    Case("linalg.bmm", lambda m, a, b: a @ b, (normal(2, 3, 4), normal(4)), note="vector"),
    Case("linalg.bmm", lambda m, a, b: a @ b, (normal(4), normal(2, 4, 3)), note="of-vector"),
    Case(
        "linalg.linear",
        lambda m, x, w, b: m.nn.functional.linear(x, w, b),
        (normal(5, 3), normal(2, 3), normal(2)),
    ),
    Case("linalg.linear", lambda m, x, w: m.nn.functional.linear(x, w), (normal(2, 5, 3), normal(4, 3)), note="3d"),
)
