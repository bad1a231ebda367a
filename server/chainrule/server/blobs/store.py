"""What blobs are stored: one file each, named by their SHA-256. A blob is there whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import math
import os
import re
import secrets
import shutil
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, cast

import google_crc32c

from chainrule.server.blobs.checksums import BLOCK_BYTES, Checksums
from chainrule.server.blobs.files import fsync_folder, publish, room_on_disk
from chainrule.server.blobs.uploads import Announcement, Blob, Chunk, Sender, Uploads, WriteStatus
from chainrule.server.errors import (
    DamagedBlobError,
    DamagedChunkError,
    IncompleteUploadError,
    InvalidRequestError,
    NotFoundError,
    StorageFullError,
    StoreUnavailableError,
    echo,
)

Unreferenced = Callable[[Sequence[str]], Iterable[str]]
"""Tells which of some digests nothing refers to."""
MAX_BLOB_BYTES = 64 * 1024**3
"""Largest blob that is accepted."""
MAX_DIGESTS = 1000
"""Most digests that are looked for at a time."""
MAX_BEGUN = 1000
"""Most uploads that one sender may have begun and not finished."""
IDLE_S = 60.0
"""For how long an upload waits for its next part."""

logger = logging.getLogger(__name__)

_DIGEST = re.compile(r"[0-9a-f]{64}")
_OURS = "put-"
_DAMAGED = ".damaged"
_EMPTY = hashlib.sha256().hexdigest()


@dataclass(frozen=True)
class Usage:
    """What is stored."""

    blobs: int
    size_bytes: int


@dataclass(frozen=True)
class Collected:
    """What was removed because nothing referred to it."""

    blobs: int = 0
    size_bytes: int = 0


def check_digest(digest: str, *, field: str) -> str:
    """The digest, if it is well formed. Nothing else ever becomes part of a path."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidRequestError.of(field, f"{echo(digest)} is not a SHA-256: 64 lower-case hexadecimal digits")
    return digest


def check_digests(digests: Sequence[str]) -> Sequence[str]:
    """The digests to look for, if they are well formed and not too many. Raises InvalidRequestError."""
    if len(digests) > MAX_DIGESTS:
        raise InvalidRequestError.of("digests", f"are {len(digests)}; ask for at most {MAX_DIGESTS:,}")
    return [check_digest(digest, field="digests") for digest in digests]


def no_blob(digest: str) -> NotFoundError:
    """What is said of a blob that is not there, or not for who asks."""
    return NotFoundError(f'there is no blob "{digest}"; upload it with WriteBlob', digest=digest)


_ANYBODY = Sender()


class BlobStore:
    """Blobs in a folder: `{folder}/{first two digits}/{digest}`, uploads in progress in `{folder}/incoming`.

    Args:
        limit_bytes: most bytes of blobs with which something more is taken in; None: as many as the disk holds. What is
            `put` counts, and is never refused for it.
        idle_s: for how long an upload waits for its next part.
    """

    def __init__(self, folder: Path, *, limit_bytes: int | None = None, idle_s: float = IDLE_S) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._idle_s = idle_s
        self._incoming = folder / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        fsync_folder(folder.parent)
        for leftover in self._incoming.glob(f"{_OURS}*"):  # of a crash
            leftover.unlink()
        self._uploads = Uploads(self._incoming)
        self._uploads.expire()
        self._lock = Lock()
        self._held: Counter[str] = Counter()
        self._checksums = Checksums()

    def path(self, digest: str) -> Path:
        """Where a blob lies. Raises NotFoundError if it is not there, or FileNotFoundError as `contains` does."""
        if not self.contains(digest):
            raise no_blob(digest)
        return self._path(digest)

    @property
    def folder(self) -> Path:
        """Where the blobs lie: each in `{first two digits}/{digest}`."""
        return self._folder

    def start_of(self, digest: str, length: int) -> bytes:
        """The first bytes of a blob, as they are on disk. Raises NotFoundError."""
        with self.path(digest).open("rb") as file:
            return file.read(length)

    def contains(self, digest: str) -> bool:
        """Whether a blob is there. A file cut off at its beginning counts as missing.

        Raises StoreUnavailableError if the folder of all blobs is not there: that says nothing of any of them.
        """
        path = self._path(digest)
        if path.exists():
            return digest == _EMPTY or path.stat().st_size > 0
        if not self._incoming.is_dir():
            raise StoreUnavailableError(f"the folder of all blobs, {self._folder}, is not there; mount or restore it")
        return False

    def missing(self, digests: Sequence[str]) -> list[str]:
        """Those that are not there, in the order given. Raises InvalidRequestError if they are too many."""
        missing = [digest for digest in check_digests(digests) if not self.contains(digest)]
        with self._lock:
            self._renew(set(digests) - set(missing))  # who asks is about to refer to them
        return missing

    def size(self, digest: str) -> int:
        """Length of a blob in bytes. Raises NotFoundError."""
        return self.path(digest).stat().st_size

    def read(self, digest: str) -> bytes:
        """A blob's content.

        Raises NotFoundError, or DamagedBlobError if it no longer has its digest: it is then missing until it is
        uploaded again.
        """
        with self.path(digest).open("rb") as file:
            content = file.read()
            self._check(digest, hashlib.sha256(content).hexdigest(), file)
        return content

    def check(self, digest: str) -> int:
        """Read a blob to compare it with its digest; returns its size in bytes. Raises what `read` raises."""
        return sum(len(chunk.content) for chunk in self.download(digest, trusting=False))

    def download(
        self, digest: str, *, offset_bytes: int = 0, limit_bytes: int = 0, trusting: bool = True
    ) -> Iterator[Chunk]:
        """A blob's content from an offset on, at most `limit_bytes` of it (0: all), in chunks with their checksums.

        A blob that is read whole is compared with its digest, before its last chunk is handed out. From then on each of
        its blocks is compared with the checksum that it had, which is less work; a part of one that nobody
        has read whole cannot be checked here.

        Args:
            trusting: whether to take checksums for it; else it is compared with its digest again.

        Raises NotFoundError, InvalidRequestError if the blob has fewer bytes than the offset, or DamagedBlobError as
        `read` does.
        """
        path = self.path(digest)
        size = path.stat().st_size
        if not 0 <= offset_bytes <= size:
            raise InvalidRequestError.of("offset_bytes", f"is {offset_bytes}; use 0 to {size}, the size of the blob")
        if limit_bytes < 0:
            raise InvalidRequestError.of("limit_bytes", f"is {limit_bytes}; use 0 for all, or more")
        end = min(size, offset_bytes + limit_bytes) if limit_bytes else size
        known = self._checksums.of(digest) if trusting else None
        with path.open("rb") as file:
            if known is not None:
                if len(known) != math.ceil(size / BLOCK_BYTES):
                    self._check(digest, _sha256(file), file)
                yield from self._compared(digest, file, known, offset_bytes, end)
            elif offset_bytes == 0 and end == size:
                yield from self._hashed(digest, file)
            else:
                file.seek(offset_bytes)
                while content := file.read(min(BLOCK_BYTES, end - file.tell())):
                    yield Chunk(content, google_crc32c.value(content))

    def _compared(self, digest: str, file: BinaryIO, known: Sequence[int], begin: int, end: int) -> Iterator[Chunk]:
        """The bytes from `begin` to `end`; each block that has some of them is read whole and checked."""
        file.seek(begin - begin % BLOCK_BYTES)
        while (at := file.tell()) < end:
            block = file.read(BLOCK_BYTES)
            checksum = google_crc32c.value(block)
            if checksum != known[at // BLOCK_BYTES]:
                self._check(digest, _sha256(file), file)
                raise DamagedChunkError(
                    f'a part of blob "{digest}" was not read as it is on disk; read it again', digest=digest
                )
            asked = block[max(begin - at, 0) : end - at]
            yield Chunk(asked, checksum if len(asked) == len(block) else google_crc32c.value(asked))

    def _hashed(self, digest: str, file: BinaryIO) -> Iterator[Chunk]:
        """All of it; the last chunk is not handed out before the whole has been found right."""
        found, checksums = hashlib.sha256(), array("I")
        held: Chunk | None = None
        while content := file.read(BLOCK_BYTES):
            found.update(content)
            checksums.append(google_crc32c.value(content))
            if held is not None:
                yield held
            held = Chunk(content, checksums[-1])
        self._check(digest, found.hexdigest(), file)
        self._checksums.keep(digest, checksums)
        if held is not None:
            yield held

    def put(self, content: bytes | memoryview, *, digest: str | None = None) -> str:
        """Store a byte string and return its digest, which is computed unless it is known. Raises StorageFullError."""
        digest = digest or hashlib.sha256(content).hexdigest()
        temporary = self._incoming / f"{_OURS}{secrets.token_hex(8)}"
        try:
            with room_on_disk(len(content), self._folder):
                with temporary.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                publish(temporary, self._path(digest))
        finally:
            temporary.unlink(missing_ok=True)
        return digest

    def write_status(self, digest: str, sender: Sender = _ANYBODY) -> WriteStatus:
        """How much of a blob has arrived."""
        path = self._path(digest)
        if self.contains(digest) and sender.knows(digest):
            return WriteStatus(path.stat().st_size, complete=True)
        return WriteStatus(self._uploads.arrived_bytes(digest, sender), complete=False)

    async def receive(self, parts: AsyncIterator[Announcement | Chunk | None], sender: Sender = _ANYBODY) -> Blob:
        """Store what comes in parts: what the blob will be and where the chunks begin, then these. A blob that is there
        already, and that the sender may know to be there, is not stored again. What comes before an error is kept: see
        `write_status`.

        Raises InvalidRequestError if the parts are not these, IncompleteUploadError if none comes for too long, and
        what `Upload` raises.
        """
        parts = _lively(parts, self._idle_s)
        announced = await anext(parts, None)
        if not isinstance(announced, Announcement):
            raise InvalidRequestError.of("blob", "is not set in the first message; begin with the digest and the size")
        blob = announced.blob
        check_digest(blob.digest, field="blob.digest")
        if not 0 <= blob.size_bytes <= MAX_BLOB_BYTES:
            raise InvalidRequestError.of("blob.size_bytes", f"is {blob.size_bytes}; use 0 to {MAX_BLOB_BYTES}")
        if not 0 <= announced.offset_bytes <= blob.size_bytes:
            raise InvalidRequestError.of(
                "write_offset_bytes", f"is {announced.offset_bytes}; use 0 to {blob.size_bytes}, the size of the blob"
            )
        stored = await asyncio.to_thread(self._stored, blob.digest, sender)
        if stored is not None:
            await _pass_over(parts, blob.size_bytes - announced.offset_bytes)
            return stored
        upload = self._uploads.open(announced, self._path(blob.digest), sender)
        try:
            await asyncio.to_thread(self._check_room, blob, sender, more_bytes=0)  # it is announced
            await asyncio.to_thread(upload.begin)
            async for chunk in parts:
                if not isinstance(chunk, Chunk):
                    raise InvalidRequestError.of("chunk", "is not set; every message after the first carries a chunk")
                await asyncio.to_thread(upload.write, chunk)
            await asyncio.to_thread(self._uploads.commit, upload)
        finally:
            await asyncio.to_thread(self._uploads.close, upload)
        return blob

    def check_room(self, blob: Blob, sender: Sender = _ANYBODY) -> None:
        """Raises StorageFullError if a blob that is about to be `put` on a sender's behalf is more than there is room
        for, beside what that has begun to upload."""
        self._check_room(blob, sender, more_bytes=blob.size_bytes)

    # --- what may go -------------------------------------------------------------------------------------------

    @contextmanager
    def hold(self, *digests: str) -> Iterator[None]:
        """Keep blobs that nothing refers to yet from being removed: until what is about to refer to them does."""
        with self._lock:
            self._held.update(digests)
            self._renew(digests)
        try:
            yield
        finally:
            with self._lock:
                self._held.subtract(digests)
                self._held += Counter()  # leaves out those that are 0

    def discard(self, digests: Iterable[str], unreferenced: Unreferenced, *, grace_s: float = 0.0) -> Collected:
        """Remove those of some blobs that nothing refers to, that nobody holds, and that were not stored, or held, in
        the last `grace_s` seconds. Who reads one at the moment reads it to its end.

        Args:
            unreferenced: tells which of some digests nothing refers to.
        """
        found = Collected()
        with self._lock:
            for digest in unreferenced(list(digests)):
                with suppress(FileNotFoundError):
                    path = self._path(digest)
                    facts = path.stat()
                    if not self._held[digest] and time.time() - facts.st_mtime >= grace_s:
                        path.unlink()
                        found = Collected(found.blobs + 1, found.size_bytes + facts.st_size)
        return found

    def collect(
        self, unreferenced: Unreferenced, *, grace_s: float, stopped: Callable[[], bool] = lambda: False
    ) -> Collected:
        """Look through all blobs for those that may go, as `discard` has it. Uploads that have stopped are given up,
        and what was damaged is removed."""
        self._uploads.expire()
        total = Collected()
        for path in self._files():
            with suppress(FileNotFoundError):
                if path.suffix == _DAMAGED and time.time() - path.stat().st_mtime >= grace_s:
                    path.unlink()
        digests = (path.name for path in self._files() if _DIGEST.fullmatch(path.name))
        while not stopped() and (batch := list(itertools.islice(digests, MAX_DIGESTS))):
            found = self.discard(batch, unreferenced, grace_s=grace_s)
            total = Collected(total.blobs + found.blobs, total.size_bytes + found.size_bytes)
        return total

    def stored_bytes(self) -> int:
        """Size of all blobs, and of what has arrived of others."""
        total = 0
        for path in (*self._files(), *self._incoming.iterdir()):
            with suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def usage(self) -> Usage:
        """How many blobs there are, and their size; without what is arriving."""
        sizes = []
        for path in self._files():
            with suppress(FileNotFoundError):
                sizes.append(path.stat().st_size)
        return Usage(len(sizes), sum(sizes))

    def uploads_in_progress(self) -> int:
        """How many blobs are arriving now, each counted once however many send it."""
        return self._uploads.in_progress()

    # --- private -----------------------------------------------------------------------------------------------

    def _renew(self, digests: Iterable[str]) -> None:
        for digest in digests:
            with suppress(FileNotFoundError):
                os.utime(self._path(digest))

    def _files(self) -> Iterator[Path]:
        return (path for folder in self._folder.glob("[0-9a-f][0-9a-f]") for path in folder.iterdir())

    def _check_room(self, blob: Blob, sender: Sender, *, more_bytes: int) -> None:
        """Refuse what will not fit, beside what the sender has begun to upload, before it is stored.

        Args:
            more_bytes: what is to come besides what the sender has announced.
        """
        begun = self._uploads.begun(sender)
        if begun.blobs > MAX_BEGUN:
            raise StorageFullError(
                f"{begun.blobs - 1:,} other uploads have begun and are not finished, of at most {MAX_BEGUN:,}; finish "
                "some: QueryWriteStatus tells where to go on; those of which nothing comes for a day are given up"
            )
        sender.check_room(blob, begun.size_bytes + more_bytes)
        missing = self._uploads.expected_bytes(sender) + more_bytes
        free = shutil.disk_usage(self._folder).free
        if missing > free:
            raise _no_room(blob, sender, f"{free:,} are free on the service's disk; have room made there")
        if self._limit_bytes is not None and missing + (stored := self.stored_bytes()) > self._limit_bytes:
            raise _no_room(
                blob,
                sender,
                f"{stored:,} of the {self._limit_bytes:,} that the service may store are taken; have what nothing "
                "refers to removed with chainrule admin gc, or serve with a larger --storage-limit",
            )

    def _stored(self, digest: str, sender: Sender) -> Blob | None:
        """The blob, if it is there and whole, and the sender may know it. One that is damaged is moved aside."""
        if not sender.knows(digest):
            return None
        try:
            with self.hold(digest):
                return Blob(digest, self.check(digest))
        except (NotFoundError, DamagedBlobError):
            return None

    def _check(self, digest: str, actual: str, file: BinaryIO) -> None:
        if actual == digest:
            return
        path = self._path(digest)
        aside = path.with_suffix(_DAMAGED)
        with self._lock, suppress(FileNotFoundError):  # another reader was faster
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):  # else it has been uploaded again meanwhile
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


def _no_room(blob: Blob, sender: Sender, facts: str) -> StorageFullError:
    """A sender who has others beside it is not told what these take: of the figures before and after an upload it could
    see what they store."""
    said = f'there is no room for the {blob.size_bytes:,} bytes of blob "{blob.digest}"'
    if not sender.name:
        return StorageFullError(f"{said}: {facts}")
    logger.warning("%s of %s: %s", said, sender.name, facts)
    return StorageFullError(
        f"{said} on the service's disk, or within what it may store; ask an administrator of the server to make room"
    )


def _sha256(file: BinaryIO) -> str:
    file.seek(0)
    return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()


async def _lively(
    parts: AsyncIterator[Announcement | Chunk | None], idle_s: float
) -> AsyncIterator[Announcement | Chunk | None]:
    """The parts, as long as they come: room is kept for what is announced, and somebody else may need it. Raises
    IncompleteUploadError."""
    while True:
        try:
            async with asyncio.timeout(idle_s):
                part = await anext(parts)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise IncompleteUploadError(
                f"nothing more of the upload has come for {idle_s:g} s; ask QueryWriteStatus where to go on"
            ) from error
        yield part


async def _pass_over(parts: AsyncIterator[Announcement | Chunk | None], most_bytes: int) -> None:
    """Let a client say the rest of an upload that is not needed, as far as there can be more of it: many take an answer
    that comes before for a broken connection."""
    async for part in parts:
        if not isinstance(part, Chunk):
            return
        most_bytes -= max(len(part.content), 1)
        if most_bytes < 0:
            return
