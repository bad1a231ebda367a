"""Rows: Division to whole numbers, and what it leaves."""

from __future__ import annotations

import numpy as np

from tests.engine.cases.case import Case, Make, given


def apart_by_fractions(*size: int) -> Make:
    """Numbers whose quotients with 0.7 and 1.3 no small step rounds differently."""
    return lambda draws: (draws.integers(-4, 4, size) + draws.uniform(0.3, 0.4, size)) * 0.7


def sevens(*size: int) -> Make:
    return lambda draws: np.full(size, 0.7)


CASES = (
    Case("division.floor_divide", lambda m, a, b: a // b, (apart_by_fractions(2, 3), sevens(3)), torch=False),
    Case("division.floor_divide", lambda m, a: 5 // a, (given([2.3, -2.3]),), note="number", torch=False),
    Case("division.floor_divide", lambda m, a, b: m.div(a, b, rounding_mode="floor"),
         (given([5.3, -5.3]), given([2.0])), note="rounding-mode"),
    Case("division.trunc_divide", lambda m, a, b: m.div(a, b, rounding_mode="trunc"),
         (given([5.3, -5.3]), given([2.0]))),
    Case("division.remainder", lambda m, a, b: a % b, (apart_by_fractions(2, 3), sevens(3))),
    Case("division.remainder", lambda m, a: a % -2, (given([5.3, -5.3]),), note="number"),
    Case("division.remainder", lambda m, b: 5 % b, (given([2.3, -2.3]),), note="of-number", torch=False),
    Case("division.fmod", lambda m, a, b: m.fmod(a, b), (apart_by_fractions(2, 3), sevens(3))),
    Case("division.fmod", lambda m, a: m.fmod(a, -2), (given([5.3, -5.3]),), note="number"),
)  # fmt: skip
