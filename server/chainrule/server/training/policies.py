"""Decisions about a running attempt, as values. Nothing here acts, waits, or looks at a clock."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from chainrule.server.training.plan import Plan
from chainrule.server.training.state import EvaluationMetric
from chainrule.server.training.watching import Watched

LEASE_S = 5.0
"""How long a part may be silent before it counts as lost."""
MIN_PATIENCE_S = 1.0
"""Shortest time after which a tick that waits for some shards has them computed by others, too."""
PATIENCE = 3.0
"""How many times as long as usual, or as other workers took, it may take before that."""
FIRST_PATIENCE_S = 15.0
"""The same while neither is known."""
HANGS_S = 600.0
"""Shortest time after which a tick that stands is given to other workers."""
STUCK_S = 600.0
"""How long a partition may give signs of life and nothing else before it counts as lost."""
HANGS = 50.0
"""How many usual ticks it may take before that."""
MAX_SPECULATIONS = 3
"""Ticks in a row that may wait for a worker before it is replaced."""
MAX_LOSSES = 10
"""Workers, or sets of partitions, that may be lost without a step in between."""
MAX_AT_ONE_PLACE = 3
"""Workers that may fail in the same tick, each for another reason."""
FIRST_DELAY_S = 0.2
"""Pause before a second replacement without a step in between; doubled for each further."""
MAX_DELAY_S = 10.0
MAX_REFUSAL_DELAY_S = 60.0


# --- when to keep what -----------------------------------------------------------------------------------------


def checkpoint_due(plan: Plan, step: int) -> bool:
    """Whether a checkpoint is due after so many steps."""
    every = plan.config.checkpoint_every_steps
    return plan.ends_epoch(step) or (every > 0 and step % every == 0)


def receipt_due(plan: Plan, step: int) -> bool:
    """Whether the state is digested after so many steps; never where it depends on timing."""
    if plan.config.staleness:
        return False
    every = plan.config.receipt_every_steps
    return plan.ends_epoch(step) or (0 < every <= step and step % every == 0)


def stops_early(evaluations: Sequence[EvaluationMetric], patience: int, by: Watched) -> bool:
    """Whether the last `patience` epochs have not been better than one before; never for a patience of 0."""
    return patience > 0 and bool(evaluations) and evaluations[-1].epoch - by.best(evaluations).epoch >= patience


# --- who is lost -----------------------------------------------------------------------------------------------


def silent(last_sign_s: Mapping[int, float], *, now_s: float, lease_s: float = LEASE_S) -> list[int]:
    """The parts whose lease has run out."""
    return sorted(part for part, at in last_sign_s.items() if now_s - at > lease_s)


@dataclass(frozen=True)
class Replace:
    """Start others in place of those lost."""

    delay_s: float


@dataclass(frozen=True)
class GiveUp:
    """End the attempt."""

    reason: str
    message: str
    lost: bool
    """Whether another attempt may do better."""


def after_loss(losses: int, cause: str) -> Replace | GiveUp:
    """What to do when a process was lost, for the n-th time without a step in between."""
    if losses > MAX_LOSSES:
        return GiveUp(
            "PART_LOST", f"{losses} processes were lost without a step in between; the last: {cause}", lost=True
        )
    return Replace(0.0 if losses <= 1 else min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(losses - 2, 10)))


def after_refusal(refused: int) -> float:
    """Pause in seconds before another worker is asked for, when the n-th in a row was refused: it may come from the
    same node, where nothing changes so soon."""
    return min(MAX_REFUSAL_DELAY_S, 2.0 ** min(refused - 1, 10))


@dataclass(frozen=True)
class WorkerFailure:
    """An exception in a worker."""

    tick: int
    message: str
    traceback: str


def after_failure(before: Sequence[WorkerFailure], failure: WorkerFailure) -> GiveUp | None:
    """What to do about an exception in a worker: None lets another compute it. The same one at the same place is the
    job's own fault: trying again would end the same way. So is what MAX_AT_ONE_PLACE find there in different words, as
    where these name an address or a process."""
    at_this_place = [other.message for other in before if other.tick == failure.tick]
    if failure.message in at_this_place:
        return GiveUp("TRAINING_ERROR", f"two workers failed in the same way: {failure.message}", lost=False)
    if len(at_this_place) + 1 >= MAX_AT_ONE_PLACE:
        message = f"{MAX_AT_ONE_PLACE} workers failed at the same place; the last: {failure.message}"
        return GiveUp("TRAINING_ERROR", message, lost=False)
    return None


# --- who is slow -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sight:
    """What is known of a worker."""

    lease: int
    shards: tuple[int, ...]
    tick: int
    """Tick it was last seen at."""
    working: bool


@dataclass(frozen=True)
class Waiting:
    """A tick that is not complete."""

    tick: int
    missing: tuple[int, ...]
    """Shards that have not come in."""
    seconds: float
    """How long it has been running."""
    usual_s: float
    """How long ticks usually take; 0 if that is not known."""
    peers_s: float = 0.0
    """How long the first worker took that is done with its part of it; 0 if none is. Who is slow all the time is slow
    beside the others only: the usual tick has waited for it."""
    asked: frozenset[int] = frozenset()
    """Shards that were given to others already."""

    @property
    def expected_s(self) -> float:
        """How long it could have taken; 0 if that is not known."""
        return min((known for known in (self.usual_s, self.peers_s) if known), default=0.0)


@dataclass(frozen=True)
class Speculate:
    """Have shards computed a second time; the first result counts, the second must be the same."""

    tick: int
    helpers: Mapping[int, tuple[int, ...]]
    """Shards by the worker that computes them in addition."""
    slow: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Missing shards by the worker that they were waited for."""


def speculate(waiting: Waiting, workers: Sequence[Sight]) -> Speculate | None:
    """Whether a tick has waited too long for some shards while other workers have nothing to do."""
    patience_s = max(MIN_PATIENCE_S, PATIENCE * waiting.expected_s) if waiting.expected_s else FIRST_PATIENCE_S
    if waiting.seconds < patience_s:
        return None
    missing = [shard for shard in waiting.missing if shard not in waiting.asked]
    idle = [w.lease for w in workers if not w.working and not set(w.shards) & set(waiting.missing)]
    if not idle:  # those that wait although they have something to do: they may have missed being told
        idle = [w.lease for w in workers if not w.working]
    if not missing or not idle:
        return None
    slow = {w.lease: tuple(s for s in missing if s in w.shards) for w in workers}
    return Speculate(
        waiting.tick,
        {lease: tuple(missing[place :: len(idle)]) for place, lease in enumerate(idle) if missing[place :: len(idle)]},
        {lease: shards for lease, shards in slow.items() if shards},
    )


def somebody_is_done(tick: int, missing: Iterable[int], workers: Sequence[Sight]) -> bool:
    """Whether a worker has done all that is its own of a tick."""
    return any(w.shards and w.tick == tick and not w.working and not set(w.shards) & set(missing) for w in workers)


def hangs(waiting: Waiting) -> bool:
    """Whether a tick has stood so long that those whose shards it waits for count as lost, though they give signs of
    life."""
    return waiting.seconds > max(HANGS_S, HANGS * waiting.usual_s)


def usual(seconds: Iterable[float]) -> float:
    """How long ticks usually take: the median; 0 while nothing is known."""
    known = list(seconds)
    return statistics.median(known) if known else 0.0


# --- who decides -----------------------------------------------------------------------------------------------


def auditors(owners: Mapping[int, int]) -> dict[int, int]:
    """Who computes each shard a second time if it is audited: the worker after its own, which alone is itself."""
    leases = sorted(set(owners.values()))
    return {shard: leases[(leases.index(lease) + 1) % len(leases)] for shard, lease in owners.items()}


def arbiter(disputing: Sequence[int], workers: Sequence[int]) -> int | None:
    """Who computes a disputed shard a third time: one that has not, if there is any."""
    others = [lease for lease in workers if lease not in disputing]
    candidates = others or list(workers)
    return candidates[0] if candidates else None
