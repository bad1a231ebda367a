"""Blobs: whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from array import array
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path

import google_crc32c
import pytest

from chainrule.server.blobs import Announcement, Blob, BlobStore, Chunk, Collected, files, store
from chainrule.server.blobs.checksums import Checksums
from chainrule.server.errors import (
    DamagedBlobError,
    DamagedChunkError,
    InvalidRequestError,
    NotFoundError,
    StorageFullError,
    StoreUnavailableError,
)

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


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BLOCK_BYTES", 1000)


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
        list(blobs.download(DIGEST))
    assert not blobs.contains(DIGEST)


def test_who_has_read_what_was_damaged_leaves_what_came_in_its_place(blobs: BlobStore) -> None:
    blobs.put(CONTENT)
    blobs.path(DIGEST).write_bytes(CONTENT[:-1] + b"?")
    slow = blobs.download(DIGEST)
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


# --- downloads -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["first", "again"])
def downloaded(request: pytest.FixtureRequest, blobs: BlobStore) -> BlobStore:
    """With the blob, which nobody has read, or somebody has; in blocks of 1,000 bytes."""
    blobs.put(CONTENT)
    if request.param == "again":
        assert contents(blobs.download(DIGEST)) == [CONTENT[at : at + 1000] for at in range(0, 7000, 1000)]
    return blobs


def contents(chunks: Iterator[Chunk]) -> list[bytes]:
    """What is in chunks, each with its checksum."""
    found = list(chunks)
    assert all(chunk.crc32c == google_crc32c.value(chunk.content) for chunk in found)
    return [chunk.content for chunk in found]


@pytest.mark.parametrize("offset", [0, 10, 999, 1000, 1001, 6999, 7000])
def test_a_download_begins_at_the_offset(downloaded: BlobStore, offset: int) -> None:
    assert b"".join(contents(downloaded.download(DIGEST, offset_bytes=offset))) == CONTENT[offset:]


@pytest.mark.parametrize("limit", [1, 63, 990, 991, 2000, 6990, 6991, 10**9])
def test_a_download_ends_at_the_limit(downloaded: BlobStore, limit: int) -> None:
    found = contents(downloaded.download(DIGEST, offset_bytes=10, limit_bytes=limit))
    assert b"".join(found) == CONTENT[10 : 10 + limit]


def test_a_limit_below_zero_is_refused(blobs: BlobStore) -> None:
    blobs.put(CONTENT)
    with pytest.raises(InvalidRequestError, match="limit_bytes: is -1; use 0 for all, or more"):
        next(blobs.download(DIGEST, limit_bytes=-1))


@pytest.mark.parametrize("offset_bytes", [-1, 7001])
def test_an_offset_outside_the_blob_is_refused(blobs: BlobStore, offset_bytes: int) -> None:
    blobs.put(CONTENT)
    with pytest.raises(InvalidRequestError, match=f"offset_bytes: is {offset_bytes}; use 0 to 7000"):
        next(blobs.download(DIGEST, offset_bytes=offset_bytes))


def test_of_a_damaged_blob_the_last_chunk_is_not_given(blobs: BlobStore) -> None:
    blobs.put(CONTENT)
    blobs.path(DIGEST).write_bytes(CONTENT[:-1] + b"?")
    chunks = blobs.download(DIGEST)
    assert [next(chunks).content for _ in range(6)] == [CONTENT[at : at + 1000] for at in range(0, 6000, 1000)]
    with pytest.raises(DamagedBlobError):
        next(chunks)


@pytest.mark.parametrize("damaged", [0, 999, 3500, 6999])
def test_damage_to_what_was_whole_is_found_in_its_block(blobs: BlobStore, damaged: int) -> None:
    blobs.put(CONTENT)
    list(blobs.download(DIGEST))
    content = bytearray(CONTENT)
    content[damaged] ^= 1
    blobs.path(DIGEST).write_bytes(content)
    chunks = blobs.download(DIGEST)
    for _ in range(damaged // 1000):
        next(chunks)
    with pytest.raises(DamagedBlobError, match="was moved to"):
        next(chunks)
    assert not blobs.contains(DIGEST)


@pytest.mark.parametrize("size", [6500, 6000, 7001, 8001])
def test_what_is_shorter_or_longer_since_is_found(blobs: BlobStore, size: int) -> None:
    blobs.put(CONTENT)
    list(blobs.download(DIGEST))
    os.truncate(blobs.path(DIGEST), size)
    with pytest.raises(DamagedBlobError):
        list(blobs.download(DIGEST, limit_bytes=size))


def test_what_is_misread_is_not_handed_out(blobs: BlobStore) -> None:
    """The file is as it was, what came from it is not."""
    blobs.put(CONTENT)
    list(blobs.download(DIGEST))
    blobs._checksums.keep(DIGEST, [1] * 7)
    with pytest.raises(DamagedChunkError, match="read it again"):
        next(blobs.download(DIGEST))
    assert blobs.check(DIGEST) == 7000


def test_checksums_are_kept_of_what_was_asked_for_last() -> None:
    checksums = Checksums(max_blocks=3)
    checksums.keep("a", [1, 2])
    checksums.keep("b", [3])
    assert checksums.of("a") == array("I", [1, 2])
    checksums.keep("c", [4])
    assert (checksums.of("b"), checksums.of("c")) == (None, array("I", [4]))
    checksums.keep("d", [5] * 4)
    assert [checksums.of(name) for name in "acd"] == [None, None, None]


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


def test_without_its_folder_nothing_can_be_said_of_a_blob(blobs: BlobStore, tmp_path: Path) -> None:
    """It is not taken for missing."""
    digest = blobs.put(b"content")
    away = tmp_path.rename(tmp_path.with_name("away"))
    for asked in (blobs.contains, blobs.path, blobs.read):
        with pytest.raises(
            StoreUnavailableError, match=r"the folder of all blobs, .* is not there; mount or restore it"
        ):
            asked(digest)
    away.rename(tmp_path)
    assert blobs.read(digest) == b"content"
    assert not blobs.contains("0" * 64)
