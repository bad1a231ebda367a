"""Changing, removing and finding things from the command line: labels, filters, etags, questions before a removal."""

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from chainrule.client.cli import options
from chainrule.client.cli.app import app
from chainrule.client.cli.exits import ExitCode
from chainrule.v1 import dataset_pb2, job_pb2, model_pb2
from tests.client.fake_server import NOW, FakeServer

Run = Callable[..., Result]
RunJson = Callable[..., Any]
KINDS = ("models", "datasets", "jobs")


@pytest.fixture(autouse=True)
def things(server: FakeServer) -> None:
    """One of each, by the name x, with a label."""
    server.models["models/x"] = model_pb2.Model(name="models/x", labels={"team": "vision"}, create_time=NOW)
    server.datasets["datasets/x"] = dataset_pb2.Dataset(name="datasets/x", labels={"team": "vision"}, create_time=NOW)
    server.put_job(name="jobs/x", labels={"team": "vision"}, state=job_pb2.Job.STATE_SUCCEEDED)
    for number in (1, 2):
        name = f"models/x/versions/{number}"
        server.versions[name] = model_pb2.ModelVersion(name=name, step=number, job="jobs/x", create_time=NOW)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_and_descriptions_are_shown_and_changed(run: Run, run_json: RunJson, kind: str) -> None:
    assert run_json(kind, "update", "x", "--description", "the best")["labels"] == {"team": "vision"}
    changed = run_json(kind, "update", "x", "--label", "run=7", "--label", "who=me")
    assert (changed["labels"], changed["description"]) == ({"run": "7", "who": "me"}, "the best")
    shown = run(kind, "update", "x", "--description", "better").stdout
    assert "run=7, who=me" in shown
    assert "better" in shown
    assert "run=7, who=me" in run(kind, "ls").stdout
    assert run_json(kind, "update", "x", "--no-labels")["labels"] == {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_may_insist_on_an_etag(run: Run, run_json: RunJson, kind: str) -> None:
    etag = run_json(kind, "update", "x", "--description", "one")["etag"]
    assert run(kind, "update", "x", "--description", "two", "--etag", etag).exit_code == 0
    assert run(kind, "update", "x", "--description", "three", "--etag", etag).exit_code == ExitCode.SERVICE
    assert run(kind, "rm", "x", "--etag", etag).exit_code == ExitCode.SERVICE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--label", "team"), "'team' is not key=value, as team=vision"),
        (("--label", "=vision"), "'=vision' is not key=value"),
        (("--label", "a=1", "--label", "a=2"), '"a" is given twice'),
        (("--label", "a=1", "--no-labels"), "it takes away what --label gives"),
        ((), "nothing says what to change"),
    ],
)
def test_changes_that_make_no_sense_are_wrong_usage(
    run: Run, server: FakeServer, kind: str, words: tuple[str, ...], message: str
) -> None:
    result = run(kind, "update", "x", *words)
    assert result.exit_code == ExitCode.USAGE
    assert message in " ".join(result.stderr.replace("│", "").split())
    assert all(not method.startswith("Update") for method, _ in server.calls)


def test_the_priority_of_a_job_is_changed(run_json: RunJson) -> None:
    assert run_json("jobs", "update", "x", "--priority", "7")["priority"] == 7


@pytest.mark.parametrize(("kind", "method"), [("models", "Models"), ("datasets", "Datasets"), ("jobs", "Jobs")])
def test_lists_are_filtered_and_ordered_by_the_server(run: Run, server: FakeServer, kind: str, method: str) -> None:
    result = run(kind, "ls", "--filter", 'labels.team = "vision"', "--order-by", "name desc", "--limit", "7")
    assert result.exit_code == 0, result.output
    [request] = server.requests(f"List{method}")
    assert (request.filter, request.order_by, request.page_size) == ('labels.team = "vision"', "name desc", 7)


def test_labels_are_given_at_creation(run: Run, run_json: RunJson, server: FakeServer) -> None:
    made = run_json("models", "create", "m", "--family", "mlp", "--label", "a=b", "--description", "try")
    assert (made["labels"], made["description"]) == ({"a": "b"}, "try")


# Versions


def test_versions_are_listed_newest_first(run: Run, run_json: RunJson) -> None:
    assert [version["name"] for version in run_json("models", "versions", "x")] == [
        "models/x/versions/2",
        "models/x/versions/1",
    ]
    assert run("models", "versions", "x").stdout.splitlines()[1].split()[:2] == ["models/x/versions/2", "jobs/x"]


def test_one_version_is_removed(run: Run, server: FakeServer) -> None:
    assert run("models", "rm", "x/versions/2").stderr == "removed x/versions/2\n"
    assert list(server.versions) == ["models/x/versions/1"]
    assert run("models", "rm", "x/versions/2", "--missing-ok").exit_code == 0
    result = run("models", "rm", "x/versions/1", "--etag", "7")
    assert result.exit_code == ExitCode.USAGE
    assert "a version has none" in result.stderr


# Removing


@pytest.mark.parametrize("kind", KINDS)
def test_a_thing_is_removed(run: Run, server: FakeServer, kind: str) -> None:
    result = run(kind, "rm", "x")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "removed x\n")
    assert {"models": [*server.models], "datasets": [*server.datasets], "jobs": [*server.jobs]}[kind] == []
    assert run(kind, "rm", "x").exit_code == ExitCode.SERVICE
    assert run(kind, "rm", "x", "--missing-ok").exit_code == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("answer", "words", "left"), [("y\n", (), 0), ("n\n", (), 1), ("", (), 1), ("", ("--yes",), 0), ("", ("-y",), 0)]
)
def test_a_terminal_is_asked_before_a_removal(
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    answer: str,
    words: tuple[str, ...],
    left: int,
) -> None:
    monkeypatch.setattr(options, "is_terminal", lambda: True)
    monkeypatch.setenv("CHAINRULE_ADDRESS", server.address)
    result = CliRunner().invoke(app, [kind, "rm", "x", *words], input=answer)
    assert ("for good?" in result.stderr) is not bool(words)
    left_names = {"models": [*server.models], "datasets": [*server.datasets], "jobs": [*server.jobs]}[kind]
    assert len(left_names) == left
    assert (result.exit_code == 0) is (left == 0)


def test_a_question_that_is_declined_says_that_nothing_was_removed(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAINRULE_ADDRESS", server.address)
    monkeypatch.setattr(options, "is_terminal", lambda: True)
    result = CliRunner().invoke(app, ["models", "rm", "x"], input="n\n")
    assert result.exit_code == ExitCode.USAGE
    assert "remove x with all its versions for good? [y/N]" in result.stderr
    assert result.stderr.endswith("nothing was removed\n")
    assert server.calls == []
