"""Who is let in, and what for: tokens, scopes, and what ends with them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from chainrule.server.access import draw_secret
from chainrule.server.config import ServerConfig
from chainrule.server.rpc import scopes
from chainrule.v1 import access_pb2, blob_pb2, cluster_pb2, job_pb2
from tests.server.guarded import Caller, call_of, code_of, dataset_content, make_token, refused, serving, sha256
from tests.server.jobs.service_parts import FakeLauncher, standing_after
from tests.server.training.bench import until

UNAUTHENTICATED, PERMISSION_DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
INFO = cluster_pb2.GetServerInfoRequest()


@dataclass
class Guarded:
    """A service that asks for tokens, and those who call it."""

    address: str
    channel: grpc.aio.Channel
    admin: Caller
    submitter: Caller
    reader: Caller
    stranger: Caller

    def with_secret(self, secret: str) -> Caller:
        return Caller(self.channel, secret)


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    made = {
        name: make_token(tmp_path, name, tenant="a", scopes=[scope])
        for name, scope in (("root", "admin"), ("worker", "submit"), ("viewer", "read"))
    }
    async with (
        serving(ServerConfig(tmp_path, require_tokens=True)) as service,
        grpc.aio.insecure_channel(service.address) as channel,
    ):
        callers = {name: Caller(channel, secret) for name, secret in made.items()}
        yield Guarded(service.address, channel, callers["root"], callers["worker"], callers["viewer"], Caller(channel))


def call(caller: Caller, path: str) -> Any:
    """A call of a method with an empty request."""
    method, request = call_of(caller, path)
    sent = iter([request]) if path.endswith(("/WriteBlob", "/StreamPredict")) else request
    return method(sent, metadata=caller.metadata)


# --- who is let in ---------------------------------------------------------------------------------------------


async def test_who_shows_a_token_is_known_by_it(guarded: Guarded) -> None:
    info = await guarded.submitter.cluster.GetServerInfo(INFO, metadata=guarded.submitter.metadata)
    assert (info.caller.token, info.caller.tenant, info.caller.scopes) == ("tokens/worker", "a", ["read", "submit"])
    info = await guarded.admin.cluster.GetServerInfo(INFO, metadata=guarded.admin.metadata)
    assert info.caller.scopes == ["read", "submit", "admin"]


async def test_a_server_that_asks_for_no_tokens_takes_anybody_for_the_default_tenant(tmp_path: Path) -> None:
    async with serving(ServerConfig(tmp_path)) as service, grpc.aio.insecure_channel(service.address) as channel:
        info = await Caller(channel).cluster.GetServerInfo(INFO)
        assert info.caller == cluster_pb2.Caller(token="", tenant="default", scopes=["read", "submit", "admin"])


@pytest.mark.parametrize("path", sorted(scopes.SCOPE_OF))
async def test_no_method_answers_without_a_token(guarded: Guarded, path: str) -> None:
    error = await refused(call(guarded.stranger, path))
    assert error.code() is UNAUTHENTICATED
    assert "this server asks for a token" in str(error.details())


@pytest.mark.parametrize(
    "shown",
    [
        (("authorization", "Bearer"),),
        (("authorization", "Bearer "),),
        (("authorization", "Basic dXNlcjpwYXNz"),),
        (("authorization", "chainrule_x"),),
        (("authorization", "Bearer x"), ("authorization", "Bearer y")),
        (("x-authorization", "Bearer x"),),
    ],
)
async def test_what_is_no_token_is_said_so(guarded: Guarded, shown: tuple[tuple[str, str], ...]) -> None:
    error = await refused(guarded.stranger.cluster.GetServerInfo(INFO, metadata=shown))
    assert error.code() is UNAUTHENTICATED
    assert "authorization: Bearer SECRET" in str(error.details())


async def test_an_unknown_and_a_revoked_token_are_not_told_apart(guarded: Guarded) -> None:
    unknown = guarded.with_secret(draw_secret())
    of_unknown = await refused(unknown.cluster.GetServerInfo(INFO, metadata=unknown.metadata))
    await guarded.admin.revoke("viewer")
    of_revoked = await refused(guarded.reader.cluster.GetServerInfo(INFO, metadata=guarded.reader.metadata))
    assert of_unknown.code() is of_revoked.code() is UNAUTHENTICATED
    assert of_unknown.details() == of_revoked.details()


async def test_an_expired_token_is_said_to_be_so(tmp_path: Path) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    secret = make_token(tmp_path, "brief", tenant="a", scopes=["read"], expire_time=soon)
    async with (
        serving(ServerConfig(tmp_path, require_tokens=True)) as service,
        grpc.aio.insecure_channel(service.address) as channel,
    ):
        await until(lambda: time.time() > soon.timestamp())
        caller = Caller(channel, secret)
        error = await refused(caller.cluster.GetServerInfo(INFO, metadata=caller.metadata))
    assert error.code() is UNAUTHENTICATED
    assert 'the token "tokens/brief" expired at' in str(error.details())


async def test_a_token_is_good_and_bad_at_once_and_after_a_restart(guarded: Guarded, tmp_path: Path) -> None:
    caller = guarded.with_secret(await guarded.admin.create_token("new", tenant="b"))
    info = await caller.cluster.GetServerInfo(INFO, metadata=caller.metadata)
    assert (info.caller.token, info.caller.tenant) == ("tokens/new", "b")
    revoked = await guarded.admin.revoke("new")
    assert revoked.HasField("revoke_time")
    assert await guarded.admin.revoke("new") == revoked
    error = await refused(caller.cluster.GetServerInfo(INFO, metadata=caller.metadata))
    assert error.code() is UNAUTHENTICATED


async def test_health_and_reflection_are_for_everybody(guarded: Guarded) -> None:
    health: Any = health_pb2_grpc.HealthStub(guarded.channel)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
    channel: Any = guarded.channel
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    [answer] = [found async for found in reflection.ServerReflectionInfo(iter([asked]))]
    assert "chainrule.v1.AccessService" in [service.name for service in answer.list_services_response.service]


# --- what for --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(path for path, scope in scopes.SCOPE_OF.items() if scope != "read"))
async def test_the_scope_read_changes_nothing(guarded: Guarded, path: str) -> None:
    error = await refused(call(guarded.reader, path))
    assert error.code() is PERMISSION_DENIED
    assert f'"tokens/viewer" does not have the scope "{scopes.SCOPE_OF[path]}"' in str(error.details())


@pytest.mark.parametrize("path", sorted(path for path, scope in scopes.SCOPE_OF.items() if scope == "admin"))
async def test_the_scope_submit_does_not_manage_tokens(guarded: Guarded, path: str) -> None:
    assert (await refused(call(guarded.submitter, path))).code() is PERMISSION_DENIED


@pytest.mark.parametrize("path", sorted(path for path, scope in scopes.SCOPE_OF.items() if scope == "read"))
async def test_the_scope_read_reads(guarded: Guarded, path: str) -> None:
    found = await code_of(call(guarded.reader, path))  # an empty request may be wrong
    assert found not in (UNAUTHENTICATED, PERMISSION_DENIED)


async def test_a_secret_is_in_no_answer(guarded: Guarded) -> None:
    secret = await guarded.admin.create_token("new")
    got = await guarded.admin.access.GetToken(
        access_pb2.GetTokenRequest(name="tokens/new"), metadata=guarded.admin.metadata
    )
    listed = await guarded.admin.access.ListTokens(access_pb2.ListTokensRequest(), metadata=guarded.admin.metadata)
    assert got.secret_digest == ""
    assert got in listed.tokens
    assert sha256(secret.encode()).encode() not in listed.SerializeToString()


async def test_without_tokens_they_are_managed_from_this_machine(tmp_path: Path) -> None:
    async with serving(ServerConfig(tmp_path)) as service, grpc.aio.insecure_channel(service.address) as channel:
        await Caller(channel).create_token("first", scopes=["admin"])
        listed = await Caller(channel).access.ListTokens(access_pb2.ListTokensRequest())
    assert [token.name for token in listed.tokens] == ["tokens/first"]


# --- what ends with a token ------------------------------------------------------------------------------------


async def test_a_stream_ends_when_its_token_is_revoked(guarded: Guarded) -> None:
    """Of an upload, which waits for its next message."""
    secret = await guarded.admin.create_token("uploader", tenant="a", scopes=["submit"])
    blob = blob_pb2.Blob(digest="0" * 64, size_bytes=10)
    caller = guarded.with_secret(secret)
    upload = caller.blobs.WriteBlob(metadata=caller.metadata)
    await upload.write(blob_pb2.WriteBlobRequest(blob=blob))
    await upload.write(blob_pb2.WriteBlobRequest(chunk=b"12345"))
    status = blob_pb2.QueryWriteStatusRequest(digest=blob.digest)
    async with asyncio.timeout(20):  # until the upload goes on
        while not (await caller.blobs.QueryWriteStatus(status, metadata=caller.metadata)).committed_bytes:
            pass
    await guarded.admin.revoke("uploader")
    error = await refused(upload)
    assert error.code() is UNAUTHENTICATED
    assert "was revoked while this went on" in str(error.details())


async def test_who_watches_a_job_sees_no_more_of_it_once_the_token_is_revoked(tmp_path: Path) -> None:
    secrets = [make_token(tmp_path, name, tenant="default", scopes=[name]) for name in ("admin", "submit", "read")]
    launcher = FakeLauncher(standing_after(3))
    async with (
        serving(ServerConfig(tmp_path, require_tokens=True), launcher) as service,
        grpc.aio.insecure_channel(service.address) as channel,
    ):
        admin, submitter, reader = (Caller(channel, secret) for secret in secrets)
        content = dataset_content()
        await submitter.upload(content)
        job = job_pb2.Job(model=(await submitter.create_model("m")).name)
        job.dataset = (await submitter.create_dataset("d", sha256(content))).name
        job.config.epochs, job.config.batch_size, job.config.shards, job.config.sgd.lr = 5, 4, 1, 0.1
        made = await submitter.jobs.CreateJob(job_pb2.CreateJobRequest(job=job), metadata=submitter.metadata)
        watching = reader.jobs.WatchJob(job_pb2.WatchJobRequest(name=made.name), metadata=reader.metadata)
        async for seen in watching:
            if seen.progress.step == 3:
                break
        await admin.revoke("read")
        error = await refused(watching)
    assert error.code() is UNAUTHENTICATED
    assert "was revoked while this went on" in str(error.details())


# --- how often -------------------------------------------------------------------------------------------------


async def test_a_caller_that_asks_too_often_is_told_when_to_ask_again(tmp_path: Path) -> None:
    secrets = [make_token(tmp_path, name, tenant="a", scopes=["read"]) for name in ("eager", "other")]
    config = ServerConfig(tmp_path, require_tokens=True, rate_limit_per_s=0.001)
    async with serving(config) as service, grpc.aio.insecure_channel(service.address) as channel:
        eager, other = (Caller(channel, secret) for secret in secrets)
        await eager.cluster.GetServerInfo(INFO, metadata=eager.metadata)
        error = await refused(eager.cluster.GetServerInfo(INFO, metadata=eager.metadata))
        await other.cluster.GetServerInfo(INFO, metadata=other.metadata)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "too many calls come from tokens/eager" in str(error.details())
    status: Any = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert any("RetryInfo" in detail.type_url for detail in status.details)


async def test_an_address_that_guesses_is_told_to_wait_and_good_tokens_from_there_are_not(guarded: Guarded) -> None:
    guesser = guarded.with_secret("guess")
    codes = {(await refused(guesser.cluster.GetServerInfo(INFO, metadata=guesser.metadata))).code() for _ in range(200)}
    assert codes == {UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    await guarded.reader.cluster.GetServerInfo(INFO, metadata=guarded.reader.metadata)


async def test_a_caller_has_so_many_streams_and_no_more(tmp_path: Path) -> None:
    secret = make_token(tmp_path, "t", tenant="a", scopes=["submit"])
    config = ServerConfig(tmp_path, require_tokens=True, stream_limit=1)
    async with serving(config) as service, grpc.aio.insecure_channel(service.address) as channel:
        caller = Caller(channel, secret)
        first = caller.blobs.WriteBlob(metadata=caller.metadata)
        await first.write(blob_pb2.WriteBlobRequest(blob=blob_pb2.Blob(digest=sha256(b"12345"), size_bytes=5)))
        await first.write(blob_pb2.WriteBlobRequest(chunk=b"123"))
        status = blob_pb2.QueryWriteStatusRequest(digest=sha256(b"12345"))
        async with asyncio.timeout(20):  # until the upload goes on
            while not (await caller.blobs.QueryWriteStatus(status, metadata=caller.metadata)).committed_bytes:
                pass
        request = job_pb2.WatchJobRequest(name="jobs/none")
        error = await refused(caller.jobs.WatchJob(request, metadata=caller.metadata))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "tokens/t has 1 streams open" in str(error.details())
        await first.write(blob_pb2.WriteBlobRequest(chunk=b"45"))
        await first.done_writing()
        await first
        error = await refused(caller.jobs.WatchJob(request, metadata=caller.metadata))
        assert error.code() is grpc.StatusCode.NOT_FOUND
