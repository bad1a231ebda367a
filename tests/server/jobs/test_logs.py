"""What the service logs about jobs, in their logs."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chainrule.server.errors import StoreUnavailableError
from chainrule.server.jobs.logs import IN_JOB_LOGS, ServiceLogs
from chainrule.server.store import Store
from chainrule.server.training.logs import LogEntry, collected
from tests.server.jobs.service_parts import FakeLauncher, Parts

LOGGER = logging.getLogger("chainrule.server.test")


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    parts = Parts(tmp_path, FakeLauncher())
    yield parts
    parts.store.close()


def logged(store: Store, job: str) -> list[tuple[str, int, str]]:
    found = store.logs(job, tenant="default", after_sequence=0, limit=100).entries
    return [(each.source, each.severity, each.message) for each in found]


async def test_what_is_about_a_job_is_stored_and_rings(parts: Parts) -> None:
    job = parts.prepared()
    bell = parts.feed.listen_to_logs(job)
    async with ServiceLogs(parts.store, parts.feed):
        LOGGER.info("%s: attempt %d", job, 1)
        LOGGER.info("serving on %s", job)
        LOGGER.debug("%s: in detail", job)
        LOGGER.info("%s: straggler: worker 1", job, **IN_JOB_LOGS)
        await bell.wait()
    assert logged(parts.store, job) == [("service", logging.INFO, "attempt 1")]


async def test_what_still_waits_is_stored_in_the_end(parts: Parts) -> None:
    job = parts.prepared()
    async with ServiceLogs(parts.store, parts.feed):
        LOGGER.warning("%s: stops", job)
    LOGGER.warning("%s: is over", job)
    assert logged(parts.store, job) == [("service", logging.WARNING, "stops")]


async def test_what_the_store_does_not_take_waits_for_it(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    job = parts.prepared()
    real, tries = parts.store.add_logs, 0

    def add_logs(*arguments: Any) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise StoreUnavailableError("the store does not answer: locked")
        real(*arguments)

    monkeypatch.setattr(parts.store, "add_logs", add_logs)
    logs = ServiceLogs(parts.store, parts.feed)
    async with logs:
        LOGGER.info("%s: first", job)
        with pytest.raises(StoreUnavailableError):
            await logs.settle()
        LOGGER.info("%s: second", job)
        await logs.settle()
    assert [message for *_, message in logged(parts.store, job)] == ["first", "second"]


class Slow:
    """A store that takes logs once it may."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real = store.add_logs
        self.asked, self.go_on = threading.Event(), threading.Event()
        monkeypatch.setattr(store, "add_logs", self.add_logs)

    def add_logs(self, *arguments: Any) -> None:
        self.asked.set()
        assert self.go_on.wait(60)
        self._real(*arguments)


async def test_who_waits_for_the_store_and_leaves_costs_nothing(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [parts.prepared(), parts.prepared()]
    store = Slow(parts.store, monkeypatch)
    logs = ServiceLogs(parts.store, parts.feed)
    with collected(logs):
        for job in jobs:
            LOGGER.info("%s: hello", job)
        waiting = asyncio.create_task(logs.settle())
        assert await asyncio.to_thread(store.asked.wait, 60)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()
        store.go_on.set()
        await logs.settle()
    assert [[message for *_, message in logged(parts.store, job)] for job in jobs] == [["hello"], ["hello"]]


async def test_the_end_costs_nothing_of_what_is_being_stored(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [parts.prepared(), parts.prepared()]
    store = Slow(parts.store, monkeypatch)
    logs = ServiceLogs(parts.store, parts.feed)
    await logs.__aenter__()
    for job in jobs:
        LOGGER.info("%s: hello", job)
    assert await asyncio.to_thread(store.asked.wait, 60)
    ending = asyncio.create_task(logs.__aexit__(None, None, None))
    await asyncio.sleep(0)
    store.go_on.set()
    await ending
    assert [[message for *_, message in logged(parts.store, job)] for job in jobs] == [["hello"], ["hello"]]


async def test_a_defect_met_with_one_job_costs_the_others_nothing(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    odd, even = parts.prepared(), parts.prepared()
    real = parts.store.add_logs

    def add_logs(job: str, entries: list[LogEntry]) -> None:
        if job == odd:
            raise ValueError("a defect")
        real(job, entries)

    monkeypatch.setattr(parts.store, "add_logs", add_logs)
    async with ServiceLogs(parts.store, parts.feed) as logs:
        LOGGER.info("%s: hello", odd)
        LOGGER.info("%s: hello", even)
        await logs.settle()
    assert f"1 messages about {odd} could not be stored" in caplog.text
    assert logged(parts.store, odd) == []
    assert logged(parts.store, even) == [("service", logging.INFO, "hello")]


async def test_a_job_that_is_gone_costs_the_others_nothing(parts: Parts) -> None:
    job = parts.prepared()
    async with ServiceLogs(parts.store, parts.feed) as logs:
        LOGGER.info("jobs/gone: goes")
        LOGGER.info("%s: stays", job)
        await logs.settle()
    assert [message for *_, message in logged(parts.store, job)] == ["stays"]
