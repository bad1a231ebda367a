"""What a killed process costs: seconds of progress, from when the steps were done."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Done = tuple[int, float]
"""A step, from 1, and when it was done in seconds since 1970; steps that are recomputed come again."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What was lost."""

    resumed_s: float
    """From the kill to the next step that was done, be it new or recomputed."""
    lost_s: float
    """Progress lost by the end of the run: how much later it came than at the run's pace."""
    recomputed_s: float
    """How much of that is for steps that were computed again, at that pace."""
    step_s: float
    """The pace: the median time of a step, before the kill or in the second half after it, whichever is less."""

    @property
    def beyond_recomputing_s(self) -> float:
        """What was lost but for the steps that were computed again."""
        return self.lost_s - self.recomputed_s


def loss(done: Sequence[Done], kill_s: float, *, warmup_steps: int) -> Loss:
    """What a kill at `kill_s` has cost a run, which must have gone on for some time after it.

    Raises:
        ValueError: fewer than two steps were done between the warm-up and the kill, or after it.
    """
    before = [(step, time_s) for step, time_s in done if time_s <= kill_s and step >= warmup_steps]
    after = [(step, time_s) for step, time_s in done if time_s > kill_s]
    if len(before) < 2 or len(after) < 2:
        raise ValueError(f"{len(before)} steps were done between warm-up and kill, {len(after)} after it")
    step_s = min(_pace(before), _pace(after[len(after) // 2 - 1 :]))
    last, last_s = before[-1]
    end, end_s = after[-1]
    return Loss(
        resumed_s=after[0][1] - kill_s,
        lost_s=end_s - last_s - (end - last) * step_s,
        recomputed_s=max(0, last + 1 - after[0][0]) * step_s,
        step_s=step_s,
    )


def _pace(done: Sequence[Done]) -> float:
    return statistics.median(end_s - start_s for (_, start_s), (_, end_s) in itertools.pairwise(done))
