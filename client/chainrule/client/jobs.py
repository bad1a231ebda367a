"""Jobs on the server: submitting, following, steering and comparing them, and fetching what they produce."""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import numpy as np

from chainrule.client.blobs import Blobs
from chainrule.client.channel import Connection
from chainrule.client.config import (
    Optimizer,
    Schedule,
    TrainingConfig,
    Validation,
    to_max_workers,
    to_message,
    to_optimizer,
    to_schedule,
    to_trainable,
    to_validation,
)
from chainrule.client.datasets import Dataset, Datasets
from chainrule.client.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidInputError,
    JobCancelledError,
    JobFailedError,
)
from chainrule.client.models import Model, Models
from chainrule.client.progress import show_progress
from chainrule.client.status import (
    Checkpoint,
    JobFailure,
    JobState,
    JobStatus,
    Metric,
    Receipt,
    checkpoint_from_message,
    metric_from_message,
    receipt_from_message,
    status_from_message,
)
from chainrule.client.verification import Record, Verification, compare
from chainrule.client.wire import POSITIVE_INT32, page_size, pages, put, resource_name
from chainrule.engine import io
from chainrule.v1 import job_pb2, job_pb2_grpc

MAX_METRICS_PAGE = 10_000


class Jobs:
    """The jobs of a server."""

    def __init__(self, connection: Connection, blobs: Blobs) -> None:
        self._service = _JobService(connection, blobs)

    def create(
        self,
        *,
        model: Model | str,
        dataset: Dataset | str,
        epochs: int = 1,
        batch_size: int = 64,
        shards: int = 1,
        seed: int = 0,
        optimizer: Optimizer | Mapping[str, Any] | None = None,
        schedule: Schedule | Mapping[str, Any] | None = None,
        clip_norm: float = 0.0,
        trainable: Sequence[str] = ("*",),
        non_finite: Literal["fail", "skip"] = "fail",
        validation: Validation | Mapping[str, Any] | None = None,
        staleness: int = 0,
        workers: int | None = None,
        min_workers: int = 1,
        max_workers: int | None = None,
        partitions: int = 0,
        checkpoint_every_steps: int = 0,
        keep_checkpoints: int = 3,
        receipt_every_steps: int = 100,
        audit_fraction: float = 0.0,
        exact: bool = True,
        max_failures: int = 10,
        request_id: str | None = None,
    ) -> "Job":
        """Submit a job: train `model` on `dataset`.

        What is not named below is explained with the fields of `TrainingConfig`. Those up to `staleness` fix the
        weights; the others do not.

        Args:
            model: a handle, or a name ("digits" or "models/digits").
            dataset: a handle, or a name.
            optimizer: an `Sgd` or `Adam`, or its fields by name, of which "name" is "sgd", "adam" or "adamw": as
                {"name": "adam", "lr": 0.001}. The default is SGD with its defaults.
            schedule: a `Schedule`, or its fields by name: as {"decay": "cosine", "warmup_steps": 100}.
            trainable: patterns of the names of the parameters that are trained, as in a shell: as ["fc.*"].
            validation: a `Validation`, or its fields by name: as {"fraction": 0.1} or {"dataset": handle or name}.
            workers: short for `max_workers`, whose default is 1.
            request_id: the same id with the same arguments gives the same job; by default every call makes a new
                one, and only its own repetitions after a transport break share an id.

        Raises:
            InvalidArgument: the server refuses a field; `.violations` says which.
            InvalidInputError: a value has the wrong type, or a mapping a name that is unknown.
            NotFound: there is no such model or dataset.
            AlreadyExists: `request_id` belongs to a job with other arguments.
            ResourceExhausted: the server's queue is full.
        """
        config = TrainingConfig(
            epochs=epochs,
            batch_size=batch_size,
            shards=shards,
            seed=seed,
            optimizer=to_optimizer(optimizer),
            schedule=to_schedule(schedule),
            clip_norm=clip_norm,
            trainable=to_trainable(trainable),
            non_finite=non_finite,
            validation=to_validation(validation),
            staleness=staleness,
            min_workers=min_workers,
            max_workers=to_max_workers(workers=workers, max_workers=max_workers),
            partitions=partitions,
            checkpoint_every_steps=checkpoint_every_steps,
            keep_checkpoints=keep_checkpoints,
            receipt_every_steps=receipt_every_steps,
            audit_fraction=audit_fraction,
            exact=exact,
            max_failures=max_failures,
        )
        request = job_pb2.CreateJobRequest(
            job=job_pb2.Job(
                model=_name_of("models", model), dataset=_name_of("datasets", dataset), config=to_message(config)
            ),
            request_id=str(uuid.uuid4()) if request_id is None else request_id,
        )
        return self._handle(self._service.connection.call(self._service.stub.CreateJob, request))

    def get(self, name: str) -> "Job":
        """The job of this name, "bea3phtux7dd" or "jobs/bea3phtux7dd".

        Raises:
            NotFound: there is none.
        """
        request = job_pb2.GetJobRequest(name=resource_name("jobs", name))
        return self._handle(self._service.connection.call(self._service.stub.GetJob, request))

    def list(self, *, limit: int | None = None) -> tuple[JobStatus, ...]:
        """The status of the jobs, newest first, without their events and evaluations; at most `limit`."""

        def read_page(token: str) -> job_pb2.ListJobsResponse:
            request = job_pb2.ListJobsRequest(page_size=page_size(limit), page_token=token)
            return self._service.connection.call(self._service.stub.ListJobs, request)

        return tuple(islice((status_from_message(job) for page in pages(read_page) for job in page.jobs), limit))

    def _handle(self, job: job_pb2.Job) -> "Job":
        return Job(name=job.name, _service=self._service)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job on the server. The handle holds its name only; everything else is asked for."""

    name: str
    """Resource name, for example "jobs/bea3phtux7dd"."""
    _service: "_JobService" = field(repr=False, compare=False)

    def status(self) -> JobStatus:
        """The job as it is now."""
        request = job_pb2.GetJobRequest(name=self.name)
        return status_from_message(self._service.connection.call(self._service.stub.GetJob, request))

    def watch(self, *, timeout_s: float | None = None) -> Iterator[JobStatus]:
        """The job as it is now, and again on every change of state or progress, until it has ended.

        A job that is PAUSED has not ended: it is watched on. Goes on by itself when the connection breaks or the server
        restarts.

        Args:
            timeout_s: time for all of it; None watches for as long as the job takes.

        Raises:
            Unavailable: the server could not be reached for the whole retry window. The job may well go on.
            DeadlineExceeded: `timeout_s` is over. The job goes on.
        """
        last = JobState.UNKNOWN
        messages = self._service.connection.follow(
            self._service.stub.WatchJob,
            lambda: job_pb2.WatchJobRequest(name=self.name),
            timeout_s=timeout_s,
            is_complete=lambda: last.is_final,
        )
        for message in messages:
            status = status_from_message(message)
            last = status.state
            yield status
            if last.is_final:
                return

    def wait(
        self, *, progress: bool | Callable[[JobStatus], None] = False, timeout_s: float | None = None
    ) -> JobStatus:
        """Wait until the job has ended, and return how: its status in state SUCCEEDED.

        A job that is PAUSED has not ended: the wait goes on until somebody resumes or cancels it, or `timeout_s` is
        over.

        Args:
            progress: True shows the progress on stdout; a function is called with every status on the way.
            timeout_s: the longest to wait; None waits for as long as the job takes.

        Raises:
            JobFailedError: the job has FAILED.
            JobCancelledError: the job was CANCELLED.
            Unavailable: the server could not be reached for the whole retry window. The job may well go on.
            DeadlineExceeded: `timeout_s` is over. The job goes on.
        """
        if progress is True:
            with show_progress() as show:
                return self.wait(progress=show, timeout_s=timeout_s)
        seen = "has not been seen"
        try:
            for status in self.watch(timeout_s=timeout_s):
                seen = f"was {status.state} when last seen"
                if progress:
                    progress(status)
                if status.state.is_final:
                    return succeeded(status)
        except DeadlineExceeded as error:
            raise DeadlineExceeded(f"{self.name} has not ended within {timeout_s:g} s; it {seen}") from error
        raise RuntimeError(f"the watch of {self.name} ended before the job did")

    def metrics(self, *, after: int = 0) -> list[Metric]:
        """What the steps so far measured.

        Args:
            after: leave out metrics up to this sequence number.
        """
        return list(self._metrics(after=after))

    def stream_metrics(self, *, after: int = 0, timeout_s: float | None = None) -> Iterator[Metric]:
        """What each step measured: first the steps so far, then new ones as they are done, until the job has ended.

        Goes on by itself, without gaps or repetitions, when the connection breaks or the server restarts.

        Args:
            after: leave out metrics up to this sequence number.
            timeout_s: time for all of it; None follows for as long as the job takes.

        Raises:
            Unavailable: the server could not be reached for the whole retry window. The job may well go on.
            DeadlineExceeded: `timeout_s` is over. The job goes on.
        """
        last = after
        responses = self._service.connection.follow(
            self._service.stub.StreamMetrics,
            lambda: job_pb2.StreamMetricsRequest(name=self.name, after_sequence=last),
            timeout_s=timeout_s,
        )
        for response in responses:
            for message in response.metrics:
                last = message.sequence
                yield metric_from_message(message)

    def cancel(self) -> JobStatus:
        """Ask the job to stop; its status is then CANCELLING or CANCELLED.

        Raises:
            FailedPrecondition: the job has already ended.
        """
        request = job_pb2.CancelJobRequest(name=self.name)
        return status_from_message(self._service.connection.call(self._service.stub.CancelJob, request))

    def pause(self) -> JobStatus:
        """Ask the job to stop after the running step, store a checkpoint and leave the cluster.

        Its status is then PAUSING or PAUSED, also when it is asked again.

        Raises:
            FailedPrecondition: the job is on its way out, or has ended.
        """
        request = job_pb2.PauseJobRequest(name=self.name)
        return status_from_message(self._service.connection.call(self._service.stub.PauseJob, request))

    def resume(self) -> JobStatus:
        """Let a paused job go on at the very example it stopped at: it is QUEUED again. One under way stays as it is.

        Raises:
            FailedPrecondition: the job is PAUSING, on its way out, or has ended.
        """
        request = job_pb2.ResumeJobRequest(name=self.name)
        return status_from_message(self._service.connection.call(self._service.stub.ResumeJob, request))

    def scale(self, max_workers: int | None = None, *, min_workers: int | None = None) -> JobStatus:
        """Change how many workers the job has, also while it runs; its weights stay the same.

        Args:
            max_workers: most workers, at most one for each shard; None leaves it.
            min_workers: fewest workers to train with; None leaves it.

        Raises:
            InvalidInputError: neither is given, or one is not above 0.
            InvalidArgument: they do not go together, or with the shards of the job.
            FailedPrecondition: the job has ended.
        """
        if max_workers is None and min_workers is None:
            raise InvalidInputError(f"nothing says how to scale {self.name}; give max_workers, min_workers or both")
        request = job_pb2.ScaleJobRequest(name=self.name)
        for name, value in (("min_workers", min_workers), ("max_workers", max_workers)):
            if value is not None:
                put(request, name, value, allowed=POSITIVE_INT32)
                if value < 1:  # 0 would say: leave it
                    remedy = "; to give back all workers, pause the job" if value == 0 else ""
                    raise InvalidInputError(f"{name} is {value}; it must be {POSITIVE_INT32}{remedy}")
        return status_from_message(self._service.connection.call(self._service.stub.ScaleJob, request))

    def checkpoints(self, *, limit: int | None = None) -> tuple[Checkpoint, ...]:
        """The checkpoints that are kept, newest first; at most `limit`."""

        def read_page(token: str) -> job_pb2.ListCheckpointsResponse:
            request = job_pb2.ListCheckpointsRequest(name=self.name, page_size=page_size(limit), page_token=token)
            return self._service.connection.call(self._service.stub.ListCheckpoints, request)

        return tuple(islice((checkpoint_from_message(c) for p in pages(read_page) for c in p.checkpoints), limit))

    def receipts(self, *, after: int = 0) -> list[Receipt]:
        """The receipts so far, in the order of their steps.

        Args:
            after: leave out receipts up to this step.
        """
        receipts: list[Receipt] = []
        while True:
            last = receipts[-1].step if receipts else after
            request = job_pb2.ListReceiptsRequest(name=self.name, after_step=last)
            page = self._service.connection.call(self._service.stub.ListReceipts, request).receipts
            if not page:
                return receipts
            receipts.extend(map(receipt_from_message, page))

    def verify(self, other: "Job | str") -> Verification:
        """Compare with another job, bit by bit: the losses of all steps that both have done, the states of which both
        have receipts, and the final weights.

        Args:
            other: a handle, which may be one of another server, or a name on this one.

        Raises:
            NotFound: there is no such job.
            FailedPrecondition: they have no step in common yet.
            DataLoss: the record of one of them is not what was recorded.
        """
        if isinstance(other, str):
            other = Job(name=resource_name("jobs", other), _service=self._service)
        return compare(self._record(), other._record())

    def _record(self) -> Record:
        status = self.status()
        validation = status.config.validation.dataset
        return Record(
            status=status,
            model=self._service.models.get(status.model),
            dataset=self._service.datasets.get(status.dataset),
            validation=self._service.datasets.get(validation) if validation else None,
            receipts=self.receipts(),
            metrics=self._metrics(),
        )

    def _metrics(self, *, after: int = 0) -> Iterator[Metric]:
        while True:
            request = job_pb2.ListMetricsRequest(name=self.name, after_sequence=after, page_size=MAX_METRICS_PAGE)
            page = self._service.connection.call(self._service.stub.ListMetrics, request).metrics
            if not page:
                return
            yield from map(metric_from_message, page)
            after = page[-1].sequence

    @property
    def weights_digest(self) -> str:
        """SHA-256 of the final weights as a safetensors file, in hexadecimal.

        Raises:
            FailedPrecondition: the job has not SUCCEEDED.
        """
        status = self.status()
        if status.weights_digest is None:
            raise FailedPrecondition(f"{self.name} is {status.state}; only a SUCCEEDED job has weights")
        return status.weights_digest

    def weights_file(self) -> bytes:
        """The final weights as a safetensors file, checked against their digest.

        Raises:
            FailedPrecondition: the job has not SUCCEEDED.
            DataLoss: what arrived has another digest.
        """
        return self._service.blobs.download(self.weights_digest)

    def weights(self) -> dict[str, np.ndarray]:
        """The final weights, state_dict name → array, checked against their digest.

        Raises:
            FailedPrecondition: the job has not SUCCEEDED.
            DataLoss: what arrived has another digest.
        """
        return io.load(self.weights_file())


def succeeded(status: JobStatus) -> JobStatus:
    """The status of a job that has ended, if it SUCCEEDED.

    Raises:
        JobFailedError: it FAILED.
        JobCancelledError: it was CANCELLED.
    """
    if status.state is JobState.CANCELLED:
        raise JobCancelledError(f"{status.name} was CANCELLED", job=status.name)
    if status.state is JobState.FAILED:
        error = status.error or JobFailure(reason="", message="the server gave no reason", traceback="")
        kind = f" ({error.reason})" if error.reason else ""
        raise JobFailedError(
            f"{status.name} FAILED{kind}: {error.message}",
            job=status.name,
            reason=error.reason,
            traceback=error.traceback,
        )
    return status


class _JobService:
    """What the collection and every handle call on."""

    def __init__(self, connection: Connection, blobs: Blobs) -> None:
        self.connection = connection
        self.blobs = blobs
        self.models = Models(connection, blobs)
        self.datasets = Datasets(connection, blobs)
        self.stub = job_pb2_grpc.JobServiceStub(connection.channel)


def _name_of(collection: str, resource: Model | Dataset | str) -> str:
    return resource_name(collection, resource if isinstance(resource, str) else resource.name)
