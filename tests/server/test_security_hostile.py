"""What is sent to do harm: other protocols, paths for names, sizes that nothing could hold."""

from __future__ import annotations

import json
import os
import stat
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from chainrule.server.certificates import make_certificates
from chainrule.server.config import ServerConfig
from chainrule.server.data_folder import own
from chainrule.server.errors import StartupError
from chainrule.server.rpc import scopes
from chainrule.server.service import MAX_MESSAGE_BYTES, check_startable
from chainrule.v1 import blob_pb2, cluster_pb2
from tests.server.guarded import Caller, call_of, code_of, make_token, refused, serving, sha256

INFO = cluster_pb2.GetServerInfoRequest()
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
RESOURCE_EXHAUSTED, INVALID_ARGUMENT = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT
ALLOWED = (grpc.StatusCode.OK, INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
"""OK: of a request that asks for nothing by a name."""
ESCAPES = (
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    "models/../../secret",
    "jobs/%2e%2e",
    "jobs/a/../b",
    "a\0b",
    "\\\\host",
)


@pytest.fixture
async def caller(tmp_path: Path) -> AsyncIterator[Caller]:
    """One who may do everything, with a token."""
    secret = make_token(tmp_path / "data", "root", tenant="a", scopes=["admin"])
    config = ServerConfig(tmp_path / "data", require_tokens=True)
    options = [("grpc.max_send_message_length", -1)]
    async with serving(config) as service, grpc.aio.insecure_channel(service.address, options=options) as channel:
        yield Caller(channel, secret)


# --- other protocols -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder, hosts=["localhost", "127.0.0.1"], days=2)
    return folder


def channel_of(address: str, folder: Path | None, *, proves: bool = False) -> grpc.aio.Channel:
    if folder is None:
        return grpc.aio.insecure_channel(address)
    cert, key = ((folder / f"client.{kind}").read_bytes() if proves else None for kind in ("pem", "key"))
    credentials = grpc.ssl_channel_credentials((folder / "ca.pem").read_bytes(), key, cert)
    return grpc.aio.secure_channel(address, credentials)


async def test_a_certificate_and_a_token_are_both_asked_for(certificates: Path, tmp_path: Path) -> None:
    secret = make_token(tmp_path, "t", tenant="a", scopes=["read"])
    tls: dict[str, Any] = {"tls_cert": certificates / "server.pem", "tls_key": certificates / "server.key"}
    async with serving(
        ServerConfig(tmp_path, **tls, tls_client_ca=certificates / "ca.pem", require_tokens=True)
    ) as service:
        found = []
        for folder, proves, shown in (
            (certificates, True, secret),
            (certificates, True, ""),
            (certificates, False, secret),
            (None, False, secret),
        ):
            async with channel_of(service.address, folder, proves=proves) as channel:
                caller = Caller(channel, shown)
                found.append(await code_of(caller.cluster.GetServerInfo(INFO, metadata=caller.metadata)))
    assert found == [grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED, UNAVAILABLE, UNAVAILABLE]


@pytest.mark.parametrize(
    ("has_tls", "asks", "insecure_public", "is_served"),
    [
        (False, False, False, False),
        (False, True, False, False),  # the secret would be seen by everybody on the way
        (True, False, False, False),
        (True, True, False, True),
        (False, False, True, True),
    ],
)
def test_other_machines_are_served_with_encryption_and_proof_or_when_told_so(
    certificates: Path, tmp_path: Path, has_tls: bool, asks: bool, insecure_public: bool, is_served: bool
) -> None:
    tls: dict[str, Any] = (
        {"tls_cert": certificates / "server.pem", "tls_key": certificates / "server.key"} if has_tls else {}
    )
    config = ServerConfig(tmp_path, host="0.0.0.0", port=0, **tls, require_tokens=asks, insecure_public=insecure_public)
    if is_served:
        check_startable(config)
    else:
        with pytest.raises(StartupError, match=r"is not a loopback address.*--tokens or --tls-client-ca"):
            check_startable(config)


# --- paths -----------------------------------------------------------------------------------------------------


def texts(message: Any) -> Iterator[tuple[Any, Any]]:
    """Every text field of a message, and of the API's messages in it, with the message that it is of."""
    for field in message.DESCRIPTOR.fields:
        inner = field.message_type
        if inner is None and field.type == field.TYPE_STRING:
            yield message, field
        elif inner is not None and inner.full_name.startswith("chainrule.") and not field.is_repeated:
            yield from texts(getattr(message, field.name))


def files(folder: Path) -> list[Path]:
    """All but the store's own, which come and go."""
    return sorted(found for found in folder.rglob("*") if "chainrule.db" not in found.name)


@pytest.mark.parametrize("path", sorted(scopes.SCOPE_OF))
async def test_no_text_of_a_request_becomes_a_path(caller: Caller, path: str, tmp_path: Path) -> None:
    before = files(tmp_path)
    for text in ESCAPES:
        method, request = call_of(caller, path)
        for owner, field in texts(request):
            if field.is_repeated:
                getattr(owner, field.name).append(text)
            else:
                setattr(owner, field.name, text)
        sent = iter([request]) if path.endswith(("/WriteBlob", "/StreamPredict")) else request
        assert await code_of(method(sent, metadata=caller.metadata)) in ALLOWED
    assert files(tmp_path) == before


@pytest.mark.parametrize("digest", [*ESCAPES, "A" * 64, "0" * 63, "0" * 63 + "\n", "./" + "0" * 62])
async def test_what_is_no_digest_is_not_looked_for(caller: Caller, digest: str) -> None:
    blobs, metadata = caller.blobs, caller.metadata
    announced = blob_pb2.WriteBlobRequest(blob=blob_pb2.Blob(digest=digest, size_bytes=1))
    for call in (
        caller.missing(digest),
        blobs.QueryWriteStatus(blob_pb2.QueryWriteStatusRequest(digest=digest), metadata=metadata),
        blobs.ReadBlob(blob_pb2.ReadBlobRequest(digest=digest), metadata=metadata),
        blobs.WriteBlob(iter([announced]), metadata=metadata),
        caller.create_dataset("d", digest),
        caller.create_model("m", weights_digest=digest),
    ):
        error = await refused(call)
        assert error.code() is INVALID_ARGUMENT
        assert "is not a SHA-256" in str(error.details()) or "holds the character NUL" in str(error.details())


# --- sizes -----------------------------------------------------------------------------------------------------


async def test_a_message_that_is_too_large_is_refused(caller: Caller) -> None:
    request = blob_pb2.FindMissingBlobsRequest(digests=["0" * MAX_MESSAGE_BYTES])
    error = await refused(caller.blobs.FindMissingBlobs(request, metadata=caller.metadata))
    assert error.code() is RESOURCE_EXHAUSTED


async def test_a_message_that_is_too_large_once_it_is_unpacked_is_refused(caller: Caller) -> None:
    """Zeros are a thousandth of their size when they are compressed."""
    request = blob_pb2.FindMissingBlobsRequest(digests=["0" * (20 * MAX_MESSAGE_BYTES)])
    call = caller.blobs.FindMissingBlobs(request, metadata=caller.metadata, compression=grpc.Compression.Gzip)
    assert (await refused(call)).code() is RESOURCE_EXHAUSTED
    assert await caller.missing("0" * 64) == ["0" * 64]


async def test_metadata_that_is_too_large_is_refused(caller: Caller) -> None:
    error = await refused(caller.cluster.GetServerInfo(INFO, metadata=(("x", "y" * 100_000),)))
    assert error.code() is RESOURCE_EXHAUSTED


@pytest.mark.parametrize("size_bytes", [2**62, -1, 2**63 - 1])
async def test_a_blob_that_nothing_could_hold_is_refused_before_it_is_sent(caller: Caller, size_bytes: int) -> None:
    announced = blob_pb2.WriteBlobRequest(blob=blob_pb2.Blob(digest="0" * 64, size_bytes=size_bytes))
    error = await refused(caller.blobs.WriteBlob(iter([announced]), metadata=caller.metadata))
    assert error.code() is INVALID_ARGUMENT
    assert "blob.size_bytes" in str(error.details())


@pytest.mark.parametrize(
    ("shape", "offsets"),
    [
        ([2**31, 2**31], [0, 4]),
        ([2**62], [0, 2**64 - 8]),
        ([2**20] * 40, [0, 4]),
        ([-1], [0, 4]),
        ([1] * 10_000, [0, 4]),
    ],
)
async def test_a_file_that_claims_arrays_it_does_not_hold_is_refused(
    caller: Caller, shape: list[int], offsets: list[int]
) -> None:
    header = json.dumps({"inputs": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).encode()
    await _is_refused(caller, struct.pack("<Q", len(header)) + header + b"\0" * 4)


@pytest.mark.parametrize("length", [2**63, 2**40, 0])
async def test_a_file_that_claims_a_header_it_does_not_have_is_refused(caller: Caller, length: int) -> None:
    await _is_refused(caller, struct.pack("<Q", length) + b"{}")


async def _is_refused(caller: Caller, content: bytes) -> None:
    await caller.upload(content)
    for call in (
        caller.create_dataset("d", sha256(content)),
        caller.create_model("m", weights_digest=sha256(content)),
    ):
        assert (await refused(call)).code() is INVALID_ARGUMENT


async def test_a_zip_of_nothing_is_no_dataset(caller: Caller, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("inputs.npy", b"\0" * 50_000_000)
    await _is_refused(caller, (tmp_path / "bomb.npz").read_bytes())


# --- files that are private ------------------------------------------------------------------------------------


def test_what_a_service_stores_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        own(tmp_path / "data").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
