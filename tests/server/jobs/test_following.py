"""Followers of a job's metrics and logs: nothing is missed or comes twice, and the end comes once all is there."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chainrule.server.errors import InvalidRequestError, NotFoundError
from chainrule.server.jobs import shown
from chainrule.server.jobs.following import Following
from chainrule.server.records import JobState, LogRecord
from chainrule.server.store import Store
from chainrule.server.training.logs import LogEntry
from chainrule.server.training.state import StepMetric
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
    async for page in parts.following.stream_logs(job, **settings):  # type: ignore[arg-type]
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

    following = Following(parts.store, parts.feed, parts.shown, settle=settle)
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


# --- what following costs --------------------------------------------------------------------------------------


class Reads:
    """How often the store was asked, by method."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counts: Counter[str] = Counter()
        for method in ("get_job", "metrics", "logs"):
            monkeypatch.setattr(store, method, functools.partial(self._read, method, getattr(store, method)))

    def _read(self, method: str, real: Callable[..., Any], *arguments: Any, **asked: Any) -> Any:
        self.counts[method] += 1
        return real(*arguments, **asked)

    async def settled(self, at_least: int, method: str) -> None:
        """Wait until the store was asked so often."""
        await until(lambda: self.counts[method] >= at_least)


async def steps_of(parts: Parts, job: str, found: list[int]) -> None:
    async for page in parts.following.stream_metrics(job, after_step=0, tenant="default"):
        found += [metric.step for metric in page]


def measure(parts: Parts, job: str, step: int) -> None:
    parts.store.add_metrics(job, [StepMetric(step, 1, 1.0, 0.5, 16, 0.0)])
    parts.feed.ring(job)


async def test_followers_of_metrics_share_the_readings_of_the_job(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = parts.prepared()
    reads = Reads(parts.store, monkeypatch)
    found: list[list[int]] = [[] for _ in range(20)]
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for each in found:
            group.create_task(steps_of(parts, job, each))
        for step in range(1, 4):
            measure(parts, job, step)
            await until(lambda n=step: all(len(each) == n for each in found))  # type: ignore[misc]
        end(parts, job)
    assert found == [[1, 2, 3]] * 20
    assert reads.counts["get_job"] <= 8  # at first, after each of four changes, and whenever a second has passed


async def test_metrics_are_told_to_many_less_often(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "A_FOLLOWER_S", 3600.0)
    job = parts.prepared()
    reads = Reads(parts.store, monkeypatch)
    found: list[int] = []
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(steps_of(parts, job, found))
        await reads.settled(1, "metrics")
        for step in range(1, 4):
            measure(parts, job, step)
            await asyncio.sleep(0)
        end(parts, job)
    assert found == [1, 2, 3]
    assert reads.counts["metrics"] <= 3


async def test_a_step_does_not_have_logs_read(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    job = parts.prepared()
    reads = Reads(parts.store, monkeypatch)
    logs: list[LogRecord] = []
    steps: list[int] = []
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(collect(parts, job, logs))
        group.create_task(steps_of(parts, job, steps))
        await reads.settled(1, "logs")
        for step in range(1, 6):
            measure(parts, job, step)
            await until(lambda n=step: len(steps) == n)  # type: ignore[misc]
        assert reads.counts["logs"] == 1
        log(parts, job, "1")
        await until(lambda: len(logs) == 1)
        assert reads.counts["logs"] == 2
        end(parts, job)
    assert reads.counts["logs"] == 3


async def test_logs_are_read_for_many_less_often_and_in_the_end(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "A_FOLLOWER_S", 3600.0)
    job = parts.prepared()
    reads = Reads(parts.store, monkeypatch)
    found: list[LogRecord] = []
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(collect(parts, job, found))
        await reads.settled(1, "logs")
        for number in range(1, 6):
            log(parts, job, f"{number}")
            await asyncio.sleep(0)
        assert reads.counts["logs"] == 1
        end(parts, job)
    assert [each.message for each in found] == ["1", "2", "3", "4", "5"]
    assert reads.counts["logs"] == 2
    assert not parts.following._log_followers


async def test_what_was_not_asked_for_is_looked_at_once(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = parts.store.logs

    def logs(name: str, *, after_sequence: int, **rest: Any) -> Any:
        asked.append(after_sequence)
        return real(name, after_sequence=after_sequence, **rest)

    monkeypatch.setattr(parts.store, "logs", logs)
    job = parts.prepared()
    log(parts, job, "1", "2", "3")
    end(parts, job)
    await collect(parts, job, [], min_severity=30)
    assert asked == [0, 3]


async def test_a_follower_of_a_job_that_is_removed_is_told(parts: Parts) -> None:
    job = parts.prepared()
    found: list[LogRecord] = []
    log(parts, job, "1")
    following = asyncio.create_task(collect(parts, job, found))
    await until(lambda: len(found) == 1)
    parts.store.transition(job, JobState.CANCELLING)
    parts.store.transition(job, JobState.CANCELLED)
    parts.store.delete_job(job, tenant="default")
    parts.feed.ring(job)
    with pytest.raises(NotFoundError):
        await following
