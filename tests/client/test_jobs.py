"""Jobs are submitted once, followed to their end, and end as what they are."""

import dataclasses
import hashlib
import uuid
from datetime import UTC, datetime

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration

from chainrule.client import (
    AlreadyExists,
    Client,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidInputError,
    JobCancelledError,
    JobFailedError,
    JobFailure,
    JobState,
    JobStatus,
    NotFound,
    Sgd,
    TrainingConfig,
)
from chainrule.client.config import from_message, to_message
from chainrule.client.status import state_from_message
from chainrule.client.wire import POSITIVE_INT32, UINT64
from chainrule.engine import io
from chainrule.v1 import job_pb2
from tests.client.fake_server import BREAK, NOW, Failure, FakeServer, metric

State = job_pb2.Job.State
RUNNING, SUCCEEDED = job_pb2.Job.STATE_RUNNING, job_pb2.Job.STATE_SUCCEEDED

WEIGHTS = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(2, np.float32)}


def finish(server: FakeServer) -> str:
    """A job that has succeeded, with weights."""
    content = io.save(WEIGHTS)
    server.blobs[io.digest(content)] = content
    return server.put_job(name="jobs/1", state=SUCCEEDED, weights_digest=io.digest(content)).name


# Submitting


def test_a_job_carries_its_whole_configuration(server: FakeServer, client: Client) -> None:
    model = client.models.create_from_family("digits", "small_cnn")
    job = client.jobs.create(
        model=model,
        dataset="digits",
        epochs=20,
        batch_size=32,
        shards=4,
        workers=2,
        seed=3,
        optimizer={"lr": 0.05, "momentum": 0.9},
    )
    [request] = server.requests("CreateJob")
    assert (request.job.model, request.job.dataset) == ("models/digits", "datasets/digits")
    assert request.job.config == job_pb2.TrainingConfig(
        epochs=20,
        batch_size=32,
        shards=4,
        workers=2,
        seed=3,
        sgd=job_pb2.Sgd(lr=0.05, momentum=0.9, dampening=0.0, weight_decay=0.0, nesterov=False),
    )
    assert job.name == "jobs/1"
    assert job.status().config == TrainingConfig(
        epochs=20, batch_size=32, shards=4, workers=2, seed=3, optimizer=Sgd(lr=0.05, momentum=0.9)
    )


def test_defaults_are_those_of_the_api(server: FakeServer, client: Client) -> None:
    client.jobs.create(model="m", dataset="d", optimizer=Sgd())
    client.jobs.create(model="m", dataset="d")
    first, second = (request.job.config for request in server.requests("CreateJob"))
    assert first == second
    assert (first.epochs, first.batch_size, first.shards, first.workers, first.seed) == (1, 64, 1, 1, 0)
    assert (first.sgd.lr, first.sgd.momentum) == (0.01, 0.0)


def test_every_job_has_a_request_id_of_its_own(server: FakeServer, client: Client) -> None:
    client.jobs.create(model="m", dataset="d")
    client.jobs.create(model="m", dataset="d")
    ids = [request.request_id for request in server.requests("CreateJob")]
    assert len({uuid.UUID(request_id) for request_id in ids}) == 2


def test_a_submission_that_is_repeated_keeps_its_request_id(server: FakeServer, client: Client) -> None:
    server.fail("CreateJob", BREAK)
    client.jobs.create(model="m", dataset="d")
    first, second = server.requests("CreateJob")
    assert first == second
    assert list(server.jobs) == ["jobs/1"]


def test_the_same_request_id_gives_the_same_job(client: Client) -> None:
    first = client.jobs.create(model="m", dataset="d", request_id="once")
    assert client.jobs.create(model="m", dataset="d", request_id="once") == first


def test_a_refused_submission_is_told(server: FakeServer, client: Client) -> None:
    server.fail("CreateJob", Failure(code=grpc.StatusCode.ALREADY_EXISTS, message="another payload", reason="TAKEN"))
    with pytest.raises(AlreadyExists, match="another payload"):
        client.jobs.create(model="m", dataset="d", request_id="once")


def test_an_unknown_field_of_the_optimizer_is_refused_here(server: FakeServer, client: Client) -> None:
    with pytest.raises(InvalidInputError, match="the optimizer has no field learning_rate; sgd takes lr, momentum"):
        client.jobs.create(model="m", dataset="d", optimizer={"learning_rate": 0.1})
    assert server.requests("CreateJob") == []


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("epochs", 1.5, POSITIVE_INT32),
        ("epochs", 99999999999, "a whole number from 1 to 2147483647"),
        ("batch_size", 2**31, POSITIVE_INT32),
        ("shards", "4", POSITIVE_INT32),
        ("workers", -(2**31) - 1, POSITIVE_INT32),
        ("seed", -1, "a whole number from 0 to 18446744073709551615"),
        ("seed", 2**64, UINT64),
    ],
)
def test_a_value_that_does_not_fit_its_field_is_refused_here_by_name(
    client: Client, field: str, value: object, allowed: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        client.jobs.create(model="m", dataset="d", **{field: value})  # type: ignore[arg-type]
    assert str(caught.value) == f"{field} is {value!r}; it must be {allowed}"


def test_a_value_of_the_optimizer_that_is_no_number_is_refused_here(client: Client) -> None:
    with pytest.raises(InvalidInputError, match=r"^lr is 'fast'; it must be a number$"):
        client.jobs.create(model="m", dataset="d", optimizer={"lr": "fast"})


def test_a_zero_is_sent_and_not_taken_for_a_default() -> None:
    names = ("epochs", "batch_size", "shards", "workers", "seed")
    config = to_message(TrainingConfig(epochs=0, batch_size=0, shards=0, workers=0, seed=0, optimizer=Sgd(lr=0.0)))
    assert [getattr(config, name) for name in names] == [0] * 5
    assert config.sgd.HasField("lr")
    told = {field.name for field, _ in config.ListFields()}
    assert told >= {name for name in names if config.DESCRIPTOR.fields_by_name[name].has_presence}
    assert from_message(config) == TrainingConfig(
        epochs=0, batch_size=0, shards=0, workers=0, seed=0, optimizer=Sgd(lr=0.0)
    )


# Reading


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
    )
    status = client.jobs.get("7").status()
    moment = datetime.fromtimestamp(NOW.seconds, UTC)
    assert (status.name, status.model, status.dataset, status.state) == ("jobs/7", "models/m", "datasets/d", "FAILED")
    assert [(change.state, change.time, change.reason) for change in status.history] == [
        (JobState.QUEUED, moment, "accepted")
    ]
    assert dataclasses.astuple(status.progress) == (3, 9, 1, 3, 1.5, 0.5, 99.0, None)
    assert status.error == JobFailure(reason="NON_FINITE_LOSS", message="the loss is NaN", traceback="...")
    assert (status.create_time, status.start_time, status.end_time) == (moment, moment, None)
    assert status.weights_digest is None


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


def test_a_job_that_is_not_there_is_not_found(client: Client) -> None:
    with pytest.raises(NotFound, match="there is no jobs/9") as caught:
        client.jobs.get("9")
    assert caught.value.metadata == {"job": "jobs/9"}


def test_jobs_are_listed_newest_first(client: Client) -> None:
    for _ in range(3):
        client.jobs.create(model="m", dataset="d")
    assert [status.name for status in client.jobs.list()] == ["jobs/3", "jobs/2", "jobs/1"]
    assert [status.name for status in client.jobs.list(limit=1)] == ["jobs/3"]


def test_a_job_can_be_cancelled(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1", state=RUNNING)
    assert client.jobs.get("1").cancel().state is JobState.CANCELLING


# Waiting


def test_wait_returns_the_status_of_a_job_that_succeeded(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1", state=RUNNING)
    job = client.jobs.get("1")
    seen: list[JobStatus] = []

    def show(status: JobStatus) -> None:
        seen.append(status)
        server.put_job(name="jobs/1", state=SUCCEEDED)

    assert job.wait(progress=show).state is JobState.SUCCEEDED
    assert [status.state for status in seen] == ["RUNNING", "SUCCEEDED"]


def test_wait_raises_what_a_job_failed_of(server: FakeServer, client: Client) -> None:
    error = job_pb2.JobError(reason="NON_FINITE_LOSS", message="the loss is NaN at step 3", traceback="Traceback ...")
    server.put_job(name="jobs/1", state=job_pb2.Job.STATE_FAILED, error=error)
    with pytest.raises(JobFailedError) as caught:
        client.jobs.get("1").wait()
    assert str(caught.value) == "jobs/1 FAILED (NON_FINITE_LOSS): the loss is NaN at step 3"
    assert (caught.value.job, caught.value.reason) == ("jobs/1", "NON_FINITE_LOSS")
    assert caught.value.traceback == "Traceback ..."


def test_wait_raises_that_a_job_was_cancelled(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1", state=job_pb2.Job.STATE_CANCELLED)
    with pytest.raises(JobCancelledError, match="jobs/1 was CANCELLED"):
        client.jobs.get("1").wait()


def test_a_wait_that_takes_too_long_says_what_the_job_was_doing(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1", state=RUNNING)
    with pytest.raises(DeadlineExceeded) as caught:
        client.jobs.get("1").wait(timeout_s=0.2)
    assert str(caught.value) == "jobs/1 has not ended within 0.2 s; it was RUNNING when last seen"
    assert isinstance(caught.value, TimeoutError)


def test_a_break_while_waiting_is_no_failure_of_the_job(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1", state=RUNNING)
    server.take("WatchJob", job_pb2.Job(name="jobs/1", state=RUNNING), BREAK)
    server.take("WatchJob", job_pb2.Job(name="jobs/1", state=SUCCEEDED))
    assert client.jobs.get("1").wait().state is JobState.SUCCEEDED


def test_wait_can_show_its_progress_on_stdout(
    server: FakeServer, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(server)
    client.jobs.get("1").wait(progress=True)
    assert "jobs/1  SUCCEEDED" in capsys.readouterr().out


# Metrics


def test_metrics_come_from_all_pages(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1")
    server.metrics = [metric(i, loss=1 / i) for i in range(1, 6)]
    metrics = client.jobs.get("1").metrics()
    assert [(m.sequence, m.step, m.loss) for m in metrics] == [(i, i, 1 / i) for i in range(1, 6)]
    assert [m.sequence for m in client.jobs.get("1").metrics(after=3)] == [4, 5]


def test_streamed_metrics_have_neither_gaps_nor_repetitions_after_a_break(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1")
    server.take("StreamMetrics", job_pb2.StreamMetricsResponse(metrics=[metric(2), metric(3)]), BREAK)
    server.take("StreamMetrics", BREAK)
    server.take("StreamMetrics", job_pb2.StreamMetricsResponse(metrics=[metric(4)]))
    assert [m.sequence for m in client.jobs.get("1").stream_metrics(after=1)] == [2, 3, 4]
    assert [request.after_sequence for request in server.requests("StreamMetrics")] == [1, 3, 3]


# Weights


def test_the_weights_of_a_job_are_arrays_by_name(server: FakeServer, client: Client) -> None:
    finish(server)
    weights = client.jobs.get("1").weights()
    assert sorted(weights) == ["bias", "weight"]
    for name, array in weights.items():
        np.testing.assert_array_equal(array, WEIGHTS[name], strict=True)


def test_the_weights_file_has_the_jobs_digest(server: FakeServer, client: Client) -> None:
    job = client.jobs.get(finish(server))
    assert hashlib.sha256(job.weights_file()).hexdigest() == job.weights_digest


def test_weights_that_were_changed_on_the_way_are_refused(server: FakeServer, client: Client) -> None:
    job = client.jobs.get(finish(server))
    server.blobs[job.weights_digest] = io.save({**WEIGHTS, "bias": np.ones(2, np.float32)})
    with pytest.raises(DataLoss, match="asked for the blob"):
        job.weights()


def test_a_job_that_has_not_succeeded_has_no_weights(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1", state=RUNNING)
    with pytest.raises(FailedPrecondition, match="jobs/1 is RUNNING; only a SUCCEEDED job has weights"):
        client.jobs.get("1").weights()


# The server


def test_the_client_tells_what_the_server_is(client: Client) -> None:
    info = client.server_info()
    assert (info.version, info.kernels, info.owns_ray_cluster) == ("0.1.0", "reference", True)
    assert [(family.name, family.config) for family in info.families] == [("small_cnn", {"num_classes": 10})]
