"""The queue, cancelling and following, with a launcher in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from chainrule.server.errors import AlreadyExistsError, IllegalStateError, NotFoundError, StoreUnavailableError
from chainrule.server.jobs import manager
from chainrule.server.records import Job, JobState
from chainrule.server.training.plan import Sgd
from tests.server.jobs.service_parts import CONFIG, LocalLauncher, Parts

LONG = replace(CONFIG, epochs=100_000)


@pytest.fixture(autouse=True)
def _quick_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "QUEUE_INTERVAL_S", 0.05)


@asynccontextmanager
async def running(folder: Path, *script: int | str | None, cpus: float = 4) -> AsyncIterator[Parts]:
    """The parts of a service that has started."""
    parts = Parts(folder, LocalLauncher(*script), cpus=cpus)
    await parts.manager.start()
    try:
        yield parts
    finally:
        await parts.manager.stop()
        parts.store.close()


async def in_state(parts: Parts, name: str, state: JobState) -> None:
    async with asyncio.timeout(60):
        async for job in parts.manager.watch(name):
            if job.state is state:
                return
    pytest.fail(f"{name} never became {state.value}")


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
        assert [seen async for seen in parts.manager.watch(job.name)] == [last]


async def test_metrics_stream_without_gaps_until_the_end(tmp_path: Path) -> None:
    async with running(tmp_path) as parts:
        job = await parts.manager.submit(parts.submission())
        steps = [m.step async for page in parts.manager.stream_metrics(job.name, after_step=2) for m in page]
        assert steps == list(range(3, 13))


async def test_a_cancelled_job_stops_its_attempt(tmp_path: Path) -> None:
    async with running(tmp_path) as parts:
        job = await parts.manager.submit(parts.submission(LONG))
        await in_state(parts, job.name, JobState.RUNNING)
        assert (await parts.manager.cancel(job.name)).state is JobState.CANCELLING
        assert (await parts.ended(job.name)).state is JobState.CANCELLED
        assert parts.launcher.attempts[0].stopped


async def test_cancelling_again_is_no_error(tmp_path: Path) -> None:
    async with running(tmp_path) as parts:
        job = await parts.manager.submit(parts.submission(LONG))
        await in_state(parts, job.name, JobState.RUNNING)
        answers = await asyncio.gather(*(parts.manager.cancel(job.name) for _ in range(3)))
        assert {answer.state for answer in answers} <= {JobState.CANCELLING, JobState.CANCELLED}
        ended = await parts.ended(job.name)
        assert (await parts.manager.cancel(job.name)) == ended
        assert [change.state.value for change in ended.history].count("CANCELLING") == 1


async def test_a_store_that_fails_while_cancelling_only_delays_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as parts:
        job = await parts.manager.submit(parts.submission(LONG))
        await in_state(parts, job.name, JobState.RUNNING)
        real, failures = parts.store.transition, [StoreUnavailableError("locked")] * 2

        def transition(name: str, to: JobState, **kwargs: Any) -> Job:
            if to is JobState.CANCELLED and failures:
                raise failures.pop()
            return real(name, to, **kwargs)

        monkeypatch.setattr(parts.store, "transition", transition)
        await parts.manager.cancel(job.name)
        assert (await parts.ended(job.name)).state is JobState.CANCELLED
        assert failures == []


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of the overflow that makes the job fail
@pytest.mark.parametrize("end", [JobState.SUCCEEDED, JobState.FAILED])
async def test_what_has_ended_otherwise_cannot_be_cancelled(tmp_path: Path, end: JobState) -> None:
    optimizer = Sgd(lr=1e30) if end is JobState.FAILED else CONFIG.optimizer
    async with running(tmp_path) as parts:
        job = await parts.manager.submit(parts.submission(replace(CONFIG, optimizer=optimizer)))
        assert (await parts.ended(job.name)).state is end
        with pytest.raises(IllegalStateError, match=f"is {end.value}; only a job that has not ended can be cancelled"):
            await parts.manager.cancel(job.name)


async def test_a_job_cancelled_just_before_it_begins_does_not_begin(tmp_path: Path) -> None:
    parts = Parts(tmp_path, LocalLauncher())
    job, _ = parts.submissions.submit(parts.submission(), cluster_cpus=4)
    parts.store.transition(job.name, JobState.PREPARING)
    await parts.manager.cancel(job.name)
    await parts.ended(job.name)
    await parts.make_run(job.name).run()
    assert parts.launcher.fences == []
    assert parts.store.get_job(job.name).state is JobState.CANCELLED
    parts.store.close()


async def test_a_defect_in_one_pass_does_not_stop_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as parts:
        real, failures = parts.store.unfinished_jobs, [ZeroDivisionError("a defect"), StoreUnavailableError("locked")]

        def unfinished_jobs() -> list[Job]:
            if failures:
                raise failures.pop()
            return real()

        monkeypatch.setattr(parts.store, "unfinished_jobs", unfinished_jobs)
        job = await parts.manager.submit(parts.submission())
        assert (await parts.ended(job.name)).state is JobState.SUCCEEDED
    assert "a defect" in caplog.text


async def test_a_job_without_room_waits_in_the_queue_again(tmp_path: Path) -> None:
    async with running(tmp_path, "no room") as parts:
        job = await parts.manager.submit(parts.submission())
        ended = await parts.ended(job.name)
    assert ended.state is JobState.SUCCEEDED
    assert [change.reason for change in ended.history][2] == "waits for room: 2 CPUs are wanted"


async def test_a_job_of_a_larger_cluster_goes_on_with_fewer_workers_to_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    (tmp_path / "small").mkdir()
    digests = []
    for folder, cpus in (("large", 4), ("small", 1)):
        parts = Parts(tmp_path / folder, LocalLauncher(), cpus=cpus)
        job, _ = parts.submissions.submit(parts.submission(), cluster_cpus=4)
        await parts.manager.start()
        digests.append((await parts.ended(job.name)).weights_digest)
        await parts.manager.stop()
        parts.store.close()
        assert parts.launcher.workers == [min(2, cpus)]
    assert digests[0] == digests[1]


async def test_a_job_waits_until_there_is_room(tmp_path: Path) -> None:
    async with running(tmp_path, cpus=3) as parts:
        first = await parts.manager.submit(parts.submission(LONG))
        second = await parts.manager.submit(parts.submission())
        await in_state(parts, first.name, JobState.RUNNING)
        assert (await parts.manager.get(second.name)).state is JobState.QUEUED
        await parts.manager.cancel(first.name)
        assert (await parts.ended(second.name)).state is JobState.SUCCEEDED


async def test_a_queued_job_can_be_cancelled(tmp_path: Path) -> None:
    async with running(tmp_path, cpus=2) as parts:
        first = await parts.manager.submit(parts.submission(LONG))
        second = await parts.manager.submit(parts.submission())
        await parts.manager.cancel(second.name)
        ended = await parts.ended(second.name)
        assert [change.state.value for change in ended.history] == ["QUEUED", "CANCELLING", "CANCELLED"]
        await parts.manager.cancel(first.name)


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
    parts = Parts(tmp_path, LocalLauncher())
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
    async with running(tmp_path) as parts:
        job = await parts.manager.submit(parts.submission(replace(CONFIG, epochs=40)))
        async with asyncio.timeout(60):
            async for seen in parts.manager.watch(job.name):
                if seen.progress.epoch >= 2:
                    break
    async with running(tmp_path) as parts:
        ended = await parts.ended(job.name)
    assert ended.state is JobState.SUCCEEDED
    assert parts.launcher.first_steps[0] >= 4
    assert "the service was restarted" in [change.reason for change in ended.history]


async def test_a_cancel_that_a_crash_cut_off_is_finished_at_the_next_start(tmp_path: Path) -> None:
    parts = Parts(tmp_path, LocalLauncher())
    job, _ = parts.submissions.submit(parts.submission(), cluster_cpus=4)
    parts.store.transition(job.name, JobState.CANCELLING)
    parts.store.close()
    async with running(tmp_path) as parts:
        assert (await parts.manager.get(job.name)).state is JobState.CANCELLED


async def test_a_repeated_request_is_answered_with_the_first_job(tmp_path: Path) -> None:
    async with running(tmp_path) as parts:
        first = await parts.manager.submit(parts.submission(request_id="r"))
        assert (await parts.manager.submit(parts.submission(request_id="r"))).name == first.name
        with pytest.raises(AlreadyExistsError):
            await parts.manager.submit(parts.submission(LONG, request_id="r"))
        await parts.ended(first.name)


async def test_following_an_unknown_job_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as parts:
        with pytest.raises(NotFoundError):
            await anext(parts.manager.watch("jobs/nope"))
