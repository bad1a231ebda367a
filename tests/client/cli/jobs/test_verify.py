"""`chainrule jobs verify`: its exit code is the verdict."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from chainrule.client.cli.exits import ExitCode
from chainrule.v1 import dataset_pb2, job_pb2, model_pb2
from tests.client.fake_server import FakeServer, chained, metric

Run = Callable[..., Result]


def train(server: FakeServer, name: str, losses: list[float], *, seed: int = 0) -> None:
    server.put_job(
        name=name,
        model="models/m",
        dataset="datasets/d",
        state=job_pb2.Job.STATE_RUNNING,
        config=job_pb2.TrainingConfig(seed=seed),
        progress=job_pb2.Progress(step=len(losses)),
    )
    server.metrics_of[name] = [metric(i, loss=loss) for i, loss in enumerate(losses, start=1)]
    server.receipts[name] = chained({2: "state"})


@pytest.fixture(autouse=True)
def resources(server: FakeServer) -> None:
    """What the jobs are trained with."""
    server.models["models/m"] = model_pb2.Model(name="models/m")
    server.datasets["datasets/d"] = dataset_pb2.Dataset(name="datasets/d", digest="d" * 64)


def test_jobs_that_agree_are_exit_code_0(run: Run, server: FakeServer) -> None:
    train(server, "jobs/1", [0.5, 0.4, 0.3])
    train(server, "jobs/2", [0.5, 0.4])
    result = run("jobs", "verify", "1", "jobs/2")
    assert result.exit_code == 0
    assert [line.split(maxsplit=1) for line in result.stdout.splitlines()[:2]] == [
        ["verdict", "jobs/1 and jobs/2 agree up to step 2"],
        ["compared", "2 losses, 1 state"],
    ]
    assert "not compared  steps 3 to 3: jobs/2, RUNNING, has done 2" in result.stdout


def test_jobs_that_part_are_exit_code_1_and_the_step_is_named(run: Run, server: FakeServer) -> None:
    train(server, "jobs/1", [0.5, 0.4, 0.3])
    train(server, "jobs/2", [0.5, 0.4, 0.2], seed=7)
    result = run("jobs", "verify", "1", "2")
    assert result.exit_code == 1
    assert "jobs/1 and jobs/2 part at step 3: their losses are not the same number" in result.stdout
    assert "different     seed: 0 against 7" in result.stdout


def test_the_verdict_as_json_has_the_same_exit_code(run: Run, server: FakeServer) -> None:
    train(server, "jobs/1", [0.5, 0.4])
    train(server, "jobs/2", [0.5, 0.3])
    result = run("jobs", "verify", "1", "2", "--format", "json")
    assert result.exit_code == 1
    told: dict[str, Any] = json.loads(result.stdout)
    assert (told["agree"], told["parts_at_step"], told["parts_in"]) == (False, 2, "loss")
    assert (told["agree_up_to_step"], told["differences"]) == (1, [])


def test_jobs_that_cannot_be_compared_have_no_verdict(run: Run, server: FakeServer) -> None:
    train(server, "jobs/1", [0.5, 0.4])
    train(server, "jobs/2", [])
    server.receipts["jobs/2"] = []
    result = run("jobs", "verify", "1", "2")
    assert result.exit_code == ExitCode.SERVICE
    assert "nothing can be compared yet: jobs/1 is RUNNING at step 2 and jobs/2 is RUNNING at step 0" in result.stderr


def test_the_help_documents_the_exit_codes(run: Run) -> None:
    text = " ".join(run("jobs", "verify", "--help").stdout.split())
    assert "Exit codes: 0 they agree, 1 they part, 2 wrong usage, 4 nothing could be compared" in text
