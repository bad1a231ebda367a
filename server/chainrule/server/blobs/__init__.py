"""Blobs: byte strings named by their SHA-256. A blob is there whole or not at all."""

from chainrule.server.blobs.store import (
    MAX_BLOB_BYTES,
    MAX_DIGESTS,
    BlobStore,
    Collected,
    Usage,
    check_digest,
    check_digests,
    no_blob,
)
from chainrule.server.blobs.uploads import Announcement, Blob, Chunk, Sender, WriteStatus

__all__ = [
    "MAX_BLOB_BYTES",
    "MAX_DIGESTS",
    "Announcement",
    "Blob",
    "BlobStore",
    "Chunk",
    "Collected",
    "Sender",
    "Usage",
    "WriteStatus",
    "check_digest",
    "check_digests",
    "no_blob",
]
