"""Tenants: what one has is nowhere for another; and what is written down of all of them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from chainrule.engine import io
from chainrule.server.config import ServerConfig
from chainrule.server.rpc import scopes
from chainrule.v1 import blob_pb2, dataset_pb2, job_pb2, model_pb2
from tests.server.guarded import Caller, call_of, code_of, dataset_content, make_token, refused, serving, sha256

NOT_FOUND = grpc.StatusCode.NOT_FOUND
CONTENT = b"weights" * 1000
DIGEST = sha256(CONTENT)


@dataclass
class Tenants:
    """Callers of two tenants, and an administrator."""

    a: Caller
    b: Caller
    admin: Caller


@pytest.fixture
async def tenants(tmp_path: Path) -> AsyncIterator[Tenants]:
    secrets = [make_token(tmp_path, name, tenant=name, scopes=["submit"]) for name in ("a", "b")]
    secrets.append(make_token(tmp_path, "root", tenant="a", scopes=["admin"]))
    config = ServerConfig(tmp_path, require_tokens=True, tenant_storage_limit_gb=100e-6)
    async with serving(config) as service, grpc.aio.insecure_channel(service.address) as channel:
        yield Tenants(*(Caller(channel, secret) for secret in secrets))


# --- blobs -----------------------------------------------------------------------------------------------------


async def test_a_blob_of_another_tenant_is_as_if_it_were_not_there(tenants: Tenants) -> None:
    await tenants.a.upload(CONTENT)
    assert await tenants.a.missing(DIGEST) == []
    assert await tenants.a.download(DIGEST) == CONTENT
    for digest in (DIGEST, "0" * 64):
        assert await tenants.b.missing(digest) == [digest]
        request = blob_pb2.ReadBlobRequest(digest=digest)
        error = await refused(tenants.b.blobs.ReadBlob(request, metadata=tenants.b.metadata))
        assert (error.code(), error.details()) == (NOT_FOUND, f'there is no blob "{digest}"; upload it with WriteBlob')
        status = await tenants.b.blobs.QueryWriteStatus(
            blob_pb2.QueryWriteStatusRequest(digest=digest), metadata=tenants.b.metadata
        )
        assert (status.committed_bytes, status.complete) == (0, False)


async def test_who_has_only_the_digest_of_a_blob_does_not_get_it_by_announcing_it(tenants: Tenants) -> None:
    await tenants.a.upload(CONTENT)
    assert await code_of(tenants.b.upload(CONTENT, sent=b"")) is grpc.StatusCode.ABORTED
    assert await code_of(tenants.b.upload(CONTENT, sent=b"", offset_bytes=7000)) is grpc.StatusCode.OUT_OF_RANGE
    assert await code_of(tenants.b.upload(CONTENT, sent=b"x" * 7000)) is grpc.StatusCode.DATA_LOSS
    assert await code_of(tenants.b.download(DIGEST)) is NOT_FOUND
    assert await tenants.a.download(DIGEST) == CONTENT


async def test_what_one_tenant_has_begun_to_send_another_cannot_complete(tenants: Tenants) -> None:
    await refused(tenants.a.upload(CONTENT, sent=CONTENT[:6999]))
    end = await refused(tenants.b.upload(CONTENT, sent=CONTENT[6999:], offset_bytes=6999))
    assert end.code() is grpc.StatusCode.OUT_OF_RANGE
    assert await code_of(tenants.a.upload(CONTENT, sent=CONTENT[6999:], offset_bytes=6999)) is grpc.StatusCode.OK
    assert await tenants.b.missing(DIGEST) == [DIGEST]


async def test_a_blob_that_two_tenants_have_sent_is_stored_once(tenants: Tenants, tmp_path: Path) -> None:
    for caller in (tenants.a, tenants.b):
        await caller.upload(CONTENT)
        assert await caller.missing(DIGEST) == []
        assert await caller.download(DIGEST) == CONTENT
    assert [path.name for path in (tmp_path / "blobs" / DIGEST[:2]).iterdir()] == [DIGEST]
    assert list((tmp_path / "blobs" / "incoming").iterdir()) == []


async def test_nothing_is_made_of_another_tenants_blob(tenants: Tenants) -> None:
    content = dataset_content()
    await tenants.a.upload(content)
    model = await tenants.a.create_model("m")
    for made in (
        tenants.b.create_dataset("d", sha256(content)),
        tenants.b.create_model("mine", weights_digest=model.weights_digest),
    ):
        error = await refused(made)
        assert error.code() is NOT_FOUND
        assert "there is no blob" in str(error.details())
    assert (await tenants.a.create_dataset("d", sha256(content))).num_examples == 4


async def test_a_tenant_reads_what_its_model_refers_to_without_having_sent_it(tenants: Tenants) -> None:
    model = await tenants.a.create_model("m")
    assert io.digest(await tenants.a.download(model.weights_digest)) == model.weights_digest
    assert await code_of(tenants.b.download(model.weights_digest)) is NOT_FOUND


async def test_a_tenant_that_is_full_is_told_how_to_make_room_and_the_others_are_not(tenants: Tenants) -> None:
    await tenants.a.upload(os.urandom(60_000))
    more = os.urandom(60_000)
    error = await refused(tenants.a.upload(more))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert 'tenant "a" has 60,000 of its 100,000 bytes taken' in str(error.details())
    assert "delete models, datasets and jobs that are not needed" in str(error.details())
    await tenants.b.upload(more)


# --- names -----------------------------------------------------------------------------------------------------


@dataclass
class Named:
    """What tenant a has."""

    model: str
    dataset: str
    job: str

    def request(self, service: str, request: Any) -> bool:
        """Have a request ask for it; False if it asks for nothing by name."""
        name = {"ModelService": self.model, "DatasetService": self.dataset, "JobService": self.job}[service]
        versioned = f"{name}/versions/1" if type(request).__name__.endswith("ModelVersionRequest") else name
        kind = name.partition("/")[0].removesuffix("s")
        fields = request.DESCRIPTOR.fields_by_name
        if "name" in fields:
            request.name = versioned
        elif "parent" in fields:
            request.parent = name
        elif type(request).__name__.startswith("Update"):
            getattr(request, kind).name = name
        elif kind in fields and fields[kind].message_type is None:
            setattr(request, kind, name)
        else:
            return False
        return True


@pytest.fixture
async def named(tenants: Tenants) -> Named:
    content = dataset_content()
    await tenants.a.upload(content)
    dataset = await tenants.a.create_dataset("d", sha256(content))
    model = await tenants.a.create_model("m")
    job = job_pb2.Job(model=model.name, dataset=dataset.name)
    job.config.epochs, job.config.batch_size, job.config.shards = 1, 4, 1
    made = await tenants.a.jobs.CreateJob(job_pb2.CreateJobRequest(job=job), metadata=tenants.a.metadata)
    return Named(model.name, dataset.name, made.name)


async def test_names_of_another_tenant_are_not_found_by_any_method(tenants: Tenants, named: Named) -> None:
    asked = []
    for path in sorted(scopes.SCOPE_OF):
        service, method = path.rpartition(".")[2].split("/")
        if service not in ("ModelService", "DatasetService", "JobService"):
            continue
        call, request = call_of(tenants.b, path)
        if not named.request(service, request):
            continue
        asked.append(method)
        assert (path, await code_of(call(request, metadata=tenants.b.metadata))) == (path, NOT_FOUND)
    assert {"GetModel", "GetDataset", "GetJob", "CancelJob", "PauseJob", "WatchJob", "StreamMetrics"} <= set(asked)


async def test_nothing_is_trained_of_another_tenants_things_and_lists_do_not_have_them(
    tenants: Tenants, named: Named
) -> None:
    b, metadata = tenants.b, tenants.b.metadata
    job = job_pb2.Job(model=named.model, dataset=named.dataset)
    job.config.epochs, job.config.batch_size, job.config.shards = 1, 4, 1
    assert await code_of(b.jobs.CreateJob(job_pb2.CreateJobRequest(job=job), metadata=metadata)) is NOT_FOUND
    assert not (await b.models.ListModels(model_pb2.ListModelsRequest(), metadata=metadata)).models
    assert not (await b.datasets.ListDatasets(dataset_pb2.ListDatasetsRequest(), metadata=metadata)).datasets
    assert not (await b.jobs.ListJobs(job_pb2.ListJobsRequest(), metadata=metadata)).jobs
    assert (await b.create_model("m")).name == named.model  # a name of its own, too


# --- the audit log ---------------------------------------------------------------------------------------------


async def test_what_changes_something_and_what_is_refused_is_written_down(tenants: Tenants) -> None:
    stranger = Caller(tenants.a.channel)
    await tenants.a.create_model("m")
    await tenants.a.models.GetModel(model_pb2.GetModelRequest(name="models/m"), metadata=tenants.a.metadata)
    await refused(tenants.a.create_model("M"))
    await refused(stranger.create_model("evil\n2026 INFO all is well"))
    await refused(tenants.b.create_token("mine"))
    await refused(tenants.b.jobs.WatchJob(job_pb2.WatchJobRequest(name="jobs/x"), metadata=tenants.b.metadata))
    await tenants.a.upload(CONTENT)
    entries = await tenants.admin.audit()
    found = [(e.token, e.tenant, e.method.rpartition("/")[2], e.resource, e.code) for e in reversed(entries)]
    assert found == [
        ("tokens/a", "a", "CreateModel", "models/m", "OK"),
        ("tokens/a", "a", "CreateModel", "models/M", "INVALID_ARGUMENT"),
        ("", "", "CreateModel", "models/evil\N{REPLACEMENT CHARACTER}2026 INFO all is well", "UNAUTHENTICATED"),
        ("tokens/b", "b", "CreateToken", "tokens/mine", "PERMISSION_DENIED"),
        ("tokens/a", "a", "WriteBlob", f"blobs/{DIGEST}", "OK"),
    ]
    assert [entry.sequence for entry in entries] == [5, 4, 3, 2, 1]
    assert all(entry.peer.startswith("ipv4:127.0.0.1:") and entry.time.seconds > 1.7e9 for entry in entries)


async def test_a_flood_of_refused_calls_does_not_fill_the_audit_log(
    tenants: Tenants, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = Caller(tenants.a.channel)
    for _ in range(100):
        await refused(stranger.audit())
    recorded = len(await tenants.admin.audit())
    assert 10 <= recorded < 90


async def test_a_service_that_stops_tells_how_many_calls_were_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        serving(ServerConfig(tmp_path, require_tokens=True)) as service,
        grpc.aio.insecure_channel(service.address) as channel,
    ):
        for _ in range(100):
            await refused(Caller(channel).audit())
        assert "are not in the audit log" not in caplog.text
    assert "are not in the audit log" in caplog.text
