"""Blobs: whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chainrule.server import blobs as blobs_module
from chainrule.server.blobs import MAX_BLOB_BYTES, Blob, BlobStore, Upload
from chainrule.server.errors import DamagedBlobError, IncompleteUploadError, InvalidRequestError, NotFoundError

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path)


def incoming(blobs: BlobStore, tmp_path: Path) -> list[Path]:
    return list((tmp_path / "incoming").iterdir())


def test_a_stored_blob_can_be_read_by_its_digest(blobs: BlobStore) -> None:
    assert blobs.put(CONTENT) == DIGEST
    assert blobs.contains(DIGEST)
    assert blobs.size(DIGEST) == len(CONTENT)
    assert blobs.read(DIGEST) == CONTENT


def test_blobs_survive_a_restart(blobs: BlobStore, tmp_path: Path) -> None:
    blobs.put(CONTENT)
    assert BlobStore(tmp_path).read(DIGEST) == CONTENT


def test_an_upload_with_the_wrong_digest_stores_nothing(blobs: BlobStore, tmp_path: Path) -> None:
    wrong = "0" * 64
    with blobs.upload(wrong, 7000) as upload:
        upload.write(CONTENT)
        with pytest.raises(DamagedBlobError, match=f"arrived with SHA-256 {DIGEST}"):
            upload.commit()
    assert not blobs.contains(wrong)
    assert not blobs.contains(DIGEST)
    assert incoming(blobs, tmp_path) == []


def test_an_upload_cut_in_the_middle_stores_nothing(blobs: BlobStore, tmp_path: Path) -> None:
    with blobs.upload(DIGEST, 7000) as upload:
        upload.write(CONTENT[:100])
        with pytest.raises(IncompleteUploadError, match="ended after 100 of 7000 bytes"):
            upload.commit()
    assert not blobs.contains(DIGEST)
    assert incoming(blobs, tmp_path) == []


def test_an_upload_longer_than_announced_is_refused_at_once(blobs: BlobStore) -> None:
    with blobs.upload(DIGEST, 10) as upload, pytest.raises(DamagedBlobError, match="more than the 10 bytes announced"):
        upload.write(CONTENT)


def test_leftovers_of_a_crash_are_removed_at_start(blobs: BlobStore, tmp_path: Path) -> None:
    upload = blobs.upload(DIGEST, 7000).__enter__()
    upload.write(CONTENT)
    assert len(incoming(blobs, tmp_path)) == 1
    BlobStore(tmp_path)
    assert incoming(blobs, tmp_path) == []
    upload.__exit__(None, None, None)


def test_a_blob_that_changed_on_disk_is_refused(blobs: BlobStore) -> None:
    blobs.put(CONTENT)
    blobs.path(DIGEST).write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(DamagedBlobError, match=r"is damaged on disk.*counts as missing: upload it again"):
        blobs.read(DIGEST)


def test_a_blob_found_damaged_is_missing_until_it_is_uploaded_again(blobs: BlobStore) -> None:
    blobs.put(CONTENT)
    blobs.path(DIGEST).write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(DamagedBlobError):
        blobs.read(DIGEST)
    assert blobs.missing([DIGEST]) == [DIGEST]
    blobs.put(CONTENT)
    assert blobs.read(DIGEST) == CONTENT


def test_a_blob_cut_off_at_its_beginning_is_missing(blobs: BlobStore) -> None:
    blobs.put(CONTENT)
    os.truncate(blobs.path(DIGEST), 0)
    assert not blobs.contains(DIGEST)
    with pytest.raises(NotFoundError, match="upload it with WriteBlob"):
        blobs.read(DIGEST)
    assert blobs.read(blobs.put(b"")) == b""  # nothing is a blob, too


def test_a_download_from_the_beginning_finds_damage(blobs: BlobStore) -> None:
    blobs.put(CONTENT)
    os.truncate(blobs.path(DIGEST), 100)
    with pytest.raises(DamagedBlobError):
        list(blobs.chunks(DIGEST, offset_bytes=0, chunk_bytes=64))
    assert not blobs.contains(DIGEST)


def test_too_many_digests_at_a_time_are_refused(blobs: BlobStore) -> None:
    with pytest.raises(InvalidRequestError, match="digests: are 1001; ask for at most 1,000"):
        blobs.missing([DIGEST] * 1001)


def test_what_is_stored_and_the_folder_it_is_in_are_on_disk(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(blobs_module, "_fsync_folder", synced.append)
    blobs.put(CONTENT)
    folder = blobs.path(DIGEST).parent
    assert synced == [folder, folder.parent]


def test_two_uploads_of_one_blob_at_a_time_both_succeed(blobs: BlobStore, tmp_path: Path) -> None:
    with blobs.upload(DIGEST, 7000) as one, blobs.upload(DIGEST, 7000) as two:
        one.write(CONTENT)
        two.write(CONTENT)
        one.commit()
        two.commit()
    assert blobs.read(DIGEST) == CONTENT
    assert incoming(blobs, tmp_path) == []


def test_an_unknown_blob_is_not_found(blobs: BlobStore) -> None:
    with pytest.raises(NotFoundError, match=DIGEST):
        blobs.read(DIGEST)


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", DIGEST.upper(), DIGEST[:-1], "/" * 64])
def test_what_is_no_digest_never_becomes_a_path(blobs: BlobStore, digest: str) -> None:
    with pytest.raises(InvalidRequestError, match="is not a SHA-256"):
        blobs.path(digest)


def test_chunks_begin_at_the_offset(blobs: BlobStore) -> None:
    blobs.put(CONTENT)
    chunks = list(blobs.chunks(DIGEST, offset_bytes=10, chunk_bytes=4096))
    assert b"".join(chunks) == CONTENT[10:]
    assert len(chunks[0]) == 4096


@pytest.mark.parametrize("offset_bytes", [-1, 7001])
def test_an_offset_outside_the_blob_is_refused(blobs: BlobStore, offset_bytes: int) -> None:
    blobs.put(CONTENT)
    with pytest.raises(InvalidRequestError, match=f"offset_bytes: is {offset_bytes}; use 0 to 7000"):
        next(blobs.chunks(DIGEST, offset_bytes=offset_bytes, chunk_bytes=1))


# --- receiving in parts ----------------------------------------------------------------------------------------


async def parts(*values: Blob | bytes | None) -> AsyncIterator[Blob | bytes | None]:
    for value in values:
        yield value


async def test_a_blob_is_received_in_parts(blobs: BlobStore) -> None:
    blob = Blob(DIGEST, 7000)
    assert await blobs.receive(parts(blob, CONTENT[:100], b"", CONTENT[100:])) == blob
    assert blobs.read(DIGEST) == CONTENT


async def test_a_blob_that_is_there_is_not_received_again(blobs: BlobStore) -> None:
    blobs.put(CONTENT)
    assert await blobs.receive(parts(Blob(DIGEST, 3))) == Blob(DIGEST, 7000)


@pytest.mark.parametrize("kept_bytes", [0, 100])
async def test_a_blob_that_is_damaged_is_received_again(blobs: BlobStore, kept_bytes: int) -> None:
    blobs.put(CONTENT)
    os.truncate(blobs.path(DIGEST), kept_bytes)
    await blobs.receive(parts(Blob(DIGEST, 7000), CONTENT))
    assert blobs.read(DIGEST) == CONTENT


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ([], "blob: is not set in the first message"),
        ([b"x"], "blob: is not set in the first message"),
        ([None], "blob: is not set in the first message"),
        ([Blob("x", 1)], "blob.digest: 'x' is not a SHA-256"),
        ([Blob(DIGEST, -1)], "blob.size_bytes: is -1; use 0 to"),
        ([Blob(DIGEST, MAX_BLOB_BYTES + 1)], "blob.size_bytes: is 68719476737; use 0 to"),
        ([Blob(DIGEST, 7000), None], "chunk: is not set"),
        ([Blob(DIGEST, 7000), Blob(DIGEST, 7000)], "chunk: is not set"),
    ],
)
async def test_parts_that_are_no_upload_are_refused(
    blobs: BlobStore, tmp_path: Path, sent: list[Blob | bytes | None], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        await blobs.receive(parts(*sent))
    assert incoming(blobs, tmp_path) == []


@pytest.mark.parametrize("method", ["write", "commit"])
async def test_an_upload_that_is_cancelled_leaves_nothing(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Also where the cancellation comes while a thread is at work."""
    loop = asyncio.get_running_loop()
    reached, proceed, ended = asyncio.Event(), threading.Event(), asyncio.Event()
    original = getattr(Upload, method)

    def held(upload: Upload, *arguments: bytes) -> None:
        loop.call_soon_threadsafe(reached.set)
        proceed.wait(10)
        try:
            original(upload, *arguments)
        finally:
            loop.call_soon_threadsafe(ended.set)

    monkeypatch.setattr(Upload, method, held)
    receiving = asyncio.create_task(blobs.receive(parts(Blob(DIGEST, 7000), CONTENT)))
    await reached.wait()
    receiving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receiving
    proceed.set()
    await ended.wait()
    assert incoming(blobs, tmp_path) == []
    assert not blobs.contains(DIGEST)


def test_a_blob_that_was_removed_is_gone_and_can_come_again(blobs: BlobStore) -> None:
    digest = blobs.put(CONTENT)
    blobs.remove(digest)
    blobs.remove(digest)  # as after a crash between this and what follows it
    assert blobs.missing([digest]) == [digest]
    assert blobs.read(blobs.put(CONTENT)) == CONTENT
