"""Followers of a job: nothing is missed, nothing comes twice, and the end comes once all is there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from chainrule.server.errors import InvalidRequestError, NotFoundError
from chainrule.server.jobs.following import Following
from chainrule.server.records import JobState, LogRecord
from chainrule.server.training.logs import LogEntry
from tests.server.jobs.service_parts import FakeLauncher, Parts
from tests.server.training.bench import until


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    parts = Parts(tmp_path, FakeLauncher())
    yield parts
    parts.store.close()


def log(parts: Parts, job: str, *messages: str, source: str = "worker 1") -> None:
    parts.store.add_logs(job, [LogEntry(0, 20, message, source) for message in messages])
    parts.feed.ring_logs(job)


def end(parts: Parts, job: str) -> None:
    parts.store.transition(job, JobState.CANCELLING)
    parts.store.transition(job, JobState.CANCELLED)
    parts.feed.ring(job)


async def collect(parts: Parts, job: str, found: list[LogRecord], **asked: str | int) -> None:
    settings = {"tenant": "default", "after_sequence": 0, **asked}
    async for page in parts.manager.following.stream_logs(job, **settings):  # type: ignore[arg-type]
        found += page


async def test_a_stream_goes_on_with_what_comes_until_the_job_has_ended(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chainrule.server.jobs.following.LOGS_PAGE", 2)
    job = parts.prepared()
    log(parts, job, "1", "2", "3")
    found: list[LogRecord] = []
    later: list[LogRecord] = []
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(collect(parts, job, found))
        group.create_task(collect(parts, job, later, after_sequence=2))
        await until(lambda: len(found) == 3)
        log(parts, job, "4")
        await until(lambda: len(found) == 4)
        end(parts, job)
    assert [each.message for each in found] == ["1", "2", "3", "4"]
    assert later == found[2:]


async def test_what_waits_to_be_stored_when_a_job_has_ended_is_streamed(parts: Parts) -> None:
    job = parts.prepared()
    end(parts, job)

    async def settle() -> None:
        log(parts, job, "succeeded", source="service")

    following = Following(parts.store, parts.feed, settle=settle)
    stream = following.stream_logs(job, tenant="default", after_sequence=0)
    assert [each.message async for page in stream for each in page] == ["succeeded"]


async def test_a_stream_is_of_what_was_asked_for(parts: Parts) -> None:
    job = parts.prepared()
    log(parts, job, "1")
    log(parts, job, "2", source="worker 2")
    end(parts, job)
    found: list[LogRecord] = []
    await collect(parts, job, found, source="worker 2")
    assert [each.sequence for each in found] == [2]
    await collect(parts, job, found, min_severity=30)
    assert len(found) == 1


async def test_a_job_of_another_or_none_is_not_there(parts: Parts) -> None:
    job = parts.prepared()
    with pytest.raises(NotFoundError):
        await collect(parts, job, [], tenant="other")
    with pytest.raises(NotFoundError):
        await collect(parts, "jobs/none", [])
    with pytest.raises((NotFoundError, InvalidRequestError)):
        await collect(parts, "../etc", [])
