"""Uploads: what has arrived is kept, and a blob is there once it is whole and right."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import google_crc32c
import pytest

from chainrule.server.blobs import MAX_BLOB_BYTES, Announcement, Blob, BlobStore, Chunk, WriteStatus, uploads
from chainrule.server.blobs.uploads import Partial, Upload, Uploads
from chainrule.server.errors import (
    DamagedBlobError,
    DamagedChunkError,
    IncompleteUploadError,
    InvalidRequestError,
    ServiceError,
    StorageFullError,
    WrongOffsetError,
)

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
BLOB = Blob(DIGEST, 7000)
Part = Announcement | Chunk | None


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path)


async def parts(*values: Part) -> AsyncIterator[Part]:
    for value in values:
        yield value


def sent(start: int, end: int, *, right: bool = True) -> Chunk:
    """A piece of the content, with its checksum or a wrong one."""
    content = CONTENT[start:end]
    return Chunk(content, google_crc32c.value(content) ^ (not right))


def incoming(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "incoming").iterdir()]


async def cut(blobs: BlobStore, *values: Part, error: type[ServiceError] = IncompleteUploadError) -> ServiceError:
    """An upload that does not come to its end, and what is said about it."""
    with pytest.raises(error) as caught:
        await blobs.receive(parts(*values))
    return caught.value


# --- from the beginning to the end -----------------------------------------------------------------------------


async def test_a_blob_is_received_in_parts(blobs: BlobStore, tmp_path: Path) -> None:
    assert await blobs.receive(parts(Announcement(BLOB), sent(0, 100), Chunk(b""), sent(100, 7000))) == BLOB
    assert blobs.read(DIGEST) == CONTENT
    assert incoming(tmp_path) == []
    assert blobs.write_status(DIGEST) == WriteStatus(7000, complete=True)


async def test_nothing_is_a_blob_too(blobs: BlobStore) -> None:
    nothing = Blob(hashlib.sha256().hexdigest(), 0)
    assert await blobs.receive(parts(Announcement(nothing))) == nothing
    assert blobs.read(nothing.digest) == b""


async def test_a_blob_that_is_there_is_not_received_again(blobs: BlobStore) -> None:
    blobs.put(CONTENT)
    assert await blobs.receive(parts(Announcement(Blob(DIGEST, 3)))) == BLOB


async def test_who_sends_a_blob_that_is_there_may_say_all_of_it(blobs: BlobStore) -> None:
    """buf curl and grpc.aio take an answer that comes before for a failure."""
    blobs.put(CONTENT)
    rest = parts(sent(1000, 4000), sent(4000, 7000))

    async def upload() -> AsyncIterator[Part]:
        yield Announcement(BLOB, 1000)
        async for part in rest:
            yield part

    assert await blobs.receive(upload()) == BLOB
    assert await anext(rest, None) is None


async def test_of_a_blob_that_is_there_no_more_is_taken_in_than_it_has(blobs: BlobStore) -> None:
    blobs.put(CONTENT)
    taken = 0

    async def endless() -> AsyncIterator[Part]:
        nonlocal taken
        yield Announcement(BLOB)
        while True:
            taken += 1000
            yield Chunk(bytes(1000))

    assert await blobs.receive(endless()) == BLOB
    assert taken == 8000


@pytest.mark.parametrize("kept_bytes", [0, 100])
async def test_a_blob_that_is_damaged_is_received_again(blobs: BlobStore, kept_bytes: int) -> None:
    blobs.put(CONTENT)
    os.truncate(blobs.path(DIGEST), kept_bytes)
    await blobs.receive(parts(Announcement(BLOB), Chunk(CONTENT)))
    assert blobs.read(DIGEST) == CONTENT


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "blob: is not set in the first message"),
        ([Chunk(b"x")], "blob: is not set in the first message"),
        ([None], "blob: is not set in the first message"),
        ([Announcement(Blob("x", 1))], "blob.digest: 'x' is not a SHA-256"),
        ([Announcement(Blob("../" * 22, 1))], "is not a SHA-256"),
        ([Announcement(Blob(DIGEST, -1))], "blob.size_bytes: is -1; use 0 to"),
        ([Announcement(Blob(DIGEST, MAX_BLOB_BYTES + 1))], "blob.size_bytes: is 68719476737; use 0 to"),
        ([Announcement(BLOB, -1)], "write_offset_bytes: is -1; use 0 to 7000, the size of the blob"),
        ([Announcement(BLOB, 7001)], "write_offset_bytes: is 7001; use 0 to 7000"),
        ([Announcement(BLOB), None], "chunk: is not set"),
        ([Announcement(BLOB), Announcement(BLOB)], "chunk: is not set"),
    ],
)
async def test_parts_that_are_no_upload_are_refused(
    blobs: BlobStore, tmp_path: Path, given: list[Part], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        await blobs.receive(parts(*given))
    assert incoming(tmp_path) == []


# --- breaks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restarts", [False, True])
async def test_an_upload_goes_on_from_what_has_arrived(blobs: BlobStore, tmp_path: Path, restarts: bool) -> None:
    error = await cut(blobs, Announcement(BLOB), sent(0, 3000))
    assert "ended after 3000 of 7000 bytes; go on from there" in str(error)
    assert error.metadata == {"committed_bytes": "3000"}
    assert not blobs.contains(DIGEST)
    if restarts:
        blobs = BlobStore(tmp_path)
    assert blobs.write_status(DIGEST) == WriteStatus(3000, complete=False)
    await cut(blobs, Announcement(BLOB, 3000), sent(3000, 5000))
    await blobs.receive(parts(Announcement(BLOB, 5000), sent(5000, 7000)))
    assert blobs.read(DIGEST) == CONTENT
    assert incoming(tmp_path) == []


async def test_what_is_sent_again_is_passed_over(blobs: BlobStore) -> None:
    await cut(blobs, Announcement(BLOB), sent(0, 3000))
    await blobs.receive(parts(Announcement(BLOB, 1000), sent(1000, 2000), sent(2000, 4000), sent(4000, 7000)))
    assert blobs.read(DIGEST) == CONTENT


async def test_bytes_cannot_be_left_out(blobs: BlobStore) -> None:
    await cut(blobs, Announcement(BLOB), sent(0, 3000))
    error = await cut(blobs, Announcement(BLOB, 3001), sent(3001, 7000), error=WrongOffsetError)
    assert "3000 bytes of blob" in str(error)
    assert error.metadata == {"committed_bytes": "3000"}
    assert blobs.write_status(DIGEST) == WriteStatus(3000, complete=False)


async def test_a_damaged_chunk_is_noticed_at_once_and_what_came_before_is_kept(blobs: BlobStore) -> None:
    given = (Announcement(BLOB), sent(0, 3000), sent(3000, 4000, right=False), sent(4000, 7000))
    error = await cut(blobs, *given, error=DamagedChunkError)
    assert "the 1000 bytes from 3000 on arrived with CRC-32C" in str(error)
    assert error.metadata == {"committed_bytes": "3000"}
    await blobs.receive(parts(Announcement(BLOB, 3000), sent(3000, 7000)))
    assert blobs.read(DIGEST) == CONTENT


async def test_of_an_upload_with_another_digest_nothing_is_kept(blobs: BlobStore, tmp_path: Path) -> None:
    given = (Announcement(BLOB), Chunk(CONTENT[:-1] + b"?"))
    assert "arrived with SHA-256" in str(await cut(blobs, *given, error=DamagedBlobError))
    assert blobs.write_status(DIGEST) == WriteStatus(0, complete=False)
    assert incoming(tmp_path) == []


async def test_more_than_was_announced_is_refused_at_once(blobs: BlobStore) -> None:
    blob = Blob(DIGEST, 10)
    error = await cut(blobs, Announcement(blob), sent(0, 11), error=DamagedBlobError)
    assert "more than the 10 bytes announced" in str(error)


async def test_what_was_announced_with_another_size_does_not_count(blobs: BlobStore, tmp_path: Path) -> None:
    await cut(blobs, Announcement(Blob(DIGEST, 70_000)), Chunk(CONTENT), Chunk(CONTENT))
    await cut(blobs, Announcement(BLOB, 1), sent(1, 7000), error=WrongOffsetError)
    await blobs.receive(parts(Announcement(BLOB), Chunk(CONTENT)))
    assert blobs.read(DIGEST) == CONTENT
    assert incoming(tmp_path) == []


async def test_an_upload_that_has_stopped_is_given_up_after_a_day(blobs: BlobStore, tmp_path: Path) -> None:
    await cut(blobs, Announcement(BLOB), sent(0, 3000))
    long_ago = time.time() - uploads.LIFETIME_S
    os.utime(tmp_path / "incoming" / DIGEST, (long_ago + 60, long_ago + 60))
    blobs.collect(lambda digests: digests, grace_s=0)
    assert incoming(tmp_path) == [DIGEST]
    os.utime(tmp_path / "incoming" / DIGEST, (long_ago - 1, long_ago - 1))
    blobs.collect(lambda digests: digests, grace_s=0)
    assert incoming(tmp_path) == []


# --- several at a time -----------------------------------------------------------------------------------------


class Sender:
    """An upload whose parts are sent one by one."""

    def __init__(self, blobs: BlobStore, first: Announcement) -> None:
        self._parts: asyncio.Queue[Part] = asyncio.Queue()
        self._taken = asyncio.Semaphore(0)
        self._parts.put_nowait(first)
        self._untaken = 1
        self.receiving = asyncio.create_task(blobs.receive(self._stream()))

    async def _stream(self) -> AsyncIterator[Part]:
        while (part := await self._parts.get()) is not None:
            yield part
            self._taken.release()  # the receiver asks for the next: it has dealt with this one

    def put(self, part: Part) -> None:
        self._parts.put_nowait(part)

    async def send(self, part: Part) -> None:
        """Send a part, and wait until all so far have been dealt with."""
        self.put(part)
        self._untaken += part is not None
        while self._untaken:
            await self._taken.acquire()
            self._untaken -= 1


async def test_several_uploads_of_one_blob_are_one(blobs: BlobStore, tmp_path: Path) -> None:
    one, two = Sender(blobs, Announcement(BLOB)), Sender(blobs, Announcement(BLOB))
    await one.send(sent(0, 3000))
    await two.send(sent(0, 5000))
    await one.send(sent(3000, 7000))
    assert blobs.write_status(DIGEST) == WriteStatus(7000, complete=False)
    await one.send(None)
    assert await one.receiving == BLOB
    assert blobs.read(DIGEST) == CONTENT
    await two.send(sent(5000, 7000))
    await two.send(None)
    assert await two.receiving == BLOB
    assert blobs.read(DIGEST) == CONTENT
    assert incoming(tmp_path) == []


async def test_several_uploads_of_one_blob_fail_together_if_it_is_wrong(blobs: BlobStore, tmp_path: Path) -> None:
    one, two = Sender(blobs, Announcement(BLOB)), Sender(blobs, Announcement(BLOB))
    await one.send(Chunk(b"?" * 7000))
    await two.send(sent(0, 7000))
    for sender in (one, two):
        await sender.send(None)
        with pytest.raises(DamagedBlobError, match="nothing was stored, send it again"):
            await sender.receiving
    assert incoming(tmp_path) == []
    await blobs.receive(parts(Announcement(BLOB), Chunk(CONTENT)))
    assert blobs.read(DIGEST) == CONTENT


async def test_who_lingers_does_not_keep_a_blob_from_being_uploaded_again(blobs: BlobStore) -> None:
    lingering = Sender(blobs, Announcement(BLOB))
    await lingering.send(sent(0, 3000))
    await blobs.receive(parts(Announcement(BLOB, 3000), sent(3000, 7000)))
    blobs.discard([DIGEST], lambda digests: digests)
    assert blobs.write_status(DIGEST) == WriteStatus(0, complete=False)
    await blobs.receive(parts(Announcement(BLOB), sent(0, 7000)))
    await lingering.send(sent(3000, 7000))
    await lingering.send(None)
    assert await lingering.receiving == BLOB
    assert blobs.read(DIGEST) == CONTENT


async def test_what_is_arriving_counts_for_the_limit(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path, limit_bytes=10_000)
    one = Sender(blobs, Announcement(BLOB))
    await one.send(sent(0, 3000))
    other = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(StorageFullError, match="3,000 of the 10,000 that the service may store are taken"):
        await blobs.receive(parts(Announcement(Blob(other, 3001))))
    await one.send(sent(3000, 7000))
    await one.send(None)
    assert await one.receiving == BLOB


@pytest.mark.parametrize("come", [(), (Announcement(BLOB),), (Announcement(BLOB), sent(0, 3000))])
async def test_an_upload_of_which_nothing_comes_ends_and_what_has_arrived_is_kept(
    tmp_path: Path, come: tuple[Part, ...]
) -> None:
    blobs = BlobStore(tmp_path, idle_s=0.01)
    never = asyncio.Event()

    async def idle() -> AsyncIterator[Part]:
        for part in come:
            yield part
        await never.wait()

    with pytest.raises(IncompleteUploadError, match=r"nothing more of the upload has come for 0\.01 s"):
        await blobs.receive(idle())
    assert blobs.uploads_in_progress() == 0
    arrived = 3000 if len(come) > 1 else 0
    assert blobs.write_status(DIGEST) == WriteStatus(arrived, complete=False)
    await blobs.receive(parts(Announcement(BLOB, arrived), sent(arrived, 7000)))
    assert blobs.read(DIGEST) == CONTENT


async def test_who_begins_while_another_ends_keeps_its_file(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one before had sent nothing, and removes its empty file."""
    first = Sender(blobs, Announcement(BLOB))
    ended = Partial.close

    def close(partial: Partial) -> bool:
        monkeypatch.setattr(Partial, "close", ended)
        is_empty = ended(partial)
        begun.append(blobs._uploads.open(Announcement(BLOB), blobs._path(DIGEST), uploads.Sender()))
        begun[0].begin()
        return is_empty

    begun: list[Upload] = []
    monkeypatch.setattr(Partial, "close", close)
    await first.send(Chunk(b""))
    await first.send(None)
    with pytest.raises(IncompleteUploadError):
        await first.receiving
    begun[0].write(sent(0, 7000))
    blobs._uploads.commit(begun[0])
    assert blobs.read(DIGEST) == CONTENT


async def test_a_full_disk_is_said_so_and_what_has_arrived_is_kept(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Sender(blobs, Announcement(BLOB))
    await one.send(sent(0, 3000))
    with monkeypatch.context() as patched:
        patched.setattr(uploads, "room_on_disk", full)
        one.put(sent(3000, 7000))
        with pytest.raises(StorageFullError):
            await one.receiving
    assert blobs.write_status(DIGEST) == WriteStatus(3000, complete=False)
    await blobs.receive(parts(Announcement(BLOB, 3000), sent(3000, 7000)))
    assert blobs.read(DIGEST) == CONTENT


@contextmanager
def full(*_: object) -> Iterator[None]:
    raise StorageFullError("there is no room")
    yield


async def test_a_blob_arrives_with_one_size(blobs: BlobStore) -> None:
    one = Sender(blobs, Announcement(BLOB))
    await one.send(sent(0, 3000))
    with pytest.raises(InvalidRequestError, match="is 7001, but the blob is arriving with 7000 bytes; one is wrong"):
        await blobs.receive(parts(Announcement(Blob(DIGEST, 7001))))
    await one.send(sent(3000, 7000))
    await one.send(None)
    assert await one.receiving == BLOB


async def test_what_arrives_at_the_moment_is_not_given_up(blobs: BlobStore, tmp_path: Path) -> None:
    one = Sender(blobs, Announcement(BLOB))
    await one.send(sent(0, 3000))
    os.utime(tmp_path / "incoming" / DIGEST, (0, 0))
    blobs.collect(lambda digests: digests, grace_s=0)
    await one.send(sent(3000, 7000))
    await one.send(None)
    assert await one.receiving == BLOB


@pytest.mark.parametrize(("kind", "method"), [(Upload, "begin"), (Upload, "write"), (Uploads, "commit")])
async def test_a_cancelled_upload_keeps_what_has_arrived(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch, kind: type, method: str
) -> None:
    """Also where the cancellation comes while a thread is at work."""
    loop = asyncio.get_running_loop()
    reached, proceed, ended = asyncio.Event(), threading.Event(), asyncio.Event()
    original = getattr(kind, method)

    def held(*arguments: object) -> None:
        loop.call_soon_threadsafe(reached.set)
        proceed.wait(10)
        try:
            original(*arguments)
        finally:
            loop.call_soon_threadsafe(ended.set)

    await cut(blobs, Announcement(BLOB), sent(0, 3000))
    with monkeypatch.context() as patched:
        patched.setattr(kind, method, held)
        receiving = asyncio.create_task(blobs.receive(parts(Announcement(BLOB, 3000), sent(3000, 7000))))
        await reached.wait()
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        proceed.set()
        await ended.wait()
    assert blobs.write_status(DIGEST).committed_bytes >= 3000
    await blobs.receive(parts(Announcement(BLOB, 3000), sent(3000, 7000)))
    assert blobs.read(DIGEST) == CONTENT
