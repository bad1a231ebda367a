"""Receipts and checkpoints of a job: what was computed again has to be the same, and what is damaged is not used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chainrule.server.records import JobState
from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.config import Validation
from chainrule.server.training.errors import LostPartError
from chainrule.server.training.events import (
    Finished,
    ReceiptTaken,
    Started,
)
from tests.server.jobs.running import TOTAL, damaging, lost_in_the_last_epoch, run_job, states
from tests.server.jobs.service_parts import (
    CONFIG,
    FINGERPRINT,
    FULL,
    STEPS_PER_EPOCH,
    Course,
    FakeLauncher,
    Item,
    Parts,
    steps,
    to_the_end,
)

pytestmark = pytest.mark.usefixtures("no_pauses")


# --- receipts ----------------------------------------------------------------------------------------------------


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


# --- checkpoints -------------------------------------------------------------------------------------------------


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
