"""Rows: Convolutions."""

from __future__ import annotations

from typing import Any

from chainrule.engine.kernels.geometry import ConvGeometry
from chainrule.engine.ops import convolution
from tests.engine.cases.case import Case, channels_last, normal


def _conv(m: Any, x: Any, w: Any, b: Any = None, **settings: Any) -> Any:
    return m.nn.functional.conv2d(x, w, b, **settings)


def _transposed(m: Any, x: Any, w: Any, b: Any = None, **settings: Any) -> Any:
    return m.nn.functional.conv_transpose2d(x, w, b, **settings)


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
        "convolution.conv2d",
        lambda m, x, w: _conv(m, x, w, padding="same", dilation=(1, 3)),
        (normal(2, 3, 5, 5), normal(2, 3, 4, 2)),
        note="one-more-behind",
    ),
    Case(
        "convolution.conv2d",
        lambda m, x, w, b: _conv(m, x, w, b, stride=(1, 2), padding=1, dilation=(2, 1), groups=3),
        (channels_last(2, 3, 6, 5), normal(6, 1, 3, 3), normal(6)),
        note="depthwise",
    ),
    Case(
        "convolution.conv2d",
        lambda m, x, w: _conv(m, x, w, padding=(2, 0)),
        (normal(1, 1, 4, 4), normal(3, 1, 2, 2)),
        note="few-to-many",
    ),
    Case(
        "convolution.conv2d",
        lambda m, x, w, b: m.nn.functional.conv1d(x, w, b, stride=2, padding=2, dilation=2, groups=2),
        (normal(2, 4, 7), normal(6, 2, 3), normal(6)),
        note="1d",
    ),
    Case("convolution.conv2d_input", _transposed, (normal(2, 3, 4, 5), normal(3, 2, 3, 2), normal(2))),
    Case(
        "convolution.conv2d_input",
        lambda m, x, w, b: _transposed(m, x, w, b, stride=2, padding=1, output_padding=(1, 0), groups=2),
        (channels_last(2, 4, 3, 4), normal(4, 3, 3, 3), normal(6)),
        note="general",
    ),
    Case(
        "convolution.conv2d_input",
        lambda m, x, w, b: _transposed(m, x, w, b, stride=2, output_padding=(2, 1), dilation=3),
        (normal(2, 3, 3), normal(2, 1, 2, 2), normal(1)),
        note="padded-beyond-the-stride",
    ),
    Case(
        "convolution.conv2d_input",
        lambda m, x, w: m.nn.functional.conv_transpose1d(x, w, stride=2, padding=1, output_padding=1, dilation=2),
        (normal(2, 3, 4), normal(3, 2, 3)),
        note="1d",
    ),
    Case(
        "convolution.conv2d_input",
        lambda m, dy, w: convolution.conv2d_input(dy, w, shape=(2, 3, 5, 5), geometry=ConvGeometry((2, 2), (1, 1))),
        (normal(2, 4, 3, 3), normal(4, 3, 3, 3)),
        torch=False,
        note="itself",
    ),
    Case(
        "convolution.conv2d_weight",
        lambda m, dy, x: convolution.conv2d_weight(
            dy, x, shape=(4, 3, 3, 3), geometry=ConvGeometry((2, 2), (1, 1)), dtype=dy.dtype
        ),
        (normal(2, 4, 3, 3), normal(2, 3, 5, 5)),
        torch=False,
    ),
)
