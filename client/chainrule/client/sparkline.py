"""A curve as one line of text."""

import math
from collections.abc import Sequence
from itertools import pairwise

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.-~=+*#"


def blocks_for(encoding: str) -> str:
    """The blocks that a stream of this encoding can print."""
    try:
        BLOCKS.encode(encoding)
    except UnicodeEncodeError:
        return ASCII_BLOCKS
    return BLOCKS


def sparkline(values: Sequence[float], *, width: int = 60, blocks: str = BLOCKS) -> str:
    """Draw values as blocks, the least as ▁ and the greatest as █.

    More values than `width` are averaged into `width` bins of (nearly) equal size. A value that is not finite is a
    gap; equal values are all drawn in the middle.

    >>> sparkline([1, 2, 4, 8])
    '▁▂▄█'
    """
    if width < 1:
        raise ValueError(f"width is {width}; it must be at least 1")
    bins = _bins(values, width)
    finite = [value for value in bins if math.isfinite(value)]
    if not finite:
        return " " * len(bins)
    low, high = min(finite), max(finite)

    def block(value: float) -> str:
        if not math.isfinite(value):
            return " "
        if low == high:
            return blocks[len(blocks) // 2]
        return blocks[round((value - low) / (high - low) * (len(blocks) - 1))]

    return "".join(map(block, bins))


def _bins(values: Sequence[float], width: int) -> list[float]:
    """The means of at most `width` runs of values."""
    count = min(width, len(values))
    edges = [len(values) * i // count for i in range(count + 1)] if count else [0]
    runs = [values[start:end] for start, end in pairwise(edges)]
    return [math.fsum(run) / len(run) if all(map(math.isfinite, run)) else math.nan for run in runs]
