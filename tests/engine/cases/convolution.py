"""Rows: Convolutions."""

from __future__ import annotations

from typing import Any

from chainrule.engine.kernels.geometry import ConvGeometry
from chainrule.engine.ops import convolution
from tests.engine.cases.case import Case, channels_last, normal


def _conv(m: Any, x: Any, w: Any, b: Any = None, **settings: Any) -> Any:
    return m.nn.functional.conv2d(x, w, b, **settings)


CASES = (
    # convolution
    Case("convolution.conv2d", _conv, (normal(2, 3, 5, 4), normal(4, 3, 3, 3), normal(4))),
    Case(
        "convolution.conv2d",
        lambda m, x, w, b: _conv(m, x, w, b, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
        (channels_last(2, 4, 6, 5), normal(6, 2, 3, 2), normal(6)),
        note="general",
    ),
    Case(
        "convolution.conv2d",
        lambda m, x, w: _conv(m, x, w, stride=2),
        (normal(1, 2, 6, 6), normal(3, 2, 2, 2)),
        note="remainder",
    ),
    Case("convolution.conv2d", _conv, (normal(2, 3, 4, 4), normal(2, 3, 1, 1)), note="1x1"),
    Case(
        "convolution.conv2d",
        lambda m, x, w: _conv(m, x, w, padding="same"),
        (normal(3, 5, 5), normal(2, 3, 3, 3)),
        note="unbatched",
    ),
    Case(
        "convolution.conv2d_input",
        lambda m, dy, w: convolution.conv2d_input(dy, w, shape=(2, 3, 5, 5), geometry=ConvGeometry((2, 2), (1, 1))),
        (normal(2, 4, 3, 3), normal(4, 3, 3, 3)),
        torch=False,
    ),
    Case(
        "convolution.conv2d_weight",
        lambda m, dy, x: convolution.conv2d_weight(dy, x, shape=(4, 3, 3, 3), geometry=ConvGeometry((2, 2), (1, 1))),
        (normal(2, 4, 3, 3), normal(2, 3, 5, 5)),
        torch=False,
    ),
)
