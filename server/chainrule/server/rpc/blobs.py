"""BlobService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from chainrule.server.blobs import Chunk
from chainrule.server.rpc import convert
from chainrule.server.rpc.caller import caller
from chainrule.server.rpc.wrapping import Context
from chainrule.server.tenant_blobs import TenantBlobs
from chainrule.v1 import blob_pb2, blob_pb2_grpc


class BlobServicer(blob_pb2_grpc.BlobServiceServicer):
    """Translates between BlobService and the blobs of the caller's tenant."""

    def __init__(self, blobs: TenantBlobs) -> None:
        self._blobs = blobs

    async def FindMissingBlobs(
        self, request: blob_pb2.FindMissingBlobsRequest, context: Context
    ) -> blob_pb2.FindMissingBlobsResponse:
        missing = await asyncio.to_thread(self._blobs.missing, list(request.digests), tenant=caller().tenant)
        return blob_pb2.FindMissingBlobsResponse(missing_digests=missing)

    async def WriteBlob(
        self, request_iterator: AsyncIterator[blob_pb2.WriteBlobRequest], context: Context
    ) -> blob_pb2.Blob:
        parts = (convert.upload_part(message) async for message in request_iterator)
        blob = await self._blobs.receive(parts, tenant=caller().tenant)
        return blob_pb2.Blob(digest=blob.digest, size_bytes=blob.size_bytes)

    async def QueryWriteStatus(
        self, request: blob_pb2.QueryWriteStatusRequest, context: Context
    ) -> blob_pb2.QueryWriteStatusResponse:
        status = await asyncio.to_thread(self._blobs.write_status, request.digest, tenant=caller().tenant)
        return blob_pb2.QueryWriteStatusResponse(committed_bytes=status.committed_bytes, complete=status.complete)

    async def ReadBlob(
        self, request: blob_pb2.ReadBlobRequest, context: Context
    ) -> AsyncIterator[blob_pb2.ReadBlobResponse]:
        chunks = self._blobs.download(
            request.digest,
            tenant=caller().tenant,
            offset_bytes=request.offset_bytes,
            limit_bytes=request.limit_bytes,
        )
        ahead = asyncio.ensure_future(asyncio.to_thread(_next_part, chunks))
        try:
            while (part := await asyncio.shield(ahead)) is not None:
                ahead = asyncio.ensure_future(asyncio.to_thread(_next_part, chunks))  # is read while this one is sent
                yield part
        finally:
            await asyncio.wait([ahead])  # who has gone leaves no thread behind that reads
            if not ahead.cancelled():
                ahead.exception()


def _next_part(chunks: Iterator[Chunk]) -> blob_pb2.ReadBlobResponse | None:
    """The next chunk as a message, if there is one. Raises what reading it raises."""
    chunk = next(chunks, None)
    if chunk is None:
        return None
    assert chunk.crc32c is not None  # those of a download have one
    return blob_pb2.ReadBlobResponse(chunk=chunk.content, chunk_crc32c=chunk.crc32c)
