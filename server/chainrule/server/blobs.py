"""Blobs: byte strings named by their SHA-256, one file each. A blob is there whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from chainrule.server.errors import (
    DamagedBlobError,
    IncompleteUploadError,
    InvalidRequestError,
    NotFoundError,
)

_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_digest(digest: str, *, field: str) -> str:
    """The digest, if it is well formed. Nothing else ever becomes part of a path."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidRequestError.of(field, f"{digest!r} is not a SHA-256: 64 lower-case hexadecimal digits")
    return digest


class BlobStore:
    """Blobs in a folder: `{folder}/{first two digits}/{digest}`, uploads in progress in `{folder}/incoming`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._incoming = folder / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        for leftover in self._incoming.iterdir():  # of uploads that a crash cut off
            leftover.unlink()

    def path(self, digest: str) -> Path:
        """Where a blob lies. Raises NotFoundError if it is not there."""
        path = self._path(digest)
        if not path.exists():
            raise NotFoundError(f'there is no blob "{digest}"; upload it with WriteBlob', digest=digest)
        return path

    def contains(self, digest: str) -> bool:
        return self._path(digest).exists()

    def size(self, digest: str) -> int:
        """Length of a blob in bytes. Raises NotFoundError."""
        return self.path(digest).stat().st_size

    def read(self, digest: str) -> bytes:
        """A blob's content. Raises NotFoundError, or DamagedBlobError if it no longer has its digest."""
        content = self.path(digest).read_bytes()
        actual = hashlib.sha256(content).hexdigest()
        if actual != digest:
            raise DamagedBlobError(f'blob "{digest}" is damaged on disk: its content has SHA-256 {actual}')
        return content

    def put(self, content: bytes) -> str:
        """Store a byte string and return its digest."""
        digest = hashlib.sha256(content).hexdigest()
        with self.upload(digest, len(content)) as upload:
            upload.write(content)
            upload.commit()
        return digest

    def upload(self, digest: str, size_bytes: int) -> Upload:
        """Begin to store a blob; use as a context manager."""
        target = self._path(digest)
        target.parent.mkdir(exist_ok=True)
        return Upload(target, self._incoming, digest, size_bytes)

    def _path(self, digest: str) -> Path:
        check_digest(digest, field="digest")
        return self._folder / digest[:2] / digest


class Upload:
    """A blob on its way in. Leaving the `with` block without `commit` leaves nothing behind."""

    def __init__(self, target: Path, incoming: Path, digest: str, size_bytes: int) -> None:
        self._target = target
        self._digest = digest
        self._size_bytes = size_bytes
        self._received = 0
        self._hash = hashlib.sha256()
        handle, name = tempfile.mkstemp(dir=incoming, prefix=f"{digest[:12]}-")
        self._file = os.fdopen(handle, "wb")
        self._temporary = Path(name)

    def write(self, chunk: bytes) -> None:
        """Add the next bytes. Raises DamagedBlobError if they are more than announced."""
        self._received += len(chunk)
        if self._received > self._size_bytes:
            raise DamagedBlobError(
                f'upload of blob "{self._digest}" has more than the {self._size_bytes} bytes announced; '
                "nothing was stored"
            )
        self._hash.update(chunk)
        self._file.write(chunk)

    def commit(self) -> None:
        """Make the blob visible, once it is whole and on disk.

        Raises IncompleteUploadError or DamagedBlobError; then nothing is stored.
        """
        if self._received < self._size_bytes:
            raise IncompleteUploadError(
                f'upload of blob "{self._digest}" ended after {self._received} of {self._size_bytes} bytes; '
                "nothing was stored, send it again"
            )
        actual = self._hash.hexdigest()
        if actual != self._digest:
            raise DamagedBlobError(
                f'upload of blob "{self._digest}" arrived with SHA-256 {actual}; nothing was stored, send it again',
                expected=self._digest,
                actual=actual,
            )
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(self._temporary, self._target)
        _fsync_folder(self._target.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        with contextlib.suppress(FileNotFoundError):  # committed: renamed away
            self._temporary.unlink()


def read_chunks(path: Path, *, offset_bytes: int, chunk_bytes: int) -> Iterator[bytes]:
    """The content of a file from an offset on, in pieces."""
    with path.open("rb") as file:
        file.seek(offset_bytes)
        while chunk := file.read(chunk_bytes):
            yield chunk


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
