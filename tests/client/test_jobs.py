"""Jobs are submitted once, followed to their end, and end as what they are."""

import dataclasses
import hashlib
import uuid
from datetime import UTC, datetime
from typing import Any

import grpc
import numpy as np
import pytest

from chainrule.client import (
    Aborted,
    Adam,
    AlreadyExists,
    Checkpoint,
    Client,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidInputError,
    Job,
    JobCancelledError,
    JobFailedError,
    JobState,
    JobStatus,
    NotFound,
    ParameterGroup,
    Schedule,
    Sgd,
    TrainingConfig,
    Validation,
)
from chainrule.client.config_messages import from_message, to_message
from chainrule.client.wire import INT32, POSITIVE_INT32, UINT64
from chainrule.engine import io
from chainrule.v1 import job_pb2, model_pb2
from tests.client.fake_server import BREAK, NOW, Failure, FakeServer, chained, metric

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
    held_out = client.datasets.create("val", inputs=[[1.0]], targets=[0])
    job = client.jobs.create(
        model=model,
        dataset="digits",
        epochs=20,
        batch_size=32,
        shards=4,
        seed=3,
        optimizer={"name": "adam", "lr": 0.05},
        schedule={"decay": "cosine"},
        clip_norm=1.0,
        parameter_groups=[{"patterns": ["*.bias"], "weight_decay": 0}],
        ema_decay=0.999,
        precision="bfloat16",
        trainable=["fc.*"],
        non_finite="skip",
        validation={"dataset": held_out, "patience": 2},
        staleness=1,
        workers=3,
        min_workers=2,
        partitions=2,
        checkpoint_every_steps=10,
        keep_checkpoints=4,
        receipt_every_steps=5,
        audit_fraction=0.1,
        exact=False,
        max_failures=7,
    )
    [request] = server.requests("CreateJob")
    config = TrainingConfig(
        epochs=20,
        batch_size=32,
        shards=4,
        seed=3,
        optimizer=Adam(lr=0.05),
        schedule=Schedule(decay="cosine"),
        clip_norm=1.0,
        parameter_groups=(ParameterGroup(patterns=("*.bias",), weight_decay=0.0),),
        ema_decay=0.999,
        precision="bfloat16",
        trainable=("fc.*",),
        non_finite="skip",
        validation=Validation(dataset="datasets/val", patience=2),
        staleness=1,
        min_workers=2,
        max_workers=3,
        partitions=2,
        checkpoint_every_steps=10,
        keep_checkpoints=4,
        receipt_every_steps=5,
        audit_fraction=0.1,
        exact=False,
        max_failures=7,
    )
    assert (request.job.model, request.job.dataset) == ("models/digits", "datasets/digits")
    assert request.job.config == to_message(config)
    assert job.name == "jobs/1"
    assert job.status().config == config


def test_defaults_are_those_of_the_api(server: FakeServer, client: Client) -> None:
    client.jobs.create(model="m", dataset="d", optimizer=Sgd())
    client.jobs.create(model="m", dataset="d")
    first, second = (request.job.config for request in server.requests("CreateJob"))
    assert first == second == to_message(TrainingConfig())


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
        ("min_workers", -(2**31) - 1, POSITIVE_INT32),
        ("max_failures", 2**31, INT32),
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
    zeros: dict[str, Any] = {
        field.name: 0 for field in dataclasses.fields(TrainingConfig) if isinstance(field.default, int)
    }
    config = TrainingConfig(**{**zeros, "exact": False}, optimizer=Sgd(lr=0.0), schedule=Schedule(gamma=0.0))
    message = to_message(config)
    told = {field.name for field, _ in message.ListFields()}
    assert told >= {name for name in zeros if message.DESCRIPTOR.fields_by_name[name].has_presence}
    assert (message.sgd.HasField("lr"), message.schedule.HasField("gamma")) == (True, True)
    assert from_message(message) == config


# Finding


def test_a_job_that_is_not_there_is_not_found(client: Client) -> None:
    with pytest.raises(NotFound, match="there is no jobs/9") as caught:
        client.jobs.get("9")
    assert caught.value.metadata == {"job": "jobs/9"}


def test_jobs_are_listed_newest_first(client: Client) -> None:
    for _ in range(3):
        client.jobs.create(model="m", dataset="d")
    assert [status.name for status in client.jobs.list()] == ["jobs/3", "jobs/2", "jobs/1"]
    assert [status.name for status in client.jobs.list(limit=1)] == ["jobs/3"]


# Steering


def test_a_job_can_be_cancelled(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1", state=RUNNING)
    assert client.jobs.get("1").cancel().state is JobState.CANCELLING


def test_a_job_can_be_paused_and_resumed(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1", state=RUNNING)
    job = client.jobs.get("1")
    assert job.pause().state is JobState.PAUSING
    assert job.resume().state is JobState.QUEUED
    assert [request.name for request in server.requests("PauseJob") + server.requests("ResumeJob")] == ["jobs/1"] * 2


def test_a_refused_pause_is_told(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1", state=SUCCEEDED)
    server.fail("PauseJob", Failure(code=grpc.StatusCode.FAILED_PRECONDITION, message="jobs/1 is SUCCEEDED"))
    with pytest.raises(FailedPrecondition, match="jobs/1 is SUCCEEDED"):
        client.jobs.get("1").pause()


def test_a_pause_during_a_break_reaches_the_server(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1", state=RUNNING)
    server.fail("PauseJob", BREAK)
    assert client.jobs.get("1").pause().state is JobState.PAUSING
    assert len(server.requests("PauseJob")) == 2


def test_scaling_changes_what_is_named_and_leaves_the_rest(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1", state=RUNNING)
    job = client.jobs.get("1")
    assert (job.scale(4).config.min_workers, job.status().config.max_workers) == (1, 4)
    assert (job.scale(min_workers=2).config.min_workers, job.status().config.max_workers) == (2, 4)
    job.scale(min_workers=3, max_workers=5)
    assert [(request.min_workers, request.max_workers) for request in server.requests("ScaleJob")] == [
        (0, 4),
        (2, 0),
        (3, 5),
    ]


def test_scaling_to_nothing_is_refused_here_with_the_remedy(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1", state=RUNNING)
    job = client.jobs.get("1")
    with pytest.raises(InvalidInputError) as caught:
        job.scale(0)
    assert str(caught.value) == (
        f"max_workers is 0; it must be {POSITIVE_INT32}; to give back all workers, pause the job"
    )
    with pytest.raises(InvalidInputError, match=r"^min_workers is -1; it must be a whole number from 1 to 2147483647$"):
        job.scale(min_workers=-1)
    with pytest.raises(InvalidInputError, match="nothing says how to scale jobs/1; give max_workers, min_workers or"):
        job.scale()
    assert server.requests("ScaleJob") == []


# Changing and removing


def test_a_job_can_be_changed_by_name_and_by_handle(server: FakeServer, client: Client) -> None:
    job = client.jobs.create(model="m", dataset="d", labels={"a": "1"}, priority=5)
    assert client.jobs.update(job, priority=0).labels == {"a": "1"}
    changed = job.update(labels={"b": "2"}, description="better")
    assert (changed.labels, changed.description, changed.priority) == ({"b": "2"}, "better", 0)
    with pytest.raises(Aborted):
        client.jobs.update("1", description="stale", etag="1")
    with pytest.raises(InvalidInputError, match="nothing says what to change"):
        job.update()
    masks = [list(request.update_mask.paths) for request in server.requests("UpdateJob")]
    assert masks == [["priority"], ["labels", "description"], ["description"]]


def test_a_job_can_be_removed_by_name_and_by_handle(server: FakeServer, client: Client) -> None:
    client.jobs.create(model="m", dataset="d").delete()
    client.jobs.delete("1", missing_ok=True)
    with pytest.raises(NotFound):
        client.jobs.delete("jobs/1")
    assert server.jobs == {}


def test_steering_may_insist_on_what_was_seen(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1", state=RUNNING)
    job = client.jobs.get("1")
    job.scale(2, etag="7")
    job.pause(etag="8")
    job.resume(etag="9")
    job.cancel(etag="10")
    verbs = ("ScaleJob", "PauseJob", "ResumeJob", "CancelJob")
    assert [request.etag for verb in verbs for request in server.requests(verb)] == ["7", "8", "9", "10"]


def test_jobs_are_filtered_and_ordered_by_the_server(server: FakeServer, client: Client) -> None:
    client.jobs.list(filter="state = RUNNING", order_by="priority desc")
    [request] = server.requests("ListJobs")
    assert (request.filter, request.order_by) == ("state = RUNNING", "priority desc")


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


def test_a_job_that_is_paused_is_waited_for(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1", state=job_pb2.Job.STATE_PAUSED)
    seen: list[JobState] = []

    def resume(status: JobStatus) -> None:
        seen.append(status.state)
        server.put_job(name="jobs/1", state=SUCCEEDED)

    assert client.jobs.get("1").wait(progress=resume).state is JobState.SUCCEEDED
    assert seen == [JobState.PAUSED, JobState.SUCCEEDED]


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


# Checkpoints, receipts, and comparing


def test_checkpoints_are_listed_newest_first_over_all_pages(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1")
    server.checkpoints = [
        job_pb2.Checkpoint(step=s, epoch=s // 2, digest=f"{s}" * 64, size_bytes=9, create_time=NOW, is_best=s == 2)
        for s in (1, 2, 3)
    ]
    job = client.jobs.get("1")
    moment = datetime.fromtimestamp(NOW.seconds, UTC)
    assert [checkpoint.step for checkpoint in job.checkpoints()] == [3, 2, 1]
    assert job.checkpoints(limit=2)[1] == Checkpoint(
        step=2, epoch=1, digest="2" * 64, size_bytes=9, create_time=moment, is_best=True
    )
    assert len(job.checkpoints(limit=2)) == 2


def test_receipts_come_from_all_pages(server: FakeServer, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chainrule.client.job.MAX_RECORDS_PAGE", 2)
    server.put_job(name="jobs/1")
    server.receipts["jobs/1"] = chained({step: f"state {step}" for step in (10, 20, 30, 40, 50)})
    job = client.jobs.get("1")
    assert [(receipt.step, receipt.state_digest) for receipt in job.receipts()] == [
        (step, f"state {step}") for step in (10, 20, 30, 40, 50)
    ]
    assert [request.after_step for request in server.requests("ListReceipts")] == [0, 20, 40]
    assert [receipt.step for receipt in job.receipts(after=30)] == [40, 50]


def trained(server: FakeServer, client: Client, name: str, losses: list[float]) -> Job:
    """A job that has measured these losses, and has a receipt of its first step."""
    client.models.create_from_family("m", "mlp")
    client.datasets.create("d", inputs=[[1.0]], targets=[0])
    progress = job_pb2.Progress(step=len(losses))
    server.put_job(name=name, model="models/m", dataset="datasets/d", state=RUNNING, progress=progress)
    server.metrics_of[name] = [metric(i, loss=loss) for i, loss in enumerate(losses, start=1)]
    server.receipts[name] = chained({1: "state"})
    return client.jobs.get(name)


def test_jobs_are_compared_by_name_or_handle(server: FakeServer, client: Client) -> None:
    first = trained(server, client, "jobs/1", [0.5, 0.4, 0.3])
    second = trained(server, client, "jobs/2", [0.5, 0.4, 0.2])
    found = first.verify(second)
    assert found == first.verify("2") == first.verify("jobs/2")
    assert (found.first, found.second, found.parts_at_step, found.same_state_at_step) == ("jobs/1", "jobs/2", 3, 1)
    assert first.verify(first).agree


def test_jobs_of_two_servers_are_compared_by_what_their_names_mean(server: FakeServer, client: Client) -> None:
    with FakeServer() as other_server, Client.connect(other_server.address) as other:
        first = trained(server, client, "jobs/1", [0.5])
        other.datasets.create("d", inputs=[[2.0]], targets=[0])
        held_out = other.datasets.create("val", inputs=[[3.0]], targets=[0])
        second = trained(other_server, other, "jobs/1", [0.5])
        other_server.datasets["datasets/d"].digest = "e" * 64
        validation = job_pb2.Validation(dataset="datasets/val")
        other_server.put_job(name="jobs/1", config=job_pb2.TrainingConfig(validation=validation))
        found = first.verify(second)
    digest = server.datasets["datasets/d"].digest
    assert found.agree
    assert found.differences == (
        f"dataset: {digest} against {'e' * 64}",
        f"validation.dataset: none against {held_out.digest}",
    )


def test_a_comparison_with_a_job_that_is_not_there_is_not_found(server: FakeServer, client: Client) -> None:
    job = trained(server, client, "jobs/1", [0.5])
    with pytest.raises(NotFound, match="there is no jobs/9"):
        job.verify("9")


def test_jobs_that_began_with_other_versions_are_told_apart(server: FakeServer, client: Client) -> None:
    first, second = trained(server, client, "jobs/1", [0.5]), trained(server, client, "jobs/2", [0.5])
    for job, digest in (("jobs/1", "a" * 64), ("jobs/2", "b" * 64)):
        version = f"models/m/versions/{job[-1]}"
        server.versions[version] = model_pb2.ModelVersion(name=version, weights_digest=digest, create_time=NOW)
        server.put_job(name=job, model=version, source_version=version)
    assert first.verify(second).differences == (
        f"model: mlp {{}}, weights {'a' * 64} against mlp {{}}, weights {'b' * 64}",
    )


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
