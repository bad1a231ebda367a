"""BlobService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from chainrule.server.blobs import BlobStore, check_digest, read_chunks
from chainrule.server.errors import InvalidRequestError
from chainrule.v1 import blob_pb2, blob_pb2_grpc

MAX_DIGESTS = 1000
MAX_BLOB_BYTES = 64 * 1024**3
"""Largest blob that is accepted."""
READ_CHUNK_BYTES = 1024**2

Context = grpc.aio.ServicerContext[Any, Any]


class BlobServicer(blob_pb2_grpc.BlobServiceServicer):
    """Translates between BlobService and the blob store."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    async def FindMissingBlobs(
        self, request: blob_pb2.FindMissingBlobsRequest, context: Context
    ) -> blob_pb2.FindMissingBlobsResponse:
        if len(request.digests) > MAX_DIGESTS:
            raise InvalidRequestError.of("digests", f"are {len(request.digests)}; ask for at most {MAX_DIGESTS}")
        missing = [digest for digest in request.digests if not self._blobs.contains(digest)]
        return blob_pb2.FindMissingBlobsResponse(missing_digests=missing)

    async def WriteBlob(
        self, request_iterator: AsyncIterator[blob_pb2.WriteBlobRequest], context: Context
    ) -> blob_pb2.Blob:
        first = await anext(request_iterator, None)
        if first is None or first.WhichOneof("part") != "blob":
            raise InvalidRequestError.of("blob", "is not set in the first message; begin with the digest and the size")
        blob = first.blob
        check_digest(blob.digest, field="blob.digest")
        if not 0 <= blob.size_bytes <= MAX_BLOB_BYTES:
            raise InvalidRequestError.of("blob.size_bytes", f"is {blob.size_bytes}; use 0 to {MAX_BLOB_BYTES}")
        if self._blobs.contains(blob.digest):
            return blob_pb2.Blob(digest=blob.digest, size_bytes=self._blobs.size(blob.digest))
        with await asyncio.to_thread(self._blobs.upload, blob.digest, blob.size_bytes) as upload:
            async for message in request_iterator:
                if message.WhichOneof("part") != "chunk":
                    raise InvalidRequestError.of("chunk", "is not set; every message after the first carries a chunk")
                await asyncio.to_thread(upload.write, message.chunk)
            await asyncio.to_thread(upload.commit)
        return blob

    async def ReadBlob(
        self, request: blob_pb2.ReadBlobRequest, context: Context
    ) -> AsyncIterator[blob_pb2.ReadBlobResponse]:
        path = self._blobs.path(check_digest(request.digest, field="digest"))
        size = self._blobs.size(request.digest)
        if not 0 <= request.offset_bytes <= size:
            raise InvalidRequestError.of("offset_bytes", f"is {request.offset_bytes}; the blob has {size} bytes")
        chunks = read_chunks(path, offset_bytes=request.offset_bytes, chunk_bytes=READ_CHUNK_BYTES)
        while chunk := await asyncio.to_thread(next, chunks, b""):
            yield blob_pb2.ReadBlobResponse(chunk=chunk)
