"""One job through its states: whatever is lost on the way, the weights are those of an undisturbed run."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule.engine import io
from chainrule.engine.models import outline_of
from chainrule.server.architecture import CodeArchitecture
from chainrule.server.blobs import BlobStore
from chainrule.server.errors import IllegalStateError, StorageFullError, StoreUnavailableError
from chainrule.server.jobs import policies
from chainrule.server.jobs.patience import to_the_end as until_written
from chainrule.server.records import Job, JobState
from chainrule.server.store import Store
from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.config import Validation
from chainrule.server.training.errors import LostPartError
from chainrule.server.training.events import (
    Failed,
    Finished,
    Incident,
    ReceiptTaken,
    Started,
    StepsDone,
    WorkersChanged,
)
from tests.server.jobs.service_parts import (
    CONFIG,
    FINGERPRINT,
    FULL,
    STEPS_PER_EPOCH,
    UNREACHABLE,
    Course,
    FakeAttempt,
    FakeLauncher,
    Item,
    Parts,
    metric,
    state_after,
    steps,
    to_the_end,
)

TOTAL = 3 * STEPS_PER_EPOCH


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "FIRST_DELAY_S", 0.001)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of an undisturbed run."""

    async def run() -> Job:
        return await run_job(tmp_path_factory.mktemp("expected"), FakeLauncher())

    return asyncio.run(run()).weights_digest


async def run_job(folder: Path, launcher: FakeLauncher, **config: Any) -> Job:
    parts = Parts(folder, launcher)
    try:
        name = parts.prepared(replace(CONFIG, **config))
        await parts.make_run(name).run()
        return parts.store.get_job(name)
    finally:
        parts.store.close()


def states(job: Job) -> list[str]:
    return [change.state.value for change in job.history]


def failing(*, step: int, reason: str, message: str, lost: bool) -> Course:
    """An attempt that fails after a step."""

    def course(spec: AttemptSpec) -> Iterator[Item]:
        yield Started(spec.workers, FINGERPRINT)
        yield from steps(spec, spec.state.step + 1, step)
        yield Failed(reason, message, "Traceback ...", lost)

    return course


# --- to the end ------------------------------------------------------------------------------------------------


async def test_an_undisturbed_run_goes_straight_through(tmp_path: Path, expected: str) -> None:
    launcher = FakeLauncher()
    job = await run_job(tmp_path, launcher)
    assert states(job) == ["QUEUED", "PREPARING", "RUNNING", "FINALIZING", "SUCCEEDED"]
    assert (job.weights_digest, job.weights_step) == (expected, TOTAL)
    assert job.progress.step == TOTAL
    assert job.events == ()
    assert launcher.attempts[0].stopped


async def test_the_result_is_the_whole_state_dict_with_the_trained_values(tmp_path: Path) -> None:
    parts = Parts(tmp_path, FakeLauncher())
    name = parts.prepared()
    await parts.make_run(name).run()
    weights = io.load(parts.blobs.read(parts.store.get_job(name).weights_digest))
    module = parts.models.load(parts.models.get("models/m", tenant="default"))
    assert set(weights) == set(module.state_dict())
    trained = {parameter for parameter, _ in module.named_parameters()}
    for parameter, array in weights.items():
        assert (array == TOTAL).all() == (parameter in trained)
    parts.store.close()


async def test_an_attempt_is_given_all_it_needs(tmp_path: Path) -> None:
    launcher = FakeLauncher(1)
    job = await run_job(tmp_path, launcher, validation=Validation(fraction=0.1), min_workers=1, max_workers=3)
    first, second = launcher.specs
    assert (first.job, first.workers, first.fingerprint, first.evaluations) == (job.name, 2, "", ())
    assert (first.plan.num_examples, first.plan.num_validation) == (45, 5)
    assert len(first.examples) == 45
    assert first.validation is not None
    assert len(first.validation) == 5
    assert set(first.state.parameters) | set(first.state.buffers) == set(state_after(first, 3).weights())
    assert second.fingerprint == FINGERPRINT
    assert second.validation is not None
    kept_back = np.arange(5)
    assert np.array_equal(second.validation.read(kept_back)["inputs"], first.validation.read(kept_back)["inputs"])
    assert second.state.step == 3  # 45 examples are 3 steps an epoch
    assert second.evaluations == ()  # the attempt was lost before the evaluation of that step
    assert [evaluation.epoch for evaluation in job.evaluations] == [2, 3]


async def test_evaluations_up_to_the_checkpoint_are_handed_to_the_next_attempt(tmp_path: Path) -> None:
    def course(spec: AttemptSpec) -> Iterator[Item]:
        yield Started(spec.workers, FINGERPRINT)
        yield from steps(spec, 1, 2 * spec.plan.steps_per_epoch)
        yield LostPartError("killed")

    launcher = FakeLauncher(course)
    job = await run_job(tmp_path, launcher, validation=Validation(dataset="datasets/v"))
    assert [evaluation.epoch for evaluation in launcher.specs[1].evaluations] == [1, 2]
    assert [evaluation.epoch for evaluation in job.evaluations] == [1, 2, 3]


async def test_early_stopping_makes_an_earlier_step_the_result(tmp_path: Path) -> None:
    """The best of three epochs is the first, and only one checkpoint besides it is kept."""

    def course(spec: AttemptSpec) -> Iterator[Item]:
        yield Started(spec.workers, FINGERPRINT)
        yield from steps(spec, 1, TOTAL, loss=lambda epoch: 1.0 * epoch)
        yield Finished(STEPS_PER_EPOCH)

    parts = Parts(tmp_path, FakeLauncher(course))
    validation = Validation(dataset="datasets/v", patience=2, restore_best=True)
    name = parts.prepared(replace(CONFIG, validation=validation, keep_checkpoints=1))
    await parts.make_run(name).run()
    job = parts.store.get_job(name)
    assert job.state is JobState.SUCCEEDED
    assert job.weights_step == STEPS_PER_EPOCH
    assert job.history[-2].reason == "the weights of step 4 of 12 are the result"
    assert (io.load(parts.blobs.read(job.weights_digest))["fc.weight"] == STEPS_PER_EPOCH).all()
    assert [(c.step, c.is_best) for c in parts.store.checkpoints(name)] == [(TOTAL, False), (STEPS_PER_EPOCH, True)]
    parts.store.close()


async def test_a_job_whose_steps_are_all_done_needs_no_attempt(tmp_path: Path, expected: str) -> None:
    """The service stopped between the last checkpoint and the end."""
    parts = Parts(tmp_path, FakeLauncher())
    name = parts.prepared()
    spec, _ = parts.make_run(name)._loader.spec(1)
    for event in steps(spec, 1, TOTAL):
        if not isinstance(event, ReceiptTaken | StepsDone):
            parts.checkpoints.add(name, event)  # type: ignore[arg-type]
    await parts.make_run(name).run()
    job = parts.store.get_job(name)
    assert parts.launcher.specs == []
    assert states(job) == ["QUEUED", "PREPARING", "FINALIZING", "SUCCEEDED"]
    assert job.weights_digest == expected
    parts.store.close()


# --- losses ----------------------------------------------------------------------------------------------------


async def test_a_lost_attempt_goes_on_from_the_last_checkpoint_with_a_new_fence(tmp_path: Path, expected: str) -> None:
    launcher = FakeLauncher(1, 1)
    job = await run_job(tmp_path, launcher)
    assert launcher.first_steps == [0, STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH]
    assert [spec.fence for spec in launcher.specs] == [1, 2, 3]
    assert all(attempt.stopped for attempt in launcher.attempts)
    assert states(job).count("RECOVERING") == 2
    assert job.history[3].reason == "the coordinator died of signal 9"
    assert job.weights_digest == expected


async def test_a_recovery_is_told_with_its_cause_and_its_cost(tmp_path: Path) -> None:
    """Steps 1 to 6 are done at the seconds 1 to 6; step 5 is computed again, and step 7 comes at second 100."""

    def timed(spec: AttemptSpec, step: int, time_s: float) -> StepsDone:
        return StepsDone((replace(metric(spec.plan, step), time_s=time_s),))

    def first(spec: AttemptSpec) -> Iterator[Item]:
        yield Started(spec.workers, FINGERPRINT)
        for event in steps(spec, 1, 6):
            yield timed(spec, event.metrics[0].step, event.metrics[0].step) if isinstance(event, StepsDone) else event
        yield LostPartError("parameter server 0 died\nand more")

    def second(spec: AttemptSpec) -> Iterator[Item]:
        yield Started(spec.workers, FINGERPRINT)
        yield timed(spec, 5, 98.0)
        yield timed(spec, 6, 99.0)
        yield timed(spec, 7, 100.0)
        yield timed(spec, 8, 101.0)
        yield from steps(spec, 9, TOTAL)
        yield Finished(TOTAL)

    job = await run_job(tmp_path, FakeLauncher(first, second))
    [event] = job.events
    assert (event.kind, event.step) == ("recovery", STEPS_PER_EPOCH)
    assert event.message == "went back from step 6 to 4: parameter server 0 died"
    assert event.seconds_lost == 94.0


async def test_losses_without_progress_are_given_up(tmp_path: Path) -> None:
    job = await run_job(tmp_path, FakeLauncher(*[0] * 5), max_failures=3)
    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert job.failure.reason == "PART_LOST"
    assert "4 attempts in a row were lost without progress, and max_failures is 3" in job.failure.message


async def test_losses_with_progress_in_between_are_not(tmp_path: Path, expected: str) -> None:
    job = await run_job(tmp_path, FakeLauncher(0, 0, 0, 1, 0, 0), max_failures=3)
    assert job.weights_digest == expected


async def test_getting_further_than_before_is_progress_even_without_a_checkpoint(tmp_path: Path, expected: str) -> None:
    def dying_after(step: int) -> Course:
        return lambda spec: [Started(2, FINGERPRINT), *steps(spec, 1, step), LostPartError("killed")]

    job = await run_job(tmp_path, FakeLauncher(*map(dying_after, (1, 2, 3))), max_failures=1)
    assert job.weights_digest == expected


async def test_a_cluster_that_cannot_be_reached_fails_nothing(tmp_path: Path, expected: str) -> None:
    launcher = FakeLauncher(*[UNREACHABLE] * 8)
    job = await run_job(tmp_path, launcher, max_failures=0)
    assert len(launcher.specs) == 9
    assert states(job) == ["QUEUED", "PREPARING", "RECOVERING", "RUNNING", "FINALIZING", "SUCCEEDED"]  # told once
    assert job.weights_digest == expected


async def test_a_job_at_fault_fails_at_once_with_its_traceback(tmp_path: Path) -> None:
    launcher = FakeLauncher(failing(step=2, reason="NON_FINITE", message="the loss is nan", lost=False))
    job = await run_job(tmp_path, launcher)
    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert (job.failure.reason, job.failure.message) == ("NON_FINITE", "the loss is nan")
    assert job.failure.traceback == "Traceback ..."
    assert len(launcher.specs) == 1


async def test_the_same_failure_at_the_same_step_twice_fails_the_job_with_its_traceback(tmp_path: Path) -> None:
    course = failing(step=6, reason="TRAINING_ERROR", message="division by zero", lost=True)
    launcher = FakeLauncher(course, course)
    job = await run_job(tmp_path, launcher)
    assert launcher.first_steps == [0, STEPS_PER_EPOCH]
    assert job.failure is not None
    assert job.failure.reason == "TRAINING_ERROR"
    assert job.failure.message == "it failed twice in the same way after step 6: division by zero"
    assert job.failure.traceback == "Traceback ..."


async def test_no_room_is_a_reason_to_wait(tmp_path: Path) -> None:
    job = await run_job(tmp_path, FakeLauncher(FULL))
    assert states(job) == ["QUEUED", "PREPARING", "QUEUED"]
    assert job.history[-1].reason == "waits for room: 2 CPUs are wanted"


# --- what attempts report --------------------------------------------------------------------------------------


async def test_fewer_workers_than_the_fewest_make_the_job_recover_until_they_are_back(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    def course(spec: AttemptSpec) -> Iterator[Item]:
        yield Started(3, FINGERPRINT)
        for workers, step in ((2, 1), (1, 2), (3, 3)):
            yield WorkersChanged(workers, f"{workers} are there", enough=workers >= 2)
            yield from steps(spec, step, step)
            job = parts.store.get_job(name)
            seen.append((job.state.value, job.running_workers))
        yield from steps(spec, 4, TOTAL)
        yield Finished(TOTAL)

    parts = Parts(tmp_path, FakeLauncher(course))
    name = parts.prepared(replace(CONFIG, min_workers=2, max_workers=3))
    await parts.make_run(name, 3).run()
    job = parts.store.get_job(name)
    assert seen == [("RUNNING", 2), ("RECOVERING", 1), ("RUNNING", 3)]
    assert states(job)[2:5] == ["RUNNING", "RECOVERING", "RUNNING"]
    assert [change.reason for change in job.history[2:5]] == [
        "3 of 3 workers are in place",
        "1 are there",
        "3 are there",
    ]
    assert job.running_workers == 0
    parts.store.close()


async def test_incidents_are_told_in_the_jobs_history(tmp_path: Path) -> None:
    def course(spec: AttemptSpec) -> Iterator[Item]:
        yield Started(spec.workers, FINGERPRINT)
        yield Incident("recovery", "worker 1 was killed; its shards went to the others", 0, 1.5)
        yield Incident("straggler", "worker 2 is slow", 3)
        yield from list(to_the_end(spec))[1:]

    job = await run_job(tmp_path, FakeLauncher(course))
    assert [(e.kind, e.message, e.step, e.seconds_lost) for e in job.events] == [
        ("recovery", "worker 1 was killed; its shards went to the others", 0, 1.5),
        ("straggler", "worker 2 is slow", 3, 0.0),
    ]


async def test_the_first_fingerprint_stays_the_jobs(tmp_path: Path) -> None:
    def other(spec: AttemptSpec) -> Iterator[Item]:
        yield Started(spec.workers, json.dumps({"kernels": "other"}))
        yield from list(to_the_end(spec))[1:]

    launcher = FakeLauncher(1, other)
    job = await run_job(tmp_path, launcher)
    assert [spec.fingerprint for spec in launcher.specs] == ["", FINGERPRINT]
    assert job.fingerprint == FINGERPRINT


# --- receipts --------------------------------------------------------------------------------------------------


def receipts(*taken: tuple[int, str]) -> Course:
    """An attempt that takes receipts with these digests and is lost."""

    def course(spec: AttemptSpec) -> Iterator[Item]:
        yield Started(spec.workers, FINGERPRINT)
        for step, digest in taken:
            yield ReceiptTaken(step, digest * 64)
        yield LostPartError("killed")

    return course


async def test_receipts_of_two_runs_have_one_chain_whatever_was_lost(tmp_path: Path) -> None:
    chains = []
    for folder, script in (("a", []), ("b", [0, 1, 1])):
        (tmp_path / folder).mkdir()
        parts = Parts(tmp_path / folder, FakeLauncher(*script))
        name = parts.prepared(replace(CONFIG, receipt_every_steps=3))
        await parts.make_run(name).run()
        chains.append([(r.step, r.chain_digest) for r in parts.store.receipts(name, after_step=0, limit=100)])
        parts.store.close()
    assert [step for step, _ in chains[0]] == [3, 4, 6, 8, 9, 12]
    assert chains[0][-1] == chains[1][-1]


async def test_a_step_that_is_computed_again_to_another_state_fails_the_job(tmp_path: Path) -> None:
    job = await run_job(tmp_path, FakeLauncher(receipts((1, "a"), (2, "b")), receipts((1, "a"), (2, "c"))))
    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert job.failure.reason == "NOT_REPRODUCIBLE"
    assert job.failure.message.startswith("step 2 was computed again and led to another state: its SHA-256 was bbbb")
    assert [(event.kind, event.step) for event in job.events] == [("recovery", 0), ("corruption", 2)]


async def test_a_job_that_is_not_exact_may_come_to_another_state(tmp_path: Path) -> None:
    parts = Parts(tmp_path, FakeLauncher(receipts((1, "a"), (2, "b")), receipts((2, "c")), FULL))
    name = parts.prepared(replace(CONFIG, exact=False))
    await parts.make_run(name).run()
    assert parts.store.get_job(name).state is JobState.QUEUED  # waits for room: nothing was wrong
    assert parts.store.receipts(name, after_step=0, limit=10) == []  # nothing of it is in a checkpoint
    parts.store.close()


# --- checkpoints -----------------------------------------------------------------------------------------------


def damaging(folder: Path, course: Course) -> Course:
    """A course after which the last byte of the latest checkpoint's state is another."""

    def damaged(spec: AttemptSpec) -> Iterator[Item]:
        for item in course(spec):
            if isinstance(item, Finished | Exception):
                flip_last_byte(folder, spec.job)
            yield item

    return damaged


def flip_last_byte(folder: Path, job: str) -> None:
    parts = Parts(folder, FakeLauncher())
    path = parts.blobs.path(parts.store.checkpoints(job)[0].state_digest)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    parts.store.close()


def lost_in_the_last_epoch(spec: AttemptSpec) -> Iterator[Item]:
    yield Started(spec.workers, FINGERPRINT)
    yield from steps(spec, 1, 2 * STEPS_PER_EPOCH)
    yield LostPartError("killed")


async def test_a_damaged_checkpoint_is_refused_and_the_one_before_used(tmp_path: Path, expected: str) -> None:
    launcher = FakeLauncher(damaging(tmp_path, lost_in_the_last_epoch))
    job = await run_job(tmp_path, launcher)
    assert launcher.first_steps == [0, STEPS_PER_EPOCH]
    assert job.weights_digest == expected
    warning, recovery = job.events
    assert (warning.kind, warning.step) == ("warning", 2 * STEPS_PER_EPOCH)
    assert warning.message.startswith("the checkpoint of step 8 is damaged, and one before it is used: ")
    assert recovery.message == "went back from step 8 to 4: killed"


async def test_a_damaged_last_checkpoint_is_computed_again_and_not_passed_over(tmp_path: Path, expected: str) -> None:
    """Otherwise the weights of an earlier epoch would be given out as the result."""
    launcher = FakeLauncher(damaging(tmp_path, to_the_end))
    job = await run_job(tmp_path, launcher)
    assert launcher.first_steps == [0, 2 * STEPS_PER_EPOCH]
    assert states(job)[-5:] == ["FINALIZING", "RECOVERING", "RUNNING", "FINALIZING", "SUCCEEDED"]
    assert job.weights_digest == expected


async def test_if_the_best_checkpoint_is_gone_its_epoch_is_computed_again(tmp_path: Path) -> None:
    """Beginning after it would find it gone again, for ever."""

    def course(spec: AttemptSpec) -> Iterator[Item]:
        yield Started(spec.workers, FINGERPRINT)
        yield from steps(spec, spec.state.step + 1, TOTAL, loss=lambda epoch: abs(epoch - 2))
        if spec.fence == 1:
            parts.store.drop_checkpoints(spec.job, [2 * STEPS_PER_EPOCH])
        yield Finished(2 * STEPS_PER_EPOCH)

    parts = Parts(tmp_path, FakeLauncher(course, course))
    validation = Validation(dataset="datasets/v", restore_best=True)
    name = parts.prepared(replace(CONFIG, validation=validation))
    await parts.make_run(name).run()
    job = parts.store.get_job(name)
    assert parts.launcher.first_steps == [0, STEPS_PER_EPOCH]
    assert (job.state, job.weights_step) == (JobState.SUCCEEDED, 2 * STEPS_PER_EPOCH)
    parts.store.close()


async def test_checkpoints_beyond_those_kept_go_with_their_blobs(tmp_path: Path) -> None:
    parts = Parts(tmp_path, FakeLauncher())
    name = parts.prepared(replace(CONFIG, keep_checkpoints=2, checkpoint_every_steps=1))
    before = blobs_in(tmp_path)
    await parts.make_run(name).run()
    kept = parts.store.checkpoints(name)
    assert [known.step for known in kept] == [TOTAL, TOTAL - 1]
    digests = {digest for known in kept for digest in (known.manifest_digest, known.state_digest)}
    assert blobs_in(tmp_path) == before | digests | {parts.store.get_job(name).weights_digest}
    parts.store.close()


def blobs_in(folder: Path) -> set[str]:
    return {path.name for path in (folder / "blobs").glob("??/*")}


async def test_a_blob_of_another_jobs_checkpoint_stays(tmp_path: Path) -> None:
    """Two jobs that compute the same have the same checkpoints."""
    parts = Parts(tmp_path, FakeLauncher())
    one, other = parts.prepared(), parts.prepared()
    await parts.make_run(one).run()
    await parts.make_run(other).run()
    parts.checkpoints.drop(one, parts.store.checkpoints(one))
    assert [parts.checkpoints.read(known).step for known in parts.store.checkpoints(other)] == [12, 8, 4]
    parts.store.close()


async def test_a_blob_that_is_being_stored_is_not_removed_by_another_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is on disk before the row that refers to it is in the store."""
    parts = Parts(tmp_path, FakeLauncher())
    one, other = parts.prepared(), parts.prepared()
    await parts.make_run(one).run()
    real = parts.store.add_checkpoint

    def add_checkpoint(job: str, **arguments: Any) -> None:
        parts.checkpoints.drop(one, parts.store.checkpoints(one))
        real(job, **arguments)

    monkeypatch.setattr(parts.store, "add_checkpoint", add_checkpoint)
    await parts.make_run(other).run()
    assert [parts.checkpoints.read(known).step for known in parts.store.checkpoints(other)] == [12, 8, 4]
    parts.store.close()


# --- pausing and scaling ---------------------------------------------------------------------------------------


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


# --- the store -------------------------------------------------------------------------------------------------


async def test_a_store_that_fails_for_a_while_costs_nothing(
    tmp_path: Path, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of these fails once: before an attempt, in the midst of one, and at the end."""
    methods = ("next_attempt", "add_metrics", "add_receipt", "add_checkpoint", "get_job", "transition")
    failures = dict.fromkeys(methods, 1)

    def failing_once(method: str) -> Any:
        real = getattr(Store, method)

        def call(store: Store, *args: Any, **kwargs: Any) -> Any:
            if failures[method] and (method != "transition" or JobState.SUCCEEDED in args):
                failures[method] -= 1
                raise StoreUnavailableError(f"database is locked ({method})")
            return real(store, *args, **kwargs)

        return call

    parts = Parts(tmp_path, FakeLauncher())
    name = parts.prepared()
    for method in methods:
        monkeypatch.setattr(Store, method, failing_once(method))
    await parts.make_run(name).run()
    job = parts.store.get_job(name)
    assert failures == dict.fromkeys(methods, 0)
    assert [change.reason for change in job.history if change.state is JobState.RECOVERING] == [
        f"database is locked ({method})" for method in methods[:4]
    ]
    assert job.weights_digest == expected
    parts.store.close()


async def test_a_full_disk_is_waited_out(tmp_path: Path, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose checkpoints cannot be stored does not fail: it goes on once there is room."""
    parts = Parts(tmp_path, FakeLauncher())
    name = parts.prepared()
    real, full = BlobStore.put, 2

    def put(blobs: BlobStore, *args: Any, **kwargs: Any) -> str:
        nonlocal full
        if full:
            full -= 1
            raise StorageFullError("there is no room for 9 bytes on the disk")
        return real(blobs, *args, **kwargs)

    monkeypatch.setattr(BlobStore, "put", put)
    await parts.make_run(name).run()
    job = parts.store.get_job(name)
    assert [change.reason for change in job.history if change.state is JobState.RECOVERING] == [
        "there is no room for 9 bytes on the disk"
    ] * 2
    assert job.weights_digest == expected
    parts.store.close()


async def test_whoever_is_cancelled_waits_for_what_is_being_written() -> None:
    """A service that started again found uploads in progress of the one before."""
    begun, go, written = threading.Event(), threading.Event(), []

    def write() -> None:
        begun.set()
        go.wait(10)
        written.append(True)

    task = asyncio.create_task(until_written(write))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    asyncio.get_running_loop().call_later(0.05, go.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert written == [True]


async def test_a_state_refused_for_no_pause_or_cancel_fails_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a defect, and to be told; the job must not be left as if somebody ran it."""
    parts = Parts(tmp_path, FakeLauncher())
    name = parts.prepared()
    real = parts.store.transition

    def transition(name: str, to: JobState, **kwargs: Any) -> Job:
        if to is JobState.RUNNING:
            raise IllegalStateError(f'job "{name}" is PREPARING and cannot become RUNNING')
        return real(name, to, **kwargs)

    monkeypatch.setattr(parts.store, "transition", transition)
    await parts.make_run(name).run()
    job = parts.store.get_job(name)
    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert "is PREPARING and cannot become RUNNING" in job.failure.message
    parts.store.close()


async def test_who_follows_is_told_of_a_checkpoint_left_out_before_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(tmp_path, FakeLauncher(damaging(tmp_path, lost_in_the_last_epoch)))
    name, order = parts.prepared(), list[str]()
    add_event, ring, launch = parts.store.add_event, parts.feed.ring, parts.launcher.launch

    def event(*args: Any, **kwargs: Any) -> int:
        order.append("event")
        return add_event(*args, **kwargs)

    def rung(job: str) -> None:
        order.append("ring")
        ring(job)

    async def launched(spec: AttemptSpec) -> FakeAttempt:
        order.append("launch")
        return await launch(spec)

    monkeypatch.setattr(parts.store, "add_event", event)
    monkeypatch.setattr(parts.feed, "ring", rung)
    monkeypatch.setattr(parts.launcher, "launch", launched)
    await parts.make_run(name).run()
    first = order.index("event")
    assert order[first : first + 3] == ["event", "ring", "launch"]
    parts.store.close()


# --- code ------------------------------------------------------------------------------------------------------


def parts_with_code(folder: Path, launcher: FakeLauncher) -> tuple[Parts, str]:
    """A service that allows code, with a job of the usual network that is said to be code. Whoever runs it fails."""
    parts = Parts(folder, launcher, allow_code=True)
    model = parts.models.get(parts.submission().model, tenant="default")
    outline = outline_of(parts.models.load(model))
    asked = CodeArchitecture(parts.blobs.put(b"raise SystemExit('it was run')\ndef build(): pass"), declared=outline)
    code = parts.models.create(
        "code", architecture=asked, weights_digest=model.weights_digest, init_seed=0, tenant="default"
    )
    job, _ = parts.submissions.submit(replace(parts.submission(), model=code.name), cluster_cpus=4)
    return parts, job.name


async def test_code_is_trained_to_a_version_without_being_run_here(tmp_path: Path, expected: str) -> None:
    parts, name = parts_with_code(tmp_path, launcher := FakeLauncher())
    parts.store.transition(name, JobState.PREPARING)
    await parts.make_run(name).run()
    job = parts.store.get_job(name)
    assert (job.state, job.weights_digest) == (JobState.SUCCEEDED, expected)
    architecture = launcher.attempts[0].spec.plan.architecture
    assert isinstance(architecture, CodeArchitecture)
    assert architecture.content.startswith(b"raise SystemExit")


async def test_a_job_of_code_fails_where_that_is_allowed_no_more(tmp_path: Path) -> None:
    parts, name = parts_with_code(tmp_path, launcher := FakeLauncher())
    parts.models._allow_code = False  # as after another start
    parts.store.transition(name, JobState.PREPARING)
    await parts.make_run(name).run()
    job = parts.store.get_job(name)
    assert (job.state, launcher.attempts) == (JobState.FAILED, [])
    assert job.failure is not None
    assert job.failure.reason == "CODE_NOT_ALLOWED"
    assert job.failure.message.startswith('"models/code" is Python code, which this server does not have run: it was')
