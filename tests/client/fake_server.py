"""A chainrule server in this process, without a store or a cluster: its answers and failures are scripted by tests."""
# ruff: noqa: N802 -- gRPC names the methods

import hashlib
import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import google_crc32c
import grpc
import numpy as np
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from chainrule.v1 import (
    blob_pb2,
    blob_pb2_grpc,
    cluster_pb2,
    cluster_pb2_grpc,
    dataset_pb2,
    dataset_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    predict_pb2,
    predict_pb2_grpc,
)
from tests.client.fake_store import BREAK, Failure, delete, find, page, update

__all__ = ["BREAK", "FAMILIES", "NOW", "Failure", "FakeServer", "chained", "log_entry", "metric", "read_response"]

NOW = Timestamp(seconds=1_750_000_000)
FAMILIES = (cluster_pb2.ModelFamily(name="small_cnn", description="Two blocks.", config_json='{"num_classes": 10}'),)


def read_response(chunk: bytes) -> blob_pb2.ReadBlobResponse:
    """A part of a download."""
    return blob_pb2.ReadBlobResponse(chunk=chunk, chunk_crc32c=google_crc32c.value(chunk))


def predicted(request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    """What the fake network makes of a request."""
    tensor = request.inputs[0]
    x = np.frombuffer(tensor.data, tensor.dtype).reshape(tensor.shape)
    sums = x.reshape(len(x), -1).sum(axis=1).astype(np.float32)
    output = np.stack([sums, -sums], axis=1)
    version = request.model if "/versions/" in request.model else f"{request.model}/versions/3"
    return predict_pb2.PredictResponse(
        version=version,
        outputs=[predict_pb2.Tensor(name="output", dtype="float32", shape=output.shape, data=output.tobytes())],
        class_labels=["up", "down"] if request.with_class_labels else [],
    )


class FakeServer(
    blob_pb2_grpc.BlobServiceServicer,
    cluster_pb2_grpc.ClusterServiceServicer,
    dataset_pb2_grpc.DatasetServiceServicer,
    job_pb2_grpc.JobServiceServicer,
    model_pb2_grpc.ModelServiceServicer,
    predict_pb2_grpc.PredictServiceServicer,
):
    """Keeps what it is sent, and does as it is told.

    Attributes:
        blobs: digest → content; a test may put a wrong content in.
        arrived: the part of a blob that an upload before has left, by digest.
        jobs: name → job; changed with `put_job`, so that those who watch see it.
        metrics: those of every job that has none in `metrics_of`.
        silent: methods that do not answer as long as the caller waits.
        calls: every call so far, as (method, request).
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.arrived: dict[str, bytes] = {}
        self.sent: list[blob_pb2.WriteBlobRequest] = []  # all messages of the last WriteBlob
        self.models: dict[str, model_pb2.Model] = {}
        self.datasets: dict[str, dataset_pb2.Dataset] = {}
        self.versions: dict[str, model_pb2.ModelVersion] = {}
        self.jobs: dict[str, job_pb2.Job] = {}
        self.metrics: list[job_pb2.Metric] = []
        self.metrics_of: dict[str, list[job_pb2.Metric]] = {}
        self.receipts: dict[str, list[job_pb2.Receipt]] = {}
        self.logs: list[job_pb2.LogEntry] = []
        self.checkpoints: list[job_pb2.Checkpoint] = []
        self.job_of_request: dict[str, str] = {}
        self.first_job = job_pb2.Job(state=job_pb2.Job.STATE_QUEUED)
        self.stream_breaks: deque[tuple[int, Failure]] = deque()  # after so many answers, of the streams to come
        self.stored_digest: str | None = None  # what WriteBlob says it stored, in place of the truth
        self.silent: set[str] = set()
        self.calls: list[tuple[str, Any]] = []
        self._failures: dict[str, deque[Failure]] = defaultdict(deque)
        self._takes: dict[str, deque[list[Any]]] = defaultdict(deque)
        self._changed = threading.Condition()
        self._stopping = False
        self._hanging = 0
        self.port = 0
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begin to serve, on the port of before if there was one."""
        self._stopping = False
        self._server = grpc.server(ThreadPoolExecutor(8))
        blob_pb2_grpc.add_BlobServiceServicer_to_server(self, self._server)
        cluster_pb2_grpc.add_ClusterServiceServicer_to_server(self, self._server)
        dataset_pb2_grpc.add_DatasetServiceServicer_to_server(self, self._server)
        job_pb2_grpc.add_JobServiceServicer_to_server(self, self._server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(self, self._server)
        predict_pb2_grpc.add_PredictServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def stop(self) -> None:
        """End all calls at once, and be unreachable."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._server.stop(None).wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # What tests say.

    def fail(self, method: str, *failures: Failure) -> None:
        """Let the next calls of a method fail, one after the other."""
        self._failures[method].extend(failures)

    def take(self, method: str, *items: Any) -> None:
        """Let the next call of a stream send these messages; a Failure among them ends it with an error."""
        self._takes[method].append(list(items))

    def put_job(self, **fields: Any) -> job_pb2.Job:
        """Add a job, or change some fields of it."""
        with self._changed:
            job = self.jobs.setdefault(fields["name"], job_pb2.Job(create_time=NOW))
            job.MergeFrom(job_pb2.Job(**fields))
            self._changed.notify_all()
        return job

    def requests(self, method: str) -> list[Any]:
        """What a method was asked so far, oldest first."""
        return [request for name, request in self.calls if name == method]

    def await_calls(self, method: str, number: int = 1) -> None:
        """Wait until a method was called so often."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests(method)) >= number, timeout=10)

    def await_no_calls(self) -> None:
        """Wait until no call of a silent method is under way, as when its callers have given up."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._hanging == 0, timeout=10)

    def _enter(self, method: str, request: Message, context: grpc.ServicerContext) -> None:
        with self._changed:
            self.calls.append((method, request))
            self._changed.notify_all()
        if self._failures[method]:
            self._failures[method].popleft().end(context)
        if method in self.silent:
            context.add_callback(self._wake)
            with self._changed:
                self._hanging += 1
                self._changed.wait_for(lambda: self._stopping or not context.is_active(), timeout=10)
                self._hanging -= 1
                self._changed.notify_all()

    def _play(self, method: str, context: grpc.ServicerContext) -> Iterator[Any]:
        for item in self._takes[method].popleft():
            if isinstance(item, Failure):
                item.end(context)
            yield item

    # BlobService

    def FindMissingBlobs(
        self, request: blob_pb2.FindMissingBlobsRequest, context: grpc.ServicerContext
    ) -> blob_pb2.FindMissingBlobsResponse:
        self._enter("FindMissingBlobs", request, context)
        missing = [digest for digest in request.digests if digest not in self.blobs]
        return blob_pb2.FindMissingBlobsResponse(missing_digests=missing)

    def QueryWriteStatus(
        self, request: blob_pb2.QueryWriteStatusRequest, context: grpc.ServicerContext
    ) -> blob_pb2.QueryWriteStatusResponse:
        self._enter("QueryWriteStatus", request, context)
        arrived = len(self.arrived.get(request.digest, b""))
        return blob_pb2.QueryWriteStatusResponse(committed_bytes=arrived, complete=request.digest in self.blobs)

    def WriteBlob(
        self, request_iterator: Iterable[blob_pb2.WriteBlobRequest], context: grpc.ServicerContext
    ) -> blob_pb2.Blob:
        requests = self.sent = list(request_iterator)
        self._enter("WriteBlob", requests[0], context)
        before = self.arrived.pop(requests[0].blob.digest, b"")[: requests[0].write_offset_bytes]
        content = before + b"".join(request.chunk for request in requests[1:])
        if len(content) < requests[0].blob.size_bytes:
            self.arrived[requests[0].blob.digest] = content
            Failure(code=grpc.StatusCode.ABORTED, message="go on", reason="UPLOAD_INCOMPLETE").end(context)
        digest = hashlib.sha256(content).hexdigest()
        if digest != requests[0].blob.digest:
            Failure(code=grpc.StatusCode.DATA_LOSS, message="wrong digest", reason="DIGEST_MISMATCH").end(context)
        self.blobs[digest] = content
        return blob_pb2.Blob(digest=self.stored_digest or digest, size_bytes=len(content))

    def ReadBlob(
        self, request: blob_pb2.ReadBlobRequest, context: grpc.ServicerContext
    ) -> Iterator[blob_pb2.ReadBlobResponse]:
        self._enter("ReadBlob", request, context)
        if self._takes["ReadBlob"]:
            yield from self._play("ReadBlob", context)
            return
        end = request.offset_bytes + request.limit_bytes if request.limit_bytes else None
        content = self.blobs[request.digest][request.offset_bytes : end]
        for start in range(0, len(content), 1024 * 1024):
            yield read_response(content[start : start + 1024 * 1024])

    # ClusterService

    def GetServerInfo(
        self, request: cluster_pb2.GetServerInfoRequest, context: grpc.ServicerContext
    ) -> cluster_pb2.ServerInfo:
        self._enter("GetServerInfo", request, context)
        return cluster_pb2.ServerInfo(
            version="0.1.0",
            start_time=NOW,
            ray_address="127.0.0.1:6379",
            owns_ray_cluster=True,
            kernels="reference",
            families=FAMILIES,
        )

    def ListNodes(
        self, request: cluster_pb2.ListNodesRequest, context: grpc.ServicerContext
    ) -> cluster_pb2.ListNodesResponse:
        self._enter("ListNodes", request, context)
        node = cluster_pb2.Node(id="a1", address="127.0.0.1", cpus=2, memory_bytes=4 * 1024**3)
        return cluster_pb2.ListNodesResponse(nodes=[node])

    # PredictService

    def Predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """The outputs are the sums over the examples and, besides, their negatives: two classes."""
        self._enter("Predict", request, context)
        return predicted(request)

    def StreamPredict(
        self, request_iterator: Iterator[predict_pb2.StreamPredictRequest], context: grpc.ServicerContext
    ) -> Iterator[predict_pb2.PredictResponse]:
        self._enter("StreamPredict", predict_pb2.StreamPredictRequest(), context)
        left, failure = self.stream_breaks.popleft() if self.stream_breaks else (None, None)
        for request in request_iterator:
            if left == 0 and failure is not None:
                failure.end(context)
            left = None if left is None else left - 1
            self.calls.append(("StreamPredict request", request.request))
            yield predicted(request.request)

    # ModelService

    def CreateModel(self, request: model_pb2.CreateModelRequest, context: grpc.ServicerContext) -> model_pb2.Model:
        self._enter("CreateModel", request, context)
        name = f"models/{request.model_id}"
        model = model_pb2.Model(name=name, num_parameters=1234, create_time=NOW)
        model.MergeFrom(request.model)
        if self.models.setdefault(name, model) != model:
            Failure(code=grpc.StatusCode.ALREADY_EXISTS, message=f"{name} is another model").end(context)
        return model

    def GetModel(self, request: model_pb2.GetModelRequest, context: grpc.ServicerContext) -> model_pb2.Model:
        self._enter("GetModel", request, context)
        if request.name not in self.models:
            Failure(code=grpc.StatusCode.NOT_FOUND, message=f"there is no {request.name}").end(context)
        return self.models[request.name]

    def ListModels(
        self, request: model_pb2.ListModelsRequest, context: grpc.ServicerContext
    ) -> model_pb2.ListModelsResponse:
        self._enter("ListModels", request, context)
        models, token = page(list(self.models.values())[::-1], request.page_token)
        return model_pb2.ListModelsResponse(models=models, next_page_token=token)

    def UpdateModel(self, request: model_pb2.UpdateModelRequest, context: grpc.ServicerContext) -> model_pb2.Model:
        self._enter("UpdateModel", request, context)
        return update(self.models, request.model, request.update_mask, context)

    def DeleteModel(self, request: model_pb2.DeleteModelRequest, context: grpc.ServicerContext) -> Empty:
        self._enter("DeleteModel", request, context)
        return delete(self.models, request, context)

    def GetModelVersion(
        self, request: model_pb2.GetModelVersionRequest, context: grpc.ServicerContext
    ) -> model_pb2.ModelVersion:
        self._enter("GetModelVersion", request, context)
        model, _, number = request.name.partition("/versions/")
        known = [name for name in self.versions if name.startswith(f"{model}/versions/")]
        return find(self.versions, known[-1] if known and number == "latest" else request.name, context)

    def ListModelVersions(
        self, request: model_pb2.ListModelVersionsRequest, context: grpc.ServicerContext
    ) -> model_pb2.ListModelVersionsResponse:
        self._enter("ListModelVersions", request, context)
        find(self.models, request.parent, context)
        known = [version for version in self.versions.values() if version.name.startswith(f"{request.parent}/")]
        versions, token = page(known[::-1], request.page_token)
        return model_pb2.ListModelVersionsResponse(model_versions=versions, next_page_token=token)

    def DeleteModelVersion(self, request: model_pb2.DeleteModelVersionRequest, context: grpc.ServicerContext) -> Empty:
        self._enter("DeleteModelVersion", request, context)
        return delete(self.versions, request, context)

    # DatasetService

    def CreateDataset(
        self, request: dataset_pb2.CreateDatasetRequest, context: grpc.ServicerContext
    ) -> dataset_pb2.Dataset:
        self._enter("CreateDataset", request, context)
        name = f"datasets/{request.dataset_id}"
        self.datasets[name] = dataset_pb2.Dataset(
            name=name,
            digest=request.dataset.digest,
            num_examples=4,
            input_shape=[1, 2, 2],
            num_classes=3,
            size_bytes=len(self.blobs[request.dataset.digest]),
            create_time=NOW,
            labels=request.dataset.labels,
            description=request.dataset.description,
            class_labels=request.dataset.class_labels,
        )
        return self.datasets[name]

    def GetDataset(self, request: dataset_pb2.GetDatasetRequest, context: grpc.ServicerContext) -> dataset_pb2.Dataset:
        self._enter("GetDataset", request, context)
        return self.datasets[request.name]

    def ListDatasets(
        self, request: dataset_pb2.ListDatasetsRequest, context: grpc.ServicerContext
    ) -> dataset_pb2.ListDatasetsResponse:
        self._enter("ListDatasets", request, context)
        datasets, token = page(list(self.datasets.values())[::-1], request.page_token)
        return dataset_pb2.ListDatasetsResponse(datasets=datasets, next_page_token=token)

    def UpdateDataset(
        self, request: dataset_pb2.UpdateDatasetRequest, context: grpc.ServicerContext
    ) -> dataset_pb2.Dataset:
        self._enter("UpdateDataset", request, context)
        return update(self.datasets, request.dataset, request.update_mask, context)

    def DeleteDataset(self, request: dataset_pb2.DeleteDatasetRequest, context: grpc.ServicerContext) -> Empty:
        self._enter("DeleteDataset", request, context)
        return delete(self.datasets, request, context)

    # JobService

    def CreateJob(self, request: job_pb2.CreateJobRequest, context: grpc.ServicerContext) -> job_pb2.Job:
        self._enter("CreateJob", request, context)
        if request.validate_only:
            return request.job
        name = self.job_of_request.setdefault(request.request_id, f"jobs/{len(self.job_of_request) + 1}")
        if name not in self.jobs:
            job = job_pb2.Job(name=name, create_time=NOW)
            job.MergeFrom(request.job)
            job.MergeFrom(self.first_job)
            self.jobs[name] = job
        return self.jobs[name]

    def GetJob(self, request: job_pb2.GetJobRequest, context: grpc.ServicerContext) -> job_pb2.Job:
        self._enter("GetJob", request, context)
        return self._job(request.name, context)

    def ListJobs(self, request: job_pb2.ListJobsRequest, context: grpc.ServicerContext) -> job_pb2.ListJobsResponse:
        self._enter("ListJobs", request, context)
        jobs, token = page(list(self.jobs.values())[::-1], request.page_token)
        return job_pb2.ListJobsResponse(jobs=jobs, next_page_token=token)

    def UpdateJob(self, request: job_pb2.UpdateJobRequest, context: grpc.ServicerContext) -> job_pb2.Job:
        self._enter("UpdateJob", request, context)
        return update(self.jobs, request.job, request.update_mask, context)

    def DeleteJob(self, request: job_pb2.DeleteJobRequest, context: grpc.ServicerContext) -> Empty:
        self._enter("DeleteJob", request, context)
        return delete(self.jobs, request, context)

    def CancelJob(self, request: job_pb2.CancelJobRequest, context: grpc.ServicerContext) -> job_pb2.Job:
        self._enter("CancelJob", request, context)
        return self.put_job(name=request.name, state=job_pb2.Job.STATE_CANCELLING)

    def PauseJob(self, request: job_pb2.PauseJobRequest, context: grpc.ServicerContext) -> job_pb2.Job:
        self._enter("PauseJob", request, context)
        return self.put_job(name=request.name, state=job_pb2.Job.STATE_PAUSING)

    def ResumeJob(self, request: job_pb2.ResumeJobRequest, context: grpc.ServicerContext) -> job_pb2.Job:
        self._enter("ResumeJob", request, context)
        return self.put_job(name=request.name, state=job_pb2.Job.STATE_QUEUED)

    def ScaleJob(self, request: job_pb2.ScaleJobRequest, context: grpc.ServicerContext) -> job_pb2.Job:
        self._enter("ScaleJob", request, context)
        config = job_pb2.TrainingConfig()
        if request.min_workers:
            config.min_workers = request.min_workers
        if request.max_workers:
            config.max_workers = request.max_workers
        return self.put_job(name=request.name, config=config)

    def WatchJob(self, request: job_pb2.WatchJobRequest, context: grpc.ServicerContext) -> Iterator[job_pb2.Job]:
        self._enter("WatchJob", request, context)
        if self._takes["WatchJob"]:
            yield from self._play("WatchJob", context)
            return
        context.add_callback(self._wake)
        shown = job_pb2.Job()
        while shown.state not in {job_pb2.Job.STATE_SUCCEEDED, job_pb2.Job.STATE_FAILED, job_pb2.Job.STATE_CANCELLED}:
            shown.CopyFrom(self._job(request.name, context))
            yield shown
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopping or not context.is_active() or self.jobs[request.name] != shown, timeout=10
                )
                if self._stopping or not context.is_active():
                    return

    def StreamMetrics(
        self, request: job_pb2.StreamMetricsRequest, context: grpc.ServicerContext
    ) -> Iterator[job_pb2.StreamMetricsResponse]:
        self._enter("StreamMetrics", request, context)
        if self._takes["StreamMetrics"]:
            yield from self._play("StreamMetrics", context)
            return
        yield job_pb2.StreamMetricsResponse(metrics=[m for m in self.metrics if m.sequence > request.after_sequence])

    def ListMetrics(
        self, request: job_pb2.ListMetricsRequest, context: grpc.ServicerContext
    ) -> job_pb2.ListMetricsResponse:
        self._enter("ListMetrics", request, context)
        metrics = self.metrics_of.get(request.name, self.metrics)
        later = [m for m in metrics if m.sequence > request.after_sequence]
        return job_pb2.ListMetricsResponse(metrics=later[: request.page_size])

    def StreamLogs(
        self, request: job_pb2.StreamLogsRequest, context: grpc.ServicerContext
    ) -> Iterator[job_pb2.StreamLogsResponse]:
        self._enter("StreamLogs", request, context)
        if self._takes["StreamLogs"]:
            yield from self._play("StreamLogs", context)
            return
        yield job_pb2.StreamLogsResponse(entries=self._logs(request))

    def ListLogs(self, request: job_pb2.ListLogsRequest, context: grpc.ServicerContext) -> job_pb2.ListLogsResponse:
        self._enter("ListLogs", request, context)
        found = self._logs(request)
        return job_pb2.ListLogsResponse(entries=found[:2], has_more=len(found) > 2)

    def ListCheckpoints(
        self, request: job_pb2.ListCheckpointsRequest, context: grpc.ServicerContext
    ) -> job_pb2.ListCheckpointsResponse:
        self._enter("ListCheckpoints", request, context)
        checkpoints, token = page(self.checkpoints[::-1], request.page_token)
        return job_pb2.ListCheckpointsResponse(checkpoints=checkpoints, next_page_token=token)

    def ListReceipts(
        self, request: job_pb2.ListReceiptsRequest, context: grpc.ServicerContext
    ) -> job_pb2.ListReceiptsResponse:
        self._enter("ListReceipts", request, context)
        later = [r for r in self.receipts.get(request.name, []) if r.step > request.after_step]
        return job_pb2.ListReceiptsResponse(receipts=later[: request.page_size])

    def _logs(self, request: job_pb2.StreamLogsRequest | job_pb2.ListLogsRequest) -> list[job_pb2.LogEntry]:
        return [
            entry
            for entry in self.logs
            if entry.sequence > request.after_sequence
            and entry.severity >= request.min_severity
            and request.source in ("", entry.source)
        ]

    def _job(self, name: str, context: grpc.ServicerContext) -> job_pb2.Job:
        if name not in self.jobs:
            Failure(
                code=grpc.StatusCode.NOT_FOUND,
                message=f"there is no {name}",
                reason="JOB_NOT_FOUND",
                metadata={"job": name},
            ).end(context)
        return self.jobs[name]

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


def metric(sequence: int, *, loss: float = 0.5) -> job_pb2.Metric:
    """The metrics of one step, one step an epoch."""
    return job_pb2.Metric(
        sequence=sequence, step=sequence, epoch=sequence, loss=loss, accuracy=0.75, num_examples=64, time=NOW
    )


def chained(states: Mapping[int, str]) -> list[job_pb2.Receipt]:
    """Receipts of states, step → digest, each chained to those before as the API says."""
    receipts: list[job_pb2.Receipt] = []
    chain = "0" * 64
    for step, state in states.items():
        chain = hashlib.sha256(f"{chain} {step} {state}".encode()).hexdigest()
        receipts.append(job_pb2.Receipt(step=step, state_digest=state, chain_digest=chain))
    return receipts


def log_entry(sequence: int, message: str, *, source: str = "coordinator", severity: str = "INFO") -> job_pb2.LogEntry:
    """An entry of a job's logs."""
    told = job_pb2.LogEntry.Severity.Value(f"SEVERITY_{severity}")
    return job_pb2.LogEntry(
        sequence=sequence, time=NOW, severity=told, source=source, node="a1", attempt=1, message=message
    )
