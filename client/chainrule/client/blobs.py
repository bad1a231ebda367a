"""Blobs: byte strings sent and fetched in chunks, named and checked by their SHA-256."""
# Derived from aio/blobs.py by client/derive.py. Change that, and run `make client`.

import hashlib
from collections.abc import Callable, Iterator

import google_crc32c

from chainrule.client.channel import Connection
from chainrule.client.errors import Cancelled, DataLoss, RpcError, Unavailable
from chainrule.client.retry import was_refused
from chainrule.v1 import blob_pb2, blob_pb2_grpc

CHUNK_BYTES = 1024 * 1024

FIRST_AFTER_BREAK_BYTES = 8 * CHUNK_BYTES
"""Most that is sent at a time after a first break."""
INCOMPLETE = "UPLOAD_INCOMPLETE"

_GOES_ON = ("CHUNK_DAMAGED", INCOMPLETE, "UPLOAD_OFFSET")
"""Reasons of errors after which an upload goes on from what has arrived."""

Transferred = Callable[[int, int], None]
"""Called during a transfer with the bytes done so far and the bytes in all."""

Received = Callable[[int], None]
"""Called during a download with the bytes that have arrived so far."""


class Blobs:
    """The blobs of a server."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = blob_pb2_grpc.BlobServiceStub(connection.channel)

    def missing(self, digests: list[str]) -> list[str]:
        """Those of the digests that the server does not hold, in the order given."""
        request = blob_pb2.FindMissingBlobsRequest(digests=digests)
        response = self._connection.call(self._stub.FindMissingBlobs, request)
        return list(response.missing_digests)

    def upload(self, content: bytes, *, transferred: Transferred | None = None) -> str:
        """Send a blob, unless the server holds it already, and return its SHA-256 in hexadecimal.

        An upload that breaks goes on from what has arrived, also one of another process, or of a day ago.

        Raises:
            DataLoss: what arrived has another digest.
            Unavailable: the server could not be reached for the whole retry window.
        """
        digest = self._connection.compute(sha256, content)
        if self.missing([digest]):
            blob = blob_pb2.Blob(digest=digest, size_bytes=len(content))
            stored = self._send(blob, content, transferred)
            if stored != blob:
                raise DataLoss(
                    f"sent a blob of {len(content)} bytes with SHA-256 {digest}, "
                    f"but the server stored one of {stored.size_bytes} bytes with {stored.digest}"
                )
        elif transferred:
            transferred(len(content), len(content))
        return digest

    def _send(self, blob: blob_pb2.Blob, content: bytes, transferred: Transferred | None) -> blob_pb2.Blob:
        """Send all that has not arrived. What a connection that breaks has carried may be lost in part; so after a
        break less is sent at a time, and more again once that arrives."""
        patience = self._connection.patience()
        status = blob_pb2.QueryWriteStatusRequest(digest=blob.digest)
        arrived, at_a_time = 0, len(content)
        while True:
            start, end = 0, len(content)
            try:
                committed = self._connection.call_once(self._stub.QueryWriteStatus, status)
                start = committed.committed_bytes
                if start > arrived:
                    patience.restore()
                arrived = start
                end = min(start + at_a_time, len(content))
                return self._connection.send(
                    self._stub.WriteBlob, _write_requests(blob, content, start, end, transferred)
                )
            except RpcError as error:
                if error.reason == INCOMPLETE and end < len(content):  # as much as was sent has arrived
                    at_a_time *= 2
                elif _goes_on(error, start):
                    at_a_time = max(CHUNK_BYTES, min(at_a_time // 2, FIRST_AFTER_BREAK_BYTES))
                    patience.spend(error)
                else:
                    raise

    def part(self, digest: str, offset_bytes: int, limit_bytes: int) -> bytes:
        """Some bytes of a blob, fewer where it ends; unlike a whole one they cannot be compared with its digest.

        Raises:
            NotFound: the server does not hold the blob.
            InvalidArgument: the offset is beyond its end.
            Unavailable: the server could not be reached for the whole retry window.
        """
        content = bytearray()
        for response in self._connection.follow(
            self._stub.ReadBlob,
            lambda: blob_pb2.ReadBlobRequest(
                digest=digest,
                offset_bytes=offset_bytes + len(content),
                limit_bytes=max(1, limit_bytes - len(content)),  # 0 would be all
            ),
            timeout_s=self._connection.settings.transfer_timeout_s,
            is_whole=_is_whole,
        ):
            content.extend(response.chunk)
        return bytes(content[:limit_bytes])

    def download(self, digest: str, *, received: Received | None = None) -> bytes:
        """Fetch the blob of this SHA-256 (hexadecimal). A download that breaks goes on where it stopped.

        Args:
            received: called with the bytes received so far.

        Raises:
            NotFound: the server does not hold the blob.
            DataLoss: what arrived has another digest.
            Unavailable: the server could not be reached for the whole retry window.
        """
        content = bytearray()
        for response in self._connection.follow(
            self._stub.ReadBlob,
            lambda: blob_pb2.ReadBlobRequest(digest=digest, offset_bytes=len(content)),
            timeout_s=self._connection.settings.transfer_timeout_s,
            is_whole=_is_whole,
        ):
            content.extend(response.chunk)
            if received:
                received(len(content))
        found = self._connection.compute(sha256, content)
        if found != digest:
            raise DataLoss(
                f"asked for the blob with SHA-256 {digest}, received {len(content)} bytes with {found}",
                reason="DIGEST_MISMATCH",
                metadata={"expected": digest, "actual": found},
            )
        return bytes(content)


def sha256(content: bytes | bytearray) -> str:
    """The SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _write_requests(
    blob: blob_pb2.Blob, content: bytes, first: int, end: int, transferred: Transferred | None
) -> Iterator[blob_pb2.WriteBlobRequest]:
    yield blob_pb2.WriteBlobRequest(blob=blob, write_offset_bytes=first)
    view = memoryview(content)
    for start in range(first, end, CHUNK_BYTES):
        chunk = bytes(view[start : min(start + CHUNK_BYTES, end)])
        yield blob_pb2.WriteBlobRequest(chunk=chunk, chunk_crc32c=google_crc32c.value(chunk))
        if transferred:
            transferred(start + len(chunk), len(content))


def _goes_on(error: RpcError, offset_bytes: int) -> bool:
    """Whether an upload from an offset on is not over with this error. What was there before may be what is wrong."""
    if isinstance(error, Cancelled | Unavailable):  # nobody here cancels: the other side cut it off
        return True
    if was_refused(error):
        return True
    return error.reason in _GOES_ON or (error.reason == "DIGEST_MISMATCH" and offset_bytes > 0)


def _is_whole(response: blob_pb2.ReadBlobResponse) -> bool:
    found: int = google_crc32c.value(response.chunk)
    return found == response.chunk_crc32c
