"""What the service remembers, as values: models, datasets, jobs and what they leave. And the states of a job."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from chainrule.engine.io.chunked import Column
from chainrule.server.architecture import Architecture
from chainrule.server.training.augmentation import Transform
from chainrule.server.training.config import TrainingConfig
from chainrule.server.training.state import EvaluationMetric


class JobState(enum.Enum):
    """What a job is doing. `TRANSITIONS` says what can follow."""

    QUEUED = "QUEUED"
    PREPARING = "PREPARING"
    RUNNING = "RUNNING"
    RECOVERING = "RECOVERING"
    FINALIZING = "FINALIZING"
    PAUSING = "PAUSING"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def terminal(self) -> bool:
        """Whether the job has ended."""
        return not TRANSITIONS[self]


def _any_of(*states: JobState) -> frozenset[JobState]:
    return frozenset(states)


_S = JobState
TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    _S.QUEUED: _any_of(_S.PREPARING, _S.PAUSED, _S.CANCELLING),
    # To FINALIZING where the service stopped between the last checkpoint and the end.
    _S.PREPARING: _any_of(_S.QUEUED, _S.RUNNING, _S.RECOVERING, _S.FINALIZING, _S.PAUSING, _S.FAILED, _S.CANCELLING),
    _S.RUNNING: _any_of(_S.FINALIZING, _S.RECOVERING, _S.PAUSING, _S.FAILED, _S.CANCELLING),
    _S.RECOVERING: _any_of(_S.QUEUED, _S.RUNNING, _S.RECOVERING, _S.FINALIZING, _S.PAUSING, _S.FAILED, _S.CANCELLING),
    _S.FINALIZING: _any_of(_S.SUCCEEDED, _S.RECOVERING, _S.FAILED, _S.CANCELLING),
    # Not back to RECOVERING: what is lost while pausing is computed again once the job is resumed.
    _S.PAUSING: _any_of(_S.PAUSED, _S.FINALIZING, _S.FAILED, _S.CANCELLING),
    _S.PAUSED: _any_of(_S.QUEUED, _S.CANCELLING),
    _S.CANCELLING: _any_of(_S.CANCELLED, _S.SUCCEEDED, _S.FAILED),
    _S.SUCCEEDED: _any_of(),
    _S.FAILED: _any_of(),
    _S.CANCELLED: _any_of(),
}
"""The states that can follow each state. Terminal states absorb."""


class Cause(enum.Enum):
    """What brings a change of state about."""

    REQUEST = "REQUEST"
    """A call of the API."""
    CAPACITY = "CAPACITY"
    """The cluster has room, or has not."""
    TRAINING = "TRAINING"
    """The training itself: it has begun, or come to its end."""
    LOSS = "LOSS"
    """A process of the job, a node or the cluster was lost."""
    RESTART = "RESTART"
    """The service was restarted."""
    FAILURE = "FAILURE"
    """Something is wrong with the job."""


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a network."""

    name: str
    dtype: str
    """As numpy calls it: "float32"."""
    shape: tuple[int | str, ...]
    """Dimensions; one that is free has a name, which may be empty."""


@dataclass(frozen=True)
class Model:
    """A named architecture with the weights to start from."""

    name: str
    architecture: Architecture
    weights_digest: str
    """Of the first version."""
    init_seed: int
    num_parameters: int
    create_time: datetime
    labels: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    revision: int = 1
    """Counts the changes."""
    latest_version: int = 1
    """Number of its newest version."""
    class_labels: tuple[str, ...] = ()
    """What the classes are called that it tells apart, in the order of its outputs; empty: they have numbers only."""
    inputs: tuple[TensorSpec, ...] = ()
    """What it takes, where its architecture says so: a graph does, a family takes more than one shape."""
    outputs: tuple[TensorSpec, ...] = ()
    """What it gives, likewise."""
    warnings: tuple[str, ...] = ()
    """What is odd about its architecture, though it can be trained."""

    @property
    def etag(self) -> str:
        """Tells this revision from others, and from those of models that had the name before."""
        return _etag_of(self.revision, self.create_time)


@dataclass(frozen=True)
class ModelVersion:
    """Weights of a model."""

    model: str
    number: int
    weights_digest: str
    create_time: datetime
    job: str = ""
    """Which has made it; empty: the model was created with it."""
    parent: int = 0
    """Number of the version that the job began with; 0: none."""
    dataset: str = ""
    dataset_digest: str = ""
    step: int = 0
    """Steps of the job after which the weights were taken."""
    preparation: tuple[Transform, ...] = ()
    """What was done to all images that it was trained on and evaluated with."""
    class_labels: tuple[str, ...] = ()
    """What its classes are called, from the dataset it was trained on; empty: as the model says."""
    raw_bytes: bool = False
    """Whether bytes are the numbers that they are, as in a dataset that has none in its inputs; else they are divided
    by 255."""


@dataclass(frozen=True)
class ColumnStatistics:
    """What the numbers of a column are, over all examples."""

    column: str
    count: int
    min: float
    max: float
    mean: float
    std: float
    """Of the whole population."""
    class_counts: tuple[int, ...] = ()
    """How many numbers each class has, where these are few classes."""
    min_row: int | None = None
    """Number of the first example that has the least; None: of an earlier version."""


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
    target_shape: tuple[int, ...] = ()
    """Shape of one target: (), or (T,) where each token has one."""
    num_tokens: int = 0
    """The highest token plus one where inputs are tokens; 0 where they are features."""
    columns: tuple[Column, ...] = ()
    """Of the inputs, then of the targets, then the others by name."""
    statistics: tuple[ColumnStatistics, ...] = ()
    """In the order of the columns; none: of an earlier version."""
    class_labels: tuple[str, ...] = ()
    """Names of the classes; none: they have none."""
    num_chunks: int = 0
    """How many chunks hold the examples; 0: they are in the blob itself."""
    source_uri: str = ""
    """Where the chunks lie, if they are no blobs."""
    labels: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    revision: int = 1
    """Counts the changes."""

    def column(self, name: str) -> Column | None:
        """What a column holds; None: there is none of this name."""
        return next((column for column in self.columns if column.name == name), None)

    def statistics_of(self, name: str) -> ColumnStatistics | None:
        """What the numbers of a column are; None: not known of what an earlier version has made, or no such column."""
        return next((of for of in self.statistics if of.column == name), None)

    @property
    def etag(self) -> str:
        """Tells this revision from others, and from those of datasets that had the name before."""
        return _etag_of(self.revision, self.create_time)


@dataclass(frozen=True)
class StateChange:
    """A state a job entered."""

    state: JobState
    time: datetime
    reason: str
    attempt: int = 0
    """Number of the latest attempt by then; 0 before the first."""
    cause: Cause | None = None
    """None: not known, as of what is older than causes."""


@dataclass(frozen=True)
class JobFailure:
    """Why a job failed."""

    reason: str
    message: str
    traceback: str = ""


@dataclass(frozen=True)
class JobEvent:
    """Something that happened to a job and is worth telling."""

    kind: str
    """As in training.events.Incident."""
    message: str
    step: int
    """Steps done when it happened; of a recovery from a checkpoint, the step it went back to."""
    seconds_lost: float
    time: datetime


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    step: int
    total_steps: int
    epoch: int
    total_epochs: int
    loss: float = 0.0
    accuracy: float | None = None
    """None: not measured, or not yet."""
    examples_per_second: float = 0.0
    eta_s: float | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    """What else the last step measured, by name."""


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
    events: tuple[JobEvent, ...] = ()
    """The latest, oldest first; none where jobs are listed."""
    running_workers: int = 0
    fingerprint: str = ""
    """What its workers compute with, as the first attempt reported it; empty: not known yet."""
    evaluations: tuple[EvaluationMetric, ...] = ()
    """The latest, oldest first; none where jobs are listed."""
    weights_step: int = 0
    """Steps after which the final weights were taken."""
    tenant: str = "default"
    """Whose it is."""
    labels: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    priority: int = 0
    """Of the waiting jobs the highest goes first."""
    revision: int = 1
    """Counts the changes of anything but progress, and of how many workers there are."""
    source_version: int = 1
    """Number of the model's version that the training begins with."""
    result_version: int = 0
    """Number of the version that it has made; 0: none."""
    dataset_digest: str = ""

    @property
    def etag(self) -> str:
        """Tells this revision from others."""
        return _etag_of(self.revision, self.create_time)


@dataclass(frozen=True)
class LogRecord:
    """A stored entry of a job's log."""

    sequence: int
    """From 1, rising."""
    time: datetime
    severity: int
    """As the numbers of `logging`."""
    source: str
    """Who says it: "service", "coordinator", "partition 0", "worker 3"."""
    node: str
    """Ray's id of the node it ran on; empty for the service."""
    attempt: int
    """Of the job, from 1; 0: before the first."""
    message: str


@dataclass(frozen=True)
class UnfinishedJob:
    """What the queue goes by, of a job that has not ended."""

    name: str
    tenant: str
    state: JobState
    priority: int
    config: TrainingConfig


@dataclass(frozen=True)
class Checkpoint:
    """A stored checkpoint of a job."""

    job: str
    step: int
    epoch: int
    """Whole epochs done."""
    manifest_digest: str
    state_digest: str
    size_bytes: int
    """Of the state's blob."""
    create_time: datetime
    is_best: bool = False
    """Whether the evaluation at its step is the best of the job's so far."""


def etag(revision: int) -> str:
    """How a revision looks to clients, who compare it only."""
    return f"r{revision}"


NO_RECEIPT = "0" * 64
"""What the first receipt of a job is chained to."""


@dataclass(frozen=True)
class Receipt:
    """The state of a job after a step, by its digest."""

    step: int
    state_digest: str
    chain_digest: str
    """Digest of this receipt and, through the one before, of all up to it."""

    @classmethod
    def after(cls, chain_digest: str, *, step: int, state_digest: str) -> Receipt:
        """The receipt that follows the one with this chain digest, NO_RECEIPT for the first."""
        chained = hashlib.sha256(f"{chain_digest} {step} {state_digest}".encode()).hexdigest()
        return cls(step, state_digest, chained)


def _etag_of(revision: int, create_time: datetime) -> str:
    return f"{etag(revision)}-{round(create_time.timestamp() * 1e6):x}"
