"""BlobService over a real channel: its messages, in their order."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import grpc
import pytest

from chainrule.server.blobs import BlobStore, Chunk
from chainrule.server.blobs.checksums import BLOCK_BYTES
from chainrule.server.rpc.blobs import BlobServicer
from chainrule.server.rpc.status import ErrorInterceptor
from chainrule.server.store import Store
from chainrule.server.tenant_blobs import TenantBlobs
from chainrule.v1 import blob_pb2, blob_pb2_grpc
from tests.server.training.bench import until

CONTENT = bytes(range(256)) * 8192  # 2 MiB
DIGEST = hashlib.sha256(CONTENT).hexdigest()
ANNOUNCED = blob_pb2.WriteBlobRequest(blob=blob_pb2.Blob(digest=DIGEST, size_bytes=len(CONTENT)))
Request = blob_pb2.WriteBlobRequest


@pytest.fixture
async def stub(blobs: BlobStore, store: Store) -> AsyncIterator[blob_pb2_grpc.BlobServiceAsyncStub]:
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    blob_pb2_grpc.add_BlobServiceServicer_to_server(BlobServicer(TenantBlobs(blobs, store, are_apart=False)), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield blob_pb2_grpc.BlobServiceStub(channel)
    await server.stop(None)


async def test_what_is_written_is_no_longer_missing_and_can_be_read(stub: blob_pb2_grpc.BlobServiceAsyncStub) -> None:
    other = "0" * 64
    wanted = blob_pb2.FindMissingBlobsRequest(digests=[other, DIGEST])
    assert (await stub.FindMissingBlobs(wanted)).missing_digests == [other, DIGEST]
    written = await stub.WriteBlob(iter([ANNOUNCED, Request(chunk=CONTENT[:9]), Request(chunk=CONTENT[9:])]))
    assert written == ANNOUNCED.blob
    assert (await stub.FindMissingBlobs(wanted)).missing_digests == [other]
    chunks = [response.chunk async for response in stub.ReadBlob(blob_pb2.ReadBlobRequest(digest=DIGEST))]
    assert b"".join(chunks) == CONTENT
    assert max(map(len, chunks)) == BLOCK_BYTES


async def test_the_next_chunk_is_read_while_one_is_sent(blobs: BlobStore, store: Store) -> None:
    blobs.put(CONTENT * 2)
    read: list[int] = []
    servicer = BlobServicer(TenantBlobs(blobs, store, are_apart=False))
    download = servicer._blobs.download

    def counted(*arguments: Any, **settings: Any) -> Iterator[Chunk]:
        for number, chunk in enumerate(download(*arguments, **settings), 1):
            read.append(number)
            yield chunk

    servicer._blobs.download = counted  # type: ignore[method-assign]
    asked = blob_pb2.ReadBlobRequest(digest=hashlib.sha256(CONTENT * 2).hexdigest())
    parts = servicer.ReadBlob(asked, cast(Any, None))
    assert (await anext(parts)).chunk == CONTENT[:BLOCK_BYTES]
    await until(lambda: read == [1, 2])
    await parts.aclose()  # type: ignore[attr-defined]
    assert read == [1, 2]


async def test_a_blob_that_is_there_needs_no_chunks(stub: blob_pb2_grpc.BlobServiceAsyncStub, blobs: BlobStore) -> None:
    blobs.put(CONTENT)
    assert await stub.WriteBlob(iter([ANNOUNCED])) == ANNOUNCED.blob


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ([], "blob: is not set in the first message; begin with the digest and the size"),
        ([Request(chunk=CONTENT)], "blob: is not set in the first message; begin with the digest and the size"),
        ([ANNOUNCED, ANNOUNCED], "chunk: is not set; every message after the first carries a chunk"),
        ([ANNOUNCED, Request()], "chunk: is not set; every message after the first carries a chunk"),
    ],
)
async def test_messages_in_another_order_are_refused(
    stub: blob_pb2_grpc.BlobServiceAsyncStub, sent: list[Request], message: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.WriteBlob(iter(sent))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == message


async def test_a_damaged_blob_ends_its_download_with_data_loss(
    stub: blob_pb2_grpc.BlobServiceAsyncStub, blobs: BlobStore
) -> None:
    blobs.put(CONTENT)
    blobs.path(DIGEST).write_bytes(b"?")
    with pytest.raises(grpc.aio.AioRpcError, match="upload it again") as caught:
        _ = [response async for response in stub.ReadBlob(blob_pb2.ReadBlobRequest(digest=DIGEST))]
    assert caught.value.code() is grpc.StatusCode.DATA_LOSS
    wanted = blob_pb2.FindMissingBlobsRequest(digests=[DIGEST])
    assert (await stub.FindMissingBlobs(wanted)).missing_digests == [DIGEST]
