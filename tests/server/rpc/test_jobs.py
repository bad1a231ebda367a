"""JobService, without gRPC: messages in, messages out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chainrule.server.errors import InvalidRequestError
from chainrule.server.records import JobState
from chainrule.server.rpc.configs import training_config
from chainrule.server.rpc.jobs import JobServicer
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
    assert list(one.entries) == [second]
    errors = job_pb2.ListLogsRequest(name=name, min_severity=job_pb2.LogEntry.SEVERITY_WARNING)
    assert list((await jobs.ListLogs(errors, CONTEXT)).entries) == [second]
    parts.store.transition(name, JobState.CANCELLING)
    parts.store.transition(name, JobState.CANCELLED)
    stream = jobs.StreamLogs(job_pb2.StreamLogsRequest(name=name, after_sequence=1), CONTEXT)
    assert [list(response.entries) async for response in stream] == [[second]]


@pytest.mark.parametrize(("field", "value"), [("min_severity", 9), ("after_sequence", -1), ("page_size", -1)])
async def test_a_question_for_logs_that_makes_no_sense_is_refused(
    parts: Parts, jobs: JobServicer, field: str, value: int
) -> None:
    request = job_pb2.ListLogsRequest(name=parts.prepared())
    setattr(request, field, value)
    with pytest.raises(InvalidRequestError) as caught:
        await jobs.ListLogs(request, CONTEXT)
    assert refusal(caught).field == field
