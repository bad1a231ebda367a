"""JobService, without gRPC: messages in, messages out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from chainrule.server.errors import InvalidRequestError, NotFoundError, StaleEtagError
from chainrule.server.records import JobState
from chainrule.server.rpc import caller
from chainrule.server.rpc.caller import Caller
from chainrule.server.rpc.configs import training_config
from chainrule.server.rpc.jobs import JobServicer
from chainrule.server.store import JobChange
from chainrule.server.training.logs import LogEntry
from chainrule.v1 import job_pb2
from tests.server.conftest import refusal
from tests.server.jobs.service_parts import CONFIG, FINGERPRINT, FakeLauncher, Parts, standing_after

CONTEXT: Any = None  # not used by these calls
Job = job_pb2.Job


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    """A service whose first job stands after step 7, and whose attempts after that run to their end."""
    parts = Parts(tmp_path, FakeLauncher(standing_after(7)))
    await parts.manager.start()
    yield parts
    await parts.manager.stop()
    parts.store.close()


@pytest.fixture
def jobs(parts: Parts) -> JobServicer:
    return JobServicer(parts.manager)


async def submit(parts: Parts, jobs: JobServicer) -> str:
    asked = parts.submission()
    config = training_config(replace(CONFIG, checkpoint_every_steps=2, receipt_every_steps=3))
    job = Job(model=asked.model, dataset=asked.dataset, config=config)
    return (await jobs.CreateJob(job_pb2.CreateJobRequest(job=job), CONTEXT)).name


async def until(jobs: JobServicer, name: str, state: Job.State.ValueType) -> Job:
    async with asyncio.timeout(30):
        async for job in jobs.WatchJob(job_pb2.WatchJobRequest(name=name), CONTEXT):
            if job.state == state and (state != Job.STATE_RUNNING or job.progress.step == 7):
                return job
    pytest.fail("it ended before")


async def test_a_job_is_paused_scaled_and_resumed(parts: Parts, jobs: JobServicer) -> None:
    name = await submit(parts, jobs)
    running = await until(jobs, name, Job.STATE_RUNNING)
    assert (running.running_workers, running.fingerprint) == (2, FINGERPRINT)
    assert (await jobs.PauseJob(job_pb2.PauseJobRequest(name=name), CONTEXT)).state == Job.STATE_PAUSING
    await until(jobs, name, Job.STATE_PAUSED)
    scaled = await jobs.ScaleJob(job_pb2.ScaleJobRequest(name=name, max_workers=3), CONTEXT)
    assert (scaled.config.min_workers, scaled.config.max_workers, scaled.config.workers) == (1, 3, 3)
    assert (await jobs.ResumeJob(job_pb2.ResumeJobRequest(name=name), CONTEXT)).state == Job.STATE_QUEUED
    ended = await until(jobs, name, Job.STATE_SUCCEEDED)
    assert ended.weights_step == 12
    assert [spec.workers for spec in parts.launcher.specs] == [2, 3]


async def test_checkpoints_are_listed_in_pages(parts: Parts, jobs: JobServicer) -> None:
    name = await submit(parts, jobs)
    await until(jobs, name, Job.STATE_RUNNING)
    await jobs.PauseJob(job_pb2.PauseJobRequest(name=name), CONTEXT)
    await until(jobs, name, Job.STATE_PAUSED)
    first = await jobs.ListCheckpoints(job_pb2.ListCheckpointsRequest(name=name, page_size=2), CONTEXT)
    token = first.next_page_token
    rest = await jobs.ListCheckpoints(job_pb2.ListCheckpointsRequest(name=name, page_token=token), CONTEXT)
    assert [(c.step, c.epoch) for c in (*first.checkpoints, *rest.checkpoints)] == [(7, 1), (6, 1), (4, 1)]
    assert rest.next_page_token == ""
    for checkpoint in first.checkpoints:
        assert parts.blobs.size(checkpoint.digest) == checkpoint.size_bytes


async def test_receipts_are_listed_from_a_step_on(parts: Parts, jobs: JobServicer) -> None:
    name = await submit(parts, jobs)
    await until(jobs, name, Job.STATE_RUNNING)
    listed = await jobs.ListReceipts(job_pb2.ListReceiptsRequest(name=name), CONTEXT)
    assert [receipt.step for receipt in listed.receipts] == [3, 4, 6]
    later = await jobs.ListReceipts(job_pb2.ListReceiptsRequest(name=name, after_step=3, page_size=1), CONTEXT)
    assert list(later.receipts) == [listed.receipts[1]]
    with pytest.raises(InvalidRequestError, match="is -1; use 0 for all") as caught:
        await jobs.ListReceipts(job_pb2.ListReceiptsRequest(name=name, after_step=-1), CONTEXT)
    assert refusal(caught).field == "after_step"


async def test_a_page_token_that_is_none_is_refused(parts: Parts, jobs: JobServicer) -> None:
    name = parts.prepared()
    parts.store.transition(name, JobState.CANCELLING)
    with pytest.raises(InvalidRequestError) as caught:
        await jobs.ListCheckpoints(job_pb2.ListCheckpointsRequest(name=name, page_token="x"), CONTEXT)
    assert refusal(caught).field == "page_token"


async def test_logs_are_listed_and_streamed_from_a_sequence_number_on(parts: Parts, jobs: JobServicer) -> None:
    name = parts.prepared()
    entries = [LogEntry(1_500_000, logging.INFO, "ready", "worker 1", "n"), LogEntry(2, logging.CRITICAL, "fails")]
    parts.store.add_logs(name, entries)
    listed = await jobs.ListLogs(job_pb2.ListLogsRequest(name=name), CONTEXT)
    first, second = listed.entries
    assert (first.sequence, first.source, first.node, first.message) == (1, "worker 1", "n", "ready")
    assert (first.time.ToMicroseconds(), first.severity) == (1_500_000, job_pb2.LogEntry.SEVERITY_INFO)
    assert second.severity == job_pb2.LogEntry.SEVERITY_ERROR
    one = await jobs.ListLogs(job_pb2.ListLogsRequest(name=name, page_size=1, after_sequence=1), CONTEXT)
    assert (list(one.entries), one.has_more) == ([second], False)
    assert (await jobs.ListLogs(job_pb2.ListLogsRequest(name=name, page_size=1), CONTEXT)).has_more
    errors = job_pb2.ListLogsRequest(name=name, min_severity=job_pb2.LogEntry.SEVERITY_WARNING)
    assert list((await jobs.ListLogs(errors, CONTEXT)).entries) == [second]
    parts.store.transition(name, JobState.CANCELLING)
    parts.store.transition(name, JobState.CANCELLED)
    stream = jobs.StreamLogs(job_pb2.StreamLogsRequest(name=name, after_sequence=1), CONTEXT)
    assert [list(response.entries) async for response in stream] == [[second]]


async def test_messages_of_logs_are_as_long_as_any_client_takes(parts: Parts, jobs: JobServicer) -> None:
    name = parts.prepared()
    parts.store.add_logs(name, [LogEntry(1, logging.INFO, "x" * 8192, "worker 1", "n" * 56) for _ in range(600)])
    parts.store.transition(name, JobState.CANCELLING)
    parts.store.transition(name, JobState.CANCELLED)
    listed = await jobs.ListLogs(job_pb2.ListLogsRequest(name=name, page_size=10_000), CONTEXT)
    assert listed.has_more
    stream = jobs.StreamLogs(job_pb2.StreamLogsRequest(name=name), CONTEXT)
    streamed = [response async for response in stream]
    assert [entry.sequence for response in streamed for entry in response.entries] == list(range(1, 601))
    for message in (listed, *streamed):
        assert 0 < message.ByteSize() <= 4 * 1024**2


@pytest.mark.parametrize(("field", "value"), [("min_severity", 9), ("after_sequence", -1), ("page_size", -1)])
async def test_a_question_for_logs_that_makes_no_sense_is_refused(
    parts: Parts, jobs: JobServicer, field: str, value: int
) -> None:
    request = job_pb2.ListLogsRequest(name=parts.prepared())
    setattr(request, field, value)
    with pytest.raises(InvalidRequestError) as caught:
        await jobs.ListLogs(request, CONTEXT)
    assert refusal(caught).field == field


# --- the whole of a job on the wire ----------------------------------------------------------------------------


async def test_a_job_is_created_found_listed_changed_and_removed(parts: Parts, jobs: JobServicer) -> None:
    parts.launcher.runs_on()
    asked = parts.submission()
    config = training_config(replace(CONFIG, epochs=1))
    job = Job(model=f"{asked.model}/versions/latest", dataset=asked.dataset, config=config, priority=3)
    job.labels["team"] = "vision"
    checked = await jobs.CreateJob(job_pb2.CreateJobRequest(job=job, validate_only=True), CONTEXT)
    assert (checked.name, checked.state, checked.etag, len(checked.history)) == ("", Job.STATE_UNSPECIFIED, "", 0)
    assert (checked.source_version, dict(checked.labels)) == ("models/m/versions/1", {"team": "vision"})
    assert len((await jobs.ListJobs(job_pb2.ListJobsRequest(), CONTEXT)).jobs) == 0

    made = await jobs.CreateJob(job_pb2.CreateJobRequest(job=job, request_id="r"), CONTEXT)
    assert (made.model, made.source_version, made.priority) == ("models/m", "models/m/versions/1", 3)
    assert made.dataset_digest == parts.datasets.get(asked.dataset, tenant="default").digest
    ended = await until(jobs, made.name, Job.STATE_SUCCEEDED)
    assert ended.result_version == "models/m/versions/2"
    assert {change.cause for change in ended.history} == {
        job_pb2.StateChange.CAUSE_REQUEST,
        job_pb2.StateChange.CAUSE_CAPACITY,
        job_pb2.StateChange.CAUSE_TRAINING,
    }
    assert ended.history[-1].attempt == 1
    spent = ended.timings
    in_states_us = sum(part.ToMicroseconds() for part in (spent.queued, spent.preparing, spent.running, spent.ending))
    assert in_states_us == ended.end_time.ToMicroseconds() - ended.create_time.ToMicroseconds()

    wanted = job_pb2.ListJobsRequest(filter="labels.team = vision AND priority > 2", order_by="priority desc")
    assert [job.name for job in (await jobs.ListJobs(wanted, CONTEXT)).jobs] == [made.name]
    wanted.filter = "state = FAILED"
    assert len((await jobs.ListJobs(wanted, CONTEXT)).jobs) == 0

    change = Job(name=made.name, description="new", etag=ended.etag)
    request = job_pb2.UpdateJobRequest(job=change, update_mask=FieldMask(paths=["description", "labels"]))
    changed = await jobs.UpdateJob(request, CONTEXT)
    assert (changed.description, dict(changed.labels), changed.priority) == ("new", {}, 3)
    with pytest.raises(StaleEtagError):
        await jobs.UpdateJob(request, CONTEXT)
    await jobs.DeleteJob(job_pb2.DeleteJobRequest(name=made.name, etag=changed.etag), CONTEXT)
    with pytest.raises(NotFoundError):
        await jobs.GetJob(job_pb2.GetJobRequest(name=made.name), CONTEXT)
    with pytest.raises(NotFoundError, match="was removed since"):
        await jobs.CreateJob(job_pb2.CreateJobRequest(job=job, request_id="r"), CONTEXT)
    await jobs.DeleteJob(job_pb2.DeleteJobRequest(name=made.name, allow_missing=True), CONTEXT)


@pytest.mark.parametrize(
    ("paths", "changed"),
    [
        ([], {"priority": 5, "labels": {"a": "b"}, "description": "old"}),
        (["*"], {"priority": 5, "labels": {"a": "b"}, "description": ""}),
        (["priority"], {"priority": 5, "labels": {"old": "1"}, "description": "old"}),
    ],
)
async def test_an_update_changes_what_its_mask_names(
    parts: Parts, jobs: JobServicer, paths: list[str], changed: dict[str, object]
) -> None:
    name = parts.prepared()
    parts.store.update_job(name, JobChange(labels={"old": "1"}, description="old"))
    wanted = Job(name=name, priority=5, labels={"a": "b"})
    await jobs.UpdateJob(job_pb2.UpdateJobRequest(job=wanted, update_mask=FieldMask(paths=paths)), CONTEXT)
    job = parts.store.get_job(name)
    assert {"priority": job.priority, "labels": job.labels, "description": job.description} == changed


async def test_what_cannot_be_changed_of_a_job_is_refused(parts: Parts, jobs: JobServicer) -> None:
    request = job_pb2.UpdateJobRequest(job=Job(name=parts.prepared()), update_mask=FieldMask(paths=["state"]))
    with pytest.raises(InvalidRequestError, match="'state' of a job cannot be changed") as caught:
        await jobs.UpdateJob(request, CONTEXT)
    assert refusal(caught).field == "update_mask"


async def test_calls_are_those_of_the_callers_tenant(parts: Parts, jobs: JobServicer) -> None:
    name = parts.prepared()
    token = caller._current.set(Caller(tenant="others"))
    try:
        for call, request in (
            (jobs.GetJob, job_pb2.GetJobRequest(name=name)),
            (jobs.CancelJob, job_pb2.CancelJobRequest(name=name)),
            (jobs.PauseJob, job_pb2.PauseJobRequest(name=name)),
            (jobs.ResumeJob, job_pb2.ResumeJobRequest(name=name)),
            (jobs.ScaleJob, job_pb2.ScaleJobRequest(name=name)),
            (jobs.UpdateJob, job_pb2.UpdateJobRequest(job=Job(name=name))),
            (jobs.DeleteJob, job_pb2.DeleteJobRequest(name=name)),
            (jobs.ListMetrics, job_pb2.ListMetricsRequest(name=name)),
            (jobs.ListCheckpoints, job_pb2.ListCheckpointsRequest(name=name)),
            (jobs.ListReceipts, job_pb2.ListReceiptsRequest(name=name)),
        ):
            with pytest.raises(NotFoundError, match=f'there is no job "{name}"'):
                await cast(Any, call)(request, CONTEXT)
        for stream in (
            jobs.WatchJob(job_pb2.WatchJobRequest(name=name), CONTEXT),
            jobs.StreamMetrics(job_pb2.StreamMetricsRequest(name=name), CONTEXT),
        ):
            with pytest.raises(NotFoundError):
                await anext(cast(Any, stream))
        assert len((await jobs.ListJobs(job_pb2.ListJobsRequest(), CONTEXT)).jobs) == 0
        asked = job_pb2.CreateJobRequest(job=Job(model="models/m", dataset="datasets/d"))
        with pytest.raises(NotFoundError, match="there is no model"):
            await jobs.CreateJob(asked, CONTEXT)
    finally:
        caller._current.reset(token)
    assert parts.store.get_job(name).state is JobState.PREPARING
