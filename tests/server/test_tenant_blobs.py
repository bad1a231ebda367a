"""Which blobs are a tenant's; on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from chainrule.server.access import TokenCatalog
from chainrule.server.architecture import Builtin
from chainrule.server.blobs import Announcement, Blob, BlobStore, Chunk
from chainrule.server.blobs import store as blob_store
from chainrule.server.datasets import DatasetCatalog
from chainrule.server.errors import IncompleteUploadError, NotFoundError, StorageFullError
from chainrule.server.housekeeping import Housekeeping
from chainrule.server.models import ModelCatalog
from chainrule.server.records import Dataset, Model
from chainrule.server.store import NO_REQUEST, NewJob, Store, schema
from chainrule.server.tenant_blobs import TenantBlobs
from chainrule.server.training.config import TrainingConfig
from tests.server.guarded import sha256
from tests.server.training.bench import until

DIGESTS = {name: sha256(name.encode()) for name in ("sent", "weights", "dataset", "result", "state", "manifest")}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    now_s = 1e9

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stored(url: str, clock: Clock) -> Iterator[Store]:
    store = Store(url, clock=clock)
    yield store
    store.close()


async def sent(content: bytes) -> AsyncIterator[Announcement | Chunk | None]:
    yield Announcement(Blob(sha256(content), len(content)))
    yield Chunk(content)


def test_a_tenant_reads_what_it_has_sent_and_what_its_things_refer_to(stored: Store) -> None:
    stored.grant_blob("default", DIGESTS["sent"])
    stored.grant_blob("default", DIGESTS["sent"])
    stored.create_model(Model("models/m", Builtin("mlp"), DIGESTS["weights"], 0, 1, NOW), tenant="default")
    stored.create_dataset(Dataset("datasets/d", DIGESTS["dataset"], 1, (1,), 1, 1, NOW, (), 0), tenant="default")
    stored.create_job(NewJob("jobs/j", NO_REQUEST, "models/m", "datasets/d", TrainingConfig(), 1))
    stored.add_checkpoint(
        "jobs/j",
        step=1,
        epoch=1,
        manifest_digest=DIGESTS["manifest"],
        state_digest=DIGESTS["state"],
        size_bytes=1,
    )
    with stored._write() as db:
        db.execute(schema.jobs.update().values(weights_digest=DIGESTS["result"]))
    assert stored.readable_blobs("default", [*DIGESTS.values(), "0" * 64]) == set(DIGESTS.values())
    assert stored.blobs_of("default") == set(DIGESTS.values())
    assert stored.readable_blobs("other", DIGESTS.values()) == set() == stored.blobs_of("other")
    with stored._write() as db:
        for table in (schema.datasets, schema.jobs):
            db.execute(table.update().values(tenant="other"))
    assert stored.blobs_of("other") == {DIGESTS[name] for name in ("dataset", "result", "state", "manifest")}
    assert stored.blobs_of("default") == {DIGESTS["sent"], DIGESTS["weights"]}


async def test_tenants_that_are_not_kept_apart_see_everything(stored: Store, blobs: BlobStore) -> None:
    tenants = TenantBlobs(blobs, stored, are_apart=False)
    await tenants.receive(sent(b"content"), tenant="a")
    digest = sha256(b"content")
    tenants.check_readable(digest, tenant="b")
    assert tenants.missing([digest], tenant="b") == []
    assert [chunk.content for chunk in tenants.download(digest, tenant="b")] == [b"content"]
    apart = TenantBlobs(blobs, stored, are_apart=True)
    apart.check_readable(digest, tenant="a")  # it was remembered who has sent it
    with pytest.raises(NotFoundError):
        apart.check_readable(digest, tenant="b")


async def test_what_is_missing_is_so_in_the_order_asked(stored: Store, blobs: BlobStore) -> None:
    tenants = TenantBlobs(blobs, stored, are_apart=True)
    await tenants.receive(sent(b"a"), tenant="a")
    await tenants.receive(sent(b"b"), tenant="b")
    digests = [sha256(name) for name in (b"c", b"b", b"a", b"b")]
    assert tenants.missing(digests, tenant="a") == [sha256(b"c"), sha256(b"b"), sha256(b"b")]


async def test_a_blob_that_nobody_needs_is_not_kept_young_by_those_who_may_not_read_it(
    stored: Store, blobs: BlobStore
) -> None:
    tenants = TenantBlobs(blobs, stored, are_apart=True)
    await tenants.receive(sent(b"a"), tenant="a")
    path = blobs.path(sha256(b"a"))
    os.utime(path, (0, 0))
    tenants.missing([sha256(b"a")], tenant="b")
    assert path.stat().st_mtime == 0
    tenants.missing([sha256(b"a")], tenant="a")
    assert path.stat().st_mtime > 0


async def test_a_grant_goes_when_it_is_old_whoever_else_keeps_the_blob(
    stored: Store, blobs: BlobStore, clock: Clock
) -> None:
    """Else a tenant sees by what it can still read what others have."""
    tenants = TenantBlobs(blobs, stored, are_apart=True, limit_bytes=10)
    for content in (b"shared", b"mine"):
        await tenants.receive(sent(content), tenant="a")
    stored.create_dataset(Dataset("datasets/d", sha256(b"shared"), 1, (1,), 1, 1, NOW, (), 0), tenant="b")
    stored.create_dataset(Dataset("datasets/d", sha256(b"mine"), 1, (1,), 1, 1, NOW, (), 0), tenant="a")
    assert stored.drop_grants(older_than_s=60) == 0
    clock.now_s += 61
    assert stored.drop_grants(older_than_s=60) == 2
    assert stored.blobs_of("a") == {sha256(b"mine")}
    assert tenants.missing([sha256(b"shared")], tenant="a") == [sha256(b"shared")]
    tenants.check_readable(sha256(b"shared"), tenant="b")
    await tenants.receive(sent(b"other"), tenant="a")  # what others keep does not count for its limit


async def test_who_asks_for_a_blob_or_holds_it_can_read_it_for_as_long_again(
    stored: Store, blobs: BlobStore, clock: Clock
) -> None:
    tenants = TenantBlobs(blobs, stored, are_apart=True)
    for content in (b"asked for", b"held", b"left"):
        await tenants.receive(sent(content), tenant="a")
    clock.now_s += 50
    assert tenants.missing([sha256(b"asked for")], tenant="a") == []
    with tenants.hold(sha256(b"held"), tenant="a"):
        pass
    clock.now_s += 50
    assert stored.drop_grants(older_than_s=60) == 1
    assert stored.blobs_of("a") == {sha256(b"asked for"), sha256(b"held")}


async def test_holding_a_blob_of_another_does_not_keep_it_young(stored: Store, blobs: BlobStore) -> None:
    tenants = TenantBlobs(blobs, stored, are_apart=True)
    await tenants.receive(sent(b"theirs"), tenant="a")
    path = blobs.path(sha256(b"theirs"))
    os.utime(path, (0, 0))
    models, datasets = ModelCatalog(stored, blobs, tenants), DatasetCatalog(stored, blobs, tenants)
    with pytest.raises(NotFoundError):
        datasets.create("d", digest=path.name, tenant="b")
    with pytest.raises(NotFoundError):
        models.create("m", architecture=Builtin("mlp"), weights_digest=path.name, init_seed=0, tenant="b")
    assert path.stat().st_mtime == 0


async def test_a_tenant_does_not_learn_what_the_others_take(
    stored: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    blobs = BlobStore(tmp_path / "blobs", limit_bytes=100)
    tenants = TenantBlobs(blobs, stored, are_apart=True)
    blobs.put(b"7 bytes")
    with pytest.raises(StorageFullError) as limited:
        await tenants.receive(sent(bytes(94)), tenant="a")
    usage = shutil.disk_usage(tmp_path)._replace(free=93)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageFullError) as full:
        await tenants.receive(sent(bytes(94)), tenant="a")
    assert limited.value.message == full.value.message
    assert limited.value.message == (
        f'there is no room for the 94 bytes of blob "{sha256(bytes(94))}" on the service\'s disk, or within what it '
        "may store; ask an administrator of the server to make room"
    )
    assert "7 of the 100 that the service may store" in caplog.text
    assert "93 are free" in caplog.text


async def test_what_a_tenant_announces_and_does_not_send_keeps_no_other_out(stored: Store, tmp_path: Path) -> None:
    tenants = TenantBlobs(BlobStore(tmp_path / "blobs", limit_bytes=100, idle_s=600), stored, are_apart=True)
    began, end = asyncio.Event(), asyncio.Event()

    async def idle() -> AsyncIterator[Announcement | Chunk | None]:
        yield Announcement(Blob("0" * 64, 100))
        yield Chunk(b"one")
        began.set()
        await end.wait()

    idling = asyncio.create_task(tenants.receive(idle(), tenant="a"))
    await began.wait()
    await tenants.receive(sent(bytes(97)), tenant="b")
    with pytest.raises(StorageFullError):
        await tenants.receive(sent(b"1"), tenant="a")  # beside what it has announced itself
    end.set()
    with pytest.raises(IncompleteUploadError):
        await idling


async def test_a_tenant_begins_so_many_uploads_and_no_more(
    stored: Store, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob_store, "MAX_BEGUN", 2)
    tenants = TenantBlobs(blobs, stored, are_apart=True)

    async def broken_off(content: bytes) -> AsyncIterator[Announcement | Chunk | None]:
        yield Announcement(Blob(sha256(content), len(content)))
        yield Chunk(content[:1])

    for content in (b"first", b"second"):
        with pytest.raises(IncompleteUploadError):
            await tenants.receive(broken_off(content), tenant="a")
    with pytest.raises(StorageFullError, match=r"2 other uploads have begun and are not finished, of at most 2"):
        await tenants.receive(sent(b"third"), tenant="a")
    await tenants.receive(sent(b"third"), tenant="b")
    await tenants.receive(sent(b"first"), tenant="a")
    await tenants.receive(sent(b"third"), tenant="a")


async def test_housekeeping_forgets_grants_and_old_entries(stored: Store, blobs: BlobStore, clock: Clock) -> None:
    from chainrule.server.callers import AuditEntry

    tenants = TenantBlobs(blobs, stored, are_apart=True)
    await tenants.receive(sent(b"gone"), tenant="a")
    blobs.path(sha256(b"gone")).unlink()
    stored.add_audit_entry(AuditEntry("", "", "p", "m", "r", "OK"))

    def num_rows() -> int:
        with stored._read() as db:
            counts = (sa.select(sa.func.count()).select_from(table) for table in (schema.blob_grants, schema.audit))
            return sum(db.execute(count).scalar_one() for count in counts)

    assert num_rows() == 2
    clock.now_s += 89 * 24 * 3600
    async with Housekeeping(stored, blobs, TokenCatalog(stored), interval_s=0.01):
        await until(lambda: num_rows() == 1)
        clock.now_s += 2 * 24 * 3600
        await until(lambda: num_rows() == 0)
