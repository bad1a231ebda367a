"""Events are kept until whoever asks has dealt with them."""

from __future__ import annotations

import asyncio

from chainrule.server.training.checkpoint import Packed
from chainrule.server.training.eventlog import EventLog
from chainrule.server.training.events import CheckpointTaken, Event, Finished, Paused, ReceiptTaken

EVENTS: list[Event] = [ReceiptTaken(step, f"{step}") for step in range(1, 5)]


def log_of(*events: Event) -> EventLog:
    log = EventLog()
    for event in events:
        log.add(event)
    return log


async def test_events_come_in_order_and_again_until_they_are_dealt_with() -> None:
    log = log_of(*EVENTS[:2])
    for _ in range(2):
        assert await log.after(0, 10.0) == EVENTS[:2]
    log.add(EVENTS[2])
    assert await log.after(1, 10.0) == EVENTS[1:3]
    assert await log.after(3, 0.0) == []
    log.add(EVENTS[3])
    assert await log.after(3, 10.0) == EVENTS[3:]


async def test_who_asks_waits_for_the_next() -> None:
    log = log_of(Paused())
    asked = asyncio.create_task(log.after(1, 60.0))
    await asyncio.sleep(0)
    assert not asked.done()
    log.add(Finished(3))
    assert await asked == [Finished(3)]


async def test_nothing_new_is_an_answer() -> None:
    assert await EventLog().after(0, 0.001) == []


async def test_an_answer_is_not_changed_by_what_comes_later() -> None:
    log = log_of(Paused())
    found = await log.after(0, 10.0)
    log.add(Finished(1))
    assert found == [Paused()]


async def test_who_asks_again_for_what_was_dealt_with_loses_nothing_that_was_not() -> None:
    """An answer may be late, so that the question before comes after the next."""
    log = log_of(*EVENTS)
    await log.after(3, 10.0)
    assert await log.after(1, 10.0) == EVENTS[3:]
    assert await log.after(3, 10.0) == EVENTS[3:]


def test_a_checkpoint_waits_until_it_is_dealt_with() -> None:
    log = log_of(Paused(), CheckpointTaken(3, 1, Packed(b"")), Paused())
    assert log.checkpoint_waits
    log.forget(1)
    assert log.checkpoint_waits
    log.forget(2)
    assert not log.checkpoint_waits
