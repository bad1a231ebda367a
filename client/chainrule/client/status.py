"""What the server says of a job, as frozen values: its state, its progress, its metrics, its end."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from chainrule.client import config
from chainrule.client.config import TrainingConfig
from chainrule.client.wire import moment
from chainrule.v1 import job_pb2


class JobState(StrEnum):
    """What a job is doing. SUCCEEDED, FAILED and CANCELLED are final."""

    QUEUED = "QUEUED"
    """Accepted; waits for room on the cluster."""
    PREPARING = "PREPARING"
    """Starts its coordinator, parameter server and workers."""
    RUNNING = "RUNNING"
    """Trains."""
    RECOVERING = "RECOVERING"
    """Lost a part of itself; goes on from its last checkpoint."""
    FINALIZING = "FINALIZING"
    """Stores the final weights."""
    CANCELLING = "CANCELLING"
    """Stops because it was asked to."""
    SUCCEEDED = "SUCCEEDED"
    """Has trained to the end."""
    FAILED = "FAILED"
    """Cannot go on."""
    CANCELLED = "CANCELLED"
    """Was stopped because it was asked to."""
    UNKNOWN = "UNKNOWN"
    """A state that this version of the client does not know."""

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """A state that a job entered."""

    state: JobState
    time: datetime
    """When, in UTC."""
    reason: str
    """Why, in a few words; may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is."""

    step: int
    """Steps done."""
    total_steps: int
    """Steps the whole job takes."""
    epoch: int
    """Epoch of the last step, from 1; 0 before the first step."""
    total_epochs: int
    """Epochs the whole job takes."""
    loss: float | None
    """Mean loss over the examples of the last step; None before the first step."""
    accuracy: float | None
    """Share of the examples of the last step that were classified right, from 0 to 1; None before the first step."""
    examples_per_second: float
    """Examples trained on per second, since the training last started or resumed."""
    eta_s: float | None
    """Time left at that pace, in seconds; None when unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailure:
    """Why a job failed."""

    reason: str
    """The kind of failure as a constant, for example "NON_FINITE_LOSS"."""
    message: str
    """What happened and what to do."""
    traceback: str
    """Traceback of the worker or server; may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """A job at one moment."""

    name: str
    """Resource name, for example "jobs/bea3phtux7dd"."""
    state: JobState
    model: str
    """Resource name of the model it trains."""
    dataset: str
    """Resource name of the dataset it trains on."""
    config: TrainingConfig
    progress: Progress
    weights_digest: str | None
    """SHA-256 of the final weights; None until the job has SUCCEEDED."""
    error: JobFailure | None
    """Why it failed; None in any other state than FAILED."""
    history: tuple[StateChange, ...]
    """Every state it has been in, oldest first."""
    create_time: datetime
    """When it was submitted, in UTC."""
    start_time: datetime | None
    """When it first ran, in UTC; None before."""
    end_time: datetime | None
    """When it ended, in UTC; None before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What one step measured."""

    sequence: int
    """Position among the job's metrics, from 1, without gaps."""
    step: int
    """Step, from 1."""
    epoch: int
    """Epoch, from 1."""
    loss: float
    """Mean loss over the global batch."""
    accuracy: float
    """Share of the global batch that was classified right, from 0 to 1."""
    num_examples: int
    """Examples of the global batch."""
    time: datetime
    """When the step was done, in UTC."""


# Translation from the API.


def state_from_message(state: job_pb2.Job.State.ValueType) -> JobState:
    """A state from its number in the API; UNKNOWN where a newer server has one that is not in JobState."""
    known = job_pb2.Job.State.values()
    name = job_pb2.Job.State.Name(state).removeprefix("STATE_") if state in known else ""
    return JobState.__members__.get(name, JobState.UNKNOWN)


def status_from_message(job: job_pb2.Job) -> JobStatus:
    """A job's status from its message."""
    return JobStatus(
        name=job.name,
        state=state_from_message(job.state),
        model=job.model,
        dataset=job.dataset,
        config=config.from_message(job.config),
        progress=Progress(
            step=job.progress.step,
            total_steps=job.progress.total_steps,
            epoch=job.progress.epoch,
            total_epochs=job.progress.total_epochs,
            loss=job.progress.loss if job.progress.step else None,
            accuracy=job.progress.accuracy if job.progress.step else None,
            examples_per_second=job.progress.examples_per_second,
            eta_s=job.progress.eta.ToTimedelta().total_seconds() if job.progress.HasField("eta") else None,
        ),
        weights_digest=job.weights_digest or None,
        error=JobFailure(reason=job.error.reason, message=job.error.message, traceback=job.error.traceback)
        if job.HasField("error")
        else None,
        history=tuple(
            StateChange(state=state_from_message(change.state), time=moment(change.time), reason=change.reason)
            for change in job.history
        ),
        create_time=moment(job.create_time),
        start_time=moment(job.start_time) if job.HasField("start_time") else None,
        end_time=moment(job.end_time) if job.HasField("end_time") else None,
    )


def metric_from_message(metric: job_pb2.Metric) -> Metric:
    """A step's metrics from their message."""
    return Metric(
        sequence=metric.sequence,
        step=metric.step,
        epoch=metric.epoch,
        loss=metric.loss,
        accuracy=metric.accuracy,
        num_examples=metric.num_examples,
        time=moment(metric.time),
    )
