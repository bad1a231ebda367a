"""Jobs on the server: submitting them, following them, and fetching what they produce."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from chainrule.client.blobs import Blobs
from chainrule.client.channel import Connection
from chainrule.client.config import Sgd, TrainingConfig, to_message, to_sgd
from chainrule.client.datasets import Dataset
from chainrule.client.errors import DeadlineExceeded, FailedPrecondition, JobCancelledError, JobFailedError
from chainrule.client.models import Model
from chainrule.client.progress import show_progress
from chainrule.client.status import JobFailure, JobState, JobStatus, Metric, metric_from_message, status_from_message
from chainrule.client.wire import page_size, pages, resource_name
from chainrule.engine import io
from chainrule.v1 import job_pb2, job_pb2_grpc


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
        workers: int = 1,
        seed: int = 0,
        optimizer: Sgd | Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> "Job":
        """Submit a job: train `model` on `dataset`.

        Args:
            model: a handle, or a name ("digits" or "models/digits").
            dataset: a handle, or a name.
            epochs: passes over the dataset.
            batch_size: examples of one step.
            shards: slices each batch is cut into, at most `batch_size`; fixes the numerics.
            workers: workers that compute the shards, at most `shards`; does not change the weights.
            seed: seed of the order of examples.
            optimizer: fields of `Sgd`; the others have their defaults.
            request_id: the same id with the same arguments gives the same job; by default every call makes a new
                one, and only its own repetitions after a transport break share an id.

        Raises:
            InvalidArgument: the server refuses a field; `.violations` says which.
            NotFound: there is no such model or dataset.
            AlreadyExists: `request_id` belongs to a job with other arguments.
            ResourceExhausted: the server's queue is full.
        """
        config = TrainingConfig(
            epochs=epochs,
            batch_size=batch_size,
            shards=shards,
            workers=workers,
            seed=seed,
            optimizer=to_sgd(optimizer),
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
        """The status of the jobs, newest first; at most `limit`."""

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

        Goes on by itself when the connection breaks or the server restarts.

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
        metrics: list[Metric] = []
        while True:
            request = job_pb2.ListMetricsRequest(
                name=self.name, after_sequence=metrics[-1].sequence if metrics else after
            )
            page = self._service.connection.call(self._service.stub.ListMetrics, request).metrics
            if not page:
                return metrics
            metrics.extend(map(metric_from_message, page))

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
        self.stub = job_pb2_grpc.JobServiceStub(connection.channel)


def _name_of(collection: str, resource: Model | Dataset | str) -> str:
    return resource_name(collection, resource if isinstance(resource, str) else resource.name)
