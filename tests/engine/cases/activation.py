"""Rows: Activations, and the special functions they are made of."""

from __future__ import annotations

from chainrule.engine.ops import special
from tests.engine.cases.case import Case, normal, transposed

CASES = (
    Case("special.erf", lambda m, x: special.erf(2 * x), (normal(2, 5),), torch=False),
    Case("special.erf", lambda m, x: special.erf(x), (transposed(2, 3),), torch=False, note="not-contiguous"),
)
