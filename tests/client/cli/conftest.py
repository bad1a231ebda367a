"""A runner of the command line against the fake server."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from chainrule.client.cli.app import app
from tests.client.fake_server import FakeServer

Run = Callable[..., Result]


@pytest.fixture
def run(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `chainrule` with words; CHAINRULE_ADDRESS names the fake server."""
    monkeypatch.setenv("CHAINRULE_ADDRESS", server.address)
    monkeypatch.setenv("TZ", "UTC")

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(app, words)

    return invoke


@pytest.fixture
def run_json(run: Run) -> Callable[..., Any]:
    """Runs a command that is to succeed, with --format json, and reads what it prints."""

    def invoke(*words: str) -> Any:
        result = run(*words, "--format", "json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return invoke
