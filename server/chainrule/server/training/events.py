"""What a coordinator reports about a running attempt, in order."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Literal

from chainrule.server.training.checkpoint import Packed
from chainrule.server.training.errors import LinkError, LostPartError, PlacementError
from chainrule.server.training.logs import LogEntry
from chainrule.server.training.state import EvaluationMetric, StepMetric

NO_ROOM = "NO_ROOM"
"""Reason of an attempt for which the cluster had no room."""


IncidentKind = Literal["recovery", "straggler", "corruption", "refused", "skipped", "scaled", "early_stop", "warning"]


@dataclass(frozen=True)
class Started:
    """At least `min_workers` are in place; the first step begins."""

    workers: int
    fingerprint: str
    """JSON object of what the workers compute with: kernels, instruction set, threads, versions."""


@dataclass(frozen=True)
class StepsDone:
    """Steps that are done, in order."""

    metrics: tuple[StepMetric, ...]


@dataclass(frozen=True)
class Evaluated:
    """The model was evaluated after an epoch."""

    metric: EvaluationMetric


@dataclass(frozen=True)
class CheckpointTaken:
    """A checkpoint, to be stored."""

    step: int
    epoch: int
    """Whole epochs done."""
    content: Packed
    """The state. Until this event is dealt with it stays as it is; then later ones may take its memory."""


@dataclass(frozen=True)
class ReceiptTaken:
    """The digest of the whole state after a step, to be chained to those before."""

    step: int
    state_digest: str


@dataclass(frozen=True)
class Incident:
    """Something that the history of the job should tell."""

    kind: IncidentKind
    message: str
    """Who, what and why, for people."""
    step: int
    """Steps done when it happened."""
    seconds_lost: float = 0.0
    """Time until the step went on, where that is known."""


@dataclass(frozen=True)
class WorkersChanged:
    """The number of workers is another now; if they are not enough the job recovers, else it runs."""

    workers: int
    reason: str
    enough: bool
    """Whether the job goes on with them."""


@dataclass(frozen=True)
class Logged:
    """What processes of the attempt have logged, in the order in which the coordinator learnt of it."""

    entries: tuple[LogEntry, ...]


@dataclass(frozen=True)
class Paused:
    """As asked: training stands after a step whose checkpoint is among the events before."""


@dataclass(frozen=True)
class Finished:
    """Training is over. The checkpoint of step `step` holds the result."""

    step: int


@dataclass(frozen=True)
class Failed:
    """The attempt is over without a result."""

    reason: str
    """Kind of failure, as a constant."""
    message: str
    traceback: str
    lost: bool
    """True if a process was lost: another attempt can do better. False if the job itself is at fault."""


Event = (
    Started
    | StepsDone
    | Evaluated
    | CheckpointTaken
    | ReceiptTaken
    | Incident
    | WorkersChanged
    | Logged
    | Paused
    | Finished
    | Failed
)


def failure(error: BaseException) -> Failed:
    """What an exception means for the attempt."""
    if isinstance(error, LostPartError | LinkError):
        reason = "PART_LOST"
    else:
        reason = NO_ROOM if isinstance(error, PlacementError) else "TRAINING_ERROR"
    text = "".join(traceback.format_exception(error))
    return Failed(reason, str(error), text, lost=isinstance(error, LostPartError | LinkError))
