"""`chainrule tokens create`: a secret is kept exactly where there may be a token that it is of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from chainrule.client import AlreadyExists, DeadlineExceeded, Unavailable
from chainrule.client.access import Access
from chainrule.client.cli.exits import ExitCode
from tests.client.fake_server import FakeServer

Run = Callable[..., Result]


def fails_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the making of a token fail."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Access, "create", fail)


@pytest.mark.parametrize("error", [Unavailable("the connection broke"), DeadlineExceeded("no answer")])
def test_a_secret_whose_token_may_have_been_made_is_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fails_with(error, monkeypatch)
    out = tmp_path / "secret"
    result = run("tokens", "create", "ci", "--scope", "read", "--out", str(out))
    assert result.exit_code == ExitCode.SERVICE
    assert out.read_text().startswith("chainrule_")
    assert f"the token may have been made: chainrule tokens ls shows it. Its secret is in {out};" in result.stderr
    assert f"error: {error}" in result.stderr


def test_a_secret_of_no_token_is_not_kept(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails_with(AlreadyExists("there is one"), monkeypatch)
    out = tmp_path / "secret"
    result = run("tokens", "create", "ci", "--scope", "read", "--out", str(out))
    assert (result.exit_code, result.stderr) == (ExitCode.SERVICE, "error: there is one\n")
    assert not out.exists()


@pytest.mark.parametrize("days", ["0", "-1", "nan", "inf", "36501", "1e300"])
def test_a_time_that_cannot_be_is_wrong_usage(run: Run, server: FakeServer, tmp_path: Path, days: str) -> None:
    out = tmp_path / "secret"
    result = run("tokens", "create", "ci", "--scope", "read", "--expires-in-days", days, "--out", str(out))
    assert result.exit_code == ExitCode.USAGE
    assert "is not above 0, and at most 36,500" in " ".join(result.stderr.replace("│", "").split())
    assert (out.exists(), server.calls) == (False, [])
