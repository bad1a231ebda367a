"""`chainrule jobs`: what it prints, and what its exit codes say."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from typer.testing import Result

from chainrule.client import Job, JobStatus, Metric
from chainrule.client.cli.exits import ExitCode
from chainrule.v1 import job_pb2
from tests.client.fake_server import BREAK, NOW, Failure, FakeServer, metric

Run = Callable[..., Result]
SUBMIT = ("jobs", "submit", "--model", "m", "--dataset", "d")
DIGEST = "ab" * 32
SUCCEEDED = job_pb2.Job(state=job_pb2.Job.STATE_SUCCEEDED, weights_digest=DIGEST)
FAILED = job_pb2.Job(
    state=job_pb2.Job.STATE_FAILED, error=job_pb2.JobError(reason="NON_FINITE_LOSS", message="the loss is NaN")
)
CANCELLED = job_pb2.Job(state=job_pb2.Job.STATE_CANCELLED)


def test_submit_sends_every_option(run: Run, server: FakeServer) -> None:
    result = run(
        *SUBMIT,
        *("--epochs", "20", "--batch-size", "32", "--shards", "4", "--workers", "2", "--seed", "5"),
        *("--lr", "0.05", "--momentum", "0.9", "--dampening", "0.1", "--weight-decay", "0.001", "--nesterov"),
        *("--request-id", "once"),
    )
    assert result.exit_code == 0
    [request] = server.requests("CreateJob")
    sgd = job_pb2.Sgd(lr=0.05, momentum=0.9, dampening=0.1, weight_decay=0.001, nesterov=True)
    assert request.job.config == job_pb2.TrainingConfig(epochs=20, batch_size=32, shards=4, workers=2, seed=5, sgd=sgd)
    assert (request.job.model, request.job.dataset, request.request_id) == ("models/m", "datasets/d", "once")
    assert "jobs/1" in result.stdout
    assert "follow it with: chainrule jobs watch jobs/1" in result.stderr


@pytest.mark.parametrize(
    ("end", "code"),
    [(SUCCEEDED, ExitCode.SUCCEEDED), (FAILED, ExitCode.FAILED), (CANCELLED, ExitCode.CANCELLED)],
    ids=["succeeded", "failed", "cancelled"],
)
@pytest.mark.parametrize("form", ["table", "json"])
def test_the_exit_code_of_a_wait_is_the_jobs_result(
    run: Run, server: FakeServer, end: job_pb2.Job, code: ExitCode, form: str
) -> None:
    server.first_job = end
    result = run(*SUBMIT, "--wait", "--format", form)
    assert result.exit_code == code
    state = job_pb2.Job.State.Name(end.state).removeprefix("STATE_")
    shown = json.loads(result.stdout)["state"] if form == "json" else result.stdout
    assert state in shown


def test_a_failed_job_says_why(run: Run, server: FakeServer) -> None:
    server.first_job = FAILED
    assert "error: jobs/1 FAILED (NON_FINITE_LOSS): the loss is NaN\n" in run(*SUBMIT, "--wait").stderr
    error = json.loads(run("jobs", "watch", "1", "--format", "json").stderr)["error"]
    assert (error["type"], error["job"], error["reason"]) == ("JobFailedError", "jobs/1", "NON_FINITE_LOSS")


def test_the_traceback_of_a_failed_job_is_shown_on_demand(
    run: Run, run_json: Callable[..., Any], server: FakeServer
) -> None:
    trace = "Traceback (most recent call last):\n  File ...\nValueError: boom"
    error = job_pb2.JobError(reason="WORKER_ERROR", message="boom\nand more", traceback=trace)
    server.first_job = job_pb2.Job(state=job_pb2.Job.STATE_FAILED, error=error)
    waited = run(*SUBMIT, "--wait")
    assert "error: jobs/1 FAILED (WORKER_ERROR): boom\n" in waited.stderr
    assert "boom" not in waited.stdout
    for result in (waited, run("jobs", "watch", "1"), run("jobs", "status", "1")):
        assert "Traceback" not in result.output
        assert "and more" not in result.output
        assert "shown by: chainrule jobs status jobs/1 --traceback\n" in result.stdout
    short, long = run("jobs", "status", "1").stdout, run("jobs", "status", "1", "--traceback").stdout
    assert "WORKER_ERROR: boom\n" in short
    assert all(line.strip() in long for line in trace.splitlines())
    assert run_json("jobs", "status", "1")["error"]["traceback"] == trace


def test_a_server_that_is_gone_for_a_while_is_said_once_and_so_is_its_return(run: Run, server: FakeServer) -> None:
    server.put_job(name="jobs/1")
    server.take("WatchJob", BREAK)
    server.take("WatchJob", BREAK)
    server.take("WatchJob", BREAK)
    server.take("WatchJob", job_pb2.Job(name="jobs/1", state=job_pb2.Job.STATE_SUCCEEDED))
    first, second = run("jobs", "watch", "1").stderr.splitlines()
    assert first == "the server does not answer; trying again for up to 60 s"
    assert second == "the server answers again"
    assert logging.getLogger("chainrule.client").handlers == []


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_a_time_to_wait_must_be_positive(run: Run, server: FakeServer, seconds: str) -> None:
    result = run("jobs", "watch", "1", "--timeout", seconds)
    assert result.exit_code == ExitCode.USAGE
    assert f"{seconds} is not above 0" in result.stderr
    assert server.calls == []


def test_a_number_that_cannot_be_sent_is_wrong_usage_and_names_its_option(run: Run) -> None:
    result = run(*SUBMIT, "--epochs", "99999999999")
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr == "error: epochs is 99999999999; it must be a whole number from 1 to 2147483647\n"
    assert "seed is -1; it must be" in run(*SUBMIT, "--seed", "-1").stderr


def test_a_job_that_waits_has_no_loss_in_json(run_json: Callable[..., Any], server: FakeServer) -> None:
    server.put_job(name="jobs/1", state=job_pb2.Job.STATE_QUEUED)
    progress = run_json("jobs", "status", "1")["progress"]
    assert (progress["loss"], progress["accuracy"]) == (None, None)


def test_no_line_of_a_table_ends_in_spaces(run: Run, server: FakeServer) -> None:
    server.put_job(name="jobs/1")
    server.put_job(name="jobs/2222", model="models/a-long-name")
    for words in (("ls",), ("status", "1")):
        lines = run("jobs", *words).stdout.splitlines()
        assert lines == [line.rstrip() for line in lines]


def test_a_server_that_cannot_be_reached_is_no_failed_job(run: Run, server: FakeServer) -> None:
    server.first_job = job_pb2.Job(state=job_pb2.Job.STATE_RUNNING)
    server.take("WatchJob", Failure(code=grpc.StatusCode.INTERNAL, message="a defect"))
    assert run(*SUBMIT, "--wait").exit_code == ExitCode.SERVICE


def test_submit_help_documents_the_exit_codes(run: Run) -> None:
    text = " ".join(run("jobs", "submit", "--help").stdout.split())
    assert "0 the job SUCCEEDED, 1 it FAILED, 2 wrong usage, 3 it was CANCELLED" in text


def test_refused_fields_are_a_line_each(run: Run, server: FakeServer) -> None:
    server.fail(
        "CreateJob",
        Failure(
            code=grpc.StatusCode.INVALID_ARGUMENT,
            message="the job is invalid",
            violations={"job.config.epochs": "must be at least 1", "job.config.shards": "must be at most 64"},
        ),
    )
    result = run(*SUBMIT)
    assert result.exit_code == ExitCode.SERVICE
    assert result.stderr.splitlines() == [
        "error: the job is invalid",
        "  job.config.epochs: must be at least 1",
        "  job.config.shards: must be at most 64",
    ]


def test_refused_fields_that_are_the_whole_message_are_told_once(run: Run, server: FakeServer) -> None:
    violations = {"job.config.epochs": "is -1; it must be at least 1", "job.config.shards": "is 0"}
    message = "; ".join(f"{field}: {text}" for field, text in violations.items())
    server.fail("CreateJob", Failure(code=grpc.StatusCode.INVALID_ARGUMENT, message=message, violations=violations))
    assert run(*SUBMIT).stderr.splitlines() == [
        "error: job.config.epochs: is -1; it must be at least 1",
        "  job.config.shards: is 0",
    ]


def test_status_as_json_has_the_digest_of_the_weights(run_json: Callable[..., Any], server: FakeServer) -> None:
    server.put_job(name="jobs/1", state=job_pb2.Job.STATE_SUCCEEDED, weights_digest=DIGEST)
    job = run_json("jobs", "status", "1")
    assert (job["name"], job["state"], job["weights_digest"]) == ("jobs/1", "SUCCEEDED", DIGEST)
    assert job["config"]["optimizer"]["lr"] == 0.01
    assert job["create_time"] == NOW.ToDatetime().isoformat() + "+00:00"
    assert job["error"] is None


def test_a_loss_that_is_not_finite_is_null_in_json(run_json: Callable[..., Any], server: FakeServer) -> None:
    server.put_job(name="jobs/1", progress=job_pb2.Progress(step=1, loss=float("nan")))
    assert run_json("jobs", "status", "1")["progress"]["loss"] is None


def test_status_as_table_names_everything(run: Run, server: FakeServer) -> None:
    server.put_job(
        name="jobs/1", model="models/m", dataset="datasets/d", state=job_pb2.Job.STATE_SUCCEEDED, weights_digest=DIGEST
    )
    rows = dict(line.split("  ", 1) for line in run("jobs", "status", "1").stdout.splitlines())
    assert rows["job"].strip() == "jobs/1"
    assert rows["model"].strip() == "models/m"
    assert rows["weights sha256"].strip() == DIGEST


def test_jobs_are_listed_newest_first(run: Run, run_json: Callable[..., Any], server: FakeServer) -> None:
    server.put_job(name="jobs/1", state=job_pb2.Job.STATE_SUCCEEDED, weights_digest=DIGEST)
    server.put_job(name="jobs/2", state=job_pb2.Job.STATE_RUNNING)
    assert [job["name"] for job in run_json("jobs", "ls")] == ["jobs/2", "jobs/1"]
    assert [job["name"] for job in run_json("jobs", "ls", "--limit", "1")] == ["jobs/2"]
    header, second, first = run("jobs", "ls").stdout.splitlines()
    assert header.split()[:3] == ["JOB", "STATE", "MODEL"]
    assert second.split()[:2] == ["jobs/2", "RUNNING"]
    assert first.split()[:2] == ["jobs/1", "SUCCEEDED"]
    assert DIGEST[:12] in first


def test_watch_as_json_is_a_line_for_every_status(run: Run, server: FakeServer) -> None:
    server.put_job(name="jobs/1")
    states = (job_pb2.Job.STATE_QUEUED, job_pb2.Job.STATE_RUNNING, job_pb2.Job.STATE_SUCCEEDED)
    server.take("WatchJob", *(job_pb2.Job(name="jobs/1", state=state) for state in states))
    result = run("jobs", "watch", "1", "--format", "json")
    assert [json.loads(line)["state"] for line in result.stdout.splitlines()] == ["QUEUED", "RUNNING", "SUCCEEDED"]
    assert result.exit_code == ExitCode.SUCCEEDED


def test_watch_gives_up_after_its_time(run: Run, server: FakeServer) -> None:
    server.put_job(name="jobs/1", state=job_pb2.Job.STATE_RUNNING)
    result = run("jobs", "watch", "1", "--timeout", "0.2")
    assert result.exit_code == ExitCode.SERVICE
    assert "jobs/1 has not ended within 0.2 s; it was RUNNING when last seen" in result.stderr


@pytest.mark.parametrize("words", [("watch", "1"), ("watch", "1", "--format", "json"), ("metrics", "1", "--follow")])
def test_ctrl_c_stops_watching_and_not_the_job(
    run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    def interrupted(*_args: object, **_options: object) -> Iterator[JobStatus | Metric]:
        raise KeyboardInterrupt

    server.put_job(name="jobs/1", state=job_pb2.Job.STATE_RUNNING)
    monkeypatch.setattr(Job, "watch", interrupted)
    monkeypatch.setattr(Job, "stream_metrics", interrupted)
    result = run("jobs", *words, "--address", server.address)
    assert result.exit_code == ExitCode.INTERRUPTED
    assert (
        "stopped watching; jobs/1 goes on. "
        f"Cancel it with: chainrule jobs cancel jobs/1 --address {server.address}" in result.stderr
    )
    assert server.requests("CancelJob") == []


def test_metrics_are_rows(run: Run, run_json: Callable[..., Any], server: FakeServer) -> None:
    server.put_job(name="jobs/1")
    server.metrics = [metric(i, loss=1 / i) for i in (1, 2, 3)]
    assert [m["loss"] for m in run_json("jobs", "metrics", "1", "--after", "1")] == [1 / 2, 1 / 3]
    assert run("jobs", "metrics", "1").stdout.splitlines()[1].split()[:4] == ["1", "1", "1.000000", "0.7500"]


def test_metrics_that_are_followed_are_a_line_each(run: Run, server: FakeServer) -> None:
    server.put_job(name="jobs/1")
    server.metrics = [metric(1), metric(2)]
    lines = run("jobs", "metrics", "1", "--follow", "--format", "json").stdout.splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert run("jobs", "metrics", "1", "--follow").stdout.splitlines()[1] == (
        "epoch 2  step 2  loss 0.500000  accuracy 0.7500  examples 64"
    )


def test_cancel_asks_the_job_to_stop(run_json: Callable[..., Any], server: FakeServer) -> None:
    server.put_job(name="jobs/1", state=job_pb2.Job.STATE_RUNNING)
    assert run_json("jobs", "cancel", "jobs/1")["state"] == "CANCELLING"
