"""What callers may do to jobs in the store: as whom, which revision, and what is left afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from chainrule.server.architecture import Builtin
from chainrule.server.errors import IllegalStateError, NotFoundError, QueueFullError, StaleEtagError
from chainrule.server.records import Cause, Dataset, Job, JobFailure, JobState, Model
from chainrule.server.store import JobChange, NewJob, PageRequest, Store, schema
from chainrule.server.store.requests import NO_REQUEST, Request
from chainrule.server.training.config import TrainingConfig, Validation
from chainrule.server.training.state import EvaluationMetric, StepMetric

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = Model("models/m", Builtin("small_cnn", {"num_classes": 10}), "a" * 64, 0, 123, NOW)
DATASET = Dataset("datasets/d", "b" * 64, 100, (8,), 10, 6400, NOW)
JOB = NewJob("jobs/j", NO_REQUEST, MODEL.name, DATASET.name, TrainingConfig(), total_steps=20)
TENANT = schema.DEFAULT_TENANT
END = (JobState.PREPARING, JobState.FINALIZING)
"""What comes before a job has succeeded."""


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store(url)
    store.create_model(MODEL, tenant=TENANT)
    store.create_dataset(DATASET, tenant=TENANT)
    yield store
    store.close()


def succeed(store: Store, name: str, weights: str = "1" * 64) -> Job:
    for state in END:
        store.transition(name, state)
    return store.transition(name, JobState.SUCCEEDED, weights_digest=weights, weights_step=20)


def metric(step: int) -> StepMetric:
    return StepMetric(step=step, epoch=1, loss=1.0 / step, accuracy=0.5, num_examples=10, time_s=1.0)


def add_checkpoint(store: Store, job: str, step: int, *, manifest: str, state: str) -> None:
    store.add_checkpoint(job, step=step, epoch=1, manifest_digest=manifest, state_digest=state, size_bytes=1)


# --- tenants ---------------------------------------------------------------------------------------------------

Ask = Callable[[Store, str, str], Any]
ASKED: dict[str, Ask] = {
    "get": lambda store, name, tenant: store.get_job(name, tenant=tenant),
    "cancel": lambda store, name, tenant: store.cancel(name, tenant=tenant),
    "pause": lambda store, name, tenant: store.pause(name, tenant=tenant),
    "resume": lambda store, name, tenant: store.resume(name, tenant=tenant),
    "scale": lambda store, name, tenant: store.reconfigure(name, lambda config: config, tenant=tenant),
    "update": lambda store, name, tenant: store.update_job(name, JobChange(priority=1), tenant=tenant),
    "delete": lambda store, name, tenant: store.delete_job(name, tenant=tenant),
    "metrics": lambda store, name, tenant: store.metrics(name, after_step=0, limit=1, tenant=tenant),
    "receipts": lambda store, name, tenant: store.receipts(name, after_step=0, limit=1, tenant=tenant),
    "checkpoints": lambda store, name, tenant: store.list_checkpoints(name, PageRequest(), tenant=tenant),
}


@pytest.mark.parametrize("asked", ASKED)
def test_a_job_of_another_tenant_is_one_that_is_not_there(store: Store, asked: str) -> None:
    before, _ = store.create_job(JOB)
    told = []
    for name in (JOB.name, "jobs/x"):
        with pytest.raises(NotFoundError) as caught:
            ASKED[asked](store, name, "others")
        told.append(str(caught.value).replace(name, "NAME"))
    assert told[0] == told[1]
    assert store.get_job(JOB.name) == before


def test_lists_have_the_jobs_of_one_tenant(store: Store) -> None:
    store.create_job(JOB)
    assert store.list_jobs(PageRequest(), tenant="others") == ([], "")
    [job], _ = store.list_jobs(PageRequest(), tenant=TENANT)
    assert (job.name, job.tenant) == (JOB.name, TENANT)


def test_a_job_is_not_made_of_what_another_tenant_has(store: Store) -> None:
    with pytest.raises(NotFoundError, match='there is no model "models/m"'):
        store.create_job(replace(JOB, tenant="others"))


def test_tenants_may_use_the_same_request_id(store: Store) -> None:
    store.create_job(replace(JOB, request=Request("r", "c" * 64)))
    assert store.find_job_of_request(Request("r", "d" * 64), tenant="others") is None


# --- revisions -------------------------------------------------------------------------------------------------


def test_what_was_noted_of_a_job_is_kept(store: Store) -> None:
    job, _ = store.create_job(replace(JOB, labels={"team": "vision"}, description="a try", priority=-3))
    assert (job.labels, job.description, job.priority, job.revision) == ({"team": "vision"}, "a try", -3, 1)
    changed = store.update_job(JOB.name, JobChange(labels={}, priority=7))
    assert (changed.labels, changed.description, changed.priority, changed.revision) == ({}, "a try", 7, 2)
    assert changed == store.get_job(JOB.name)


def test_a_change_that_changes_nothing_is_no_revision(store: Store) -> None:
    job, _ = store.create_job(JOB)
    assert store.update_job(JOB.name, JobChange(labels={}, description="", priority=0)) == job
    assert store.reconfigure(JOB.name, lambda config: config) == job


def test_the_etag_changes_with_all_but_progress(store: Store) -> None:
    etags = [store.create_job(JOB)[0].etag]
    changes: tuple[Callable[[], Any], ...] = (
        lambda: store.transition(JOB.name, JobState.PREPARING),
        lambda: store.reconfigure(JOB.name, lambda config: replace(config, max_workers=4)),
        lambda: store.update_job(JOB.name, JobChange(description="x")),
        lambda: store.pause(JOB.name),
    )
    for change in changes:
        change()
        etags.append(store.get_job(JOB.name).etag)
    assert len(set(etags)) == len(changes) + 1
    store.add_metrics(JOB.name, [metric(1)])
    store.set_running_workers(JOB.name, 3)
    store.set_fingerprint(JOB.name, "{}")
    store.add_event(JOB.name, "warning", "look", step=1)
    assert store.get_job(JOB.name).running_workers == 3
    assert store.get_job(JOB.name).etag == etags[-1]


@pytest.mark.parametrize("asked", ["cancel", "pause", "resume", "reconfigure", "update_job", "delete_job"])
def test_a_change_meant_for_another_revision_is_refused(store: Store, asked: str) -> None:
    old, _ = store.create_job(JOB)
    more: dict[str, tuple[Any, ...]] = {
        "reconfigure": (lambda config: config,),
        "update_job": (JobChange(priority=2),),
    }
    present = store.update_job(JOB.name, JobChange(priority=1))
    call = getattr(store, asked)
    with pytest.raises(StaleEtagError, match=r'^"jobs/j" has changed: its etag is') as caught:
        call(JOB.name, *more.get(asked, ()), etag=old.etag)
    assert caught.value.metadata == {"name": JOB.name, "etag": present.etag}
    assert store.get_job(JOB.name) == present
    if asked == "delete_job":
        store.cancel(JOB.name)
        present = store.transition(JOB.name, JobState.CANCELLED)
    call(JOB.name, *more.get(asked, ()), etag=present.etag)


def test_a_refusal_names_the_job_and_its_state(store: Store) -> None:
    store.create_job(JOB)
    for refused in (lambda: store.transition(JOB.name, JobState.SUCCEEDED), lambda: store.delete_job(JOB.name)):
        with pytest.raises(IllegalStateError) as caught:
            refused()
        assert caught.value.metadata == {"name": JOB.name, "state": "QUEUED"}


# --- creation --------------------------------------------------------------------------------------------------


def test_a_preview_is_what_would_be_stored_and_stores_nothing(store: Store) -> None:
    new = replace(JOB, request=Request("r", "c" * 64), version=None, labels={"a": "b"})
    job = store.preview_job(new)
    assert (job.model, job.source_version, job.dataset_digest, job.labels) == ("models/m", 1, "b" * 64, {"a": "b"})
    assert store.list_jobs(PageRequest()) == ([], "")
    assert store.find_job_of_request(new.request, tenant=TENANT) is None
    assert store.create_job(new)[1]


def test_only_so_many_jobs_of_a_tenant_wait(store: Store) -> None:
    for index in range(2):
        store.create_job(replace(JOB, name=f"jobs/j{index}"), max_waiting=2)
    for refuse in (store.create_job, store.preview_job):
        with pytest.raises(QueueFullError, match="2 jobs wait or are paused, and no more than 2 may"):
            refuse(replace(JOB, name="jobs/more"), max_waiting=2)
    store.transition("jobs/j0", JobState.PREPARING)
    store.create_job(replace(JOB, name="jobs/more", request=Request("r", "c" * 64)), max_waiting=2)
    again, new = store.create_job(replace(JOB, name="jobs/again", request=Request("r", "c" * 64)), max_waiting=2)
    assert (again.name, new) == ("jobs/more", False)


def test_a_job_is_not_made_of_other_things_than_it_was_checked_with(store: Store) -> None:
    checked = store.inputs(TENANT, model=MODEL.name, version=1, dataset=DATASET.name)
    other = replace(checked, dataset=replace(checked.dataset, digest="c" * 64))
    with pytest.raises(IllegalStateError, match="removed and made anew while the job was being checked"):
        store.create_job(replace(JOB, checked=other))
    assert store.create_job(replace(JOB, checked=replace(checked, version=7)))[1]


# --- versions --------------------------------------------------------------------------------------------------


def test_a_job_that_succeeds_makes_a_version_of_its_model(store: Store) -> None:
    store.create_job(JOB)
    job = succeed(store, JOB.name)
    assert job.result_version == 2
    [_, made] = _versions(store)
    assert {key: made[key] for key in ("number", "job", "parent", "dataset", "dataset_digest", "step")} == {
        "number": 2,
        "job": JOB.name,
        "parent": 1,
        "dataset": DATASET.name,
        "dataset_digest": DATASET.digest,
        "step": 20,
    }
    assert made["weights_digest"] == job.weights_digest


def test_a_version_is_made_with_the_last_state_or_not_at_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create_job(JOB)
    for state in END:
        before = store.transition(JOB.name, state)

    def broken(*arguments: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr("chainrule.server.store.jobs._record", broken)
        with pytest.raises(ZeroDivisionError):
            store.transition(JOB.name, JobState.SUCCEEDED, weights_digest="1" * 64, weights_step=20)
    assert store.get_job(JOB.name) == before
    assert [row["number"] for row in _versions(store)] == [1]
    assert store.get_model(MODEL.name, tenant=TENANT).latest_version == 1
    store.transition(JOB.name, JobState.SUCCEEDED, weights_digest="1" * 64, weights_step=20)
    model = store.get_model(MODEL.name, tenant=TENANT)
    assert (model.latest_version, model.revision) == (2, 2)


def test_the_newest_version_is_that_of_when_the_job_is_stored(store: Store) -> None:
    for name in ("jobs/a", "jobs/b"):
        store.create_job(replace(JOB, name=name, version=None))
    succeed(store, "jobs/a")
    later, _ = store.create_job(replace(JOB, name="jobs/c", version=None))
    assert [store.get_job(name).source_version for name in ("jobs/a", "jobs/b", later.name)] == [1, 1, 2]
    succeed(store, "jobs/c", "2" * 64)
    succeed(store, "jobs/b", "3" * 64)
    assert [(row["number"], row["parent"], row["weights_digest"][0]) for row in _versions(store)] == [
        (1, 0, "a"),
        (2, 1, "1"),
        (3, 2, "2"),
        (4, 1, "3"),
    ]


def test_a_version_that_is_not_there_is_not_found(store: Store) -> None:
    with pytest.raises(NotFoundError, match='there is no model version "models/m/versions/2"'):
        store.create_job(replace(JOB, version=2))


def test_jobs_that_end_otherwise_make_no_version(store: Store) -> None:
    for name in ("jobs/a", "jobs/b"):
        store.create_job(replace(JOB, name=name))
        store.transition(name, JobState.PREPARING)
    store.transition("jobs/a", JobState.FAILED, failure=JobFailure("R", "m"))
    store.cancel("jobs/b")
    store.transition("jobs/b", JobState.CANCELLED)
    assert [row["number"] for row in _versions(store)] == [1]
    assert store.get_job("jobs/a").result_version == 0


def test_a_job_whose_model_is_gone_keeps_its_weights(store: Store) -> None:
    """Nothing removes a model in use; but should one be gone, the job ends as it should."""
    store.create_job(JOB)
    with store._write() as db:
        db.execute(schema.model_versions.delete())
        db.execute(schema.models.delete())
    job = succeed(store, JOB.name)
    assert (job.state, job.result_version, job.weights_digest) == (JobState.SUCCEEDED, 0, "1" * 64)


def _versions(store: Store) -> list[Any]:
    table = schema.model_versions
    with store._read() as db:
        return list(db.execute(sa.select(table).order_by(table.c.number)).mappings())


# --- removal ---------------------------------------------------------------------------------------------------


def test_a_job_goes_with_all_it_has_left_but_its_weights(store: Store) -> None:
    request = Request("r", "c" * 64)
    config = TrainingConfig(validation=Validation(fraction=0.1))
    store.create_job(replace(JOB, request=request, config=config))
    store.add_metrics(JOB.name, [metric(1)])
    store.add_evaluation(JOB.name, EvaluationMetric(1, 1, 0.5, 0.5, 10, 1.0))
    store.add_event(JOB.name, "warning", "look", step=1)
    store.add_receipt(JOB.name, step=1, state_digest="d" * 64)
    add_checkpoint(store, JOB.name, 1, manifest="e" * 64, state="f" * 64)
    succeed(store, JOB.name)
    assert store.delete_job(JOB.name) == {"e" * 64, "f" * 64}
    with pytest.raises(NotFoundError):
        store.get_job(JOB.name)
    with store._read() as db:
        for table in schema.metadata.sorted_tables:
            if "job" in table.c and table.name != "model_versions":
                assert db.execute(sa.select(table)).all() == [], table.name
    assert [row["job"] for row in _versions(store)] == ["", JOB.name]
    assert store.unreferenced(["1" * 64, "f" * 64]) == ["f" * 64]
    for late in (store.create_job, store.preview_job):
        with pytest.raises(NotFoundError, match='request_id "r" has made "jobs/j", which was removed since'):
            late(replace(JOB, name="jobs/again", request=request))


@pytest.mark.parametrize("path", [(), (JobState.PREPARING,), (JobState.PREPARING, JobState.RUNNING), END])
def test_a_job_that_has_not_ended_is_not_removed(store: Store, path: tuple[JobState, ...]) -> None:
    store.create_job(JOB)
    for state in path:
        store.transition(JOB.name, state)
    with pytest.raises(IllegalStateError, match="only a job that has ended can be removed: cancel it first"):
        store.delete_job(JOB.name)
    assert store.get_job(JOB.name).history[0].cause is Cause.REQUEST


# --- metrics ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 7, 64])
def test_of_earlier_steps_every_tenth_metric_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("chainrule.server.store.training.ALL_METRICS_STEPS", 12)
    store.create_job(JOB)
    steps = list(range(1, 65))
    for first in range(0, len(steps), at_once):
        store.add_metrics(JOB.name, [metric(step) for step in steps[first : first + at_once]])
    kept = [1, 10, 20, 30, 40, 50, *range(53, 65)]
    assert [m.step for m in store.metrics(JOB.name, after_step=0, limit=100)] == kept
    read: list[int] = []
    while page := store.metrics(JOB.name, after_step=read[-1] if read else 0, limit=4):
        read += [m.step for m in page]
    assert read == kept
    assert store.get_job(JOB.name).progress.step == 64


def test_what_is_computed_again_is_thinned_out_no_further(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chainrule.server.store.training.ALL_METRICS_STEPS", 5)
    store.create_job(JOB)
    store.add_metrics(JOB.name, [metric(step) for step in range(1, 16)])
    store.add_metrics(JOB.name, [metric(step) for step in range(4, 18)])
    assert [m.step for m in store.metrics(JOB.name, after_step=0, limit=100)] == [1, 10, 13, 14, 15, 16, 17]


# --- states ----------------------------------------------------------------------------------------------------


def test_paused_jobs_count_as_waiting(store: Store) -> None:
    """They are queued again at any time; otherwise a tenant could pause as many as it likes, and resume them all."""
    for index in range(2):
        store.create_job(replace(JOB, name=f"jobs/j{index}"), max_waiting=2)
        store.pause(f"jobs/j{index}")
    with pytest.raises(QueueFullError, match="2 jobs wait or are paused"):
        store.create_job(replace(JOB, name="jobs/more"), max_waiting=2)


def test_a_job_is_moved_only_from_the_state_that_was_meant(store: Store) -> None:
    """A job that was seen PAUSING, and has been paused and resumed since, is not paused again."""
    store.create_job(JOB)
    with pytest.raises(IllegalStateError):
        store.transition(JOB.name, JobState.PAUSED, since=JobState.PAUSING)
    assert store.transition(JOB.name, JobState.PAUSED, since=JobState.QUEUED).state is JobState.PAUSED


def move(store: Store, to: JobState, *, repeated: bool = False, reason: str = "in place") -> Job:
    return store.transition(JOB.name, to, cause=Cause.TRAINING, reason=reason, repeated=repeated)


def test_a_transition_that_was_stored_before_is_not_repeated(store: Store) -> None:
    store.create_job(JOB)
    store.transition(JOB.name, JobState.PREPARING)
    running = move(store, JobState.RUNNING)
    assert move(store, JobState.RUNNING, repeated=True) == running
    store.pause(JOB.name)  # what a caller has asked for since stays
    assert move(store, JobState.RUNNING, repeated=True).state is JobState.PAUSING
    move(store, JobState.PAUSED)
    store.resume(JOB.name)
    assert move(store, JobState.PAUSED, repeated=True).state is JobState.QUEUED


def test_a_transition_that_was_not_stored_before_is_made(store: Store) -> None:
    store.create_job(JOB)
    store.transition(JOB.name, JobState.PREPARING)
    assert move(store, JobState.RUNNING, repeated=True).state is JobState.RUNNING
    with pytest.raises(IllegalStateError):
        move(store, JobState.RUNNING, repeated=True, reason="others are in place")
    with pytest.raises(IllegalStateError):
        move(store, JobState.RUNNING)
    move(store, JobState.RECOVERING)
    assert len(move(store, JobState.RUNNING, repeated=True).history) == 5


# --- lists -----------------------------------------------------------------------------------------------------


def test_a_list_takes_as_many_queries_for_many_jobs_as_for_few(store: Store) -> None:
    queries: list[str] = []
    sa.event.listen(store._engine, "before_cursor_execute", lambda *args: queries.append(args[2]))
    counts = []
    for index in range(6):
        store.create_job(replace(JOB, name=f"jobs/j{index}"))
        store.add_metrics(f"jobs/j{index}", [metric(step) for step in range(1, 4)])
        queries.clear()
        store.list_jobs(PageRequest())
        counts.append(len(queries))
    assert set(counts) == {counts[0]}


def test_listed_jobs_are_whole_but_for_what_is_left_out(store: Store) -> None:
    for name in ("jobs/runs", "jobs/stands"):
        store.create_job(replace(JOB, name=name))
        store.transition(name, JobState.PREPARING)
        store.transition(name, JobState.RUNNING, running_workers=2 * (name == "jobs/runs"))
        begin_s = store.get_job(name).history[-1].time.timestamp()
        store.add_metrics(name, [replace(metric(step), time_s=begin_s + step) for step in range(1, 151)])
        store.add_event(name, "warning", "look", step=1)
        store.add_evaluation(name, EvaluationMetric(1, 150, 0.5, 0.5, 10, begin_s))
    store.create_job(replace(JOB, name="jobs/waits"))
    listed = {job.name: job for job in store.list_jobs(PageRequest())[0]}
    assert list(listed) == ["jobs/waits", "jobs/stands", "jobs/runs"]
    for name, job in listed.items():
        whole = replace(store.get_job(name), events=(), evaluations=())
        if name == "jobs/stands":
            assert whole.progress.examples_per_second == pytest.approx(10)
            whole = replace(whole, progress=replace(whole.progress, examples_per_second=0.0, eta_s=None))
        assert job == whole
