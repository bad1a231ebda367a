"""Rows: Padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule.engine.ops import padding
from tests.engine.cases.case import Case, channels_last, normal, transposed


def _pad(*margins: int, mode: str = "constant", **settings: Any) -> Callable[..., Any]:
    return lambda m, x: m.nn.functional.pad(x, margins, mode, **settings)


CASES = (
    Case("padding.constant_pad", _pad(1, 2), (normal(3, 4),)),
    Case("padding.constant_pad", _pad(-1, 2, 0, -2, 1, 0, value=2.5), (transposed(2, 4, 5),), note="cut-off"),
    Case("padding.constant_pad", _pad(), (normal(3),), note="nothing"),
    Case("padding.reflection_pad1d", _pad(3, 2, mode="reflect"), (normal(2, 3, 4),)),
    Case("padding.reflection_pad1d", _pad(-1, 2, mode="reflect"), (normal(3, 4),), note="cut-off"),
    Case("padding.reflection_pad2d", _pad(1, 2, 3, 0, mode="reflect"), (channels_last(2, 3, 4, 3),)),
    Case("padding.reflection_pad3d", _pad(1, 0, 0, 1, 2, 1, mode="reflect"), (normal(2, 3, 2, 2),)),
    Case("padding.replication_pad1d", _pad(3, 5, mode="replicate"), (normal(2, 3, 2),)),
    Case("padding.replication_pad2d", _pad(1, 2, -1, 1, mode="replicate"), (channels_last(2, 3, 4, 3),)),
    Case("padding.replication_pad3d", _pad(1, 0, 0, 1, 2, 1, mode="replicate"), (normal(1, 2, 3, 2, 2),)),
    Case("padding.circular_pad", _pad(3, 2, mode="circular"), (normal(2, 3, 3),)),
    Case("padding.circular_pad", _pad(-1, 2, 1, 1, mode="circular"), (normal(2, 3, 4, 3),), note="cut-off"),
    Case(
        "padding.gather_back",
        lambda m, x: padding.gather_back(x, shape=(2, 3), origins=(None, np.array([1, 0, 1, 1, 2]))),
        (normal(2, 5),),
        torch=False,
    ),
)
