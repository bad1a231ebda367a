"""A coordinator's journal: its own messages and those of its parts, as events for the service."""

from __future__ import annotations

import logging

import pytest

from chainrule.server.training.eventlog import EventLog
from chainrule.server.training.events import Logged
from chainrule.server.training.journal import Journal
from tests.server.training.scripted import running

pytestmark = pytest.mark.usefixtures("often")
LOGGER = logging.getLogger("chainrule.test")


def said(*messages: str) -> dict[str, object]:
    return {"type": "logs", "node": "node-1", "entries": [[5, logging.INFO, message] for message in messages]}


async def events(log: EventLog, after: int = 0) -> list[list[tuple[str, str, str]]]:
    found = await log.after(after, 0.0)
    return [
        [(each.source, each.node, each.message) for each in event.entries]
        for event in found
        if isinstance(event, Logged)
    ]


async def test_the_coordinator_and_its_parts_are_told_by_name() -> None:
    log = EventLog()
    journal = Journal("jobs/a", log, node="node-0")
    with journal:
        LOGGER.info("jobs/a: begins")
    LOGGER.info("jobs/a: is over")
    journal.heard({"role": "worker", "lease": 3}, said("ready"))
    journal.heard({"role": "partition", "index": 0, "fence": 7}, said("has 10 parameters"))
    journal.report()
    assert await events(log) == [
        [
            ("coordinator", "node-0", "begins"),
            ("worker 3", "node-1", "ready"),
            ("partition 0", "node-1", "has 10 parameters"),
        ]
    ]


async def test_one_event_at_a_time_waits_for_the_service() -> None:
    log = EventLog()
    journal = Journal("jobs/a", log, node="")
    worker = {"role": "worker", "lease": 1}
    for message in ("1", "2", "3"):
        journal.heard(worker, said(message))
        journal.report()
    assert [[text for *_, text in event] for event in await events(log)] == [["1"]]
    log.forget(1)
    journal.report()
    assert [[text for *_, text in event] for event in await events(log, 1)] == [["2", "3"]]


async def test_in_the_end_all_is_reported() -> None:
    log = EventLog()
    journal = Journal("jobs/a", log, node="")
    for number in range(120):
        journal.heard({"role": "worker", "lease": 1}, said(f"{number}"))
    journal.report_all()
    assert [text for event in await events(log) for *_, text in event] == [f"{number}" for number in range(120)]


async def test_a_worker_that_dies_is_told_with_what_it_had_said() -> None:
    async with running(workers=2) as run:
        run.worker_says(1, **said("about to overflow"))
        run.coordinator.lost(run.workers[1])
        run.progress(1, 2, 3, 4, 5, 6)
        run.snapshot(6)
        run.says(type="done", step=6)
        await run.end()
        found = [(entry.source, entry.severity, entry.message) for entry in run.logged]
        assert ("worker 1", logging.INFO, "about to overflow") in found
        [(source, severity, _)] = [each for each in found if each[2] == "worker 1 on here is gone"]
        assert (source, severity) == ("coordinator", logging.WARNING)


async def test_last_words_after_the_end_are_heard() -> None:
    async with running(workers=1) as run:
        run.progress(1, 2, 3, 4, 5, 6)
        run.snapshot(6)
        run.says(type="done", step=6)
        run.worker_says(1, **said("bye"))
        await run.end()
        assert "bye" in [entry.message for entry in run.logged]
