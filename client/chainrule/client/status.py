"""What the server says of a job, as frozen values: its state and progress, what it measured and stored, its end."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

from chainrule.client.config import TrainingConfig
from chainrule.client.config_messages import from_message
from chainrule.client.wire import accuracy_of, enum_word, labels_of, moment, values_of
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
    """Lost a part of itself: has fewer workers than `min_workers`, or goes on from its last checkpoint."""
    PAUSING = "PAUSING"
    """Finishes the running step and stores a checkpoint because it was asked to pause."""
    PAUSED = "PAUSED"
    """Stands still and holds nothing of the cluster, until it is resumed."""
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


class Cause(StrEnum):
    """What brought a change of state about."""

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
    UNKNOWN = "UNKNOWN"
    """Not recorded, or one that this version of the client does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """A state that a job entered."""

    state: JobState
    time: datetime
    """When, in UTC."""
    reason: str
    """Why, in a few words; may be empty."""
    attempt: int = 0
    """Attempt at the job that it belongs to, from 1; 0 before the first."""
    cause: Cause = Cause.UNKNOWN
    """What brought it about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """How long a job has been in its states so far, in seconds."""

    queued_s: float = 0.0
    """QUEUED."""
    preparing_s: float = 0.0
    """PREPARING."""
    running_s: float = 0.0
    """RUNNING."""
    recovering_s: float = 0.0
    """RECOVERING."""
    paused_s: float = 0.0
    """PAUSING and PAUSED."""
    ending_s: float = 0.0
    """FINALIZING and CANCELLING."""


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
    """Share of the examples of the last step that were classified right, from 0 to 1; None before the first step, and
    where it is not measured."""
    examples_per_second: float
    """Examples trained on per second, since the training last started or resumed."""
    eta_s: float | None
    """Time left at that pace, in seconds; None when unknown."""
    values: Mapping[str, float] = field(default_factory=dict)
    """All that the last step measured, by name: the job's metrics, and each of several losses."""


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
class JobEvent:
    """Something that happened to a job and is worth telling."""

    kind: str
    """What kind of thing: "recovery", "straggler", "corruption", "refused", "skipped", "scaled", "early_stop" or
    "warning"; newer servers may have more."""
    message: str
    """Who, what and why."""
    step: int
    """Steps done when it happened; of a recovery from a checkpoint, the step it went back to."""
    seconds_lost: float
    """Progress that it cost, in seconds; 0 where it cost nothing, or is not known yet."""
    time: datetime
    """When, in UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What an evaluation after an epoch measured."""

    epoch: int
    """Epoch that had ended, from 1."""
    step: int
    """Steps done by then."""
    loss: float
    """Mean loss over the validation examples."""
    accuracy: float | None
    """Share of them that was classified right, from 0 to 1; None where it is not measured."""
    num_examples: int
    """How many they are."""
    time: datetime
    """When it was done, in UTC."""
    values: Mapping[str, float] = field(default_factory=dict)
    """All that was measured, by name."""


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
    weights_step: int | None
    """Steps after which the final weights were taken: fewer than all if training stopped early, or if the best weights
    are the result. None until the job has SUCCEEDED."""
    running_workers: int
    """Workers that compute at the moment."""
    fingerprint: Mapping[str, Any]
    """What the workers compute with: kernels, instruction set, threads, versions; empty until the job has started."""
    events: tuple[JobEvent, ...]
    """What happened on the way, oldest first: the latest 100. None in a list of jobs."""
    evaluations: tuple[Evaluation, ...]
    """What the evaluations after each epoch measured, oldest first: the latest 1,000. None in a list of jobs."""
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
    timings: Timings = field(default_factory=Timings)
    """How long it has been in its states."""
    source_version: str | None = None
    """Resource name of the model version that the training begins with."""
    result_version: str | None = None
    """Resource name of the model version that it has made; None until the job has SUCCEEDED."""
    dataset_digest: str | None = None
    """SHA-256 of the dataset it trains on."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Notes to find it by."""
    description: str = ""
    """What it is for."""
    priority: int = 0
    """Which of the waiting jobs goes first: the highest; from -100 to 100."""
    etag: str = ""
    """Changes whenever anything of the job but its progress does; sent along with a change, it makes sure that nothing
    else came between."""

    @property
    def reason(self) -> str:
        """Why it is in its state, in a few words; may be empty."""
        return self.history[-1].reason if self.history else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A stored state of the training from which the job can go on."""

    step: int
    """Steps done."""
    epoch: int
    """Whole epochs done."""
    digest: str
    """SHA-256 of its blob: a safetensors file with parameters, buffers and the optimizer's state."""
    size_bytes: int
    """Size of its blob."""
    create_time: datetime
    """When it was stored, in UTC."""
    is_best: bool
    """Whether the evaluation at its step has the least loss of the job's evaluations so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The whole state of the training after a step, by its digest, chained to the receipts before."""

    step: int
    """Steps done."""
    state_digest: str
    """SHA-256 over position, parameters, buffers and the optimizer's state."""
    chain_digest: str
    """SHA-256 of the chain_digest of the receipt before (of the first: 64 zeros), the step and the state_digest, with a
    space between."""


# Translation from the API.


def state_from_message(state: job_pb2.Job.State.ValueType) -> JobState:
    """A state from its number in the API; UNKNOWN where a newer server has one that is not in JobState."""
    return JobState.__members__.get(enum_word(job_pb2.Job.State.DESCRIPTOR, "STATE_", state), JobState.UNKNOWN)


def status_from_message(job: job_pb2.Job) -> JobStatus:
    """A job's status from its message."""
    return JobStatus(
        name=job.name,
        state=state_from_message(job.state),
        model=job.model,
        dataset=job.dataset,
        config=from_message(job.config),
        progress=Progress(
            step=job.progress.step,
            total_steps=job.progress.total_steps,
            epoch=job.progress.epoch,
            total_epochs=job.progress.total_epochs,
            loss=job.progress.loss if job.progress.step else None,
            accuracy=accuracy_of(job.progress) if job.progress.step else None,
            examples_per_second=job.progress.examples_per_second,
            eta_s=job.progress.eta.ToTimedelta().total_seconds() if job.progress.HasField("eta") else None,
            values=values_of(job.progress),
        ),
        weights_digest=job.weights_digest or None,
        weights_step=job.weights_step or None,
        running_workers=job.running_workers,
        fingerprint=json.loads(job.fingerprint or "{}"),
        events=tuple(map(_event, job.events)),
        evaluations=tuple(map(_evaluation, job.evaluations)),
        error=JobFailure(reason=job.error.reason, message=job.error.message, traceback=job.error.traceback)
        if job.HasField("error")
        else None,
        history=tuple(
            StateChange(
                state=state_from_message(change.state),
                time=moment(change.time),
                reason=change.reason,
                attempt=change.attempt,
                cause=Cause.__members__.get(
                    enum_word(job_pb2.StateChange.Cause.DESCRIPTOR, "CAUSE_", change.cause), Cause.UNKNOWN
                ),
            )
            for change in job.history
        ),
        create_time=moment(job.create_time),
        start_time=moment(job.start_time) if job.HasField("start_time") else None,
        end_time=moment(job.end_time) if job.HasField("end_time") else None,
        timings=_timings(job.timings),
        source_version=job.source_version or None,
        result_version=job.result_version or None,
        dataset_digest=job.dataset_digest or None,
        labels=labels_of(job),
        description=job.description,
        priority=job.priority,
        etag=job.etag,
    )


def checkpoint_from_message(checkpoint: job_pb2.Checkpoint) -> Checkpoint:
    """A checkpoint from its message."""
    return Checkpoint(
        step=checkpoint.step,
        epoch=checkpoint.epoch,
        digest=checkpoint.digest,
        size_bytes=checkpoint.size_bytes,
        create_time=moment(checkpoint.create_time),
        is_best=checkpoint.is_best,
    )


def receipt_from_message(receipt: job_pb2.Receipt) -> Receipt:
    """A receipt from its message."""
    return Receipt(step=receipt.step, state_digest=receipt.state_digest, chain_digest=receipt.chain_digest)


def _timings(timings: job_pb2.Timings) -> Timings:
    return Timings(
        **{f.name: getattr(timings, f.name.removesuffix("_s")).ToTimedelta().total_seconds() for f in fields(Timings)}
    )


def _event(event: job_pb2.JobEvent) -> JobEvent:
    return JobEvent(
        kind=event.kind,
        message=event.message,
        step=event.step,
        seconds_lost=event.seconds_lost,
        time=moment(event.time),
    )


def _evaluation(evaluation: job_pb2.Evaluation) -> Evaluation:
    return Evaluation(
        epoch=evaluation.epoch,
        step=evaluation.step,
        loss=evaluation.loss,
        accuracy=accuracy_of(evaluation),
        num_examples=evaluation.num_examples,
        time=moment(evaluation.time),
        values=values_of(evaluation),
    )
