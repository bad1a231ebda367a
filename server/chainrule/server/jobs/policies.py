"""Decisions about jobs, as values. Nothing here acts, waits or looks anything up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_LOSSES_IN_A_ROW = 3
"""Attempts that may be lost without a new checkpoint in between."""
FIRST_DELAY_S = 0.5
"""Pause before the first new attempt; doubled for each further loss in a row."""
MAX_DELAY_S = 30.0
"""Longest pause."""


@dataclass(frozen=True)
class Demand:
    """What a job needs of the cluster."""

    job: str
    cpus: int


def cpus_for(workers: int, *, total_cpus: float) -> int:
    """CPUs a job is given: one for each of its workers, or as many as the cluster has at all: what a larger cluster has
    accepted runs with fewer workers on a smaller one, to the same weights."""
    return max(1, min(workers, int(total_cpus)))


def admit(waiting: Sequence[Demand], *, free_cpus: float) -> list[str]:
    """The jobs to start now: in order of submission, and none overtakes one that has to wait, so that a large job is
    not kept out for ever by small ones."""
    admitted = []
    for demand in waiting:
        if demand.cpus > free_cpus:
            break
        free_cpus -= demand.cpus
        admitted.append(demand.job)
    return admitted


@dataclass(frozen=True)
class Retry:
    """Start another attempt from the last checkpoint."""

    delay_s: float


@dataclass(frozen=True)
class GiveUp:
    """Let the job fail."""

    message: str


def after_loss(losses_in_a_row: int, cause: str) -> Retry | GiveUp:
    """What to do when an attempt has lost a process, for the n-th time without a new checkpoint."""
    if losses_in_a_row > MAX_LOSSES_IN_A_ROW:
        return GiveUp(
            f"{losses_in_a_row} attempts in a row were lost before their next checkpoint; "
            f"look for what ends the processes (memory?). The last: {cause}"
        )
    return Retry(delay(losses_in_a_row))


def delay(times: int) -> float:
    """Pause before a new attempt, in seconds, growing with the number of failures in a row (from 1)."""
    return min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(times - 1, 10))
