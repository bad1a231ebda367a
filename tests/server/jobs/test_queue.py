"""Whose turn it is, and jobs that are changed or removed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from chainrule.server.errors import IllegalStateError, InvalidRequestError, NotFoundError, StaleEtagError
from chainrule.server.jobs import manager
from chainrule.server.records import JobState
from chainrule.server.store import JobChange, PageRequest
from tests.server.conftest import refusal
from tests.server.jobs.service_parts import CONFIG, TENANT, FakeLauncher, Parts, standing_after

STANDING = standing_after(2)


@pytest.fixture(autouse=True)
def _quick_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "QUEUE_INTERVAL_S", 0.05)


def states(parts: Parts, *names: str) -> list[str]:
    return [parts.store.get_job(name).state.value for name in names]


async def test_the_highest_priority_starts_first(tmp_path: Path) -> None:
    """The queue is stepped by hand here."""
    parts = Parts(tmp_path, FakeLauncher(STANDING), cpus=1)
    jobs = [await parts.manager.submit(replace(parts.submission(), priority=priority)) for priority in (0, 5, -5)]
    names = [job.name for job in jobs]
    await parts.manager._distribute()
    assert states(parts, *names) == ["QUEUED", "PREPARING", "QUEUED"]
    await parts.manager.stop()
    parts.store.close()


async def test_a_changed_priority_counts(tmp_path: Path) -> None:
    parts = Parts(tmp_path, FakeLauncher(STANDING), cpus=1)
    first = await parts.manager.submit(parts.submission())
    second = await parts.manager.submit(parts.submission())
    changed = await parts.manager.update(second.name, JobChange(priority=1), tenant=TENANT, etag=second.etag)
    assert (changed.priority, changed.etag != second.etag) == (1, True)
    await parts.manager._distribute()
    assert states(parts, first.name, second.name) == ["QUEUED", "PREPARING"]
    with pytest.raises(StaleEtagError):
        await parts.manager.update(second.name, JobChange(priority=2), tenant=TENANT, etag=second.etag)
    await parts.manager.stop()
    parts.store.close()


async def test_a_tenant_has_no_more_jobs_at_a_time_than_it_may(tmp_path: Path) -> None:
    """What it may not start yet keeps neither others waiting nor its own from growing."""
    parts = Parts(tmp_path, FakeLauncher(STANDING, STANDING), cpus=2, max_tenant_jobs=1)
    first = await parts.manager.submit(parts.submission(replace(CONFIG, max_workers=1)))
    second = await parts.manager.submit(parts.submission())
    await parts.manager._distribute()
    assert states(parts, first.name, second.name) == ["PREPARING", "QUEUED"]
    await parts.manager._distribute()
    assert states(parts, second.name) == ["QUEUED"]
    await parts.manager.cancel(first.name, tenant=TENANT)
    await parts.ended(first.name)
    await parts.manager._distribute()
    assert states(parts, second.name) == ["PREPARING"]
    await parts.manager.stop()
    parts.store.close()


async def test_jobs_grow_into_what_their_tenants_others_may_not_have(tmp_path: Path) -> None:
    parts = Parts(tmp_path, FakeLauncher(STANDING), cpus=1, max_tenant_jobs=1)
    first = await parts.manager.submit(parts.submission())
    await parts.manager.submit(parts.submission())
    await parts.manager._distribute()
    async for job in parts.shown.watch(first.name, tenant=TENANT):
        if job.state is JobState.RUNNING:
            break
    parts.capacity.cpus = 2
    await parts.manager._distribute()
    async for job in parts.shown.watch(first.name, tenant=TENANT):
        if job.running_workers == 2:
            break
    assert parts.launcher.attempts[0].scaled == [2]
    await parts.manager.stop()
    parts.store.close()


# --- changes and removal ---------------------------------------------------------------------------------------


async def test_a_change_that_cannot_be_is_refused_in_its_field(tmp_path: Path) -> None:
    parts = Parts(tmp_path, FakeLauncher())
    name = parts.prepared()
    for change, field in ((JobChange(priority=101), "job.priority"), (JobChange(description="x" * 1001), "job.descr")):
        with pytest.raises(InvalidRequestError) as caught:
            await parts.manager.update(name, change, tenant=TENANT)
        assert refusal(caught).field.startswith(field)
    parts.store.close()


async def test_a_removed_job_takes_its_checkpoints_along_but_not_those_of_others(tmp_path: Path) -> None:
    """Two jobs that compute the same have the same checkpoints, by their content."""
    parts = Parts(tmp_path, FakeLauncher())
    names = [parts.prepared(), parts.prepared(), parts.prepared(replace(CONFIG, epochs=1))]
    for name in names:
        await parts.make_run(name).run()
    kept = {known.state_digest for known in parts.store.checkpoints(names[0])}
    of_second = parts.store.checkpoints(names[1])
    shared, manifests = {known.state_digest for known in of_second}, {known.manifest_digest for known in of_second}
    assert shared == kept
    weights = parts.store.get_job(names[1]).weights_digest
    await parts.manager.delete(names[1], tenant=TENANT)
    assert parts.blobs.missing([*kept, weights]) == []
    assert set(parts.blobs.missing(sorted(manifests))) == manifests  # which name their job
    await parts.manager.delete(names[0], tenant=TENANT)
    gone = kept - {known.state_digest for known in parts.store.checkpoints(names[2])}
    assert gone
    assert set(parts.blobs.missing(sorted(kept))) == gone
    assert parts.blobs.missing([weights]) == []  # of versions of the model
    parts.store.close()


async def test_a_job_must_have_ended_to_be_removed_and_may_be_missing_where_that_is_said(tmp_path: Path) -> None:
    parts = Parts(tmp_path, FakeLauncher())
    name = parts.prepared()
    with pytest.raises(IllegalStateError, match="cancel it first"):
        await parts.manager.delete(name, tenant=TENANT, allow_missing=True)
    await parts.manager.cancel(name, tenant=TENANT)
    last = await parts.ended(name)
    with pytest.raises(NotFoundError):
        await parts.manager.delete(name, tenant="others")
    await parts.manager.delete(name, tenant="others", allow_missing=True)
    with pytest.raises(StaleEtagError):
        await parts.manager.delete(name, tenant=TENANT, etag="x")
    await parts.manager.delete(name, tenant=TENANT, etag=last.etag)
    with pytest.raises(NotFoundError):
        await parts.manager.delete(name, tenant=TENANT)
    await parts.manager.delete(name, tenant=TENANT, allow_missing=True)
    parts.store.close()


async def test_another_tenant_cannot_follow_or_read_a_job(tmp_path: Path) -> None:
    parts = Parts(tmp_path, FakeLauncher())
    name = parts.prepared()
    for ask in (
        anext(parts.shown.watch(name, tenant="others")),
        anext(parts.following.stream_metrics(name, after_step=0, tenant="others")),
        parts.manager.metrics(name, after_step=0, limit=1, tenant="others"),
        parts.manager.receipts(name, after_step=0, limit=1, tenant="others"),
        parts.manager.checkpoints(name, PageRequest(), tenant="others"),
        parts.manager.scale(name, min_workers=1, max_workers=1, tenant="others"),
    ):
        with pytest.raises(NotFoundError, match=f'there is no job "{name}"'):
            await ask
    assert await parts.manager.page(PageRequest(), tenant="others") == ([], "")
    parts.store.close()
