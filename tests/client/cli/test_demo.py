"""`chainrule demo`: what it makes of its options before anything is started."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from chainrule.client import Tls
from chainrule.client.cli.exits import ExitCode
from chainrule.client.demo import run as demo_run
from chainrule.client.demo.run import DemoConfig

Run = Callable[..., Result]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[DemoConfig, str | None]]:
    """What the demonstration is told to do; it does nothing."""
    calls: list[tuple[DemoConfig, str | None]] = []
    monkeypatch.setattr(demo_run, "run", lambda config, *, address=None, **_: calls.append((config, address)))
    return calls


def test_it_starts_its_own_server_whatever_the_environment_names(
    run: Run, told: list[tuple[DemoConfig, str | None]]
) -> None:
    assert run("demo").exit_code == 0
    assert told == [(DemoConfig(), None)]


def test_the_address_may_stand_before_or_after_it(run: Run, told: list[tuple[DemoConfig, str | None]]) -> None:
    run("--address", "localhost:1", "demo")
    run("demo", "--address", "localhost:2")
    assert [address for _, address in told] == ["localhost:1", "localhost:2"]


def test_a_running_server_is_shown_the_token_and_is_asked_for_its_certificate(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[tuple[Tls | None, str | None]] = []
    monkeypatch.setattr(demo_run, "run", lambda _config, *, address, tls, token: seen.append((tls, token)))
    token = tmp_path / "token"
    token.write_text("chainrule_secret")
    token.chmod(0o600)
    words = ("--address", "localhost:1", "--tls-ca", "ca.pem", "--token-file", str(token))
    assert run("demo", *words).exit_code == 0
    assert run(*words, "demo").exit_code == 0
    assert seen == [(Tls(ca="ca.pem"), "chainrule_secret")] * 2


@pytest.mark.parametrize(("shards", "workers"), [("1", 1), ("2", 2), ("8", 2)])
def test_the_workers_are_no_more_than_the_shards(
    run: Run, told: list[tuple[DemoConfig, str | None]], shards: str, workers: int
) -> None:
    run("demo", "--shards", shards)
    assert told[0][0].workers == workers


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--workers", "5"), "workers is 5; it must be at most shards, which is 4"),
        (("--shards", "65"), "shards is 65; it must be at most 64, the examples of one step"),
        (("--epochs", "99999999999"), "epochs is 99999999999; it must be a whole number from 1 to 2147483647"),
    ],
)
def test_numbers_that_are_none_to_train_with_are_refused_before_a_server_is_started(
    run: Run, words: tuple[str, ...], message: str
) -> None:
    result = run("demo", *words)
    assert (result.exit_code, result.stdout, result.stderr) == (ExitCode.USAGE, "", f"error: {message}\n")


def test_it_has_no_json_form(run: Run, told: list[tuple[DemoConfig, str | None]]) -> None:
    result = run("--format", "json", "demo")
    assert result.exit_code == ExitCode.USAGE
    assert "prints for people" in result.stderr
    assert told == []


def test_its_help_says_which_server_it_uses(run: Run) -> None:
    text = " ".join(run("demo", "--help").stdout.replace("│", "").split())
    assert "[default: one started for the demo; $CHAINRULE_ADDRESS is not used]" in text
    assert "[default: 2, with one shard 1]" in text
