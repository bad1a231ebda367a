"""What the server says of a job is what its status says."""

import dataclasses
from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration

from chainrule.client import (
    Cause,
    Client,
    Evaluation,
    JobEvent,
    JobFailure,
    JobState,
    Timings,
)
from chainrule.client.status import state_from_message, status_from_message
from chainrule.v1 import job_pb2
from tests.client.fake_server import NOW, FakeServer

State = job_pb2.Job.State
SUCCEEDED = job_pb2.Job.STATE_SUCCEEDED


def test_a_status_says_all_that_the_server_says(server: FakeServer, client: Client) -> None:
    server.put_job(
        name="jobs/7",
        model="models/m",
        dataset="datasets/d",
        state=job_pb2.Job.STATE_FAILED,
        history=[job_pb2.StateChange(state=job_pb2.Job.STATE_QUEUED, time=NOW, reason="accepted")],
        progress=job_pb2.Progress(
            step=3, total_steps=9, epoch=1, total_epochs=3, loss=1.5, accuracy=0.5, examples_per_second=99.0
        ),
        error=job_pb2.JobError(reason="NON_FINITE_LOSS", message="the loss is NaN", traceback="..."),
        start_time=NOW,
        running_workers=2,
        fingerprint='{"kernels": "reference", "threads": "1"}',
        events=[job_pb2.JobEvent(kind="recovery", message="worker 1 is gone", step=2, seconds_lost=1.5, time=NOW)],
        evaluations=[job_pb2.Evaluation(epoch=1, step=3, loss=0.25, accuracy=0.75, num_examples=8, time=NOW)],
    )
    status = client.jobs.get("7").status()
    moment = datetime.fromtimestamp(NOW.seconds, UTC)
    assert (status.name, status.model, status.dataset, status.state) == ("jobs/7", "models/m", "datasets/d", "FAILED")
    assert [(change.state, change.time, change.reason) for change in status.history] == [
        (JobState.QUEUED, moment, "accepted")
    ]
    assert dataclasses.astuple(status.progress) == (3, 9, 1, 3, 1.5, 0.5, 99.0, None, {})
    assert status.error == JobFailure(reason="NON_FINITE_LOSS", message="the loss is NaN", traceback="...")
    assert (status.create_time, status.start_time, status.end_time) == (moment, moment, None)
    assert (status.weights_digest, status.weights_step) == (None, None)
    assert (status.running_workers, status.fingerprint) == (2, {"kernels": "reference", "threads": "1"})
    assert status.events == (
        JobEvent(kind="recovery", message="worker 1 is gone", step=2, seconds_lost=1.5, time=moment),
    )
    assert status.evaluations == (Evaluation(epoch=1, step=3, loss=0.25, accuracy=0.75, num_examples=8, time=moment),)
    assert status.reason == "accepted"


def test_a_job_that_has_not_started_has_no_fingerprint(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1")
    status = client.jobs.get("1").status()
    assert (status.fingerprint, status.reason, status.events, status.evaluations) == ({}, "", (), ())


def test_the_weights_of_a_job_are_those_of_a_step(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1", state=SUCCEEDED, weights_digest="w", weights_step=12)
    assert client.jobs.get("1").status().weights_step == 12


def test_the_time_left_is_in_seconds(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1", progress=job_pb2.Progress(eta=Duration(seconds=2, nanos=500_000_000)))
    assert client.jobs.get("1").status().progress.eta_s == 2.5


def test_before_the_first_step_there_is_neither_loss_nor_accuracy(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1", progress=job_pb2.Progress(step=0, total_steps=9))
    progress = client.jobs.get("1").status().progress
    assert (progress.loss, progress.accuracy) == (None, None)
    server.put_job(name="jobs/1", progress=job_pb2.Progress(step=1, accuracy=0.0))
    progress = client.jobs.get("1").status().progress
    assert (progress.loss, progress.accuracy) == (0.0, 0.0)


def test_every_state_of_the_api_has_its_name_here() -> None:
    states = {state_from_message(state): state for state in State.values() if state}
    assert set(states) == set(JobState) - {JobState.UNKNOWN}
    assert {state for state in JobState if state.is_final} == {"SUCCEEDED", "FAILED", "CANCELLED"}


def test_a_state_of_a_newer_server_is_unknown() -> None:
    assert state_from_message(State.ValueType(99)) is JobState.UNKNOWN
    assert state_from_message(job_pb2.Job.STATE_UNSPECIFIED) is JobState.UNKNOWN


def test_a_status_tells_where_a_job_comes_from_what_it_made_and_how_long_it_took() -> None:
    job = job_pb2.Job(
        name="jobs/1",
        source_version="models/m/versions/1",
        result_version="models/m/versions/2",
        dataset_digest="d" * 64,
        labels={"team": "vision"},
        description="try",
        priority=3,
        etag="7",
    )
    job.timings.queued.FromMilliseconds(1500)
    job.timings.ending.FromSeconds(2)
    change = job.history.add(state=job_pb2.Job.STATE_RUNNING, attempt=2, cause=job_pb2.StateChange.CAUSE_LOSS)
    status = status_from_message(job)
    assert (status.source_version, status.result_version) == ("models/m/versions/1", "models/m/versions/2")
    assert (status.dataset_digest, status.labels, status.description) == ("d" * 64, {"team": "vision"}, "try")
    assert (status.priority, status.etag) == (3, "7")
    assert status.timings == Timings(queued_s=1.5, ending_s=2.0)
    assert (status.history[0].attempt, status.history[0].cause) == (2, Cause.LOSS)
    change.cause = 99  # type: ignore[assignment]
    assert status_from_message(job).history[0].cause is Cause.UNKNOWN
