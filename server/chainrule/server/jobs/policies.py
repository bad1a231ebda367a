"""Decisions about jobs, as values. Nothing here acts, waits or looks anything up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from chainrule.server.records import JobState
from chainrule.server.training.state import EvaluationMetric
from chainrule.server.training.watching import Watched

FIRST_DELAY_S = 0.5
"""Pause before the first new attempt; doubled for each further loss in a row."""
MAX_DELAY_S = 30.0
"""Longest pause."""


# --- workers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Demand:
    """What a job needs of the cluster, and what it can use: one CPU for each worker."""

    job: str
    min_workers: int
    max_workers: int
    priority: int = 0
    tenant: str = ""


@dataclass(frozen=True)
class Grant:
    """How many workers a job is given."""

    job: str
    workers: int


def in_turn(
    waiting: Sequence[Demand], *, holding: Mapping[str, int], max_tenant_jobs: int | None = None
) -> list[Demand]:
    """The waiting jobs that may start as soon as there is room, the next one first.

    The highest priority goes first, and of equals the one submitted first. A job whose tenant has as many jobs as it
    may is left out: what it waits for is not room, so it keeps nobody else from starting.

    Args:
        waiting: in order of submission.
        holding: how many jobs of each tenant have workers.
        max_tenant_jobs: most of them that one tenant may have; None: any number.
    """
    taken = Counter(holding)
    found = []
    for demand in sorted(waiting, key=lambda demand: -demand.priority):
        if max_tenant_jobs is None or taken[demand.tenant] < max_tenant_jobs:
            taken[demand.tenant] += 1
            found.append(demand)
    return found


def admit(waiting: Sequence[Demand], *, free_cpus: float) -> list[Grant]:
    """The jobs to start now, of those in turn: none overtakes one that has to wait for room, so that a large job is not
    kept out for ever by small ones behind it. What becomes free meanwhile stays free for it; so the price is CPUs that
    stand idle, no longer than the jobs that run. A job can be kept out for ever only by those of a higher priority. All
    get the fewest workers they can do with before the first gets more."""
    free = int(free_cpus)
    admitted: list[Demand] = []
    for demand in waiting:
        if demand.min_workers > free:
            break
        free -= demand.min_workers
        admitted.append(demand)
    grants = []
    for demand in admitted:
        more = min(free, demand.max_workers - demand.min_workers)
        free -= more
        grants.append(Grant(demand.job, demand.min_workers + more))
    return grants


@dataclass(frozen=True)
class Share:
    """What a running job has."""

    job: str
    workers: int
    max_workers: int


def grow(running: Sequence[Share], *, free_cpus: float) -> list[Grant]:
    """The running jobs that get more workers, in order of submission: what nobody waits for."""
    free = int(free_cpus)
    grants = []
    for share in running:
        more = min(free, share.max_workers - share.workers)
        if more > 0:
            free -= more
            grants.append(Grant(share.job, share.workers + more))
    return grants


# --- losses ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loss:
    """An attempt that ended without a result, though not by a fault of the job as far as one can tell."""

    reason: str
    message: str
    step: int
    """Steps done by then."""


@dataclass(frozen=True)
class Retry:
    """Start another attempt from the last checkpoint."""

    delay_s: float


@dataclass(frozen=True)
class GiveUp:
    """Let the job fail."""

    message: str


PART_LOST = "PART_LOST"
"""Reason of an attempt of which a process is gone or silent: it says nothing about the job."""


def after_loss(losses: Sequence[Loss], *, max_failures: int) -> Retry | GiveUp:
    """What to do about an attempt that was lost. `losses` are those without progress in between, the latest last.

    What goes wrong twice in the same way at the same step would do so for ever; a process that is gone may have been
    killed twice.
    """
    latest = losses[-1]
    if latest.reason != PART_LOST and latest in losses[:-1]:
        return GiveUp(f"it failed twice in the same way after step {latest.step}: {latest.message}")
    if len(losses) > max_failures:
        return GiveUp(
            f"{len(losses)} attempts in a row were lost without progress, and max_failures is {max_failures}; "
            f"look for what ends the processes (memory?). The last: {latest.message}"
        )
    return Retry(delay(len(losses)))


def delay(times: int) -> float:
    """Pause before a new attempt, in seconds, growing with the number of failures in a row (from 1)."""
    return min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(times - 1, 10))


# --- what nobody runs ------------------------------------------------------------------------------------------


def is_at_work(state: JobState) -> bool:
    """Whether a job in a state is on its way to its result, and nothing else has been asked of it."""
    return state in (JobState.PREPARING, JobState.RUNNING, JobState.RECOVERING, JobState.FINALIZING)


def way_back(state: JobState) -> tuple[JobState, ...]:
    """The states by which a job that nobody runs, though its state says that somebody does, gets to one in which it can
    wait, or has ended."""
    match state:
        case JobState.CANCELLING:
            return (JobState.CANCELLED,)
        case JobState.PAUSING:
            return (JobState.PAUSED,)
        case _:
            return (JobState.RECOVERING, JobState.QUEUED) if is_at_work(state) else ()


# --- checkpoints -----------------------------------------------------------------------------------------------


def superfluous(
    steps: Sequence[int],
    evaluations: Sequence[EvaluationMetric],
    *,
    keep: int,
    best: Watched | None,
    ends_epoch: Callable[[int], bool],
) -> list[int]:
    """The steps, of those that have a checkpoint, whose checkpoints need not be kept: neither the latest `keep`, nor,
    where the best one of all evaluated may become the result, that one or one that is still to be evaluated.

    Args:
        best: by what they are compared; None: the last one becomes the result.
    """
    kept = set(sorted(steps)[-keep:])
    if best is not None:
        evaluated = {evaluation.step for evaluation in evaluations}
        kept |= {step for step in steps if ends_epoch(step) and step not in evaluated}
        if evaluations:
            kept.add(best.best(evaluations).step)
    return [step for step in steps if step not in kept]
