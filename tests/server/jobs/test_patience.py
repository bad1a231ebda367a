"""Work that is not given up half way."""

from __future__ import annotations

import asyncio
import threading

import pytest

from chainrule.server.jobs.patience import Undertakings, to_the_end


async def test_who_is_cancelled_twice_waits_as_long(caplog: pytest.LogCaptureFixture) -> None:
    begun, go, written = threading.Event(), threading.Event(), []

    def write() -> None:
        begun.set()
        go.wait(10)
        written.append(True)
        raise ValueError("refused")

    task = asyncio.create_task(to_the_end(write))
    await asyncio.to_thread(begun.wait, 10)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert written == [True]
    assert "cancelled, and failed: refused" in caplog.text


async def test_an_undertaking_outlives_who_asked_for_it() -> None:
    undertakings, go, done = Undertakings(), asyncio.Event(), []

    async def work() -> int:
        await go.wait()
        done.append(True)
        return 7

    first = asyncio.create_task(undertakings.see_through(work()))
    second = asyncio.create_task(undertakings.see_through(work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go.set()
    await undertakings.done()
    assert done == [True, True]
    assert await second == 7


async def test_a_failure_that_nobody_waits_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    undertakings, go = Undertakings(), asyncio.Event()

    async def work() -> None:
        await go.wait()
        raise ValueError("refused")

    task = asyncio.create_task(undertakings.see_through(work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    await undertakings.done()
    await asyncio.sleep(0)
    assert "cancelled, and failed: refused" in caplog.text
