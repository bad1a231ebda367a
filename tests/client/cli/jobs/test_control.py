"""`chainrule jobs pause`, `resume`, `scale` and `cancel` ask the server, and show what the job does then."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from typer.testing import Result

from chainrule.client.cli.exits import ExitCode
from chainrule.v1 import job_pb2
from tests.client.fake_server import Failure, FakeServer

Run = Callable[..., Result]
RunJson = Callable[..., Any]


@pytest.fixture(autouse=True)
def running(server: FakeServer) -> None:
    """A job that trains."""
    server.put_job(name="jobs/1", state=job_pb2.Job.STATE_RUNNING)


def test_pause_says_how_to_go_on(run: Run, server: FakeServer) -> None:
    result = run("jobs", "pause", "1")
    assert result.exit_code == 0
    assert "PAUSING" in result.stdout
    assert result.stderr == "let it go on with: chainrule jobs resume jobs/1\n"
    assert [request.name for request in server.requests("PauseJob")] == ["jobs/1"]


def test_resume_says_how_to_follow(run: Run) -> None:
    result = run("jobs", "resume", "jobs/1")
    assert result.exit_code == 0
    assert "QUEUED" in result.stdout
    assert result.stderr == "follow it with: chainrule jobs watch jobs/1\n"


@pytest.mark.parametrize(("command", "state"), [("pause", "PAUSING"), ("resume", "QUEUED"), ("cancel", "CANCELLING")])
def test_the_job_is_shown_as_json(run_json: RunJson, command: str, state: str) -> None:
    assert run_json("jobs", command, "jobs/1")["state"] == state


def test_a_refusal_is_the_services(run: Run, server: FakeServer) -> None:
    message = 'job "jobs/1" is PAUSING; only a PAUSED job can be resumed'
    server.fail("ResumeJob", Failure(code=grpc.StatusCode.FAILED_PRECONDITION, message=message))
    result = run("jobs", "resume", "1")
    assert (result.exit_code, result.stderr) == (ExitCode.SERVICE, f"error: {message}\n")


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        (("4",), (0, 4)),
        (("--max-workers", "4"), (0, 4)),
        (("4", "--max-workers", "4"), (0, 4)),
        (("4", "--min-workers", "2"), (2, 4)),
        (("--min-workers", "2"), (2, 0)),
    ],
)
def test_scale_changes_what_is_named(
    run_json: RunJson, server: FakeServer, words: tuple[str, ...], sent: tuple[int, int]
) -> None:
    config = run_json("jobs", "scale", "1", *words)["config"]
    [request] = server.requests("ScaleJob")
    assert (request.min_workers, request.max_workers) == sent
    assert (config["min_workers"], config["max_workers"]) == tuple(number or 1 for number in sent)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "nothing says how to scale jobs/1; give max_workers, min_workers or both"),
        (("0",), "max_workers is 0; it must be a whole number from 1 to 2147483647; to give back all workers, pause"),
        (("2", "--max-workers", "3"), "it is 3, but WORKERS is 2; give one of them"),
    ],
)
def test_scaling_to_what_cannot_be_is_wrong_usage(
    run: Run, server: FakeServer, words: tuple[str, ...], message: str
) -> None:
    result = run("jobs", "scale", "1", *words)
    assert result.exit_code == ExitCode.USAGE
    assert message in " ".join(result.stderr.replace("│", "").split())
    assert server.requests("ScaleJob") == []
