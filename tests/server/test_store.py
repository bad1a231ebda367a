"""The store: what it keeps, what it refuses, and that a restart changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chainrule.server.errors import AlreadyExistsError, IllegalStateError, InvalidRequestError, NotFoundError
from chainrule.server.records import Dataset, JobFailure, JobState, Model
from chainrule.server.store import NewJob, Store
from chainrule.server.training.plan import Sgd, TrainingConfig
from chainrule.server.training.state import StepMetric

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = Model("models/m", "small_cnn", {"num_classes": 10}, "a" * 64, 2**64 - 1, 123, NOW)
DATASET = Dataset("datasets/d", "b" * 64, 100, (1, 8, 8), 10, 6400, NOW)
CONFIG = TrainingConfig(epochs=2, batch_size=10, shards=4, workers=2, seed=7, optimizer=Sgd(lr=0.1, momentum=0.9))
JOB = NewJob("jobs/j", "request-1", "c" * 64, MODEL.name, DATASET.name, CONFIG, total_steps=20)


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def store(url: str, clock: Clock) -> Iterator[Store]:
    store = Store(url, clock=clock)
    store.create_model(MODEL)
    store.create_dataset(DATASET)
    yield store
    store.close()


def metric(step: int, *, time_s: float = 0.0) -> StepMetric:
    return StepMetric(step=step, epoch=1, loss=1.0 / step, accuracy=0.5, num_examples=10, time_s=time_s)


def test_what_was_stored_is_there_after_a_restart(store: Store, url: str) -> None:
    job, new = store.create_job(JOB)
    store.transition(JOB.name, JobState.PREPARING, reason="the cluster has room")
    store.add_metrics(JOB.name, [metric(1), metric(2)])
    store.add_checkpoint(JOB.name, step=10, epoch=1, manifest_digest="d" * 64)
    again = Store(url)
    try:
        assert new
        assert again.get_model(MODEL.name).init_seed == 2**64 - 1
        assert again.get_dataset(DATASET.name).input_shape == (1, 8, 8)
        assert again.get_job(JOB.name).config == CONFIG
        assert again.get_job(JOB.name).history[-1].reason == "the cluster has room"
        assert [m.step for m in again.metrics(JOB.name, after_step=0, limit=10)] == [1, 2]
        assert again.checkpoints(JOB.name)[0].manifest_digest == "d" * 64
        assert again.get_job(JOB.name).create_time == job.create_time
    finally:
        again.close()


def test_the_same_model_or_dataset_again_is_the_one_that_is_there(store: Store) -> None:
    assert store.create_model(replace(MODEL, create_time=datetime.now(UTC))) == store.get_model(MODEL.name)
    assert store.create_dataset(DATASET) == store.get_dataset(DATASET.name)


def test_another_model_or_dataset_of_that_name_is_refused(store: Store) -> None:
    with pytest.raises(AlreadyExistsError, match='already a model "models/m"'):
        store.create_model(replace(MODEL, weights_digest="f" * 64))
    with pytest.raises(AlreadyExistsError, match='already a dataset "datasets/d" with other content'):
        store.create_dataset(replace(DATASET, digest="f" * 64))


def test_a_repeated_request_id_answers_with_the_first_job(store: Store) -> None:
    first, new = store.create_job(JOB)
    second, again_new = store.create_job(replace(JOB, name="jobs/other"))
    assert (new, again_new) == (True, False)
    assert second == first


def test_a_request_id_with_another_payload_is_refused(store: Store) -> None:
    store.create_job(JOB)
    with pytest.raises(AlreadyExistsError, match='"request-1" has already made "jobs/j" from another payload'):
        store.create_job(replace(JOB, name="jobs/other", payload_digest="e" * 64))


def test_jobs_without_request_id_are_all_new(store: Store) -> None:
    store.create_job(replace(JOB, name="jobs/a", request_id=""))
    _, new = store.create_job(replace(JOB, name="jobs/b", request_id=""))
    assert new


def test_one_request_id_from_many_threads_makes_one_job(store: Store) -> None:
    made = []

    def submit(index: int) -> None:
        made.append(store.create_job(replace(JOB, name=f"jobs/j{index}")))

    threads = [threading.Thread(target=submit, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({job.name for job, _ in made}) == 1
    assert [new for _, new in made].count(True) == 1


def test_transitions_that_the_table_does_not_have_are_refused(store: Store) -> None:
    store.create_job(JOB)
    with pytest.raises(IllegalStateError, match='job "jobs/j" is QUEUED and cannot become SUCCEEDED'):
        store.transition(JOB.name, JobState.SUCCEEDED)
    assert store.get_job(JOB.name).state is JobState.QUEUED
    assert len(store.get_job(JOB.name).history) == 1


def test_terminal_states_absorb(store: Store) -> None:
    store.create_job(JOB)
    store.transition(JOB.name, JobState.CANCELLING)
    store.transition(JOB.name, JobState.CANCELLED)
    for state in JobState:
        with pytest.raises(IllegalStateError):
            store.transition(JOB.name, state)


def test_start_and_end_are_recorded_once(store: Store, clock: Clock) -> None:
    store.create_job(JOB)
    for state in (JobState.PREPARING, JobState.RUNNING):
        clock.now_s += 10
        store.transition(JOB.name, state)
    started = store.get_job(JOB.name).start_time
    for state in (JobState.RECOVERING, JobState.RUNNING):
        clock.now_s += 10
        store.transition(JOB.name, state)
    failed = store.transition(JOB.name, JobState.FAILED, failure=JobFailure("R", "m", "t"))
    assert failed.start_time == started
    assert failed.end_time == datetime.fromtimestamp(clock.now_s, UTC)
    assert failed.failure == JobFailure("R", "m", "t")


def test_progress_counts_from_when_the_job_last_ran(store: Store, clock: Clock) -> None:
    store.create_job(JOB)
    store.transition(JOB.name, JobState.PREPARING)
    store.transition(JOB.name, JobState.RUNNING)
    store.add_metrics(JOB.name, [metric(step, time_s=clock.now_s + step) for step in (1, 2, 3, 4)])
    progress = store.get_job(JOB.name).progress
    assert (progress.step, progress.total_steps, progress.epoch, progress.total_epochs) == (4, 20, 1, 2)
    assert progress.loss == 0.25
    assert progress.examples_per_second == pytest.approx(10.0)
    assert progress.eta_s == pytest.approx(16.0)


def test_pace_is_that_of_the_latest_steps(store: Store, clock: Clock) -> None:
    store.create_job(replace(JOB, total_steps=1000))
    store.transition(JOB.name, JobState.PREPARING)
    store.transition(JOB.name, JobState.RUNNING)
    slow = [metric(step, time_s=clock.now_s + 10 * step) for step in range(1, 51)]
    fast = [metric(step, time_s=clock.now_s + 500 + 0.1 * (step - 50)) for step in range(51, 201)]
    store.add_metrics(JOB.name, slow + fast)
    progress = store.get_job(JOB.name).progress
    assert progress.examples_per_second == pytest.approx(100.0)
    assert progress.eta_s == pytest.approx(80.0)


def test_metrics_computed_again_are_kept_once(store: Store) -> None:
    store.create_job(JOB)
    store.add_metrics(JOB.name, [metric(1), metric(2)])
    store.add_metrics(JOB.name, [metric(2), metric(3)])
    assert [m.step for m in store.metrics(JOB.name, after_step=1, limit=10)] == [2, 3]


def test_checkpoints_come_latest_first_and_once(store: Store) -> None:
    store.create_job(JOB)
    for step in (10, 20, 20):
        store.add_checkpoint(JOB.name, step=step, epoch=step // 10, manifest_digest=f"{step:064d}")
    assert [checkpoint.step for checkpoint in store.checkpoints(JOB.name)] == [20, 10]


def test_attempts_are_numbered_without_repeats(store: Store) -> None:
    store.create_job(JOB)
    assert [store.next_attempt(JOB.name) for _ in range(3)] == [1, 2, 3]


def test_pages_cover_all_newest_first(store: Store) -> None:
    for index in range(5):
        store.create_job(replace(JOB, name=f"jobs/j{index}", request_id=""))
    names, token = [], ""
    while True:
        page, token = store.list_jobs(2, token)
        names += [job.name for job in page]
        if not token:
            break
    assert names == [f"jobs/j{index}" for index in reversed(range(5))]


def test_a_page_token_that_is_none_is_refused(store: Store) -> None:
    with pytest.raises(InvalidRequestError, match="page_token: 'x'"):
        store.list_jobs(2, "x")


@pytest.mark.parametrize("get", ["get_model", "get_dataset", "get_job"])
def test_what_is_not_there_is_not_found(store: Store, get: str) -> None:
    with pytest.raises(NotFoundError, match='"things/x"'):
        getattr(store, get)("things/x")


def test_unfinished_jobs_are_those_that_have_not_ended(store: Store) -> None:
    for name in ("jobs/a", "jobs/b"):
        store.create_job(replace(JOB, name=name, request_id=""))
    store.transition("jobs/a", JobState.CANCELLING)
    store.transition("jobs/a", JobState.CANCELLED)
    assert [job.name for job in store.unfinished_jobs()] == ["jobs/b"]
