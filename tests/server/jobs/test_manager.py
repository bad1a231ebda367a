"""The queue, and how jobs are cancelled, paused, scaled and followed; what attempts report is scripted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from chainrule.server.errors import (
    AlreadyExistsError,
    IllegalStateError,
    InvalidRequestError,
    NotFoundError,
    StoreUnavailableError,
)
from chainrule.server.jobs import manager
from chainrule.server.records import Job, JobState, UnfinishedJob
from chainrule.server.training.events import Failed
from tests.server.conftest import refusal
from tests.server.jobs.service_parts import CONFIG, FULL, TENANT, Course, FakeLauncher, Parts, standing_after

STANDING = standing_after(2)


@pytest.fixture(autouse=True)
def _quick_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "QUEUE_INTERVAL_S", 0.05)


@asynccontextmanager
async def running(folder: Path, *script: int | Course | Exception | None, cpus: float = 4) -> AsyncIterator[Parts]:
    """The parts of a service that has started."""
    parts = Parts(folder, FakeLauncher(*script), cpus=cpus)
    await parts.manager.start()
    try:
        yield parts
    finally:
        await parts.manager.stop()
        parts.store.close()


async def in_state(parts: Parts, name: str, state: JobState) -> None:
    await until(parts, name, lambda job: job.state is state)


async def until(parts: Parts, name: str, holds: Callable[[Job], bool]) -> Job:
    """Follow a job until something holds of it."""
    async with asyncio.timeout(60):
        async for job in parts.shown.watch(name, tenant=TENANT):
            if holds(job):
                return job
    pytest.fail(f"{name} ended before")


async def test_a_submitted_job_runs_to_its_end(tmp_path: Path) -> None:
    async with running(tmp_path) as parts:
        job = await parts.manager.submit(parts.submission())
        assert job.state is JobState.QUEUED
        assert (await parts.ended(job.name)).state is JobState.SUCCEEDED


async def test_watching_shows_every_state_up_to_the_end(tmp_path: Path) -> None:
    async with running(tmp_path) as parts:
        job = await parts.manager.submit(parts.submission())
        last = await parts.ended(job.name)
        assert [change.state for change in last.history][-1] is JobState.SUCCEEDED
        assert [seen async for seen in parts.shown.watch(job.name, tenant=TENANT)] == [last]


async def test_metrics_stream_without_gaps_until_the_end(tmp_path: Path) -> None:
    async with running(tmp_path) as parts:
        job = await parts.manager.submit(parts.submission())
        steps = [
            m.step async for page in parts.following.stream_metrics(job.name, after_step=2, tenant=TENANT) for m in page
        ]
        assert steps == list(range(3, 13))


async def test_a_cancelled_job_stops_its_attempt(tmp_path: Path) -> None:
    async with running(tmp_path, STANDING) as parts:
        job = await parts.manager.submit(parts.submission())
        await in_state(parts, job.name, JobState.RUNNING)
        assert (await parts.manager.cancel(job.name, tenant=TENANT)).state is JobState.CANCELLING
        assert (await parts.ended(job.name)).state is JobState.CANCELLED
        assert parts.launcher.attempts[0].stopped


async def test_cancelling_again_is_no_error(tmp_path: Path) -> None:
    async with running(tmp_path, STANDING) as parts:
        job = await parts.manager.submit(parts.submission())
        await in_state(parts, job.name, JobState.RUNNING)
        answers = await asyncio.gather(*(parts.manager.cancel(job.name, tenant=TENANT) for _ in range(3)))
        assert {answer.state for answer in answers} <= {JobState.CANCELLING, JobState.CANCELLED}
        ended = await parts.ended(job.name)
        assert (await parts.manager.cancel(job.name, tenant=TENANT)) == ended
        assert [change.state.value for change in ended.history].count("CANCELLING") == 1


async def test_a_store_that_fails_while_cancelling_only_delays_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, STANDING) as parts:
        job = await parts.manager.submit(parts.submission())
        await in_state(parts, job.name, JobState.RUNNING)
        real, failures = parts.store.transition, [StoreUnavailableError("locked")] * 2

        def transition(name: str, to: JobState, **kwargs: Any) -> Job:
            if to is JobState.CANCELLED and failures:
                raise failures.pop()
            return real(name, to, **kwargs)

        monkeypatch.setattr(parts.store, "transition", transition)
        await parts.manager.cancel(job.name, tenant=TENANT)
        assert (await parts.ended(job.name)).state is JobState.CANCELLED
        assert failures == []


@pytest.mark.parametrize("end", [JobState.SUCCEEDED, JobState.FAILED])
async def test_what_has_ended_otherwise_cannot_be_stopped_or_changed(tmp_path: Path, end: JobState) -> None:
    def failing(_: object) -> list[Failed]:
        return [Failed("NON_FINITE", "the loss is nan", "", lost=False)]

    async with running(tmp_path, failing if end is JobState.FAILED else None) as parts:
        name = (await parts.manager.submit(parts.submission())).name
        assert (await parts.ended(name)).state is end
        refused = f'job "{name}" is {end.value}; only a'
        with pytest.raises(IllegalStateError, match=f"{refused} job that has not ended can be cancelled"):
            await parts.manager.cancel(name, tenant=TENANT)
        with pytest.raises(IllegalStateError, match=f"{refused} RUNNING job can be paused"):
            await parts.manager.pause(name, tenant=TENANT)
        with pytest.raises(IllegalStateError, match=f"{refused} PAUSED job can be resumed"):
            await parts.manager.resume(name, tenant=TENANT)
        with pytest.raises(IllegalStateError, match=f"{refused} job that has not ended can be scaled"):
            await parts.manager.scale(name, min_workers=0, max_workers=1, tenant=TENANT)


async def test_a_job_cancelled_just_before_it_begins_does_not_begin(tmp_path: Path) -> None:
    parts = Parts(tmp_path, FakeLauncher())
    name = parts.prepared()
    await parts.manager.cancel(name, tenant=TENANT)
    await parts.ended(name)
    await parts.make_run(name).run()
    assert parts.launcher.specs == []
    assert parts.store.get_job(name).state is JobState.CANCELLED
    parts.store.close()


async def test_a_job_paused_just_before_it_begins_does_not_begin(tmp_path: Path) -> None:
    parts = Parts(tmp_path, FakeLauncher())
    name = parts.prepared()
    assert (await parts.manager.pause(name, tenant=TENANT)).state is JobState.PAUSING
    await parts.make_run(name).run()
    assert parts.launcher.specs == []
    assert parts.store.get_job(name).state is JobState.PAUSED
    parts.store.close()


async def test_a_defect_in_one_pass_does_not_stop_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as parts:
        real, failures = parts.store.unfinished_jobs, [ZeroDivisionError("a defect"), StoreUnavailableError("locked")]

        def unfinished_jobs() -> list[UnfinishedJob]:
            if failures:
                raise failures.pop()
            return real()

        monkeypatch.setattr(parts.store, "unfinished_jobs", unfinished_jobs)
        job = await parts.manager.submit(parts.submission())
        assert (await parts.ended(job.name)).state is JobState.SUCCEEDED
    assert "a defect" in caplog.text


async def test_a_job_without_room_waits_in_the_queue_again(tmp_path: Path) -> None:
    async with running(tmp_path, FULL) as parts:
        job = await parts.manager.submit(parts.submission())
        ended = await parts.ended(job.name)
    assert ended.state is JobState.SUCCEEDED
    assert [change.reason for change in ended.history][2] == "waits for room: 2 CPUs are wanted"


async def test_a_job_waits_until_there_is_room_for_its_fewest_workers(tmp_path: Path) -> None:
    async with running(tmp_path, STANDING, cpus=3) as parts:
        first = await parts.manager.submit(parts.submission())
        second = await parts.manager.submit(parts.submission(replace(CONFIG, min_workers=2)))
        await in_state(parts, first.name, JobState.RUNNING)
        assert (await parts.manager.get(second.name, tenant=TENANT)).state is JobState.QUEUED
        await parts.manager.cancel(first.name, tenant=TENANT)
        assert (await parts.ended(second.name)).state is JobState.SUCCEEDED
    assert [spec.workers for spec in parts.launcher.specs] == [2, 2]


async def test_a_job_has_as_many_workers_as_there_is_room_for_and_more_when_others_leave(tmp_path: Path) -> None:
    async with running(tmp_path, STANDING, STANDING, cpus=3) as parts:
        first = await parts.manager.submit(parts.submission())
        await in_state(parts, first.name, JobState.RUNNING)
        second = await parts.manager.submit(parts.submission(replace(CONFIG, max_workers=4)))
        await in_state(parts, second.name, JobState.RUNNING)
        assert [spec.workers for spec in parts.launcher.specs] == [2, 1]
        await parts.manager.cancel(first.name, tenant=TENANT)
        await until(parts, second.name, lambda job: job.running_workers == 3)
        assert parts.launcher.attempts[1].scaled == [3]


async def test_a_job_grows_when_the_cluster_does(tmp_path: Path) -> None:
    async with running(tmp_path, STANDING, cpus=1) as parts:
        job = await parts.manager.submit(parts.submission())
        await in_state(parts, job.name, JobState.RUNNING)
        parts.capacity.cpus = 8
        await until(parts, job.name, lambda job: job.running_workers == 2)


async def test_a_job_does_not_grow_into_what_others_use_or_wait_for(tmp_path: Path) -> None:
    """The queue is stepped by hand here."""
    parts = Parts(tmp_path, FakeLauncher(STANDING), cpus=4)
    parts.capacity.used_by_others = 3
    first = await parts.manager.submit(parts.submission(replace(CONFIG, max_workers=4)))
    await parts.manager._distribute()
    await in_state(parts, first.name, JobState.RUNNING)
    second = await parts.manager.submit(parts.submission(replace(CONFIG, min_workers=4, max_workers=4)))
    parts.capacity.used_by_others = 1
    await parts.manager._distribute()
    assert parts.launcher.attempts[0].scaled == []
    await parts.manager.cancel(second.name, tenant=TENANT)
    await parts.ended(second.name)
    parts.capacity.used_by_others = 2
    await parts.manager._distribute()
    await until(parts, first.name, lambda job: job.running_workers == 3)
    await parts.manager.stop()
    parts.store.close()


# --- scaling ---------------------------------------------------------------------------------------------------


async def test_a_running_job_is_scaled_up_and_down(tmp_path: Path) -> None:
    async with running(tmp_path, STANDING) as parts:
        job = await parts.manager.submit(parts.submission())
        await in_state(parts, job.name, JobState.RUNNING)
        up = await parts.manager.scale(job.name, min_workers=2, max_workers=4, tenant=TENANT)
        assert (up.config.min_workers, up.config.max_workers) == (2, 4)
        await until(parts, job.name, lambda job: job.running_workers == 4)
        down = await parts.manager.scale(job.name, min_workers=1, max_workers=1, tenant=TENANT)
        assert (down.config.min_workers, down.config.max_workers) == (1, 1)
        await until(parts, job.name, lambda job: job.running_workers == 1)
        assert parts.launcher.attempts[0].scaled == [4, 1]


async def test_a_waiting_job_is_scaled_for_when_it_begins(tmp_path: Path) -> None:
    async with running(tmp_path, cpus=2) as parts:
        parts.capacity.used_by_others = 1
        job = await parts.manager.submit(parts.submission(replace(CONFIG, min_workers=2)))
        await parts.manager.scale(job.name, min_workers=1, max_workers=0, tenant=TENANT)
        assert (await parts.ended(job.name)).state is JobState.SUCCEEDED
    assert [spec.workers for spec in parts.launcher.specs] == [1]


@pytest.mark.parametrize(
    ("asked", "field", "description"),
    [
        ((0, 5), "max_workers", r"is 5; use 1 to 4, the job's shards"),
        ((0, -1), "max_workers", r"is -1; use 1 to 4"),
        ((-1, 0), "min_workers", r"is -1; use 1 or more"),
        ((3, 0), "min_workers", r"makes them 3 to 2; use at most max_workers"),
        ((3, 2), "min_workers", r"makes them 3 to 2; use at most max_workers"),
    ],
)
async def test_workers_that_a_job_cannot_have_are_refused(
    tmp_path: Path, asked: tuple[int, int], field: str, description: str
) -> None:
    async with running(tmp_path, STANDING) as parts:
        job = await parts.manager.submit(parts.submission())
        with pytest.raises(InvalidRequestError, match=description) as caught:
            await parts.manager.scale(job.name, min_workers=asked[0], max_workers=asked[1], tenant=TENANT)
        assert refusal(caught).field == field
        assert (await parts.manager.get(job.name, tenant=TENANT)).config == job.config


# --- pausing ---------------------------------------------------------------------------------------------------


async def test_a_paused_job_gives_its_place_to_others_until_it_is_resumed(tmp_path: Path) -> None:
    async with running(tmp_path, STANDING, cpus=2) as parts:
        first = await parts.manager.submit(parts.submission(replace(CONFIG, min_workers=2)))
        second = await parts.manager.submit(parts.submission())
        await in_state(parts, first.name, JobState.RUNNING)
        assert (await parts.manager.pause(first.name, tenant=TENANT)).state is JobState.PAUSING
        assert (await parts.manager.pause(first.name, tenant=TENANT)).state in (JobState.PAUSING, JobState.PAUSED)
        await in_state(parts, first.name, JobState.PAUSED)
        assert (await parts.ended(second.name)).state is JobState.SUCCEEDED
        assert (await parts.manager.resume(first.name, tenant=TENANT)).state is JobState.QUEUED
        ended = await parts.ended(first.name)
    assert ended.state is JobState.SUCCEEDED
    assert [c.state.value for c in ended.history if "PAUS" in c.state.value] == ["PAUSING", "PAUSED"]
    assert parts.launcher.first_steps[-1] > 0


async def test_a_queued_job_is_paused_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, cpus=2) as parts:
        parts.capacity.used_by_others = 2
        job = await parts.manager.submit(parts.submission())
        assert (await parts.manager.pause(job.name, tenant=TENANT)).state is JobState.PAUSED
        parts.capacity.used_by_others = 0
        await parts.manager._distribute()
        assert (await parts.manager.get(job.name, tenant=TENANT)).state is JobState.PAUSED
        assert (await parts.manager.resume(job.name, tenant=TENANT)).state is JobState.QUEUED
        assert (await parts.manager.resume(job.name, tenant=TENANT)).state in (
            JobState.QUEUED,
            JobState.PREPARING,
            JobState.RUNNING,
        )
        assert (await parts.ended(job.name)).state is JobState.SUCCEEDED


async def test_a_job_that_is_pausing_cannot_be_resumed_yet(tmp_path: Path) -> None:
    async with running(tmp_path, STANDING) as parts:
        job = await parts.manager.submit(parts.submission())
        await in_state(parts, job.name, JobState.RUNNING)
        parts.launcher.attempts[0].answers_pause = False
        await parts.manager.pause(job.name, tenant=TENANT)
        with pytest.raises(IllegalStateError, match="is PAUSING; only a PAUSED job can be resumed"):
            await parts.manager.resume(job.name, tenant=TENANT)


@pytest.mark.parametrize("state", [JobState.PAUSING, JobState.PAUSED])
async def test_a_job_that_is_pausing_or_paused_can_be_cancelled(tmp_path: Path, state: JobState) -> None:
    async with running(tmp_path, STANDING) as parts:
        job = await parts.manager.submit(parts.submission())
        await in_state(parts, job.name, JobState.RUNNING)
        parts.launcher.attempts[0].answers_pause = state is JobState.PAUSED
        await parts.manager.pause(job.name, tenant=TENANT)
        await in_state(parts, job.name, state)
        await parts.manager.cancel(job.name, tenant=TENANT)
        assert (await parts.ended(job.name)).state is JobState.CANCELLED
        assert parts.launcher.attempts[0].stopped


@pytest.mark.parametrize("state", [JobState.PAUSING, JobState.PAUSED])
async def test_a_restarted_service_leaves_paused_jobs_paused(tmp_path: Path, state: JobState) -> None:
    parts = Parts(tmp_path, FakeLauncher())
    name = parts.prepared()
    parts.store.pause(name)
    if state is JobState.PAUSED:
        parts.store.transition(name, JobState.PAUSED)
    parts.store.close()
    async with running(tmp_path) as parts:
        await parts.manager._distribute()
        assert (await parts.manager.get(name, tenant=TENANT)).state is JobState.PAUSED
        assert parts.launcher.specs == []
        await parts.manager.resume(name, tenant=TENANT)
        assert (await parts.ended(name)).state is JobState.SUCCEEDED


# --- the rest --------------------------------------------------------------------------------------------------


async def test_a_queued_job_can_be_cancelled(tmp_path: Path) -> None:
    async with running(tmp_path, cpus=2) as parts:
        parts.capacity.used_by_others = 2
        job = await parts.manager.submit(parts.submission())
        await parts.manager.cancel(job.name, tenant=TENANT)
        ended = await parts.ended(job.name)
        assert [change.state.value for change in ended.history] == ["QUEUED", "CANCELLING", "CANCELLED"]


class Announced(asyncio.Event):
    """An event that says when somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_for = asyncio.Event()

    async def wait(self) -> Literal[True]:
        self.waited_for.set()
        return await super().wait()


@pytest.mark.parametrize("ticks", range(6))
async def test_the_queue_can_be_stopped_at_the_moment_it_is_woken(tmp_path: Path, ticks: int) -> None:
    """asyncio.wait_for of Python 3.11 lost the cancellation here, and the service never stopped."""
    parts = Parts(tmp_path, FakeLauncher())
    wake = parts.manager._wake = Announced()
    await parts.manager.start()
    async with asyncio.timeout(10):
        await wake.waited_for.wait()
    wake.set()
    for _ in range(ticks):
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await parts.manager.stop()
    parts.store.close()


async def test_a_restarted_service_goes_on_with_what_was_unfinished(tmp_path: Path) -> None:
    async with running(tmp_path, standing_after(6)) as parts:
        job = await parts.manager.submit(parts.submission())
        await until(parts, job.name, lambda job: job.progress.step >= 6)
    async with running(tmp_path) as parts:
        ended = await parts.ended(job.name)
    assert ended.state is JobState.SUCCEEDED
    assert parts.launcher.first_steps == [4]
    assert "the service was restarted" in [change.reason for change in ended.history]
    assert [event.message for event in ended.events] == ["went back from step 6 to 4: the service was restarted"]


async def test_a_cancel_that_a_crash_cut_off_is_finished_at_the_next_start(tmp_path: Path) -> None:
    parts = Parts(tmp_path, FakeLauncher())
    name = parts.prepared()
    parts.store.transition(name, JobState.CANCELLING)
    parts.store.close()
    async with running(tmp_path) as parts:
        assert (await parts.manager.get(name, tenant=TENANT)).state is JobState.CANCELLED


async def test_a_repeated_request_is_answered_with_the_first_job(tmp_path: Path) -> None:
    async with running(tmp_path) as parts:
        first = await parts.manager.submit(parts.submission(request_id="r"))
        assert (await parts.manager.submit(parts.submission(request_id="r"))).name == first.name
        with pytest.raises(AlreadyExistsError):
            await parts.manager.submit(parts.submission(replace(CONFIG, epochs=4), request_id="r"))
        await parts.ended(first.name)


async def test_following_an_unknown_job_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as parts:
        with pytest.raises(NotFoundError):
            await anext(parts.shown.watch("jobs/nope", tenant=TENANT))
