"""Blobs: byte strings sent and fetched in chunks, named and checked by their SHA-256."""

import hashlib
from collections.abc import Callable, Iterator

from chainrule.client.channel import Connection
from chainrule.client.errors import DataLoss
from chainrule.v1 import blob_pb2, blob_pb2_grpc

CHUNK_BYTES = 1024 * 1024

Transferred = Callable[[int, int], None]
"""Called during a transfer with the bytes done so far and the bytes in all."""


class Blobs:
    """The blobs of a server."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = blob_pb2_grpc.BlobServiceStub(connection.channel)

    def missing(self, digests: list[str]) -> list[str]:
        """Those of the digests that the server does not hold, in the order given."""
        request = blob_pb2.FindMissingBlobsRequest(digests=digests)
        return list(self._connection.call(self._stub.FindMissingBlobs, request).missing_digests)

    def upload(self, content: bytes, *, transferred: Transferred | None = None) -> str:
        """Send a blob, unless the server holds it already, and return its SHA-256 in hexadecimal.

        An upload that the transport breaks off is begun again; `transferred` then counts from 0 again.

        Raises:
            DataLoss: what arrived has another digest.
            Unavailable: the server could not be reached for the whole retry window.
        """
        digest = hashlib.sha256(content).hexdigest()
        if self.missing([digest]):
            blob = blob_pb2.Blob(digest=digest, size_bytes=len(content))
            stored = self._connection.upload(self._stub.WriteBlob, lambda: _write_requests(blob, content, transferred))
            if stored != blob:
                raise DataLoss(
                    f"sent a blob of {len(content)} bytes with SHA-256 {digest}, "
                    f"but the server stored one of {stored.size_bytes} bytes with {stored.digest}"
                )
        elif transferred:
            transferred(len(content), len(content))
        return digest

    def download(self, digest: str, *, received: Callable[[int], None] | None = None) -> bytes:
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
        ):
            content.extend(response.chunk)
            if received:
                received(len(content))
        found = hashlib.sha256(content).hexdigest()
        if found != digest:
            raise DataLoss(
                f"asked for the blob with SHA-256 {digest}, received {len(content)} bytes with {found}",
                reason="DIGEST_MISMATCH",
                metadata={"expected": digest, "actual": found},
            )
        return bytes(content)


def _write_requests(
    blob: blob_pb2.Blob, content: bytes, transferred: Transferred | None
) -> Iterator[blob_pb2.WriteBlobRequest]:
    yield blob_pb2.WriteBlobRequest(blob=blob)
    view = memoryview(content)
    for start in range(0, len(content), CHUNK_BYTES):
        chunk = bytes(view[start : start + CHUNK_BYTES])
        yield blob_pb2.WriteBlobRequest(chunk=chunk)
        if transferred:
            transferred(start + len(chunk), len(content))
