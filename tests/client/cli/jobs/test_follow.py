"""`chainrule jobs watch`, `metrics` and `logs` follow a job, and not what happens to the connection."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.testing import Result

from chainrule.client import Job, JobStatus, Metric
from chainrule.client.cli.exits import ExitCode
from chainrule.v1 import job_pb2
from tests.client.fake_server import BREAK, FakeServer, log_entry, metric

Run = Callable[..., Result]


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


@pytest.mark.parametrize(
    "words", [("watch", "1"), ("watch", "1", "--format", "json"), ("metrics", "1", "--follow"), ("logs", "1", "-f")]
)
def test_ctrl_c_stops_watching_and_not_the_job(
    run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    def interrupted(*_args: object, **_options: object) -> Iterator[JobStatus | Metric]:
        raise KeyboardInterrupt

    server.put_job(name="jobs/1", state=job_pb2.Job.STATE_RUNNING)
    monkeypatch.setattr(Job, "watch", interrupted)
    monkeypatch.setattr(Job, "stream_metrics", interrupted)
    monkeypatch.setattr(Job, "logs", interrupted)
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


@pytest.mark.parametrize("words", [(), ("-f",), ("--follow",)])
def test_logs_are_a_line_each(run: Run, server: FakeServer, words: tuple[str, ...]) -> None:
    server.put_job(name="jobs/1")
    server.logs = [
        log_entry(1, "hello"),
        log_entry(2, "took [3] tries\nand more", severity="WARNING", source="worker 1"),
        log_entry(4, "lost", severity="ERROR", source="worker 1"),
    ]
    assert run("jobs", "logs", "1", *words).stdout.splitlines() == [
        "2025-06-15 15:06:40  INFO     coordinator  hello",
        "2025-06-15 15:06:40  WARNING  worker 1  took [3] tries",
        "and more",
        "2025-06-15 15:06:40  ERROR    worker 1  lost",
    ]
    chosen = run("jobs", "logs", "1", *words, "--min-severity", "error", "--format", "json").stdout
    assert [json.loads(line)["message"] for line in chosen.splitlines()] == ["lost"]
    chosen = run("jobs", "logs", "1", *words, "--source", "worker 1", "--after", "2", "--format", "json").stdout
    assert [json.loads(line)["sequence"] for line in chosen.splitlines()] == [4]


def test_a_severity_that_there_is_not_is_wrong_usage(run: Run, server: FakeServer) -> None:
    server.put_job(name="jobs/1")
    result = run("jobs", "logs", "1", "--min-severity", "loud")
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert "min_severity is 'loud'; it must be one of DEBUG, INFO, WARNING, ERROR" in result.stderr
