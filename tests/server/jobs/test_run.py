"""One job through its states to its end, what its attempts report on the way, and a store that fails."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
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
from chainrule.server.jobs.patience import to_the_end as until_written
from chainrule.server.records import Job, JobState
from chainrule.server.store import Store
from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.config import Validation
from chainrule.server.training.errors import LostPartError
from chainrule.server.training.events import (
    Finished,
    Incident,
    ReceiptTaken,
    Started,
    StepsDone,
    WorkersChanged,
)
from tests.server.jobs.running import TOTAL, damaging, lost_in_the_last_epoch, run_job, states
from tests.server.jobs.service_parts import (
    CONFIG,
    FINGERPRINT,
    STEPS_PER_EPOCH,
    FakeAttempt,
    FakeLauncher,
    Item,
    Parts,
    state_after,
    steps,
    to_the_end,
)

pytestmark = pytest.mark.usefixtures("no_pauses")


# --- to the end --------------------------------------------------------------------------------------------------


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


# --- what attempts report ----------------------------------------------------------------------------------------


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


# --- the store ---------------------------------------------------------------------------------------------------


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
