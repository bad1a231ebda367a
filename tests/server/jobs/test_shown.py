"""Jobs as they are shown: read once after each change, never older than what was acknowledged."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime

import pytest

from chainrule.server.errors import NotFoundError
from chainrule.server.jobs import shown
from chainrule.server.jobs.feed import Feed
from chainrule.server.jobs.shown import Shown
from chainrule.server.records import Job, JobState, Progress
from chainrule.server.training.config import TrainingConfig
from tests.server.training.bench import until

TIME = datetime(2026, 1, 1, tzinfo=UTC)
NAME = "jobs/a"
TENANT = "default"


class Source:
    """One job, and how often it was read."""

    def __init__(self) -> None:
        self.feed = Feed()
        self.job: Job | None = Job(NAME, "models/m", "datasets/d", TrainingConfig(), JobState.RUNNING, (), TIME)
        self.reads = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.now_s = 0.0
        self.shown = Shown(
            self.read,
            self.feed,
            show=lambda job: job.progress.step,
            weigh=lambda step: step,
            clock=lambda: self.now_s,
        )

    async def read(self, name: str, *, tenant: str) -> Job:
        self.reads += 1
        found = self.job
        await self.gate.wait()
        if found is None or tenant != TENANT or name != NAME:
            raise NotFoundError(f'there is no job "{name}"', name=name)
        return found

    def change(self, step: int, state: JobState = JobState.RUNNING) -> None:
        assert self.job is not None
        self.job = dataclasses.replace(self.job, progress=Progress(step, 100, 1, 1), state=state)
        self.feed.ring(NAME)


@pytest.fixture
async def source() -> Source:
    return Source()


async def test_a_job_is_read_once_until_it_changes(source: Source) -> None:
    assert [await source.shown.get(NAME, tenant=TENANT) for _ in range(3)] == [0, 0, 0]
    assert source.reads == 1
    source.change(5)
    assert [await source.shown.get(NAME, tenant=TENANT) for _ in range(3)] == [5, 5, 5]
    assert source.reads == 2


async def test_a_job_that_has_not_ended_is_read_again_after_a_second(source: Source) -> None:
    """What is shown of it tells how long it has been in its state."""
    for reads, now_s in ((1, 0.0), (1, 1.0), (2, 1.1), (2, 2.0), (3, 5.0)):
        source.now_s = now_s
        await source.shown.get(NAME, tenant=TENANT)
        assert source.reads == reads
    source.change(100, JobState.SUCCEEDED)
    for source.now_s in (5.0, 1000.0):
        await source.shown.get(NAME, tenant=TENANT)
    assert source.reads == 4


async def test_what_was_read_before_a_change_is_not_shown_after_it(source: Source) -> None:
    """The reading began before, and ends after."""
    source.gate.clear()
    before = asyncio.create_task(source.shown.get(NAME, tenant=TENANT))
    await until(lambda: source.reads == 1)
    source.change(5)
    after = asyncio.create_task(source.shown.get(NAME, tenant=TENANT))
    await until(lambda: source.reads == 2)
    source.gate.set()
    assert (await before, await after) == (0, 5)
    assert await source.shown.get(NAME, tenant=TENANT) == 5


async def test_many_who_ask_at_once_wait_for_one_reading(source: Source) -> None:
    source.gate.clear()
    asked = [asyncio.create_task(source.shown.get(NAME, tenant=TENANT)) for _ in range(50)]
    await until(lambda: source.reads == 1)
    asked[0].cancel()
    source.gate.set()
    assert await asyncio.gather(*asked[1:]) == [0] * 49
    assert source.reads == 1


async def test_another_tenant_is_shown_nothing(source: Source) -> None:
    assert await source.shown.get(NAME, tenant=TENANT) == 0
    for _ in range(2):
        with pytest.raises(NotFoundError):
            await source.shown.get(NAME, tenant="other")
    assert source.reads == 3


async def test_a_job_that_was_removed_is_not_there(source: Source) -> None:
    assert await source.shown.get(NAME, tenant=TENANT) == 0
    source.job = None
    source.feed.ring(NAME)
    with pytest.raises(NotFoundError):
        await source.shown.get(NAME, tenant=TENANT)


async def test_what_is_kept_is_bounded(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "MAX_KEPT_BYTES", 4)
    source.change(5)
    for _ in range(2):
        assert await source.shown.get(NAME, tenant=TENANT) == 5
    assert source.reads == 2


async def test_of_small_jobs_no_more_are_kept_than_there_is_memory_for(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte that is shown stands for a record and all that it is made of."""
    monkeypatch.setattr(shown, "MAX_KEPT_BYTES", 100_000)
    source.change(1)
    assert source.job is not None
    jobs = {f"jobs/j{number}": source.job for number in range(50)}

    async def read(name: str, *, tenant: str) -> Job:
        return jobs[name]

    many = Shown(read, source.feed, show=lambda job: job.progress.step, weigh=lambda step: step)
    for name in jobs:
        assert await many.get(name, tenant=TENANT) == 1
    assert [name for _, name in many._kept] == [f"jobs/j{number}" for number in range(38, 50)]


async def follow(source: Source, seen: list[int]) -> None:
    async for step in source.shown.watch(NAME, tenant=TENANT):
        seen.append(step)  # noqa: PERF401 — as they come


async def test_all_followers_see_the_end_and_share_readings(source: Source) -> None:
    seen: list[list[int]] = [[] for _ in range(100)]
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for each in seen:
            group.create_task(follow(source, each))
        await until(lambda: all(seen))
        for step in range(1, 20):
            source.change(step)
            await asyncio.sleep(0)
        source.change(20, JobState.SUCCEEDED)
    for each in seen:
        assert (each[0], each[-1]) == (0, 20)
        assert each == sorted(set(each))
    assert source.reads <= 22


async def test_progress_is_told_to_many_less_often_and_a_change_of_state_at_once(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "A_FOLLOWER_S", 3600.0)
    seen: list[int] = []
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(follow(source, seen))
        await until(lambda: seen == [0])
        source.change(1)
        await until(lambda: source.reads == 2)
        source.change(2)
        await until(lambda: source.reads == 3)
        assert seen == [0]
        source.change(3, JobState.PAUSING)
        await until(lambda: seen == [0, 3])
        source.change(4, JobState.CANCELLED)
    assert seen == [0, 3, 4]


async def test_progress_is_told_in_the_end_although_nothing_else_happens(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "A_FOLLOWER_S", 0.01)
    seen: list[int] = []
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(follow(source, seen))
        await until(lambda: seen == [0])
        source.change(1)
        source.change(2)
        await until(lambda: seen[-1] == 2)
        source.change(3, JobState.FAILED)
    assert seen[-1] == 3


async def test_followers_of_a_job_that_is_removed_are_told(source: Source) -> None:
    seen: list[int] = []
    following = asyncio.create_task(follow(source, seen))
    await until(lambda: seen == [0])
    source.job = None
    source.feed.ring(NAME)
    with pytest.raises(NotFoundError):
        await following


async def test_when_the_last_follower_has_gone_nobody_reads(source: Source) -> None:
    seen: list[int] = []
    following = asyncio.create_task(follow(source, seen))
    await until(lambda: seen == [0])
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    reads = source.reads
    source.change(1)
    await asyncio.sleep(0)
    assert source.reads == reads
    assert not source.shown._broadcasts
