"""A shell completes names by asking the server, and hears nothing where that does not answer."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from chainrule.client.cli.app import app
from chainrule.v1 import dataset_pb2, model_pb2
from tests.client.fake_server import FakeServer

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def things(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_ADDRESS", server.address)
    server.put_job(name="jobs/abc")
    server.put_job(name="jobs/abd")
    server.put_job(name="jobs/xyz")
    for name in ("models/digits", "models/words"):
        server.models[name] = model_pb2.Model(name=name)
    for name in ("datasets/digits", "datasets/val"):
        server.datasets[name] = dataset_pb2.Dataset(name=name)


def completed(line: str) -> list[str]:
    """What bash offers at the end of a line."""
    words = line.split(" ")
    variables = {"_CHAINRULE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    result = CliRunner().invoke(app, [], env=variables, prog_name="chainrule")
    assert result.stderr == ""
    return sorted(result.stdout.split())


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("chainrule jobs status ", ["jobs/abc", "jobs/abd", "jobs/xyz"]),
        ("chainrule jobs watch ab", ["abc", "abd"]),
        ("chainrule jobs rm jobs/x", ["jobs/xyz"]),
        ("chainrule models versions d", ["digits"]),
        ("chainrule datasets rm datasets/", ["datasets/digits", "datasets/val"]),
        ("chainrule jobs submit --model models/w", ["models/words"]),
        ("chainrule jobs submit --model words --dataset v", ["val"]),
        ("chainrule weights get models/d", ["models/digits"]),
        ("chainrule weights get jobs/x", ["jobs/xyz"]),
        ("chainrule jobs status nothing", []),
    ],
)
def test_names_are_those_of_the_server(line: str, names: list[str]) -> None:
    assert completed(line) == names


def test_the_address_in_the_line_is_asked(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_ADDRESS", "127.0.0.1:1")
    assert completed(f"chainrule --address {server.address} jobs status x") == ["xyz"]
    assert completed(f"chainrule jobs status --address {server.address} x") == ["xyz"]


def test_a_server_that_is_not_there_is_nothing(server: FakeServer) -> None:
    server.stop()
    assert completed("chainrule jobs status ") == []


def test_a_server_that_does_not_answer_is_nothing(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chainrule.client.cli.completion.TIMEOUT_S", 0.1)
    server.silent.add("ListJobs")
    assert completed("chainrule jobs status ") == []


def test_a_token_that_others_can_read_is_no_word_in_the_line(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("chainrule_secret")
    (tmp_path / "token").chmod(0o644)
    environment = {
        **os.environ,
        "CHAINRULE_TOKEN_FILE": str(tmp_path / "token"),
        "_CHAINRULE_COMPLETE": "complete_bash",
    }
    environment |= {"COMP_WORDS": "chainrule jobs status x", "COMP_CWORD": "3"}
    script = "from chainrule.client.cli.app import app; app(prog_name='chainrule')"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["xyz"], "")


def test_what_cannot_be_an_address_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_ADDRESS", "nowhere")
    assert completed("chainrule jobs status ") == []


def test_the_help_says_how_completion_is_installed(run: Run) -> None:
    text = run("--help").stdout
    assert "--install-completion" in text
    assert "--show-completion" in text
