"""How a window moves over an image: stride, padding, dilation."""

from __future__ import annotations

from typing import NamedTuple

Pair = tuple[int, int]


class ConvGeometry(NamedTuple):
    """The settings of a convolution; (vertical, horizontal)."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1


class PoolGeometry(NamedTuple):
    """The settings of a pooling; (vertical, horizontal)."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    count_include_pad: bool = True
    """Whether an average counts the padding."""


def output_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """The places a window has along one dimension: ⌊(size + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
