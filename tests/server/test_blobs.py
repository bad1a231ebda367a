"""Blobs: whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

import pytest

from chainrule.server.blobs import Announcement, Blob, BlobStore, Chunk, Collected, files
from chainrule.server.errors import DamagedBlobError, InvalidRequestError, NotFoundError, StorageFullError

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


def test_who_has_read_what_was_damaged_leaves_what_came_in_its_place(blobs: BlobStore) -> None:
    blobs.put(CONTENT)
    blobs.path(DIGEST).write_bytes(CONTENT[:-1] + b"?")
    slow = blobs.chunks(DIGEST, chunk_bytes=3000)
    next(slow)
    with pytest.raises(DamagedBlobError):
        blobs.read(DIGEST)
    blobs.put(CONTENT)
    with pytest.raises(DamagedBlobError):
        list(slow)
    assert blobs.read(DIGEST) == CONTENT


def test_too_many_digests_at_a_time_are_refused(blobs: BlobStore) -> None:
    with pytest.raises(InvalidRequestError, match="digests: are 1001; ask for at most 1,000"):
        blobs.missing([DIGEST] * 1001)


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


def test_chunks_end_at_the_limit(blobs: BlobStore) -> None:
    blobs.put(CONTENT)
    for limit in (1, 63, 64, 65, 6990, 6991):
        chunks = list(blobs.chunks(DIGEST, offset_bytes=10, limit_bytes=limit, chunk_bytes=64))
        assert b"".join(chunks) == CONTENT[10 : 10 + limit]
    with pytest.raises(InvalidRequestError, match="limit_bytes: is -1; use 0 for all, or more"):
        next(blobs.chunks(DIGEST, limit_bytes=-1, chunk_bytes=1))


def test_of_a_damaged_blob_the_last_piece_is_not_given(blobs: BlobStore) -> None:
    blobs.put(CONTENT)
    blobs.path(DIGEST).write_bytes(CONTENT[:-1] + b"?")
    chunks = blobs.chunks(DIGEST, chunk_bytes=3000)
    assert [next(chunks), next(chunks)] == [CONTENT[:3000], CONTENT[3000:6000]]
    with pytest.raises(DamagedBlobError):
        next(chunks)


@pytest.mark.parametrize("offset_bytes", [-1, 7001])
def test_an_offset_outside_the_blob_is_refused(blobs: BlobStore, offset_bytes: int) -> None:
    blobs.put(CONTENT)
    with pytest.raises(InvalidRequestError, match=f"offset_bytes: is {offset_bytes}; use 0 to 7000"):
        next(blobs.chunks(DIGEST, offset_bytes=offset_bytes, chunk_bytes=1))


# --- what may go -----------------------------------------------------------------------------------------------


def nothing_refers(digests: Sequence[str]) -> Iterable[str]:
    return digests


def test_leftovers_of_a_crash_are_removed_at_start(blobs: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "incoming" / "put-0123").write_bytes(b"half")
    BlobStore(tmp_path)
    assert incoming(blobs, tmp_path) == []


def test_what_is_stored_and_the_folder_it_is_in_are_on_disk(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "fsync_folder", synced.append)
    blobs.put(CONTENT)
    folder = blobs.path(DIGEST).parent
    assert synced == [folder, folder.parent]


def test_what_nothing_refers_to_is_removed_and_can_come_again(blobs: BlobStore) -> None:
    kept = blobs.put(b"kept")
    blobs.put(CONTENT)
    assert blobs.discard([DIGEST, "0" * 64], nothing_refers) == Collected(1, len(CONTENT))
    assert blobs.discard([kept], lambda _: []) == Collected()
    assert blobs.missing([DIGEST, kept]) == [DIGEST]
    assert blobs.read(blobs.put(CONTENT)) == CONTENT


def test_what_is_held_stays(blobs: BlobStore) -> None:
    blobs.put(CONTENT)
    with blobs.hold(DIGEST):
        with blobs.hold(DIGEST):
            assert blobs.discard([DIGEST], nothing_refers) == Collected()
        assert blobs.discard([DIGEST], nothing_refers) == Collected()
    assert blobs.discard([DIGEST], nothing_refers) == Collected(1, len(CONTENT))


def test_all_is_looked_through_but_what_is_new_stays_for_a_while(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chainrule.server.blobs.store.MAX_DIGESTS", 2)
    digests = [blobs.put(bytes([number])) for number in range(5)]
    referred = blobs.put(b"referred")
    damaged = tmp_path / "00" / ("0" * 64 + ".damaged")
    damaged.parent.mkdir()
    damaged.touch()
    for path in (*(blobs.path(digest) for digest in (*digests, referred)), damaged):
        os.utime(path, (time.time() - 100, time.time() - 100))
    with blobs.hold(digests[0]):  # as by who is about to refer to it
        pass

    def unreferenced(found: Sequence[str]) -> Iterable[str]:
        return [digest for digest in found if digest != referred]

    assert blobs.collect(unreferenced, grace_s=200) == Collected()
    assert blobs.collect(unreferenced, grace_s=50) == Collected(4, 4)
    assert [digest for digest in (*digests, referred) if not blobs.contains(digest)] == digests[1:]
    assert not damaged.exists()
    assert blobs.collect(unreferenced, grace_s=0) == Collected(1, 1)


def test_who_asks_for_a_blob_keeps_it_for_a_while(blobs: BlobStore) -> None:
    path = blobs.path(blobs.put(CONTENT))
    os.utime(path, (0, 0))
    assert blobs.missing([DIGEST]) == []
    assert blobs.collect(nothing_refers, grace_s=60) == Collected()


def test_whoever_is_told_to_stop_looks_no_further(blobs: BlobStore) -> None:
    blobs.put(CONTENT)
    assert blobs.collect(nothing_refers, grace_s=0, stopped=lambda: True) == Collected()
    assert blobs.contains(DIGEST)


# --- room ------------------------------------------------------------------------------------------------------


async def test_what_will_not_fit_is_refused_before_it_is_sent(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=6999)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageFullError, match=r"no room for the 7,000 bytes .*: 6,999 are free on the service's disk"):
        await blobs.receive(parts(Announcement(Blob(DIGEST, 7000)), Chunk(CONTENT)))


async def test_no_more_is_stored_than_the_limit_allows(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path, limit_bytes=7003)
    other = blobs.put(b"four")
    with pytest.raises(StorageFullError, match=r"4 of the 7,003 that the service may store are taken.*--storage-limit"):
        await blobs.receive(parts(Announcement(Blob(DIGEST, 7000)), Chunk(CONTENT)))
    blobs.discard([other], nothing_refers)
    await blobs.receive(parts(Announcement(Blob(DIGEST, 7000)), Chunk(CONTENT)))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_so_and_leaves_nothing(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFullError, match="no room for 7,000 bytes on the disk"):
        blobs.put(CONTENT)
    assert incoming(blobs, tmp_path) == []
    assert not blobs.contains(DIGEST)


async def parts(*values: Announcement | Chunk | None) -> AsyncIterator[Announcement | Chunk | None]:
    for value in values:
        yield value
