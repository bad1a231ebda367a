"""What the service remembers, as values: models, datasets, jobs, checkpoints. And the states of a job."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from chainrule.server.training.plan import TrainingConfig


class JobState(enum.Enum):
    """What a job is doing. `TRANSITIONS` says what can follow."""

    QUEUED = "QUEUED"
    PREPARING = "PREPARING"
    RUNNING = "RUNNING"
    RECOVERING = "RECOVERING"
    FINALIZING = "FINALIZING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def terminal(self) -> bool:
        """Whether the job has ended."""
        return not TRANSITIONS[self]


TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.PREPARING, JobState.CANCELLING}),
    JobState.PREPARING: frozenset(
        {JobState.QUEUED, JobState.RUNNING, JobState.RECOVERING, JobState.FAILED, JobState.CANCELLING}
    ),
    JobState.RUNNING: frozenset({JobState.FINALIZING, JobState.RECOVERING, JobState.FAILED, JobState.CANCELLING}),
    JobState.RECOVERING: frozenset(
        {
            JobState.QUEUED,
            JobState.RUNNING,
            JobState.RECOVERING,
            JobState.FINALIZING,
            JobState.FAILED,
            JobState.CANCELLING,
        }
    ),
    JobState.FINALIZING: frozenset({JobState.SUCCEEDED, JobState.RECOVERING, JobState.FAILED, JobState.CANCELLING}),
    JobState.CANCELLING: frozenset({JobState.CANCELLED, JobState.SUCCEEDED, JobState.FAILED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}
"""The states that can follow each state. Terminal states absorb."""


@dataclass(frozen=True)
class Model:
    """A named architecture with the weights to start from."""

    name: str
    family: str
    family_config: Mapping[str, object]
    weights_digest: str
    init_seed: int
    num_parameters: int
    create_time: datetime


@dataclass(frozen=True)
class Dataset:
    """A named, immutable set of examples."""

    name: str
    digest: str
    num_examples: int
    input_shape: tuple[int, ...]
    num_classes: int
    size_bytes: int
    create_time: datetime


@dataclass(frozen=True)
class StateChange:
    """A state a job entered."""

    state: JobState
    time: datetime
    reason: str


@dataclass(frozen=True)
class JobFailure:
    """Why a job failed."""

    reason: str
    message: str
    traceback: str = ""


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    step: int
    total_steps: int
    epoch: int
    total_epochs: int
    loss: float = 0.0
    accuracy: float = 0.0
    examples_per_second: float = 0.0
    eta_s: float | None = None


@dataclass(frozen=True)
class Job:
    """One training run."""

    name: str
    model: str
    dataset: str
    config: TrainingConfig
    state: JobState
    history: tuple[StateChange, ...]
    create_time: datetime
    start_time: datetime | None = None
    end_time: datetime | None = None
    weights_digest: str = ""
    failure: JobFailure | None = None
    progress: Progress = field(default_factory=lambda: Progress(0, 0, 0, 0))


@dataclass(frozen=True)
class Checkpoint:
    """A stored checkpoint of a job."""

    job: str
    step: int
    epoch: int
    manifest_digest: str
    create_time: datetime
