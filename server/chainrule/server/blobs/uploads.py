"""Uploads in progress. What has arrived is kept through breaks and restarts; several uploads of one blob are one."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Literal

import google_crc32c

from chainrule.server.blobs.files import publish, room_on_disk
from chainrule.server.errors import (
    DamagedBlobError,
    DamagedChunkError,
    IncompleteUploadError,
    InvalidRequestError,
    WrongOffsetError,
)

LIFETIME_S = 24 * 3600.0
"""How long the part of a blob that has arrived is kept while nothing more comes."""

_READ_BYTES = 1024**2


@dataclass(frozen=True)
class Blob:
    """A byte string that is stored, or announced."""

    digest: str
    size_bytes: int


class Sender:
    """On whose behalf something is uploaded: here, anybody's, who may know all that is stored."""

    name: str = ""
    """Keeps what has arrived apart from what others send; empty: not apart. Letters, digits and hyphens."""

    def knows(self, digest: str) -> bool:  # noqa: ARG002 — anybody
        """Whether the sender may learn that a blob is stored; else it has to be sent whole. May block."""
        return True

    def check_room(self, blob: Blob, arriving_bytes: int) -> None:
        """Raise StorageFullError if a blob is more than the sender may store. May block.

        Args:
            arriving_bytes: size of all that the sender has begun to upload, this blob included.
        """


@dataclass(frozen=True)
class Announcement:
    """The beginning of an upload."""

    blob: Blob
    offset_bytes: int = 0
    """Bytes before the first chunk."""


@dataclass(frozen=True)
class Chunk:
    """The next bytes of an upload."""

    content: bytes
    crc32c: int | None = None
    """Their CRC-32C, if the sender says it."""


@dataclass(frozen=True)
class WriteStatus:
    """How much of a blob has arrived."""

    committed_bytes: int
    complete: bool


@dataclass(frozen=True)
class Begun:
    """What has begun to arrive."""

    blobs: int
    size_bytes: int


class Uploads:
    """The parts of blobs that have arrived, in files named by digest. Its methods block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = Lock()
        self._active: dict[str, Partial] = {}  # by the name of the file

    def open(self, announced: Announcement, target: Path, sender: Sender) -> Upload:
        """Go on with a blob, or begin; it goes to `target` once it is whole. To be closed with `close`. Does not
        block."""
        name = _file_of(announced.blob.digest, sender)
        with self._lock:
            partial = self._active.get(name)
            if partial is None:
                partial = self._active[name] = Partial(self._folder / name, announced.blob, target)
            partial.users += 1
        return Upload(partial, announced)

    def commit(self, upload: Upload) -> None:
        """Make the blob visible, if it is whole. Raises IncompleteUploadError, or DamagedBlobError if its content has
        another digest: then nothing of it is kept. Either way, who uploads it again begins anew."""
        try:
            upload.partial.commit()
        finally:
            with self._lock:
                if upload.partial.is_over:
                    self._forget(upload.partial)

    def close(self, upload: Upload) -> None:
        """It has ended. What has arrived stays."""
        partial = upload.partial
        with self._lock:
            partial.users -= 1
            if partial.users:
                return
            self._forget(partial)
        if partial.close():
            with self._lock:
                if partial.path.name not in self._active:  # else the file is another's by now
                    partial.path.unlink(missing_ok=True)

    def arrived_bytes(self, digest: str, sender: Sender) -> int:
        """How much of a blob that is not whole yet has arrived from a sender."""
        name = _file_of(digest, sender)
        with self._lock:
            partial = self._active.get(name)
        if partial is not None:
            return partial.arrived_bytes()
        try:
            return (self._folder / name).stat().st_size
        except FileNotFoundError:
            return 0

    def expected_bytes(self, sender: Sender) -> int:
        """How much of the blobs that are arriving from a sender is yet to come. What others announce is theirs to send,
        or not: it keeps nobody out."""
        with self._lock:
            active = [partial for name, partial in self._active.items() if _is_of(name, sender)]
        return sum(partial.blob.size_bytes - partial.arrived_bytes() for partial in active)

    def in_progress(self) -> int:
        """How many blobs somebody sends at the moment."""
        with self._lock:
            return len(self._active)

    def begun(self, sender: Sender) -> Begun:
        """All that a sender has begun to upload: its size as announced where it is arriving, else what is here."""
        with self._lock:
            active = dict(self._active)
        sizes = [partial.blob.size_bytes for name, partial in active.items() if _is_of(name, sender)]
        for path in self._folder.iterdir():
            if _is_of(path.name, sender) and path.name not in active:
                with suppress(FileNotFoundError):
                    sizes.append(path.stat().st_size)
        return Begun(len(sizes), sum(sizes))

    def expire(self) -> None:
        """Give up the uploads of which nothing has come for longer than LIFETIME_S."""
        with self._lock:
            for path in self._folder.iterdir():
                with suppress(FileNotFoundError):
                    if path.name not in self._active and time.time() - path.stat().st_mtime > LIFETIME_S:
                        path.unlink()

    def _forget(self, partial: Partial) -> None:
        name = partial.path.name
        if self._active.get(name) is partial:
            del self._active[name]


def _file_of(digest: str, sender: Sender) -> str:
    return f"{digest}.{sender.name}" if sender.name else digest


def _is_of(name: str, sender: Sender) -> bool:
    return name.partition(".")[2] == sender.name


class Upload:
    """One caller's part in the upload of a blob."""

    def __init__(self, partial: Partial, announced: Announcement) -> None:
        self.partial = partial
        self._announced = announced
        self._at = announced.offset_bytes

    def begin(self) -> None:
        """Find out what has arrived. Raises WrongOffsetError if bytes before the offset have not, and
        InvalidRequestError if the blob is arriving with another size."""
        self.partial.join(self._announced)

    def write(self, chunk: Chunk) -> None:
        """Add the next bytes. Raises DamagedChunkError, DamagedBlobError if they are more than announced, or
        StorageFullError."""
        if chunk.crc32c is not None and (found := google_crc32c.value(chunk.content)) != chunk.crc32c:
            raise DamagedChunkError(
                f"the {len(chunk.content)} bytes from {self._at} on arrived with CRC-32C {found:08x}, and were sent "
                f"with {chunk.crc32c:08x}; send them again",
                committed_bytes=str(self.partial.arrived_bytes()),
            )
        self.partial.write(self._at, chunk.content)
        self._at += len(chunk.content)


class Partial:
    """What has arrived of a blob, for all who send it."""

    def __init__(self, path: Path, blob: Blob, target: Path) -> None:
        self.path = path
        self.blob = blob
        self._target = target
        self._lock = Lock()
        self._file: FileIO | None = None
        self._hash = hashlib.sha256()
        self._arrived = 0
        self._closed = False
        self._outcome: Literal["stored", "damaged"] | None = None
        self.users = 0

    def join(self, announced: Announcement) -> None:
        """Somebody sends it, from an offset on."""
        blob, offset_bytes = announced.blob, announced.offset_bytes
        with self._lock:
            if blob != self.blob:
                raise InvalidRequestError.of(
                    "blob.size_bytes",
                    f"is {blob.size_bytes}, but the blob is arriving with {self.blob.size_bytes} bytes; one is wrong",
                )
            if self._file is None and not self._closed:  # else who sends this has been cancelled
                self._load()
            if offset_bytes > self._arrived:
                raise WrongOffsetError(
                    f'{self._arrived} bytes of blob "{blob.digest}" have arrived, and the upload begins at '
                    f"{offset_bytes}; ask QueryWriteStatus where to go on",
                    committed_bytes=str(self._arrived),
                )

    @property
    def is_over(self) -> bool:
        """Whether it is stored, or was wrong."""
        return self._outcome is not None

    def arrived_bytes(self) -> int:
        """How much of it is here."""
        with self._lock:
            return self._arrived

    def write(self, at: int, content: bytes) -> None:
        """Add what of the content, whose place is `at`, has not arrived."""
        with self._lock:
            self._refuse_damaged()
            if at + len(content) > self.blob.size_bytes:
                raise DamagedBlobError(
                    f'upload of blob "{self.blob.digest}" has more than the {self.blob.size_bytes} bytes announced'
                )
            if self._outcome is not None or at + len(content) <= self._arrived:
                return
            new = content[self._arrived - at :]
            if self._file is None:  # who sent this has been cancelled
                return
            with room_on_disk(self.blob.size_bytes, self.path.parent):
                self._file.seek(self._arrived)
                left = memoryview(new)
                while left:
                    left = left[self._file.write(left) :]
            self._hash.update(new)
            self._arrived += len(new)

    def commit(self) -> None:
        """Make it visible, once for all."""
        with self._lock:
            self._refuse_damaged()
            if self._outcome is not None:
                return
            if self._arrived < self.blob.size_bytes:
                raise IncompleteUploadError(
                    f'upload of blob "{self.blob.digest}" ended after {self._arrived} of {self.blob.size_bytes} '
                    "bytes; go on from there",
                    committed_bytes=str(self._arrived),
                )
            if self._file is None:  # who sent this has been cancelled
                return
            if self._hash.hexdigest() != self.blob.digest:
                self._outcome = "damaged"
                self.path.unlink()
                self._refuse_damaged()
            with room_on_disk(self.blob.size_bytes, self.path.parent):
                os.fsync(self._file.fileno())
                publish(self.path, self._target)
            self._outcome = "stored"

    def close(self) -> bool:
        """Nobody sends it any more. What has arrived stays; true if that is nothing."""
        with self._lock:
            self._closed = True
            if self._file is None:
                return False
            self._file.close()
            self._file = None
            return self._outcome is None and not self._arrived

    def _load(self) -> None:
        """Find what arrived earlier."""
        self.path.touch()
        self._file = self.path.open("r+b", buffering=0)
        while content := self._file.read(_READ_BYTES):
            self._hash.update(content)
            self._arrived += len(content)
        if self._arrived > self.blob.size_bytes:  # of one that was announced as larger
            self._file.truncate(0)
            self._hash, self._arrived = hashlib.sha256(), 0

    def _refuse_damaged(self) -> None:
        if self._outcome == "damaged":
            raise DamagedBlobError(
                f'upload of blob "{self.blob.digest}" arrived with SHA-256 {self._hash.hexdigest()}; '
                "nothing was stored, send it again",
                expected=self.blob.digest,
                actual=self._hash.hexdigest(),
            )
