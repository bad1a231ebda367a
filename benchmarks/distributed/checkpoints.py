"""What checkpoints cost: how much longer the steps take while one is taken and written."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one checkpoint, the median of all that were taken."""

    checkpoint_ms: float
    """Time that the steps around it took more than as many others."""
    step_ms: float
    """The time of one of the others."""
    every_steps: int
    """Steps from one to the next."""

    @property
    def share(self) -> float:
        """Of the time that the steps from one to the next would have taken without it."""
        return self.checkpoint_ms / (self.every_steps * self.step_ms)


def cost(times_s: Sequence[float], every_steps: int) -> Cost:
    """The cost of a checkpoint after every so many steps, an even number, from when each step was done: the first half
    of the steps after it, and the one it was taken in, beside the other half, which follows at once and is as long.

    The steps up to the first checkpoint are warming up. Raises ValueError if not one whole period follows them.
    """
    half = every_steps // 2
    extra_ms, others_ms = [], []
    for taken in range(every_steps, len(times_s) - every_steps + 2, every_steps):
        begin, middle, end = (times_s[taken - 2 + shift] for shift in (0, half, 2 * half))
        extra_ms.append(((middle - begin) - (end - middle)) * 1e3)
        others_ms.append((end - middle) * 1e3 / half)
    if not extra_ms:
        raise ValueError(f"{len(times_s)} steps with a checkpoint every {every_steps} have no whole period to measure")
    return Cost(statistics.median(extra_ms), statistics.median(others_ms), every_steps)
