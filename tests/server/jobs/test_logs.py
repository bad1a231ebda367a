"""What the service logs about jobs, in their logs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chainrule.server.errors import StoreUnavailableError
from chainrule.server.jobs.logs import IN_JOB_LOGS, ServiceLogs
from chainrule.server.store import Store
from tests.server.jobs.service_parts import FakeLauncher, Parts

LOGGER = logging.getLogger("chainrule.server.test")


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    parts = Parts(tmp_path, FakeLauncher())
    yield parts
    parts.store.close()


def logged(store: Store, job: str) -> list[tuple[str, int, str]]:
    found = store.logs(job, tenant="default", after_sequence=0, limit=100)
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


async def test_a_job_that_is_gone_costs_the_others_nothing(parts: Parts) -> None:
    job = parts.prepared()
    async with ServiceLogs(parts.store, parts.feed) as logs:
        LOGGER.info("jobs/gone: goes")
        LOGGER.info("%s: stays", job)
        await logs.settle()
    assert [message for *_, message in logged(parts.store, job)] == ["stays"]
