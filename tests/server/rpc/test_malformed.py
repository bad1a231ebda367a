"""Nothing that a client sends harms the service: it answers, says what is wrong, and keeps nothing of it."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

from chainrule.engine import io
from chainrule.server.jobs import manager
from chainrule.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    dataset_pb2,
    dataset_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)
from tests.server.jobs.service_parts import FakeLauncher, Parts
from tests.server.rpc.malformed import Malformed, Pool, Requests
from tests.server.rpc.whole_api import answered, call, methods, path, serving

AT_ONCE = 16
ROUND = 1_000
"""After so many requests, what they are about is made anew where they have removed it."""
DEADLINE_S = 60.0
STREAM_DEADLINE_S = 0.3
"""For answers that come in a stream, which may rightly say nothing for a while."""
GROWTH_BYTES = 64 * 1024**2
"""Most memory that answering may leave behind, of what was not there after the warm-up."""

CODE = b"def build(**settings): raise SystemExit('it was run')"
DEFECTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED)
TOO_LATE = grpc.StatusCode.DEADLINE_EXCEEDED
UNREAD = ("Internal error from Core", "", None)
"""What this client says of an upload that the server has ended while it was sending: it has not read the answer. What
the service itself fails at has the number of an incident."""


@pytest.fixture(autouse=True)
def _quick_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "QUEUE_INTERVAL_S", 0.05)


@pytest.fixture
def parts(tmp_path: Path, url: str) -> Iterator[Parts]:
    """On each kind of database."""
    parts = Parts(tmp_path, FakeLauncher(), store_url=url, allow_code=True)
    parts.blobs.put(CODE)
    yield parts
    parts.store.close()


async def known_values(parts: Parts, address: str) -> Pool:
    """Values that mean something to a service that has a model, a dataset, and a job that has ended."""
    asked = parts.submission()
    async with grpc.aio.insecure_channel(address) as channel:
        jobs = job_pb2_grpc.JobServiceStub(channel)
        config = job_pb2.TrainingConfig(epochs=1, batch_size=16)
        request = job_pb2.CreateJobRequest(job=job_pb2.Job(model=asked.model, dataset=asked.dataset, config=config))
        created = await jobs.CreateJob(request)
        async for seen in jobs.WatchJob(job_pb2.WatchJobRequest(name=created.name), timeout=DEADLINE_S):
            job = seen
        assert job.state == job_pb2.Job.STATE_SUCCEEDED
        model = await model_pb2_grpc.ModelServiceStub(channel).GetModel(model_pb2.GetModelRequest(name=job.model))
        datasets = dataset_pb2_grpc.DatasetServiceStub(channel)
        dataset = await datasets.GetDataset(dataset_pb2.GetDatasetRequest(name=job.dataset))
    return pool(job, model, dataset)


def pool(job: job_pb2.Job, model: model_pb2.Model, dataset: dataset_pb2.Dataset) -> Pool:
    jobs, models, datasets = (job.name, "jobs/none"), (job.model, "models/new"), (job.dataset, "datasets/new")
    versions = (f"{job.model}/versions/1", f"{job.model}/versions/2", "models/new/versions/1")
    names: dict[str, tuple[Any, ...]] = {
        "name": (*jobs, *models, *datasets, *versions, "tokens/t"),
        "Model.name": models,
        "Dataset.name": datasets,
        "Job.name": jobs,
        "Token.name": ("tokens/t",),
        "parent": models,
        "model": models,
        "dataset": datasets,
        "source_version": versions,
    }
    for message in ("Get", "Delete", "Update"):
        for kind, known in (("Model", models), ("Dataset", datasets), ("Job", jobs), ("ModelVersion", versions)):
            names[f"{message}{kind}Request.name"] = known
    for verb in ("CancelJob", "PauseJob", "ResumeJob", "ScaleJob", "WatchJob"):
        names[f"{verb}Request.name"] = jobs
    for what in ("Metrics", "Logs", "Checkpoints", "Receipts"):
        names[f"List{what}Request.name"] = names[f"Stream{what}Request.name"] = jobs
    return names | {
        "model_id": ("new", "newer"),
        "dataset_id": ("new", "newer"),
        "token_id": ("t", "u"),
        "tenant": ("default", "other"),
        "scopes": ("read", "submit", "admin"),
        "secret_digest": (hashlib.sha256(b"a secret").hexdigest(),),
        "family": ("small_cnn", "mlp"),
        "PredictRequest.model": (*models, *versions, f"{job.model}/versions/latest"),
        "Tensor.name": ("", "input"),
        "dtype": ("float32", "int64"),
        "shape": (1, 8),
        "data": (bytes(4 * 64), b""),
        "top_k": (0, 3),
        "config": ("width", "num_classes", "image_size", "hidden", "in_features"),
        "digest": (dataset.digest, model.weights_digest),
        "Code.digest": (io.digest(CODE), model.weights_digest),
        "Code.parameters": ("conv1.weight", "conv1.bias", "fc.bias"),
        "factory": ("build", "", "other"),
        "file_name": ("", "net.py"),
        "path": ("bn1", ""),
        "digests": (dataset.digest, "0" * 64),
        "weights_digest": (model.weights_digest, ""),
        "request_id": ("r1", "r2", "r3"),
        "page_token": ("", "1", "999"),
        "page_size": (0, 1, 10),
        "filter": (
            "",
            "state=SUCCEEDED",
            'labels.team="vision" AND NOT name=jobs/x',
            "create_time>2020-01-01T00:00:00Z",
        ),
        "order_by": ("", "create_time", "name desc"),
        "paths": ("labels", "description", "priority", "*"),
        "etag": ("", "1", model.weights_digest),
        "CreateModelRequest.allow_missing": ("*", "*.weight"),
        "trainable": ("*", "*.bias"),
        "source": ("", "worker", "coordinator"),
        "description": ("for the tests", ""),
        "epochs": (1, 2),
        "batch_size": (16,),
        "shards": (1, 4),
        "workers": (1, 2),
        "min_workers": (0, 1),
        "max_workers": (0, 2),
        "partitions": (0, 1),
        "lr": (0.1,),
        "momentum": (0.0, 0.9),
        "dampening": (0.0,),
        "beta1": (0.9,),
        "beta2": (0.99,),
        "gamma": (0.5,),
        "fraction": (0.0, 0.2),
        "staleness": (0,),
        "write_offset_bytes": (0, 1),
        "offset_bytes": (0, 1),
        "limit_bytes": (0, 10),
    }


# --- playing ---------------------------------------------------------------------------------------------------


@dataclass
class Played:
    """What came of it."""

    codes: Counter[str] = field(default_factory=Counter)
    """Answers by code."""
    defects: list[str] = field(default_factory=list)
    """Requests that were answered as none must be."""


async def play(address: str, requests: Iterator[Malformed], played: Played) -> None:
    """Make the calls, AT_ONCE at a time."""

    async def some(channel: grpc.aio.Channel) -> None:
        for request in requests:
            code, details = await answer(channel, request)
            played.codes[code.name] += 1
            late = code is TOO_LATE and not request.method.server_streaming
            if code in DEFECTS or late:
                played.defects.append(f"{code.name} ({details}) to {request}")

    async with grpc.aio.insecure_channel(address) as channel:
        await asyncio.gather(*(some(channel) for _ in range(AT_ONCE)))


async def answer(channel: grpc.aio.Channel, request: Malformed) -> tuple[grpc.StatusCode, str]:
    """The status of a call; of answers that come in a stream, only the first is waited for."""
    method = call(channel, request.method)
    if request.method.client_streaming:
        called = method(messages(request), timeout=DEADLINE_S)
    else:
        called = method(
            request.messages[0], timeout=STREAM_DEADLINE_S if request.method.server_streaming else DEADLINE_S
        )
    try:
        if request.method.server_streaming:
            if await called.read() is not grpc.aio.EOF:
                called.cancel()
                return grpc.StatusCode.OK, ""
        else:
            await called
    except grpc.aio.AioRpcError as error:
        return _read(request, error.code(), error.details())
    except asyncio.CancelledError:
        if not called.cancelled():
            raise
        return grpc.StatusCode.CANCELLED, ""
    return _read(request, await called.code(), await called.details())


def _read(request: Malformed, code: grpc.StatusCode, details: str | None) -> tuple[grpc.StatusCode, str]:
    """A status as the server has sent it, if it was read."""
    if request.method.client_streaming and code is grpc.StatusCode.INTERNAL and details in UNREAD:
        return grpc.StatusCode.CANCELLED, ""
    return code, details or ""


class GivenUpError(Exception):
    """A client that sends no more."""


async def messages(request: Malformed) -> AsyncIterator[bytes]:
    for message in request.messages:
        yield message
    if request.cancelled:
        raise GivenUpError


def drawn(requests: Requests, driven: list[MethodDescriptor], count: int) -> Iterator[Malformed]:
    """So many requests, for one method after the other."""
    return (requests.of(driven[i % len(driven)]) for i in range(count))


def memory_bytes() -> int:
    """What this process has in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- what must hold afterwards ---------------------------------------------------------------------------------


def assert_only_blobs_are_left(folder: Path) -> None:
    """Every file that the service has is its database, a blob under its own name, or the beginning of one."""
    for file in filter(Path.is_file, folder.rglob("*")):
        place = file.relative_to(folder)
        if re.fullmatch(r"blobs/[0-9a-f]{2}/[0-9a-f]{64}", str(place)):
            assert hashlib.sha256(file.read_bytes()).hexdigest() == file.name
            assert file.parent.name == file.name[:2]
        else:
            assert re.fullmatch(r"store\.db(-wal|-shm)?|blobs/incoming/[0-9a-f]{64}", str(place)), place


async def assert_serves(address: str) -> None:
    """It answers who asks properly."""
    async with grpc.aio.insecure_channel(address) as channel:
        info = await cluster_pb2_grpc.ClusterServiceStub(channel).GetServerInfo(cluster_pb2.GetServerInfoRequest())
        assert info.version
        model = model_pb2.Model(builtin=model_pb2.Builtin(family="small_cnn"))
        request = model_pb2.CreateModelRequest(model_id="afterwards", model=model)
        created = await model_pb2_grpc.ModelServiceStub(channel).CreateModel(request)
        assert created.name == "models/afterwards"


async def harmless(
    parts: Parts, folder: Path, log: pytest.LogCaptureFixture, *, seed: int, count: int, warm_up: int
) -> Played:
    """Play so many requests; whatever they are, the service is afterwards as one that has had others."""
    before = asyncio.all_tasks()
    async with serving(parts) as address:
        played = Played()
        for first in range(0, count, ROUND):
            if first == warm_up:
                at_first = memory_bytes()
            requests = Requests(seed + first, await known_values(parts, address))
            await play(address, drawn(requests, answered(parts), min(ROUND, count - first)), played)
        grown = memory_bytes() - at_first
        await assert_serves(address)
    assert played.defects == [], "\n".join(played.defects[:20])
    assert played.codes.total() == count
    assert grown < GROWTH_BYTES, f"{grown:,} bytes more than after the warm-up"
    assert asyncio.all_tasks() <= before
    assert [record.getMessage() for record in log.records if record.levelno >= logging.ERROR] == []
    assert_only_blobs_are_left(folder)
    return played


def test_every_method_of_the_api_is_driven(parts: Parts) -> None:
    assert {path(method) for method in methods()} == {path(method) for method in answered(parts)}


async def test_malformed_requests_are_refused_and_leave_nothing(
    parts: Parts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    played = await harmless(parts, tmp_path, caplog, seed=1, count=2_000, warm_up=ROUND)
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"} <= set(played.codes)


@pytest.mark.whole
@pytest.mark.parametrize("seed", range(2, 7))
async def test_ten_thousand_malformed_requests_are_refused_and_leave_nothing(
    parts: Parts, tmp_path: Path, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    played = await harmless(parts, tmp_path, caplog, seed=seed, count=10_500, warm_up=3 * ROUND)
    assert played.codes["INVALID_ARGUMENT"] > 2_000


# --- one by one ------------------------------------------------------------------------------------------------


async def refused(parts: Parts, name: str, *sent: bytes) -> grpc.aio.AioRpcError:
    """How a call of these messages ends."""
    [method] = [method for method in methods() if method.name == name]
    async with serving(parts) as address, grpc.aio.insecure_channel(address) as channel:
        called = call(channel, method)(iter(sent) if method.client_streaming else sent[0], timeout=DEADLINE_S)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (called.read() if method.server_streaming else called)
        return caught.value


@pytest.mark.parametrize("name", ["GetModel", "WriteBlob", "WatchJob"])
async def test_bytes_that_are_no_message_are_an_invalid_argument(parts: Parts, name: str) -> None:
    """gRPC itself answers UNKNOWN."""
    error = await refused(parts, name, b"\xff\xff")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "its bytes cannot be read" in (error.details() or "")


async def test_text_with_nul_is_refused_as_such_on_every_database(parts: Parts) -> None:
    """PostgreSQL failed at it."""
    request = job_pb2.CreateJobRequest(request_id="a\0b")
    error = await refused(parts, "CreateJob", request.SerializeToString())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "request_id: holds the character NUL; leave it out"


async def test_a_message_that_is_too_large_is_refused(parts: Parts) -> None:
    error = await refused(parts, "GetModel", model_pb2.GetModelRequest(name="x" * 17 * 1024**2).SerializeToString())
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
