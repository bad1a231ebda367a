"""One job through its states: whatever is lost on the way, the weights are those of an undisturbed run."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chainrule.server.errors import StoreUnavailableError
from chainrule.server.jobs import policies
from chainrule.server.jobs.patience import to_the_end
from chainrule.server.records import Checkpoint, Job, JobState
from chainrule.server.store import Store
from chainrule.server.training.checkpoint import Manifest
from chainrule.server.training.plan import Plan, Sgd
from chainrule.server.training.state import TrainingState
from chainrule.server.training.worker import Examples
from tests.server.jobs.service_parts import CONFIG, LocalAttempt, LocalLauncher, Parts

STEPS_PER_EPOCH = 4


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "FIRST_DELAY_S", 0.001)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of an undisturbed run."""

    async def run() -> Job:
        return await run_job(tmp_path_factory.mktemp("expected"), LocalLauncher())

    return asyncio.run(run()).weights_digest


async def run_job(folder: Path, launcher: LocalLauncher, **config: object) -> Job:
    parts = Parts(folder, launcher)
    try:
        job, _ = parts.submissions.submit(
            parts.submission(replace(CONFIG, **config)),  # type: ignore[arg-type]
            cluster_cpus=4,
        )
        parts.store.transition(job.name, JobState.PREPARING)
        await parts.make_run(job.name).run()
        return parts.store.get_job(job.name)
    finally:
        parts.store.close()


def states(job: Job) -> list[str]:
    return [change.state.value for change in job.history]


async def test_an_undisturbed_run_goes_straight_through(tmp_path: Path, expected: str) -> None:
    launcher = LocalLauncher()
    job = await run_job(tmp_path, launcher)
    assert states(job) == ["QUEUED", "PREPARING", "RUNNING", "FINALIZING", "SUCCEEDED"]
    assert job.weights_digest == expected
    assert job.progress.step == 3 * STEPS_PER_EPOCH
    assert launcher.attempts[0].stopped


async def test_a_lost_attempt_goes_on_from_the_last_checkpoint_with_a_new_fence(tmp_path: Path, expected: str) -> None:
    launcher = LocalLauncher(1, 1)
    job = await run_job(tmp_path, launcher)
    assert launcher.first_steps == [0, STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH]
    assert launcher.fences == [1, 2, 3]
    assert all(attempt.stopped for attempt in launcher.attempts)
    assert states(job).count("RECOVERING") == 2
    assert job.history[3].reason == "the coordinator died of signal 9"
    assert job.weights_digest == expected


async def test_losses_without_progress_are_given_up(tmp_path: Path) -> None:
    job = await run_job(tmp_path, LocalLauncher(0, 0, 0, 0, 0))
    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert job.failure.reason == "PART_LOST"
    assert "4 attempts in a row were lost" in job.failure.message


async def test_losses_with_progress_in_between_are_not(tmp_path: Path, expected: str) -> None:
    job = await run_job(tmp_path, LocalLauncher(0, 0, 0, 1, 0, 0))
    assert job.weights_digest == expected


async def test_a_cluster_that_cannot_be_reached_fails_nothing(tmp_path: Path, expected: str) -> None:
    job = await run_job(tmp_path, LocalLauncher(*["unreachable"] * 8))
    assert states(job).count("RECOVERING") == 8
    assert job.weights_digest == expected


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of the overflow that is the point
async def test_a_job_at_fault_fails_at_once_with_its_traceback(tmp_path: Path) -> None:
    launcher = LocalLauncher()
    job = await run_job(tmp_path, launcher, optimizer=Sgd(lr=1e30))
    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert job.failure.reason == "NON_FINITE"
    assert "NonFiniteError" in job.failure.traceback
    assert len(launcher.fences) == 1


class DamagingLauncher(LocalLauncher):
    """Flips a byte of the latest checkpoint when the first attempt stops."""

    def __init__(self, folder: Path, *script: int | None) -> None:
        super().__init__(*script)
        self._folder = folder

    async def launch(self, job: str, plan: Plan, state: TrainingState, data: Examples, *, fence: int) -> LocalAttempt:
        attempt = await super().launch(job, plan, state, data, fence=fence)
        if fence == 1:
            attempt.on_stop = lambda: flip_last_byte(self._folder, job)
        return attempt


def flip_last_byte(folder: Path, job: str) -> None:
    """Damage the state of a job's latest checkpoint on disk."""
    parts = Parts(folder, LocalLauncher())
    manifest = Manifest.from_json(parts.blobs.read(parts.store.checkpoints(job)[0].manifest_digest))
    path = parts.blobs.path(manifest.state_digest)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    parts.store.close()


async def test_a_damaged_checkpoint_is_refused_and_the_one_before_used(tmp_path: Path, expected: str) -> None:
    launcher = DamagingLauncher(tmp_path, 2)
    job = await run_job(tmp_path, launcher)
    assert launcher.first_steps == [0, STEPS_PER_EPOCH]
    assert job.weights_digest == expected


async def test_a_damaged_last_checkpoint_is_computed_again_and_not_passed_over(tmp_path: Path, expected: str) -> None:
    """Otherwise the weights of an earlier epoch would be given out as the result."""
    launcher = DamagingLauncher(tmp_path, None)
    job = await run_job(tmp_path, launcher)
    assert launcher.first_steps == [0, 2 * STEPS_PER_EPOCH]
    assert states(job)[-4:] == ["RECOVERING", "RUNNING", "FINALIZING", "SUCCEEDED"]
    assert job.weights_digest == expected


async def test_a_store_that_fails_for_a_while_costs_nothing(
    tmp_path: Path, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_metrics, real_transition = Store.add_metrics, Store.transition
    failures = {"metrics": 1, "transition": 2}

    def failing(what: str) -> None:
        if failures[what]:
            failures[what] -= 1
            raise StoreUnavailableError("database is locked")

    def add_metrics(store: Store, *args: Any) -> None:
        failing("metrics")
        real_metrics(store, *args)

    def transition(store: Store, name: str, to: JobState, **kwargs: Any) -> Job:
        if to is JobState.SUCCEEDED:
            failing("transition")
        return real_transition(store, name, to, **kwargs)

    monkeypatch.setattr(Store, "add_metrics", add_metrics)
    monkeypatch.setattr(Store, "transition", transition)
    real_checkpoints, checkpoints_failures = Store.checkpoints, [1, 4]

    def checkpoints(store: Store, name: str) -> list[Checkpoint]:
        """Fails at the first call, which opens an attempt, and at the fourth, which follows one."""
        calls.append(name)
        if len(calls) in checkpoints_failures:
            raise StoreUnavailableError("database is locked")
        return real_checkpoints(store, name)

    calls: list[str] = []
    monkeypatch.setattr(Store, "checkpoints", checkpoints)
    job = await run_job(tmp_path, LocalLauncher())
    assert failures == {"metrics": 0, "transition": 0}
    assert len(calls) > max(checkpoints_failures)
    assert job.history[3].reason == "database is locked"
    assert job.weights_digest == expected


async def test_whoever_is_cancelled_waits_for_what_is_being_written() -> None:
    """A service that started again found uploads in progress of the one before."""
    begun, go, written = threading.Event(), threading.Event(), []

    def write() -> None:
        begun.set()
        go.wait(10)
        written.append(True)

    task = asyncio.create_task(to_the_end(write))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    asyncio.get_running_loop().call_later(0.05, go.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert written == [True]
