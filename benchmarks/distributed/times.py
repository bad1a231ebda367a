"""When the steps of a training run were done, and what follows from that."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepTimes:
    """One run of one side."""

    batch: int
    """Examples in a step, over all workers."""
    warmup_steps: int
    """Steps that do not count, at the beginning; at least 1, as a step begins where the one before it is done."""
    times_s: tuple[float, ...]
    """When each step was done, in seconds since 1970 UTC."""
    losses: tuple[float, ...]
    """The mean over the global batch, of each step."""
    parameters: int
    """Of the network."""
    description: str
    """The software that computed it."""

    @property
    def steps_ms(self) -> list[float]:
        """What each step took after warming up."""
        return intervals_ms(self.times_s, self.warmup_steps)

    @property
    def window_ms(self) -> float:
        """All of those steps together."""
        return (self.times_s[-1] - self.times_s[self.warmup_steps - 1]) * 1e3


@dataclass(frozen=True, slots=True)
class Side:
    """The runs of one side, one for each round."""

    runs: tuple[StepTimes, ...]

    @property
    def median_ms(self) -> float:
        """Of all steps of all rounds."""
        return statistics.median(time for run in self.runs for time in run.steps_ms)

    @property
    def mean_ms(self) -> float:
        """Of all steps of the round with the least: it has the steps that stall, which a median hides."""
        return min(run.window_ms / len(run.steps_ms) for run in self.runs)

    @property
    def examples_per_s(self) -> float:
        """At the median step."""
        return self.runs[0].batch / self.median_ms * 1e3


def intervals_ms(times_s: Sequence[float], warmup_steps: int) -> list[float]:
    """What each step took after so many, from when each was done in seconds."""
    return [(end - start) * 1e3 for start, end in itertools.pairwise(times_s[warmup_steps - 1 :])]


def disagreement(ours: StepTimes, other: StepTimes, name: str) -> str | None:
    """Where another run, of that name, did not train as ours: other parameters, or another first or last loss."""
    if ours.parameters != other.parameters:
        return f"we have {ours.parameters:,} parameters, {name} {other.parameters:,}"
    for which, index, tolerance in (("first", 0, 1e-3), ("last", -1, 2e-2)):
        mine, its = ours.losses[index], other.losses[index]
        if not abs(mine - its) <= tolerance * abs(its):
            return f"our {which} loss is {mine:.6g}, that of {name} {its:.6g}"
    return None


def mean_losses(by_process: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Of each step, where every process has the loss of as many examples."""
    return tuple(statistics.fmean(losses) for losses in zip(*by_process, strict=True))
