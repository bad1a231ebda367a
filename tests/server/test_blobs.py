"""Blobs: whole or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from chainrule.server.blobs import BlobStore, read_chunks
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
    upload = blobs.upload(DIGEST, 7000)
    upload.write(CONTENT)
    assert len(incoming(blobs, tmp_path)) == 1
    BlobStore(tmp_path)
    assert incoming(blobs, tmp_path) == []
    upload.__exit__(None, None, None)


def test_a_blob_that_changed_on_disk_is_refused(blobs: BlobStore) -> None:
    blobs.put(CONTENT)
    blobs.path(DIGEST).write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(DamagedBlobError, match="is damaged on disk"):
        blobs.read(DIGEST)


def test_an_unknown_blob_is_not_found(blobs: BlobStore) -> None:
    with pytest.raises(NotFoundError, match=DIGEST):
        blobs.read(DIGEST)


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", DIGEST.upper(), DIGEST[:-1], "/" * 64])
def test_what_is_no_digest_never_becomes_a_path(blobs: BlobStore, digest: str) -> None:
    with pytest.raises(InvalidRequestError, match="is not a SHA-256"):
        blobs.path(digest)


def test_chunks_begin_at_the_offset(blobs: BlobStore) -> None:
    blobs.put(CONTENT)
    chunks = list(read_chunks(blobs.path(DIGEST), offset_bytes=10, chunk_bytes=4096))
    assert b"".join(chunks) == CONTENT[10:]
    assert len(chunks[0]) == 4096
