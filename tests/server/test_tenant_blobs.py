"""Which blobs are a tenant's; on SQLite and PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from chainrule.server.blobs import Announcement, Blob, BlobStore, Chunk
from chainrule.server.errors import NotFoundError
from chainrule.server.housekeeping import Housekeeping
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
    stored.create_model(Model("models/m", "mlp", {}, DIGESTS["weights"], 0, 1, NOW), tenant="default")
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


async def test_grants_go_with_their_blob_and_not_before(stored: Store, blobs: BlobStore, clock: Clock) -> None:
    tenants = TenantBlobs(blobs, stored, are_apart=True)
    for content in (b"gone", b"here"):
        await tenants.receive(sent(content), tenant="a")
    blobs.path(sha256(b"gone")).unlink()
    assert stored.drop_grants(blobs.contains, older_than_s=60) == 0  # it may have been sent again meanwhile
    clock.now_s += 61
    assert stored.drop_grants(blobs.contains, older_than_s=60) == 1
    assert stored.blobs_of("a") == {sha256(b"here")}


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

    clock.now_s += 89 * 24 * 3600
    async with Housekeeping(stored, blobs, interval_s=0.01):
        await until(lambda: num_rows() == 1)
        clock.now_s += 2 * 24 * 3600
        await until(lambda: num_rows() == 0)
