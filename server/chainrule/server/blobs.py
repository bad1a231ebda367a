"""Blobs: byte strings named by their SHA-256, one file each. A blob is there whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from chainrule.server.errors import (
    DamagedBlobError,
    IncompleteUploadError,
    InvalidRequestError,
    NotFoundError,
    echo,
)

MAX_BLOB_BYTES = 64 * 1024**3
"""Largest blob that is accepted."""
MAX_DIGESTS = 1000
"""Most digests that are looked for at a time."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_COPY_BYTES = 1024**2
_EMPTY = hashlib.sha256().hexdigest()


@dataclass(frozen=True)
class Blob:
    """A byte string that is stored, or announced."""

    digest: str
    size_bytes: int


def check_digest(digest: str, *, field: str) -> str:
    """The digest, if it is well formed. Nothing else ever becomes part of a path."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidRequestError.of(field, f"{echo(digest)} is not a SHA-256: 64 lower-case hexadecimal digits")
    return digest


class BlobStore:
    """Blobs in a folder: `{folder}/{first two digits}/{digest}`, uploads in progress in `{folder}/incoming`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._incoming = folder / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        _fsync_folder(folder.parent)
        for leftover in self._incoming.iterdir():  # of uploads that a crash cut off
            leftover.unlink()

    def path(self, digest: str) -> Path:
        """Where a blob lies. Raises NotFoundError if it is not there."""
        if not self.contains(digest):
            raise NotFoundError(f'there is no blob "{digest}"; upload it with WriteBlob', digest=digest)
        return self._path(digest)

    def contains(self, digest: str) -> bool:
        """Whether a blob is there. A file cut off at its beginning counts as missing."""
        path = self._path(digest)
        return path.exists() and (digest == _EMPTY or path.stat().st_size > 0)

    def missing(self, digests: list[str]) -> list[str]:
        """Those that are not there, in the order given. Raises InvalidRequestError if they are too many."""
        if len(digests) > MAX_DIGESTS:
            raise InvalidRequestError.of("digests", f"are {len(digests)}; ask for at most {MAX_DIGESTS:,}")
        return [digest for digest in digests if not self.contains(check_digest(digest, field="digests"))]

    def size(self, digest: str) -> int:
        """Length of a blob in bytes. Raises NotFoundError."""
        return self.path(digest).stat().st_size

    def read(self, digest: str) -> bytes:
        """A blob's content.

        Raises NotFoundError, or DamagedBlobError if it no longer has its digest: it is then missing until it is
        uploaded again.
        """
        content = self.path(digest).read_bytes()
        self._check(digest, hashlib.sha256(content).hexdigest())
        return content

    def chunks(self, digest: str, *, offset_bytes: int, chunk_bytes: int) -> Iterator[bytes]:
        """A blob's content from an offset on, in pieces.

        Raises NotFoundError, InvalidRequestError if the blob has fewer bytes than the offset, or, after its last piece,
        DamagedBlobError as `read` does; only a blob that is read from its beginning can be checked.
        """
        path = self.path(digest)
        size = path.stat().st_size
        if not 0 <= offset_bytes <= size:
            raise InvalidRequestError.of("offset_bytes", f"is {offset_bytes}; use 0 to {size}, the size of the blob")
        found = hashlib.sha256()
        with path.open("rb") as file:
            file.seek(offset_bytes)
            while chunk := file.read(chunk_bytes):
                found.update(chunk)
                yield chunk
        if offset_bytes == 0:
            self._check(digest, found.hexdigest())

    def remove(self, digest: str) -> None:
        """Remove a blob; one that is not there is no error. Who reads it at the moment reads it to its end."""
        self._path(digest).unlink(missing_ok=True)

    def put(self, content: bytes | memoryview, *, digest: str | None = None) -> str:
        """Store a byte string and return its digest, which is computed unless it is known."""
        digest = digest or hashlib.sha256(content).hexdigest()
        with Upload(self._path(digest), self._incoming, digest, len(content), checked=True) as upload:
            upload.write(content)
            upload.commit()
        return digest

    def upload(self, digest: str, size_bytes: int) -> Upload:
        """An upload that replaces the blob, if it is there; use as a context manager."""
        return Upload(self._path(digest), self._incoming, digest, size_bytes)

    async def receive(self, parts: AsyncIterator[Blob | bytes | None]) -> Blob:
        """Store what comes in parts: what the blob will be, then its content in chunks. A blob that is there already
        is not stored again.

        Raises InvalidRequestError if the parts are not these, and what `Upload` raises.
        """
        blob = await anext(parts, None)
        if not isinstance(blob, Blob):
            raise InvalidRequestError.of("blob", "is not set in the first message; begin with the digest and the size")
        check_digest(blob.digest, field="blob.digest")
        if not 0 <= blob.size_bytes <= MAX_BLOB_BYTES:
            raise InvalidRequestError.of("blob.size_bytes", f"is {blob.size_bytes}; use 0 to {MAX_BLOB_BYTES}")
        stored = await asyncio.to_thread(self._stored, blob.digest)
        if stored is not None:
            return stored
        with self.upload(blob.digest, blob.size_bytes) as upload:
            async for chunk in parts:
                if not isinstance(chunk, bytes):
                    raise InvalidRequestError.of("chunk", "is not set; every message after the first carries a chunk")
                await asyncio.to_thread(upload.write, chunk)
            await asyncio.to_thread(upload.commit)
        return blob

    def _stored(self, digest: str) -> Blob | None:
        """The blob, if it is there and whole. One that is damaged is moved aside."""
        try:
            return Blob(digest, sum(map(len, self.chunks(digest, offset_bytes=0, chunk_bytes=_COPY_BYTES))))
        except (NotFoundError, DamagedBlobError):
            return None

    def _check(self, digest: str, actual: str) -> None:
        if actual == digest:
            return
        path = self._path(digest)
        aside = path.with_suffix(".damaged")
        with contextlib.suppress(FileNotFoundError):  # another reader was faster
            path.replace(aside)
        raise DamagedBlobError(
            f'blob "{digest}" is damaged on disk: its content has SHA-256 {actual}. It was moved to {aside.name} and '
            "counts as missing: upload it again with WriteBlob",
            digest=digest,
            actual=actual,
        )

    def _path(self, digest: str) -> Path:
        check_digest(digest, field="digest")
        return self._folder / digest[:2] / digest


class Upload:
    """A blob on its way in, as a context manager: leaving it without `commit` leaves nothing behind."""

    def __init__(self, target: Path, incoming: Path, digest: str, size_bytes: int, *, checked: bool = False) -> None:
        self._target = target
        self._incoming = incoming
        self._digest = digest
        self._size_bytes = size_bytes
        self._received = 0
        self._hash = None if checked else hashlib.sha256()  # None: it is known that the content has the digest

    def write(self, chunk: bytes | memoryview) -> None:
        """Add the next bytes. Raises DamagedBlobError if they are more than announced."""
        self._received += len(chunk)
        if self._received > self._size_bytes:
            raise DamagedBlobError(
                f'upload of blob "{self._digest}" has more than the {self._size_bytes} bytes announced; '
                "nothing was stored"
            )
        if self._hash is not None:
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
        actual = self._digest if self._hash is None else self._hash.hexdigest()
        if actual != self._digest:
            raise DamagedBlobError(
                f'upload of blob "{self._digest}" arrived with SHA-256 {actual}; nothing was stored, send it again',
                expected=self._digest,
                actual=actual,
            )
        self._file.flush()
        os.fsync(self._file.fileno())
        folder = self._target.parent
        folder.mkdir(exist_ok=True)
        os.replace(self._temporary, self._target)
        _fsync_folder(folder)
        _fsync_folder(folder.parent)  # the folder may be new; if another upload made it, that may not be on disk yet

    def __enter__(self) -> Self:
        handle, name = tempfile.mkstemp(dir=self._incoming, prefix=f"{self._digest[:12]}-")
        self._file = os.fdopen(handle, "wb")
        self._temporary = Path(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        with contextlib.suppress(FileNotFoundError):  # committed: renamed away
            self._temporary.unlink()


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
