"""The store: what it keeps, what it refuses, and that a restart changes nothing."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from chainrule.server.architecture import Builtin
from chainrule.server.errors import (
    AlreadyExistsError,
    IllegalStateError,
    InvalidRequestError,
    NotFoundError,
    StoreUnavailableError,
)
from chainrule.server.records import Dataset, JobFailure, JobState, Model, UnfinishedJob
from chainrule.server.store import JobChange, NewJob, PageRequest, Store
from chainrule.server.store.requests import NO_REQUEST, Request
from chainrule.server.training.config import Adam, Schedule, Sgd, TrainingConfig, Validation
from chainrule.server.training.state import EvaluationMetric, StepMetric

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = Model("models/m", Builtin("small_cnn", {"num_classes": 10}), "a" * 64, 2**64 - 1, 123, NOW)
DATASET = Dataset("datasets/d", "b" * 64, 100, (8,), 10, 6400, NOW, target_shape=(8,), num_tokens=12)
CONFIG = TrainingConfig(
    epochs=2,
    batch_size=10,
    shards=4,
    max_workers=2,
    seed=7,
    optimizer=Sgd(lr=0.1, momentum=0.9),
    schedule=Schedule(3, "cosine"),
    trainable=("fc.*", "conv1.weight"),
    validation=Validation(fraction=0.1),
)
JOB = NewJob("jobs/j", Request("request-1", "c" * 64), MODEL.name, DATASET.name, CONFIG, total_steps=20)


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
def store(url: str, clock: Clock) -> Iterator[Store]:
    store = Store(url, clock=clock)
    store.create_model(MODEL, tenant="default")
    store.create_dataset(DATASET, tenant="default")
    yield store
    store.close()


def metric(step: int, *, time_s: float = 0.0) -> StepMetric:
    return StepMetric(step=step, epoch=1, loss=1.0 / step, accuracy=0.5, num_examples=10, time_s=time_s)


def test_what_was_stored_is_there_after_a_restart(store: Store, url: str) -> None:
    job, new = store.create_job(JOB)
    store.transition(JOB.name, JobState.PREPARING, reason="the cluster has room")
    store.add_metrics(JOB.name, [metric(1), metric(2)])
    add_checkpoint(store, 10, state_digest="d" * 64)
    store.close()
    again = Store(url)
    try:
        assert new
        assert again.get_model(MODEL.name, tenant="default").init_seed == 2**64 - 1
        assert again.get_dataset(DATASET.name, tenant="default") == replace(
            DATASET, create_time=again.get_dataset(DATASET.name, tenant="default").create_time
        )
        assert again.get_job(JOB.name).config == CONFIG
        assert again.get_job(JOB.name).history[-1].reason == "the cluster has room"
        assert [m.step for m in again.metrics(JOB.name, after_step=0, limit=10)] == [1, 2]
        assert again.checkpoints(JOB.name)[0].state_digest == "d" * 64
        assert again.get_job(JOB.name).create_time == job.create_time
    finally:
        again.close()


def test_the_same_model_or_dataset_again_is_the_one_that_is_there(store: Store) -> None:
    assert store.create_model(replace(MODEL, create_time=datetime.now(UTC)), tenant="default") == store.get_model(
        MODEL.name, tenant="default"
    )
    assert store.create_dataset(DATASET, tenant="default") == store.get_dataset(DATASET.name, tenant="default")


def test_another_model_or_dataset_of_that_name_is_refused(store: Store) -> None:
    with pytest.raises(AlreadyExistsError, match='already a model "models/m"'):
        store.create_model(replace(MODEL, weights_digest="f" * 64), tenant="default")
    with pytest.raises(AlreadyExistsError, match='already a dataset "datasets/d" with other content'):
        store.create_dataset(replace(DATASET, digest="f" * 64), tenant="default")


def test_a_repeated_request_id_answers_with_the_first_job(store: Store) -> None:
    first, new = store.create_job(JOB)
    second, again_new = store.create_job(replace(JOB, name="jobs/other"))
    assert (new, again_new) == (True, False)
    assert second == first


def test_a_request_id_with_another_payload_is_refused(store: Store) -> None:
    store.create_job(JOB)
    with pytest.raises(AlreadyExistsError, match='"request-1" has already made "jobs/j" from another payload'):
        store.create_job(replace(JOB, name="jobs/other", request=Request("request-1", "e" * 64)))


def test_jobs_without_request_id_are_all_new(store: Store) -> None:
    store.create_job(replace(JOB, name="jobs/a", request=NO_REQUEST))
    _, new = store.create_job(replace(JOB, name="jobs/b", request=NO_REQUEST))
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


def test_a_loss_that_is_no_number_is_one_when_it_is_read(store: Store) -> None:
    """SQLite makes NULL of NaN."""
    store.create_job(JOB)
    store.add_metrics(JOB.name, [replace(metric(1), loss=math.nan), replace(metric(2), loss=math.inf)])
    store.add_evaluation(JOB.name, evaluation(1, math.nan))
    assert [m.loss for m in store.metrics(JOB.name, after_step=0, limit=2)] == [
        pytest.approx(math.nan, nan_ok=True),
        math.inf,
    ]
    assert math.isnan(store.evaluations(JOB.name)[0].loss)
    latest = store.latest_metric(JOB.name)
    assert latest is not None
    assert latest.step == 2


# --- evaluations, events and receipts --------------------------------------------------------------------------


def test_an_evaluation_made_again_is_kept_once(store: Store) -> None:
    store.create_job(JOB)
    for epoch, loss in ((1, 0.5), (2, 0.4), (2, 0.4)):
        store.add_evaluation(JOB.name, evaluation(epoch, loss))
    assert store.evaluations(JOB.name) == (evaluation(1, 0.5), evaluation(2, 0.4))
    assert store.get_job(JOB.name).evaluations == store.evaluations(JOB.name)


def test_a_job_is_shown_with_its_latest_events_oldest_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chainrule.server.store.rows.MAX_EVENTS", 2)
    store.create_job(JOB)
    for step in (1, 2, 3):
        number = store.add_event(JOB.name, "recovery", f"at step {step}", step=step)
    store.set_seconds_lost(number, 1.5)
    events = store.get_job(JOB.name).events
    assert [(e.kind, e.message, e.step, e.seconds_lost) for e in events] == [
        ("recovery", "at step 2", 2, 0.0),
        ("recovery", "at step 3", 3, 1.5),
    ]


def test_lists_leave_out_events_and_evaluations(store: Store) -> None:
    """There may be hundreds of each, and a page may have a thousand jobs."""
    store.create_job(JOB)
    store.add_event(JOB.name, "warning", "look", step=0)
    store.add_evaluation(JOB.name, evaluation(1, 0.5))
    [listed], _ = store.list_jobs(PageRequest())
    assert (listed.events, listed.evaluations) == ((), ())


def test_receipts_are_chained_by_the_rule_of_the_api(store: Store) -> None:
    store.create_job(JOB)
    for step, digest in ((10, "a" * 64), (20, "b" * 64)):
        assert store.add_receipt(JOB.name, step=step, state_digest=digest) is not None
    first = hashlib.sha256(f"{'0' * 64} 10 {'a' * 64}".encode()).hexdigest()
    second = hashlib.sha256(f"{first} 20 {'b' * 64}".encode()).hexdigest()
    assert [r.chain_digest for r in store.receipts(JOB.name, after_step=0, limit=10)] == [first, second]
    assert [r.step for r in store.receipts(JOB.name, after_step=10, limit=10)] == [20]


def test_a_receipt_taken_again_answers_with_the_one_that_is_there(store: Store) -> None:
    store.create_job(JOB)
    first = store.add_receipt(JOB.name, step=10, state_digest="a" * 64)
    store.add_receipt(JOB.name, step=20, state_digest="b" * 64)
    assert store.add_receipt(JOB.name, step=10, state_digest="c" * 64) == first
    assert store.add_receipt(JOB.name, step=15, state_digest="c" * 64) is None
    assert len(store.receipts(JOB.name, after_step=0, limit=10)) == 2


def test_receipts_can_be_dropped_from_a_step_on(store: Store) -> None:
    store.create_job(JOB)
    for step in (10, 20, 30):
        store.add_receipt(JOB.name, step=step, state_digest="a" * 64)
    store.drop_receipts(JOB.name, after_step=10)
    assert [r.step for r in store.receipts(JOB.name, after_step=0, limit=10)] == [10]


# --- checkpoints -----------------------------------------------------------------------------------------------


def test_checkpoints_come_latest_first_and_once(store: Store) -> None:
    store.create_job(JOB)
    for step, digest in ((10, "a"), (20, "b"), (20, "c")):
        add_checkpoint(store, step, state_digest=digest * 64)
    assert [(known.step, known.state_digest[0]) for known in store.checkpoints(JOB.name)] == [(20, "c"), (10, "a")]


def test_the_best_checkpoint_is_that_of_the_best_evaluation(store: Store) -> None:
    store.create_job(JOB)
    for epoch, loss in ((1, math.nan), (2, 0.3), (3, 0.2), (4, 0.2)):
        add_checkpoint(store, 10 * epoch)
        store.add_evaluation(JOB.name, evaluation(epoch, loss))
    assert [known.step for known in store.checkpoints(JOB.name) if known.is_best] == [30]


def test_it_is_the_best_by_what_the_job_watches(store: Store) -> None:
    store.create_job(replace(JOB, config=replace(CONFIG, validation=Validation(fraction=0.1, metric="accuracy"))))
    for epoch, share in ((1, 0.5), (2, 0.75), (3, 0.75)):
        add_checkpoint(store, 10 * epoch)
        store.add_evaluation(JOB.name, replace(evaluation(epoch, 1.0 / epoch), accuracy=share))
    assert [known.step for known in store.checkpoints(JOB.name) if known.is_best] == [20]


def test_pages_of_checkpoints_cover_all_newest_first(store: Store) -> None:
    store.create_job(JOB)
    for step in (10, 20, 30):
        add_checkpoint(store, step)
    first, token = store.list_checkpoints(JOB.name, PageRequest(2))
    rest, end = store.list_checkpoints(JOB.name, PageRequest(2, token))
    assert [known.step for known in (*first, *rest)] == [30, 20, 10]
    assert end == ""
    with pytest.raises(NotFoundError, match='"jobs/x"'):
        store.list_checkpoints("jobs/x", PageRequest())


def test_blobs_are_unreferenced_if_nothing_names_them(store: Store) -> None:
    store.create_job(JOB)
    store.transition(JOB.name, JobState.PREPARING)
    store.transition(JOB.name, JobState.FINALIZING)
    store.transition(JOB.name, JobState.SUCCEEDED, weights_digest="1" * 64, weights_step=20)
    add_checkpoint(store, 10, state_digest="2" * 64)
    add_checkpoint(store, 20, state_digest="3" * 64)
    store.drop_checkpoints(JOB.name, [20])
    named = [MODEL.weights_digest, DATASET.digest, "1" * 64, "2" * 64, f"{10:064d}"]
    assert store.unreferenced([*named, "3" * 64, f"{20:064d}"]) == ["3" * 64, f"{20:064d}"]


def add_checkpoint(store: Store, step: int, state_digest: str = "e" * 64) -> None:
    store.add_checkpoint(
        JOB.name,
        step=step,
        epoch=step // 10,
        manifest_digest=f"{step:064d}",
        state_digest=state_digest,
        size_bytes=123,
    )


def evaluation(epoch: int, loss: float) -> EvaluationMetric:
    return EvaluationMetric(epoch=epoch, step=10 * epoch, loss=loss, accuracy=0.5, num_examples=10, time_s=1.0)


# --- attempts --------------------------------------------------------------------------------------------------


def test_attempts_are_numbered_without_repeats(store: Store) -> None:
    store.create_job(JOB)
    assert [store.next_attempt(JOB.name) for _ in range(3)] == [1, 2, 3]


def test_pages_cover_all_newest_first(store: Store) -> None:
    for index in range(5):
        store.create_job(replace(JOB, name=f"jobs/j{index}", request=NO_REQUEST))
    names, token = [], ""
    while True:
        page, token = store.list_jobs(PageRequest(2, token))
        names += [job.name for job in page]
        if not token:
            break
    assert names == [f"jobs/j{index}" for index in reversed(range(5))]


def test_a_page_token_that_is_none_is_refused(store: Store) -> None:
    with pytest.raises(InvalidRequestError, match="page_token: 'x'"):
        store.list_jobs(PageRequest(2, "x"))


def test_what_is_not_there_is_not_found(store: Store) -> None:
    with pytest.raises(NotFoundError, match='"things/x"'):
        store.get_job("things/x")


def test_unfinished_jobs_are_those_that_have_something_to_wait_for(store: Store) -> None:
    for name in ("jobs/a", "jobs/b", "jobs/paused"):
        store.create_job(replace(JOB, name=name, request=NO_REQUEST))
    store.pause("jobs/paused")
    store.transition("jobs/a", JobState.CANCELLING)
    store.transition("jobs/a", JobState.CANCELLED)
    store.update_job("jobs/b", JobChange(priority=3))
    assert store.unfinished_jobs() == [UnfinishedJob("jobs/b", "default", JobState.QUEUED, 3, CONFIG)]


# --- what a job is told -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [Sgd(lr=0.1, nesterov=True), Adam(eps=0.0, decoupled=True)])
def test_a_configuration_is_read_as_it_was_written(store: Store, optimizer: Sgd | Adam) -> None:
    config = replace(CONFIG, optimizer=optimizer, non_finite="skip", exact=False)
    store.create_job(replace(JOB, config=config))
    assert store.get_job(JOB.name).config == config


def test_a_configuration_is_changed_only_as_long_as_the_job_can_use_it(store: Store) -> None:
    store.create_job(JOB)
    changed = store.reconfigure(JOB.name, lambda config: replace(config, max_workers=4))
    assert changed.config == replace(CONFIG, max_workers=4) == store.get_job(JOB.name).config
    store.cancel(JOB.name)
    with pytest.raises(IllegalStateError, match="is CANCELLING; only a job that has not ended can be scaled"):
        store.reconfigure(JOB.name, lambda config: config)


@pytest.mark.parametrize(
    ("path", "paused"),
    [
        ((), "PAUSED"),
        (("PREPARING",), "PAUSING"),
        (("PREPARING", "RUNNING"), "PAUSING"),
        (("PREPARING", "RECOVERING"), "PAUSING"),
        (("PREPARING", "FINALIZING"), None),
        (("CANCELLING",), None),
    ],
)
def test_what_can_be_paused_is_and_what_cannot_stays(store: Store, path: tuple[str, ...], paused: str | None) -> None:
    store.create_job(JOB)
    for state in path:
        store.transition(JOB.name, JobState[state])
    if paused is None:
        with pytest.raises(IllegalStateError, match=f"is {path[-1]}; only a RUNNING job can be paused"):
            store.pause(JOB.name)
    else:
        job, began = store.pause(JOB.name)
        assert (job.state.value, began) == (paused, True)
        assert store.pause(JOB.name) == (job, False)


def test_a_job_has_workers_only_while_it_can(store: Store) -> None:
    store.create_job(JOB)
    store.set_running_workers(JOB.name, 2)
    assert store.get_job(JOB.name).running_workers == 0
    store.transition(JOB.name, JobState.PREPARING)
    store.transition(JOB.name, JobState.RUNNING, running_workers=3)
    store.set_running_workers(JOB.name, 2)
    assert store.pause(JOB.name)[0].running_workers == 2
    assert store.transition(JOB.name, JobState.PAUSED).running_workers == 0


def test_the_first_fingerprint_stays(store: Store) -> None:
    store.create_job(JOB)
    store.set_fingerprint(JOB.name, "first")
    store.set_fingerprint(JOB.name, "second")
    assert store.get_job(JOB.name).fingerprint == "first"


def test_a_store_that_was_closed_refuses_everything(url: str) -> None:
    store = Store(url)
    store.close()
    for asked in (store.identity, store.unfinished_jobs, lambda: store.set_running_workers("jobs/j", 1)):
        with pytest.raises(StoreUnavailableError, match="the store is closed"):
            asked()
    Store(url).close()


def test_values_by_name_come_back_also_where_they_are_not_finite(store: Store) -> None:
    store.create_job(JOB)
    values = {"mae": 0.25, "perplexity": math.inf}
    store.add_metrics(JOB.name, [StepMetric(1, 1, 0.5, None, 10, 0.0, values)])
    store.add_evaluation(JOB.name, EvaluationMetric(1, 1, 0.5, None, 10, 0.0, values))
    [step], [evaluation] = store.metrics(JOB.name, after_step=0, limit=2), store.evaluations(JOB.name)
    assert (step.accuracy, step.values, evaluation.accuracy, evaluation.values) == (None, values, None, values)
    assert store.get_job(JOB.name).progress.values == values
