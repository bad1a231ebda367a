"""What a killed process costs: seconds of progress, from when the steps were done."""

from __future__ import annotations

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
    """Progress lost by the end of the run: how much later it came than at the pace before the kill."""
    recomputed_s: float
    """How much of that is for steps that were computed again, at the pace before."""
    step_s: float
    """The pace before: the mean time of a step."""

    @property
    def beyond_recomputing_s(self) -> float:
        """What was lost but for the steps that were computed again."""
        return self.lost_s - self.recomputed_s


def loss(done: Sequence[Done], kill_s: float, *, warmup_steps: int) -> Loss:
    """What a kill at `kill_s` has cost a run, which must have gone on for some time after it.

    Raises:
        ValueError: no step was done after the kill, or too few between the warm-up and the kill.
    """
    before = [(step, time_s) for step, time_s in done if time_s <= kill_s and step >= warmup_steps]
    after = [(step, time_s) for step, time_s in done if time_s > kill_s]
    if len(before) < 2 or not after:
        raise ValueError(f"{len(before)} steps were done between warm-up and kill, {len(after)} after it")
    (first, first_s), (last, last_s) = before[0], before[-1]
    step_s = (last_s - first_s) / (last - first)
    end, end_s = after[-1]
    return Loss(
        resumed_s=after[0][1] - kill_s,
        lost_s=end_s - last_s - (end - last) * step_s,
        recomputed_s=max(0, last + 1 - after[0][0]) * step_s,
        step_s=step_s,
    )
