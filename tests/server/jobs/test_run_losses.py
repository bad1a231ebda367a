"""A job whose attempts are lost: the weights are those of an undisturbed run, or it is told why there are none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chainrule.server.records import JobState
from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.errors import LostPartError
from chainrule.server.training.events import (
    Failed,
    Finished,
    Started,
    StepsDone,
)
from tests.server.jobs.running import TOTAL, run_job, states
from tests.server.jobs.service_parts import (
    FINGERPRINT,
    FULL,
    STEPS_PER_EPOCH,
    UNREACHABLE,
    Course,
    FakeLauncher,
    Item,
    metric,
    steps,
)

pytestmark = pytest.mark.usefixtures("no_pauses")


def failing(*, step: int, reason: str, message: str, lost: bool) -> Course:
    """An attempt that fails after a step."""

    def course(spec: AttemptSpec) -> Iterator[Item]:
        yield Started(spec.workers, FINGERPRINT)
        yield from steps(spec, spec.state.step + 1, step)
        yield Failed(reason, message, "Traceback ...", lost)

    return course


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
