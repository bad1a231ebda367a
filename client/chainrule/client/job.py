"""A job on the server: following, steering and comparing it, and fetching what it produces."""
# Derived from aio/job.py by client/derive.py. Change that, and run `make client`.

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.client import networks
from chainrule.client.blobs import Blobs, Received
from chainrule.client.channel import Connection
from chainrule.client.datasets import Datasets
from chainrule.client.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidInputError,
    JobCancelledError,
    JobFailedError,
)
from chainrule.client.models import Model, Models
from chainrule.client.paging import page_size, take
from chainrule.client.progress import show_progress
from chainrule.client.records import (
    LogEntry,
    Metric,
    Metrics,
    Severity,
    log_entry_from_message,
    metric_from_message,
    to_severity,
)
from chainrule.client.status import (
    Checkpoint,
    JobFailure,
    JobState,
    JobStatus,
    Receipt,
    checkpoint_from_message,
    receipt_from_message,
    status_from_message,
)
from chainrule.client.verification import Record, Verification, compare
from chainrule.client.wire import POSITIVE_INT32, name_of, put, put_changes, resource_name
from chainrule.engine import io, nn
from chainrule.v1 import job_pb2, job_pb2_grpc

MAX_RECORDS_PAGE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job on the server. The handle holds its name only; everything else is asked for."""

    name: str
    """Resource name, for example "jobs/bea3phtux7dd"."""
    _service: "JobService" = field(repr=False, compare=False)

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

    def metrics(self, *, after: int = 0) -> Metrics:
        """What the steps so far measured, as a sequence whose columns are arrays: `metrics.loss`.

        Args:
            after: leave out metrics up to this sequence number.
        """
        metrics: list[Metric] = []
        while True:
            last = metrics[-1].sequence if metrics else after
            request = job_pb2.ListMetricsRequest(name=self.name, after_sequence=last, page_size=MAX_RECORDS_PAGE)
            page = self._service.connection.call(self._service.stub.ListMetrics, request)
            metrics.extend(map(metric_from_message, page.metrics))
            if len(page.metrics) < MAX_RECORDS_PAGE:
                return Metrics(metrics)

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

    def logs(
        self,
        *,
        follow: bool = False,
        min_severity: Severity | str | None = None,
        source: str = "",
        after: int = 0,
        timeout_s: float | None = None,
    ) -> Iterator[LogEntry]:
        """What the job's processes have logged, in the order of the sequence numbers.

        Args:
            follow: whether to go on with what comes, until the job has ended; without gaps or repetitions when the
                connection breaks or the server restarts.
            min_severity: leave out what matters less: "DEBUG", "INFO", "WARNING" or "ERROR".
            source: only what this process says: "service", "coordinator", "partition 0", "worker 3".
            after: leave out entries up to this sequence number.
            timeout_s: time for all of a `follow`; None follows for as long as the job takes.

        Raises:
            InvalidInputError: there is no such severity.
            Unavailable: the server could not be reached for the whole retry window. The job may well go on.
            DeadlineExceeded: `timeout_s` is over. The job goes on.
        """
        least, last = to_severity(min_severity), after
        responses = self._service.connection.follow(
            self._service.stub.StreamLogs,
            lambda: job_pb2.StreamLogsRequest(name=self.name, after_sequence=last, min_severity=least, source=source),
            timeout_s=timeout_s,
        )
        if follow:
            for response in responses:
                for entry in response.entries:
                    last = entry.sequence
                    yield log_entry_from_message(entry)
            return
        while True:
            request = job_pb2.ListLogsRequest(
                name=self.name, after_sequence=last, min_severity=least, source=source, page_size=MAX_RECORDS_PAGE
            )
            page = self._service.connection.call(self._service.stub.ListLogs, request)
            for entry in page.entries:
                last = entry.sequence
                yield log_entry_from_message(entry)
            if not page.has_more:
                return

    def update(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        description: str | None = None,
        priority: int | None = None,
        etag: str | None = None,
    ) -> JobStatus:
        """Change labels, description or priority, as `Jobs.update` does."""
        return self._service.update(self, labels, description, priority, etag)

    def delete(self, *, etag: str | None = None, missing_ok: bool = False) -> None:
        """Remove the job, as `Jobs.delete` does."""
        self._service.delete(self, etag, missing_ok)

    def cancel(self, *, etag: str | None = None) -> JobStatus:
        """Ask the job to stop; its status is then CANCELLING or CANCELLED.

        Args:
            etag: what the job must still have, here and in the methods below.

        Raises:
            FailedPrecondition: the job has already ended.
            Aborted: the job has another etag by now.
        """
        request = job_pb2.CancelJobRequest(name=self.name, etag=etag or "")
        return status_from_message(self._service.connection.call(self._service.stub.CancelJob, request))

    def pause(self, *, etag: str | None = None) -> JobStatus:
        """Ask the job to stop after the running step, store a checkpoint and leave the cluster.

        Its status is then PAUSING or PAUSED, also when it is asked again.

        Raises:
            FailedPrecondition: the job is on its way out, or has ended.
        """
        request = job_pb2.PauseJobRequest(name=self.name, etag=etag or "")
        return status_from_message(self._service.connection.call(self._service.stub.PauseJob, request))

    def resume(self, *, etag: str | None = None) -> JobStatus:
        """Let a paused job go on at the very example it stopped at: it is QUEUED again. One under way stays as it is.

        Raises:
            FailedPrecondition: the job is PAUSING, on its way out, or has ended.
        """
        request = job_pb2.ResumeJobRequest(name=self.name, etag=etag or "")
        return status_from_message(self._service.connection.call(self._service.stub.ResumeJob, request))

    def scale(
        self, max_workers: int | None = None, *, min_workers: int | None = None, etag: str | None = None
    ) -> JobStatus:
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
        request = job_pb2.ScaleJobRequest(name=self.name, etag=etag or "")
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

        return take(read_page, lambda page: map(checkpoint_from_message, page.checkpoints), limit=limit)

    def receipts(self, *, after: int = 0) -> list[Receipt]:
        """The receipts so far, in the order of their steps.

        Args:
            after: leave out receipts up to this step.
        """
        receipts: list[Receipt] = []
        while True:
            last = receipts[-1].step if receipts else after
            request = job_pb2.ListReceiptsRequest(name=self.name, after_step=last, page_size=MAX_RECORDS_PAGE)
            page = self._service.connection.call(self._service.stub.ListReceipts, request)
            receipts.extend(map(receipt_from_message, page.receipts))
            if len(page.receipts) < MAX_RECORDS_PAGE:
                return receipts

    def verify(self, other: "Job | str") -> Verification:
        """Compare with another job, bit by bit: the losses of the steps that both have done, as far as they are
        kept (of those before the latest 10,000 every tenth), the states of which both have receipts, and the weights.

        Args:
            other: a handle, which may be one of another server, or a name on this one.

        Raises:
            NotFound: there is no such job.
            FailedPrecondition: they have no step in common yet.
            DataLoss: the record of one of them is not what was recorded.
        """
        if isinstance(other, str):
            other = Job(name=resource_name("jobs", other), _service=self._service)
        return self._service.connection.compute(compare, self._record(), other._record())

    def _record(self) -> Record:
        status = self.status()
        validation, service = status.config.validation.dataset, self._service
        source = service.models.version(status.source_version) if status.source_version else None
        return Record(
            status=status,
            model=service.models.get(status.model.partition("/versions/")[0]),
            source_digest=source.weights_digest if source else None,
            dataset=service.datasets.get(status.dataset),
            validation=service.datasets.get(validation) if validation else None,
            receipts=self.receipts(),
            metrics=self.metrics(),
        )

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

    def weights_file(self, *, received: Received | None = None) -> bytes:
        """The final weights as a safetensors file, checked against their digest.

        Args:
            received: called with the bytes that have arrived so far.

        Raises:
            FailedPrecondition: the job has not SUCCEEDED.
            DataLoss: what arrived has another digest.
        """
        return self._service.blobs.download(self.weights_digest, received=received)

    def weights(self) -> dict[str, np.ndarray]:
        """The final weights, state_dict name → array, checked against their digest.

        Raises:
            FailedPrecondition: the job has not SUCCEEDED.
            DataLoss: what arrived has another digest.
        """
        return self._service.connection.compute(io.load, self.weights_file())

    def state_dict(self, framework: str = "numpy") -> dict[str, Any]:
        """The final weights under all the names of the module that the model was made of.

        Args:
            framework: "numpy" for arrays, "torch" for tensors, which `load_state_dict` of that module takes.

        Raises:
            InvalidInputError: there is no such framework, or PyTorch is not installed.
            FailedPrecondition: the job has not SUCCEEDED.
            NotFound: its model was removed.
        """
        weights = self.weights()
        return self._service.models.state_dict(self._model(), weights, framework)

    def module(self, *, code: str | Path | None = None) -> nn.Module:
        """A module of the engine with the final weights.

        Args:
            code: of a model that is Python code, the file that makes it, which is then run here; see `Model.module`.

        Raises:
            InvalidInputError: the model is code and there is no file, or another one; or the file fails.
            FailedPrecondition: the job has not SUCCEEDED.
            NotFound: its model was removed.
        """
        weights = self.weights()
        return self._service.models.module(self._model(), weights, code=code)

    def save(self, path: str | Path, *, example: object = None) -> None:
        """Write what the job has made to a file: the model with its weights as .onnx, for inference, or the weights as
        .safetensors or .pth, which `torch.load` reads with `weights_only=True`.

        Args:
            path: the name says the format.
            example: a batch of inputs to write a model of a family as .onnx with; None: one of the dataset's shape.

        Raises:
            InvalidInputError: the name says no format, or the file cannot be written.
            FailedPrecondition: the job has not SUCCEEDED.
            NotFound: its model was removed.
        """
        target = networks.check_format(path)
        weights = self.weights()
        model = self._model()
        if example is None and model.family and target.suffix == networks.ONNX:
            status = self.status()
            dataset = self._service.datasets.get(status.dataset)
            column = next(iter(status.config.inputs.values()), "inputs")
            shapes = {of.name: of.shape for of in dataset.columns}
            example = networks.example_of(model.family, shapes.get(column, dataset.input_shape))
        self._service.models.save(model, weights, target, example)

    def _model(self) -> Model:
        return self._service.models.get((self.status()).model.partition("/versions/")[0])


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


class JobService:
    """What the collection of jobs and every handle call on."""

    def __init__(self, connection: Connection, blobs: Blobs) -> None:
        self.connection = connection
        self.blobs = blobs
        self.models = Models(connection, blobs)
        self.datasets = Datasets(connection, blobs)
        self.stub = job_pb2_grpc.JobServiceStub(connection.channel)

    def update(
        self,
        job: "Job | str",
        labels: Mapping[str, str] | None,
        description: str | None,
        priority: int | None,
        etag: str | None,
    ) -> JobStatus:
        """Change what is not None of a job."""
        message = job_pb2.Job(name=name_of("jobs", job))
        mask = put_changes(message, labels=labels, description=description, priority=priority, etag=etag)
        request = job_pb2.UpdateJobRequest(job=message, update_mask=mask)
        return status_from_message(self.connection.call(self.stub.UpdateJob, request))

    def delete(self, job: "Job | str", etag: str | None, missing_ok: bool) -> None:
        """Remove a job."""
        request = job_pb2.DeleteJobRequest(name=name_of("jobs", job), etag=etag or "", allow_missing=missing_ok)
        self.connection.call(self.stub.DeleteJob, request)
