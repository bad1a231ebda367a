"""A call whose request or reply is lost, or that is delivered twice, has one effect."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor

from chainrule.client import Client
from chainrule.client.transport import channel_options, is_idempotent, is_repeatable
from chainrule.engine import io
from chainrule.server.jobs import manager
from chainrule.v1 import job_pb2
from tests.server.jobs.service_parts import FakeLauncher, Parts, examples, standing_after
from tests.server.rpc.losses import Line, LosingInterceptor, Loss
from tests.server.rpc.whole_api import message_class, methods, path, serving

READING = ("Get", "List", "Find", "Predict", "Query", "Read", "Watch", "Stream")
BLOB = b"weights" * 100_000


@pytest.fixture(autouse=True)
def _quick_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "QUEUE_INTERVAL_S", 0.05)


@dataclass
class World:
    """A service behind a line that can be cut, with a model, a dataset, and a job that stands after its second step."""

    parts: Parts
    line: Line
    losing: LosingInterceptor
    address: str
    """Of the line's end."""
    channel: grpc.Channel
    """Through the line."""
    job: str = ""
    dataset_digest: str = ""

    async def ask(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        """A call as JSON has it, with the SDK's rules for repeating it. Raises RpcError."""
        method = descriptor(name)
        message = json_format.ParseDict(request, message_class(method)(), ignore_unknown_fields=False)
        called: Any = self.channel.unary_unary(path(method))
        while True:
            try:
                content = await asyncio.to_thread(called, message.SerializeToString(), timeout=30, wait_for_ready=True)
                break
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or not is_repeatable(message):
                    raise
        answer = message_factory.GetMessageClass(method.output_type).FromString(content)
        return dict(json_format.MessageToDict(answer, always_print_fields_with_no_presence=True))

    async def job_in(self, *states: str) -> dict[str, Any]:
        """The job, once it is in one of some states."""
        return await asyncio.to_thread(self._watch, states)

    def _watch(self, states: tuple[str, ...]) -> dict[str, Any]:
        request = job_pb2.WatchJobRequest(name=self.job).SerializeToString()
        watch: Any = self.channel.unary_stream(path(descriptor("WatchJob")))
        watching = watch(request, timeout=30, wait_for_ready=True)
        for content in watching:
            job = job_pb2.Job.FromString(content)
            if job_pb2.Job.State.Name(job.state) in states:
                watching.cancel()
                return dict(json_format.MessageToDict(job))
        pytest.fail(f"{self.job} ended before")


def descriptor(name: str) -> MethodDescriptor:
    [method] = [method for method in methods() if method.name == name]
    return method


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    parts = Parts(tmp_path, FakeLauncher(standing_after(2), standing_after(3)))
    line = Line()
    losing = LosingInterceptor(line)
    async with serving(parts, losing) as address, line.to(address) as through:
        with grpc.insecure_channel(through, options=channel_options(through)) as channel:
            world = World(parts, line, losing, through, channel)
            data = examples()
            world.dataset_digest = parts.blobs.put(io.save({"inputs": data.inputs, "targets": data.targets}))
            await world.ask("CreateModel", MODEL | {"model_id": "m"})
            await world.ask("CreateDataset", {"dataset_id": "d", "dataset": {"digest": world.dataset_digest}})
            world.job = (await world.ask("CreateJob", JOB))["name"]
            await world.job_in("STATE_RUNNING")
            yield world
    parts.store.close()


MODEL = {"model": {"builtin": {"family": "small_cnn", "config": {"width": 4}}}}
JOB = {"job": {"model": "models/m", "dataset": "datasets/d", "config": {"epochs": 1, "batchSize": 16}}}
LABELS = {"team": "vision"}


# --- what each call is for -------------------------------------------------------------------------------------


async def _number_of(world: World, collection: str) -> int:
    return len((await world.ask(f"List{collection}", {}))[collection[0].lower() + collection[1:]])


async def _history(world: World, *states: str) -> list[str]:
    """The changes of the job after which it has asked to be in one of these."""
    job = await world.job_in(*states)
    return [change["state"] for change in job["history"]]


async def _nothing(world: World) -> None:
    """No preparation."""


async def _paused(world: World) -> None:
    await world.ask("PauseJob", {"name": world.job})
    await world.job_in("STATE_PAUSED")


async def _cancelled(world: World) -> None:
    await world.ask("CancelJob", {"name": world.job})
    await world.job_in("STATE_CANCELLED")


async def _unused_model(world: World) -> None:
    await world.ask("CreateModel", MODEL | {"model_id": "unused"})


async def _unused_dataset(world: World) -> None:
    await world.ask("CreateDataset", {"dataset_id": "unused", "dataset": {"digest": world.dataset_digest}})


async def _resumed_to_its_end(world: World) -> None:
    """The job makes a version of its model, and is removed, as it would keep that."""
    for _ in range(2):
        await _paused(world)
        await world.ask("ResumeJob", {"name": world.job})
        await world.job_in("STATE_RUNNING", "STATE_SUCCEEDED")
    await world.job_in("STATE_SUCCEEDED")
    await world.ask("DeleteJob", {"name": world.job})


async def _token(world: World) -> None:
    await world.ask("CreateToken", TOKEN)


TOKEN = {
    "token_id": "t",
    "token": {"scopes": ["read"], "secret_digest": hashlib.sha256(b"secret").hexdigest()},
    "request_id": "token",
}


@dataclass(frozen=True)
class Case:
    """A method that changes something."""

    method: str
    request: Callable[[World], dict[str, Any]]
    effect: Callable[[World], Awaitable[object]]
    """What there is to be seen of it."""
    once: object
    """What that is if it was done exactly once."""
    prepare: Callable[[World], Awaitable[None]] = _nothing
    again: tuple[grpc.StatusCode, ...] = field(default=())
    """With which codes a repetition may be refused, after the first has been carried out."""


def _labels_of(name: str) -> Callable[[World], Awaitable[object]]:
    async def labels(world: World) -> object:
        kind = {"models": "Model", "datasets": "Dataset", "jobs": "Job"}[name.partition("/")[0]]
        return (await world.ask(f"Get{kind}", {"name": name if name != "jobs/" else world.job}))["labels"]

    return labels


def _count(collection: str) -> Callable[[World], Awaitable[object]]:
    return lambda world: _number_of(world, collection)


async def _versions(world: World) -> object:
    return len((await world.ask("ListModelVersions", {"parent": "models/m"})).get("modelVersions", []))


async def _workers(world: World) -> object:
    config = (await world.ask("GetJob", {"name": world.job}))["config"]
    return config["minWorkers"], config["maxWorkers"]


async def _is_revoked(world: World) -> object:
    return bool((await world.ask("GetToken", {"name": "tokens/t"})).get("revokeTime"))


BEGUN = ["STATE_QUEUED", "STATE_PREPARING", "STATE_RUNNING"]
MISSING = (grpc.StatusCode.NOT_FOUND,)
CASES = [
    Case("CreateModel", lambda _: MODEL | {"model_id": "n", "request_id": "a"}, _count("Models"), 2),
    Case(
        "CreateDataset",
        lambda world: {"dataset_id": "e", "dataset": {"digest": world.dataset_digest}, "request_id": "a"},
        _count("Datasets"),
        2,
    ),
    Case("CreateJob", lambda _: JOB | {"request_id": "a"}, _count("Jobs"), 2),
    Case("CreateToken", lambda _: TOKEN, _count("Tokens"), 1),
    Case("UpdateModel", lambda _: {"model": {"name": "models/m", "labels": LABELS}}, _labels_of("models/m"), LABELS),
    Case(
        "UpdateDataset",
        lambda _: {"dataset": {"name": "datasets/d", "labels": LABELS}},
        _labels_of("datasets/d"),
        LABELS,
    ),
    Case("UpdateJob", lambda world: {"job": {"name": world.job, "labels": LABELS}}, _labels_of("jobs/"), LABELS),
    Case("DeleteModel", lambda _: {"name": "models/unused"}, _count("Models"), 1, _unused_model, MISSING),
    Case("DeleteDataset", lambda _: {"name": "datasets/unused"}, _count("Datasets"), 1, _unused_dataset, MISSING),
    Case("DeleteJob", lambda world: {"name": world.job}, _count("Jobs"), 0, _cancelled, MISSING),
    Case(
        "DeleteModelVersion",
        lambda _: {"name": "models/m/versions/2"},
        _versions,
        1,
        _resumed_to_its_end,
        MISSING,
    ),
    Case(
        "CancelJob",
        lambda world: {"name": world.job},
        lambda world: _history(world, "STATE_CANCELLED"),
        [*BEGUN, "STATE_CANCELLING", "STATE_CANCELLED"],
    ),
    Case(
        "PauseJob",
        lambda world: {"name": world.job},
        lambda world: _history(world, "STATE_PAUSED"),
        [*BEGUN, "STATE_PAUSING", "STATE_PAUSED"],
    ),
    Case(
        "ResumeJob",
        lambda world: {"name": world.job},
        lambda world: _history(world, "STATE_RUNNING"),
        [*BEGUN, "STATE_PAUSING", "STATE_PAUSED", *BEGUN],
        _paused,
    ),
    Case("ScaleJob", lambda world: {"name": world.job, "max_workers": 1}, _workers, (1, 1)),
    Case("RevokeToken", lambda _: {"name": "tokens/t"}, _is_revoked, True, _token),
]


NOT_REPEATED = {
    "CancelJob",
    "DeleteDataset",
    "DeleteJob",
    "DeleteModel",
    "DeleteModelVersion",
    "QueryWriteStatus",
    "UpdateDataset",
    "UpdateJob",
    "UpdateModel",
}
"""What the SDK does not repeat by itself. A repetition could be told that the etag is stale, or remove what has been
made anew under the name; and an upload asks where it stands again when it goes on."""


def test_every_method_but_these_and_the_streams_is_repeated() -> None:
    single = {method.name for method in methods() if not method.client_streaming and not method.server_streaming}
    assert single - NOT_REPEATED == {method.name for method in methods() if is_idempotent(method)}


def test_every_method_that_changes_something_has_a_case() -> None:
    changing = {method.name for method in methods() if not method.name.startswith(READING)}
    assert changing == {case.method for case in CASES} | {"WriteBlob"}


@pytest.mark.parametrize("loss", ["request lost", "reply lost", "delivered twice"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.method)
async def test_a_call_has_one_effect(world: World, case: Case, loss: Loss) -> None:
    await case.prepare(world)
    request = case.request(world)
    world.losing.lose(case.method, loss)
    code = await outcome(world.ask(case.method, request))
    if code is grpc.StatusCode.UNAVAILABLE:  # what a caller does who is not told whether it has arrived
        assert case.method in NOT_REPEATED
        while code is grpc.StatusCode.UNAVAILABLE:  # again, where the broken connection had not been found so yet
            code = await outcome(world.ask(case.method, request))
        assert code in (grpc.StatusCode.OK, *(case.again if loss == "reply lost" else ()))
    else:
        assert code is grpc.StatusCode.OK
    assert world.losing.calls == (1 if loss == "delivered twice" else 2)
    assert len(world.losing.refusals) <= (1 if case.again else 0)
    assert await case.effect(world) == case.once


async def outcome(call: Awaitable[object]) -> grpc.StatusCode:
    """How a call ends."""
    try:
        await call
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


# --- transfers, which the SDK carries on by itself -------------------------------------------------------------


@pytest.mark.parametrize("loss", ["request lost", "reply lost"])
async def test_an_upload_of_which_a_message_is_lost_stores_one_blob(world: World, loss: Loss) -> None:
    world.losing.lose("WriteBlob", loss)
    with await asyncio.to_thread(Client.connect, world.address) as client:
        digest = await asyncio.to_thread(client.blobs.upload, BLOB)
        world.losing.lose("", loss)
        assert world.parts.blobs.read(digest) == BLOB


async def test_two_uploads_of_a_blob_at_once_are_one(world: World) -> None:
    with await asyncio.to_thread(Client.connect, world.address) as client:
        digests = await asyncio.gather(*(asyncio.to_thread(client.blobs.upload, BLOB) for _ in range(2)))
        assert set(digests) == {hashlib.sha256(BLOB).hexdigest()}
        assert world.parts.blobs.read(digests[0]) == BLOB
