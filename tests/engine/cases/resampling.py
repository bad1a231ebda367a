"""Rows: Resampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chainrule.engine.ops import resampling
from tests.engine.cases.case import Case, channels_last, normal


def _interpolate(*args: Any, **settings: Any) -> Callable[..., Any]:
    return lambda m, x: m.nn.functional.interpolate(x, *args, **settings)


_neighbours = (None, None, resampling.linear_neighbours(4, 6, 4 / 6, align_corners=False))

CASES = (
    Case("resampling.upsample_nearest1d", _interpolate(7), (normal(2, 3, 4),)),
    Case("resampling.upsample_nearest2d", _interpolate(scale_factor=(2, 0.7)), (channels_last(2, 3, 3, 5),)),
    Case("resampling.upsample_nearest2d", _interpolate((7, 2), mode="nearest-exact"), (normal(1, 2, 3, 5),), note="2"),
    Case("resampling.upsample_linear1d", _interpolate(7, mode="linear"), (normal(2, 3, 4),)),
    Case("resampling.upsample_bilinear2d", _interpolate((6, 2), mode="bilinear"), (channels_last(2, 3, 3, 5),)),
    Case(
        "resampling.upsample_bilinear2d",
        _interpolate(scale_factor=1.7, mode="bilinear", align_corners=True),
        (normal(1, 2, 3, 4),),
        note="aligned",
    ),
    Case(
        "resampling.resample_back",
        lambda m, x: resampling.resample_back(x, shape=(1, 2, 4), neighbours=_neighbours),
        (normal(1, 2, 6),),
        torch=False,
    ),
)
