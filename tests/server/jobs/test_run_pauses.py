"""A job that is paused or scaled while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chainrule.server.jobs import policies
from chainrule.server.records import Job, JobState
from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.events import (
    Failed,
    Finished,
    Started,
    WorkersChanged,
)
from tests.server.jobs.running import TOTAL, flip_last_byte, states
from tests.server.jobs.service_parts import (
    CONFIG,
    FINGERPRINT,
    STEPS_PER_EPOCH,
    Course,
    FakeAttempt,
    FakeLauncher,
    Parts,
    steps,
)

pytestmark = pytest.mark.usefixtures("no_pauses")


class Scene:
    """A job that runs until it is told otherwise."""

    def __init__(self, parts: Parts, name: str) -> None:
        self.parts = parts
        self.name = name
        self.run = parts.make_run(name)
        self.task = asyncio.create_task(self.run.run())

    @property
    def attempt(self) -> FakeAttempt:
        return self.parts.launcher.attempts[-1]

    @property
    def job(self) -> Job:
        return self.parts.store.get_job(self.name)

    async def reaches(self, step: int) -> None:
        """Wait until a step is stored."""
        await self.until(lambda job: job.progress.step >= step)

    async def until(self, holds: Callable[[Job], bool]) -> None:
        """Wait until something holds of the job."""
        async with asyncio.timeout(30):
            while True:
                bell = self.parts.feed.listen(self.name)
                if holds(self.job):
                    return
                await bell.wait()

    async def pause(self) -> Job:
        """Pause, and wait for the end of the run."""
        self.parts.store.pause(self.name)
        self.run.pause()
        async with asyncio.timeout(30):
            await self.task
        return self.job


@pytest.fixture
def make_scene(tmp_path: Path) -> Iterator[Any]:
    made: list[Scene] = []

    def make(*script: Any, **config: Any) -> Scene:
        parts = Parts(tmp_path, FakeLauncher(*script))
        made.append(Scene(parts, parts.prepared(replace(CONFIG, **config))))
        return made[-1]

    yield make
    for scene in made:
        scene.parts.store.close()


async def test_pausing_stores_a_checkpoint_and_frees_the_cluster(make_scene: Any, expected: str) -> None:
    scene = make_scene(standing(6))
    await scene.reaches(6)
    job = await scene.pause()
    assert states(job)[-2:] == ["PAUSING", "PAUSED"]
    assert scene.attempt.pauses == 1
    assert scene.attempt.stopped
    assert job.running_workers == 0
    assert scene.parts.store.checkpoints(scene.name)[0].step == 6

    scene.parts.store.resume(scene.name)
    scene.parts.store.transition(scene.name, JobState.PREPARING)
    await scene.parts.make_run(scene.name).run()
    assert scene.parts.launcher.first_steps == [0, 6]
    assert scene.job.weights_digest == expected
    assert scene.job.events == ()  # nothing was lost


def standing(step: int) -> Course:
    return lambda spec: [Started(spec.workers, FINGERPRINT), *steps(spec, spec.state.step + 1, step), None]


async def test_a_part_lost_while_pausing_leaves_the_job_paused_at_its_last_checkpoint(
    make_scene: Any, expected: str
) -> None:
    scene = make_scene(standing(6))
    await scene.reaches(6)
    scene.attempt.answers_pause = False
    scene.parts.store.pause(scene.name)
    scene.run.pause()
    scene.attempt.say(Failed("PART_LOST", "worker 1 was killed", "", lost=True))
    async with asyncio.timeout(30):
        await scene.task
    assert scene.job.state is JobState.PAUSED
    assert scene.job.history[-1].reason == "a part was lost while pausing: worker 1 was killed"

    scene.parts.store.resume(scene.name)
    scene.parts.store.transition(scene.name, JobState.PREPARING)
    await scene.parts.make_run(scene.name).run()
    assert scene.parts.launcher.first_steps == [0, STEPS_PER_EPOCH]
    assert scene.job.weights_digest == expected
    [event] = scene.job.events
    assert event.message == "went back from step 6 to 4: a part was lost while pausing: worker 1 was killed"


async def test_a_coordinator_that_does_not_pause_in_time_counts_as_lost(
    make_scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chainrule.server.jobs.run.PAUSE_TIMEOUT_S", 0.01)
    scene = make_scene(standing(2))
    await scene.reaches(2)
    scene.attempt.answers_pause = False
    job = await scene.pause()
    assert job.state is JobState.PAUSED
    assert job.history[-1].reason == "a part was lost while pausing: the coordinator did not pause within 0 s"
    assert scene.attempt.stopped


async def test_a_job_that_does_not_compute_yet_is_paused_at_once(make_scene: Any) -> None:
    scene = make_scene(lambda spec: [None])
    async with asyncio.timeout(30):
        await scene.parts.launcher.launched.wait()
    job = await scene.pause()
    assert job.state is JobState.PAUSED
    assert scene.attempt.pauses == 0
    assert scene.attempt.stopped


async def test_a_launch_is_given_up_for_a_pause(make_scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene()
    launching = asyncio.Event()

    async def launch(spec: AttemptSpec) -> FakeAttempt:
        launching.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(scene.parts.launcher, "launch", launch)
    async with asyncio.timeout(30):
        await launching.wait()
    assert (await scene.pause()).state is JobState.PAUSED


async def test_a_job_that_recovers_can_be_paused(make_scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "FIRST_DELAY_S", 1000.0)
    monkeypatch.setattr(policies, "MAX_DELAY_S", 1000.0)
    scene = make_scene(0)
    await scene.until(lambda job: job.state is JobState.RECOVERING)
    job = await scene.pause()
    assert states(job)[-3:] == ["RECOVERING", "PAUSING", "PAUSED"]
    assert len(scene.parts.launcher.attempts) == 1


async def test_training_that_ends_before_it_can_pause_has_succeeded(make_scene: Any, expected: str) -> None:
    scene = make_scene(standing(TOTAL))
    await scene.until(lambda job: TOTAL in [known.step for known in scene.parts.store.checkpoints(job.name)])
    scene.attempt.answers_pause = False
    scene.parts.store.pause(scene.name)
    scene.attempt.say(Finished(TOTAL))
    scene.run.pause()
    async with asyncio.timeout(30):
        await scene.task
    assert states(scene.job)[-3:] == ["PAUSING", "FINALIZING", "SUCCEEDED"]
    assert scene.job.weights_digest == expected


async def test_a_pause_that_training_overtook_is_still_due_if_its_last_checkpoint_is_damaged(
    make_scene: Any, tmp_path: Path
) -> None:
    scene = make_scene(standing(TOTAL))
    await scene.until(lambda job: TOTAL in [known.step for known in scene.parts.store.checkpoints(job.name)])
    flip_last_byte(tmp_path, scene.name)
    scene.attempt.answers_pause = False
    scene.parts.store.pause(scene.name)
    scene.attempt.say(Finished(TOTAL))
    scene.run.pause()
    async with asyncio.timeout(30):
        await scene.task
    assert states(scene.job)[-5:] == ["PAUSING", "FINALIZING", "RECOVERING", "PAUSING", "PAUSED"]


async def test_losing_workers_while_pausing_does_not_end_the_pause(make_scene: Any) -> None:
    scene = make_scene(standing(6), min_workers=2)
    await scene.reaches(6)
    scene.parts.store.pause(scene.name)
    scene.attempt.say(WorkersChanged(1, "worker 2 was killed", enough=False))
    scene.run.pause()
    async with asyncio.timeout(30):
        await scene.task
    assert states(scene.job)[-2:] == ["PAUSING", "PAUSED"]
    assert scene.parts.store.checkpoints(scene.name)[0].step == 6


async def test_scaling_reaches_the_attempt_that_runs_and_those_to_come(make_scene: Any) -> None:
    scene = make_scene(standing(2))
    await scene.reaches(2)
    scene.run.scale(4)
    await scene.until(lambda job: job.running_workers == 4)
    assert scene.attempt.scaled == [4]
    scene.attempt.say(Failed("PART_LOST", "killed", "", lost=True))
    async with asyncio.timeout(30):
        await scene.task
    assert [spec.workers for spec in scene.parts.launcher.specs] == [2, 4]
