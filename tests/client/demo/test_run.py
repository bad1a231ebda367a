"""The demonstration says what it does, and its last two lines are its result."""

import io
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import chainrule.engine as cr
from chainrule.client.demo import run as demo_run
from chainrule.client.demo.run import DemoConfig, run
from chainrule.engine import io as weights_io
from chainrule.engine import models
from chainrule.v1 import job_pb2
from tests.client.fake_server import FakeServer, metric


@pytest.fixture
def trained(server: FakeServer) -> str:
    """The digest of weights that every job of the server has already produced."""
    content = weights_io.save(
        {name: tensor.numpy() for name, tensor in models.small_cnn(num_classes=10).state_dict().items()}
    )
    digest = weights_io.digest(content)
    server.blobs[digest] = content
    server.first_job = job_pb2.Job(state=job_pb2.Job.STATE_SUCCEEDED, weights_digest=digest)
    server.metrics = [metric(i, loss=1 / i) for i in range(1, 9)]
    return digest


def test_the_last_two_lines_are_accuracy_and_digest(
    server: FakeServer, trained: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(DemoConfig(), address=server.address)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == f"test accuracy: {result.test_accuracy:.3f}"
    assert lines[-1] == f"weights sha256: {trained}"
    assert re.fullmatch(r"test accuracy: [01]\.\d{3}", lines[-2])
    assert any("█▄▃▂▂▁▁▁" in line for line in lines)


def test_where_there_are_no_blocks_the_result_is_printed_all_the_same(
    server: FakeServer, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    run(DemoConfig(), address=server.address)
    out.seek(0)
    lines = out.read().splitlines()
    assert lines[-1] == f"weights sha256: {trained}"
    assert any("1.000 #~-..___ 0.125" in line for line in lines)


def test_one_is_not_plural(server: FakeServer, trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(DemoConfig(epochs=1, workers=1, shards=1), address=server.address)
    assert "job       jobs/1, 1 epoch, 1 shard on 1 worker\n" in capsys.readouterr().out
    run(DemoConfig(epochs=2), address=server.address)
    assert "job       jobs/2, 2 epochs, 4 shards on 2 workers\n" in capsys.readouterr().out


def test_its_own_server_has_room_for_the_workers(
    server: FakeServer, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    @contextmanager
    def started(*, command: Callable[[Path, Path], list[str]]) -> Iterator[str]:
        commands.append(command(Path("/d"), Path("/a")))
        yield server.address

    monkeypatch.setattr(demo_run, "temporary_server", started)
    for workers in (1, 3):
        run(DemoConfig(workers=workers))
    assert [command[-2:] for command in commands] == [["--num-cpus", "2"], ["--num-cpus", "3"]]


def test_its_own_server_is_called_as_nothing_of_the_environment_says(
    server: FakeServer, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def started(**_: object) -> Iterator[str]:
        yield server.address

    monkeypatch.setattr(demo_run, "temporary_server", started)
    monkeypatch.setenv("CHAINRULE_TLS_CA", "/nowhere/ca.pem")
    monkeypatch.setenv("CHAINRULE_TOKEN", "chainrule_secret")
    assert run(DemoConfig()).weights_digest == trained


def test_it_can_be_run_again_on_the_same_server(server: FakeServer, trained: str) -> None:
    first = run(DemoConfig(epochs=3, workers=1), address=server.address)
    cr.manual_seed(99)
    assert run(DemoConfig(epochs=3, workers=2), address=server.address) == first
    assert len(server.jobs) == 2
    assert len(server.models) == len(server.datasets) == 1


def test_it_trains_as_told(server: FakeServer, trained: str) -> None:
    run(DemoConfig(epochs=3, workers=1, shards=2), address=server.address)
    [request] = server.requests("CreateJob")
    config = request.job.config
    assert (config.epochs, config.max_workers, config.shards, config.batch_size) == (3, 1, 2, 64)
    assert (config.sgd.lr, config.sgd.momentum) == (0.05, 0.9)
