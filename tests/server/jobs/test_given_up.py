"""Callers that give up while the store writes, and answers of the store that are lost: what is stored counts, and all
that follows from it happens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from chainrule.server.errors import NotFoundError, StoreUnavailableError
from chainrule.server.jobs import manager, policies
from chainrule.server.records import Job, JobState
from chainrule.server.store import JobChange
from tests.server.jobs.service_parts import TENANT, Course, FakeLauncher, Parts, standing_after

STANDING = standing_after(2)
TIMEOUT_S = 30.0


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "QUEUE_INTERVAL_S", 0.05)
    monkeypatch.setattr(policies, "FIRST_DELAY_S", 0.001)


@asynccontextmanager
async def service(folder: Path, *script: Course, served: bool = True) -> AsyncIterator[Parts]:
    """The parts of a service; its queue is served, or stepped by hand."""
    parts = Parts(folder, FakeLauncher(*script))
    if served:
        await parts.manager.start()
    try:
        yield parts
    finally:
        await parts.manager.stop()
        parts.store.close()


async def in_state(parts: Parts, name: str, *states: JobState) -> Job:
    async with asyncio.timeout(TIMEOUT_S):
        async for job in parts.shown.watch(name, tenant=TENANT):
            if job.state in states:
                return job
    pytest.fail(f"{name} ended before")


async def a_running_job(parts: Parts) -> str:
    name = (await parts.manager.submit(parts.submission())).name
    if parts.manager._queue is None:
        await parts.manager._distribute()
    await in_state(parts, name, JobState.RUNNING)
    return name


class Slow:
    """A method of the store that does nothing before it is let `go`."""

    def __init__(self, parts: Parts, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._begun, self.go = threading.Event(), threading.Event()
        real = getattr(parts.store, method)

        def slow(*args: Any, **kwargs: Any) -> Any:
            self._begun.set()
            self.go.wait(TIMEOUT_S)
            return real(*args, **kwargs)

        monkeypatch.setattr(parts.store, method, slow)

    async def given_up(self, call: Awaitable[object]) -> None:
        """Have the caller give up while the store is at it."""
        task = asyncio.ensure_future(call)
        await asyncio.to_thread(self._begun.wait, TIMEOUT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# --- callers ---------------------------------------------------------------------------------------------------


async def test_a_cancel_that_is_given_up_cancels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with service(tmp_path, STANDING, served=False) as parts:
        name = await a_running_job(parts)
        slow = Slow(parts, "cancel", monkeypatch)
        await slow.given_up(parts.manager.cancel(name, tenant=TENANT))
        slow.go.set()
        assert (await in_state(parts, name, JobState.CANCELLED)).history[-2].state is JobState.CANCELLING
        assert parts.launcher.attempts[0].stopped


async def test_a_pause_that_is_given_up_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with service(tmp_path, STANDING, served=False) as parts:
        name = await a_running_job(parts)
        slow = Slow(parts, "pause", monkeypatch)
        await slow.given_up(parts.manager.pause(name, tenant=TENANT))
        slow.go.set()
        await in_state(parts, name, JobState.PAUSED)


async def test_a_scaling_that_is_given_up_reaches_the_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with service(tmp_path, STANDING, served=False) as parts:
        name = await a_running_job(parts)
        slow = Slow(parts, "reconfigure", monkeypatch)
        await slow.given_up(parts.manager.scale(name, min_workers=1, max_workers=1, tenant=TENANT))
        slow.go.set()
        async with asyncio.timeout(TIMEOUT_S):
            async for job in parts.shown.watch(name, tenant=TENANT):
                if job.running_workers == 1:
                    break
        assert parts.launcher.attempts[0].scaled == [1]


async def test_a_resumption_that_is_given_up_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with service(tmp_path, served=False) as parts:
        name = (await parts.manager.submit(parts.submission())).name
        await parts.manager.pause(name, tenant=TENANT)
        assert (await parts.shown.get(name, tenant=TENANT)).state is JobState.PAUSED
        slow = Slow(parts, "resume", monkeypatch)
        await slow.given_up(parts.manager.resume(name, tenant=TENANT))
        slow.go.set()
        await in_state(parts, name, JobState.QUEUED)


async def test_an_update_that_is_given_up_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a job that has ended nothing else would tell of it."""
    async with service(tmp_path) as parts:
        name = (await parts.manager.submit(parts.submission())).name
        await parts.ended(name)
        assert (await parts.shown.get(name, tenant=TENANT)).labels == {}
        bell = parts.feed.listen(name)
        slow = Slow(parts, "update_job", monkeypatch)
        await slow.given_up(parts.manager.update(name, JobChange(labels={"a": "b"}), tenant=TENANT))
        slow.go.set()
        async with asyncio.timeout(TIMEOUT_S):
            await bell.wait()
        assert (await parts.shown.get(name, tenant=TENANT)).labels == {"a": "b"}


async def test_a_removal_that_is_given_up_is_shown_and_takes_the_checkpoints_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(tmp_path) as parts:
        name = (await parts.manager.submit(parts.submission())).name
        await parts.ended(name)
        await parts.shown.get(name, tenant=TENANT)
        digests = {known.state_digest for known in parts.store.checkpoints(name)}
        bell = parts.feed.listen(name)
        slow = Slow(parts, "delete_job", monkeypatch)
        await slow.given_up(parts.manager.delete(name, tenant=TENANT))
        slow.go.set()
        async with asyncio.timeout(TIMEOUT_S):
            await bell.wait()
        with pytest.raises(NotFoundError):
            await parts.shown.get(name, tenant=TENANT)
        assert parts.blobs.missing(sorted(digests)) == sorted(digests)


async def test_a_service_that_stops_waits_for_what_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(tmp_path, FakeLauncher())
    name = (await parts.manager.submit(parts.submission())).name
    slow = Slow(parts, "update_job", monkeypatch)
    await slow.given_up(parts.manager.update(name, JobChange(priority=7), tenant=TENANT))
    asyncio.get_running_loop().call_later(0.05, slow.go.set)
    await parts.manager.stop()
    assert parts.store.get_job(name).priority == 7
    parts.store.close()


# --- answers ---------------------------------------------------------------------------------------------------


def losing_answer(
    parts: Parts, method: str, monkeypatch: pytest.MonkeyPatch, of: Callable[..., bool] = lambda *_: True
) -> list[int]:
    """Has the first call that is meant fail after it has been stored; the list it returns is empty once it has."""
    real, left = getattr(parts.store, method), [1]

    def call(*args: Any, **kwargs: Any) -> Any:
        answer = real(*args, **kwargs)
        if left and of(*args):
            left.pop()
            raise StoreUnavailableError("the store does not answer: server closed the connection unexpectedly")
        return answer

    monkeypatch.setattr(parts.store, method, call)
    return left


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.FINALIZING, JobState.SUCCEEDED])
async def test_a_state_whose_answer_was_lost_is_stored_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: JobState
) -> None:
    async with service(tmp_path) as parts:
        left = losing_answer(parts, "transition", monkeypatch, lambda _, to: to is state)
        job = await parts.ended((await parts.manager.submit(parts.submission())).name)
        assert left == []
        states = [change.state.value for change in job.history]
        assert states == ["QUEUED", "PREPARING", "RUNNING", "FINALIZING", "SUCCEEDED"]
        assert job.result_version == 2


async def test_a_job_that_was_to_begin_when_the_answer_was_lost_begins_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(tmp_path) as parts:
        left = losing_answer(parts, "transition", monkeypatch, lambda _, to: to is JobState.PREPARING)
        job = await parts.ended((await parts.manager.submit(parts.submission())).name)
        assert left == []
        assert [(change.state.value, change.reason) for change in job.history[1:4]] == [
            ("PREPARING", "the cluster has room"),
            ("RECOVERING", "nothing of it was running"),
            ("QUEUED", "nothing of it was running"),
        ]
        assert job.state is JobState.SUCCEEDED


async def test_a_pause_that_has_come_about_without_an_answer_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job may have been resumed before the run asks again."""
    async with service(tmp_path, STANDING, served=False) as parts:
        name = await a_running_job(parts)
        real = parts.store.transition

        def transition(name: str, to: JobState, **kwargs: Any) -> Job:
            answer = real(name, to, **kwargs)
            if to is JobState.PAUSED and not kwargs["repeated"]:
                parts.store.resume(name)
                raise StoreUnavailableError("the store does not answer")
            return answer

        monkeypatch.setattr(parts.store, "transition", transition)
        await parts.manager.pause(name, tenant=TENANT)
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.wait([parts.manager._running[name].task])
        assert parts.store.get_job(name).state is JobState.QUEUED


@pytest.mark.parametrize(
    ("asked", "end"), [("cancel", JobState.CANCELLED), ("pause", JobState.PAUSED)], ids=["cancel", "pause"]
)
async def test_what_was_asked_for_happens_though_the_answer_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, end: JobState
) -> None:
    async with service(tmp_path, STANDING) as parts:
        name = await a_running_job(parts)
        losing_answer(parts, asked, monkeypatch)
        with pytest.raises(StoreUnavailableError):
            await getattr(parts.manager, asked)(name, tenant=TENANT)
        await in_state(parts, name, end)
        assert parts.launcher.attempts[0].stopped


@pytest.mark.parametrize(
    ("asked", "end"), [("cancel", JobState.CANCELLED), ("pause", JobState.PAUSED)], ids=["cancel", "pause"]
)
async def test_asking_again_does_what_is_still_to_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, end: JobState
) -> None:
    async with service(tmp_path, STANDING, served=False) as parts:
        name = await a_running_job(parts)
        getattr(parts.store, asked)(name)
        await getattr(parts.manager, asked)(name, tenant=TENANT)
        await in_state(parts, name, end)


async def test_an_update_whose_answer_was_lost_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with service(tmp_path) as parts:
        name = (await parts.manager.submit(parts.submission())).name
        await parts.ended(name)
        await parts.shown.get(name, tenant=TENANT)
        losing_answer(parts, "update_job", monkeypatch)
        with pytest.raises(StoreUnavailableError):
            await parts.manager.update(name, JobChange(priority=3), tenant=TENANT)
        assert (await parts.shown.get(name, tenant=TENANT)).priority == 3


# --- the end ---------------------------------------------------------------------------------------------------


async def test_a_defect_while_cancelling_is_told_and_delays_it_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with service(tmp_path, STANDING) as parts:
        name = await a_running_job(parts)
        real, failures = parts.store.transition, [ZeroDivisionError("a defect")]

        def transition(name: str, to: JobState, **kwargs: Any) -> Job:
            if to is JobState.CANCELLED and failures:
                raise failures.pop()
            return real(name, to, **kwargs)

        monkeypatch.setattr(parts.store, "transition", transition)
        await parts.manager.cancel(name, tenant=TENANT)
        assert (await parts.ended(name)).state is JobState.CANCELLED
        assert "a defect" in caplog.text


@pytest.mark.parametrize("end", [JobState.CANCELLED, JobState.SUCCEEDED])
async def test_the_end_is_logged_before_the_log_counts_as_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, end: JobState
) -> None:
    caplog.set_level("INFO")
    script = (STANDING,) if end is JobState.CANCELLED else ()
    async with service(tmp_path, *script) as parts:
        real, logged = parts.store.transition, []

        def transition(name: str, to: JobState, **kwargs: Any) -> Job:
            if to is end:
                logged.append(caplog.records[-1].getMessage())
            return real(name, to, **kwargs)

        monkeypatch.setattr(parts.store, "transition", transition)
        name = (await parts.manager.submit(parts.submission())).name
        if end is JobState.CANCELLED:
            await in_state(parts, name, JobState.RUNNING)
            await parts.manager.cancel(name, tenant=TENANT)
        await parts.ended(name)
        assert [message.partition(",")[0] for message in logged] == [f"{name}: {end.value.lower()}"]


async def test_a_job_that_ended_while_it_was_being_cancelled_is_not_called_cancelled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with service(tmp_path, STANDING, served=False) as parts:
        name = await a_running_job(parts)
        ended: list[Job] = []
        parts.launcher.attempts[0].on_stop = lambda: ended.append(parts.store.transition(name, JobState.FAILED))
        await parts.manager.cancel(name, tenant=TENANT)
        assert (await parts.ended(name)).state is JobState.FAILED
        assert f"{name}: cancelled" not in caplog.text
