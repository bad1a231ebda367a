"""Jobs on the server: submitting, finding, changing and removing them."""

from collections.abc import Mapping
from typing import Any

from chainrule.client.aio.blobs import AsyncBlobs
from chainrule.client.aio.channel import AsyncConnection
from chainrule.client.aio.job import AsyncJob, AsyncJobService
from chainrule.client.aio.paging import page_size, take
from chainrule.client.status import (
    JobStatus,
    status_from_message,
)
from chainrule.client.submission import job_request, requested, with_arguments_of
from chainrule.client.wire import resource_name
from chainrule.v1 import job_pb2


class AsyncJobs:
    """The jobs of a server."""

    def __init__(self, connection: AsyncConnection, blobs: AsyncBlobs) -> None:
        self._service = AsyncJobService(connection, blobs)

    @with_arguments_of(job_request)
    async def create(self, **arguments: Any) -> "AsyncJob":
        """Submit a job: train `model` on `dataset`.

        What is not named below is explained with the fields of `TrainingConfig`. Those up to `staleness` fix the
        weights, and so do `loss` and `inputs`; the others do not.

        Args:
            model: a handle, or a name: "digits" or "models/digits", whose first version is trained; of another version
                "digits/versions/2", of the newest "digits/versions/latest".
            dataset: a handle, or a name.
            optimizer: an `Sgd` or `Adam`; or its fields by name, of which "name" is "sgd", "adam" or "adamw": as
                {"name": "adam", "lr": 0.001}; or its name alone, and with it its defaults. Without any, it is SGD.
            schedule: a `Schedule`, or its fields by name: as {"decay": "cosine", "warmup_steps": 100}; or its decay
                alone, as "cosine": over all steps of the job, without a warm-up.
            augmentation: what is done to images before they are trained on, an `Augmentation`, its fields by name, or
                its transforms alone: as ["random_flip", {"name": "random_crop", "height": 32, "width": 32, "padding":
                4}].
            inputs: which column of the dataset each input of the model takes, by the input's name: as {"input_ids":
                "tokens"}. By default the only input takes "inputs", and each of several the column of its name.
            parameter_groups: parameters with settings of their own, each a `ParameterGroup` or its fields by name: as
                [{"patterns": ["*.bias"], "weight_decay": 0}]. A parameter is of the first that matches its name.
            trainable: patterns of the names of the parameters that are trained, as in a shell: as ["fc.*"].
            validation: a `Validation`, or its fields by name: as {"fraction": 0.1} or {"dataset": handle or name,
                "patience": 3, "metric": "accuracy"}.
            loss: what is minimised: a name, a `Loss`, its fields by name, or a list of these, whose sum it is: as "mse"
                or {"name": "cross_entropy", "label_smoothing": 0.1}. The default is cross entropy.
            metrics: what is measured besides: names, `MetricSpec`s or their fields by name: as ["accuracy", {"name":
                "top_k", "k": 3}]. The default is accuracy, where the loss is one of classes.
            workers: short for `max_workers`, whose default is 1.
            labels: notes to find it by, as {"team": "vision"}.
            description: what it is for, at most 1,000 characters.
            priority: which of the waiting jobs goes first: the highest; from -100 to 100.
            request_id: the same id with the same arguments gives the same job; by default every call makes a new
                one, and only its own repetitions after a transport break share an id.

        Raises:
            InvalidArgument: the server refuses a field; `.violations` says which.
            InvalidInputError: a value has the wrong type, or a mapping a name that is unknown.
            TypeError: there is no such argument; the message names the nearest one.
            NotFound: there is no such model or dataset.
            AlreadyExists: `request_id` belongs to a job with other arguments.
            ResourceExhausted: the server's queue is full.
        """
        request = requested(arguments)
        return self._handle(await self._service.connection.call(self._service.stub.CreateJob, request))

    @with_arguments_of(job_request)
    async def check(self, **arguments: Any) -> JobStatus:
        """Have the server check a job without submitting it: the job as it would be, without a name.

        Takes what `create` takes, and raises what it raises.
        """
        request = requested(arguments)
        request.validate_only = True
        return status_from_message(await self._service.connection.call(self._service.stub.CreateJob, request))

    async def get(self, name: str) -> "AsyncJob":
        """The job of this name, "bea3phtux7dd" or "jobs/bea3phtux7dd".

        Raises:
            NotFound: there is none.
        """
        request = job_pb2.GetJobRequest(name=resource_name("jobs", name))
        return self._handle(await self._service.connection.call(self._service.stub.GetJob, request))

    async def list(self, *, filter: str = "", order_by: str = "", limit: int | None = None) -> tuple[JobStatus, ...]:
        """The status of the jobs, newest first unless told otherwise, without their events and evaluations.

        Args:
            filter: which, as in AIP-160: 'state = RUNNING AND labels.team = "vision"'.
            order_by: a field, and " desc" for the falling order: "priority desc", "end_time".
            limit: the most to list.

        Raises:
            InvalidArgument: the server cannot read `filter` or `order_by`.
        """

        async def read_page(token: str) -> job_pb2.ListJobsResponse:
            request = job_pb2.ListJobsRequest(
                page_size=page_size(limit), page_token=token, filter=filter, order_by=order_by
            )
            return await self._service.connection.call(self._service.stub.ListJobs, request)

        return await take(read_page, lambda page: map(status_from_message, page.jobs), limit=limit)

    async def update(
        self,
        job: "AsyncJob | str",
        *,
        labels: Mapping[str, str] | None = None,
        description: str | None = None,
        priority: int | None = None,
        etag: str | None = None,
    ) -> JobStatus:
        """Change labels, description or priority of a job; what is None stays.

        Args:
            labels: all that it has from now on.
            etag: what the job must still have.

        Raises:
            InvalidInputError: nothing is to be changed.
            NotFound: there is no such job.
            Aborted: it has another etag by now.
        """
        return await self._service.update(job, labels, description, priority, etag)

    async def delete(self, job: "AsyncJob | str", *, etag: str | None = None, missing_ok: bool = False) -> None:
        """Remove a job that has ended, with its metrics, logs and checkpoints; the version it has made stays.

        Args:
            etag: what the job must still have.
            missing_ok: whether one that is not there counts as removed.

        Raises:
            NotFound: there is no such job.
            FailedPrecondition: it has not ended; cancel it first.
            Aborted: it has another etag by now.
        """
        await self._service.delete(job, etag, missing_ok)

    def _handle(self, job: job_pb2.Job) -> "AsyncJob":
        return AsyncJob(name=job.name, _service=self._service)
