"""The root of the command line, its global options, and its errors."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint, version
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from chainrule.client import Client
from chainrule.client.cli import plugins
from chainrule.client.cli.app import app
from chainrule.client.cli.exits import ExitCode
from tests.client.fake_server import FakeServer

Run = Callable[..., Result]


def test_the_version_is_that_of_the_package(run: Run) -> None:
    assert run("--version").stdout == f"chainrule {version('chainrule')}\n"


def test_help_lists_every_command(run: Run) -> None:
    for command in ("demo", "jobs", "models", "datasets", "weights", "cluster", "serve"):
        assert f" {command} " in run("--help").stdout


def test_python_dash_m_is_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "chainrule.client", "--version"], capture_output=True, text=True)
    assert done.stdout == f"chainrule {version('chainrule')}\n"


@pytest.mark.parametrize("words", [("jobs", "frobnicate"), ("jobs", "submit"), ("cluster", "--format", "xml")])
def test_wrong_usage_is_exit_code_2(run: Run, words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == ExitCode.USAGE


def test_the_address_may_stand_before_or_after_the_command(
    run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAINRULE_ADDRESS", "127.0.0.1:1")
    assert run("--address", server.address, "cluster").exit_code == 0
    assert run("cluster", "--address", server.address).exit_code == 0
    assert run("--address", "127.0.0.1:1", "cluster", "--address", server.address).exit_code == 0


def test_what_encrypts_the_connection_may_be_in_the_environment(
    run: Run, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = str(tmp_path / "ca.pem")
    monkeypatch.setenv("CHAINRULE_TLS_CA", missing)
    assert run("cluster").stderr == f"error: cannot read {missing}: no such file or directory\n"
    there = tmp_path / "token"
    there.write_text("chainrule_secret")
    there.chmod(0o600)
    monkeypatch.delenv("CHAINRULE_TLS_CA")
    monkeypatch.setenv("CHAINRULE_TOKEN_FILE", missing)
    assert run("jobs", "ls").stderr.startswith(f"error: cannot read a token from {missing}")
    assert run("jobs", "ls", "--token-file", str(there)).exit_code == 0


def test_the_format_may_stand_before_the_command(run: Run) -> None:
    assert json.loads(run("--format", "json", "models", "ls").stdout) == []


@pytest.mark.parametrize(
    "words",
    [
        ("jobs", "ls"),
        ("models", "versions", "m"),
        ("datasets", "rm", "d"),
        ("weights", "get", "1", "-o", "w"),
        ("cluster",),
    ],
)
def test_what_encrypts_the_connection_may_stand_before_or_after_the_command(
    run: Run, server: FakeServer, tmp_path: Path, words: tuple[str, ...]
) -> None:
    missing = str(tmp_path / "ca.pem")
    for line in (("--tls-ca", missing, *words), (*words, "--tls-ca", missing)):
        result = run(*line)
        assert (result.exit_code, result.stderr) == (
            ExitCode.USAGE,
            f"error: cannot read {missing}: no such file or directory\n",
        )
    result = run(*words, "--tls-cert", missing)
    assert "a client certificate needs its key" in result.stderr
    assert run(*words, "--token-file", missing).stderr.startswith(f"error: cannot read a token from {missing}")
    assert server.calls == []


def test_what_stands_after_the_command_holds_over_what_stands_before(run: Run, tmp_path: Path) -> None:
    result = run("--tls-ca", "before.pem", "jobs", "ls", "--tls-ca", "after.pem")
    assert result.stderr == "error: cannot read after.pem: no such file or directory\n"


def test_an_unreachable_server_is_one_line(run: Run, server: FakeServer) -> None:
    server.stop()
    result = run("jobs", "ls")
    assert result.exit_code == ExitCode.SERVICE
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith(f"error: cannot reach a chainrule server at {server.address}: ")
    assert line.endswith('start one with "chainrule serve", or name another with --address or CHAINRULE_ADDRESS')


def test_an_error_is_json_where_json_was_asked_for(run: Run) -> None:
    result = run("jobs", "status", "jobs/9", "--format", "json")
    assert result.exit_code == ExitCode.SERVICE
    assert result.stdout == ""
    assert json.loads(result.stderr) == {
        "error": {
            "type": "NotFound",
            "code": "NOT_FOUND",
            "message": "there is no jobs/9",
            "job": None,
            "reason": "JOB_NOT_FOUND",
            "resource": None,
            "metadata": {"job": "jobs/9"},
            "violations": [],
        }
    }


def test_an_address_that_is_none_is_wrong_usage(run: Run) -> None:
    result = run("cluster", "--address", "nowhere")
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr == 'error: address "nowhere" is not host:port, for example localhost:50051\n'


def test_an_address_in_brackets_is_printed_as_it_is(run: Run) -> None:
    assert "[bold]:x" in run("cluster", "--address", "[bold]:x").stderr


# Interruption and locales


def test_ctrl_c_while_the_command_line_is_loaded_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    done = subprocess.run(
        [sys.executable, "-m", "chainrule.client", "--version"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # tests in the background have it ignored
    )
    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.INTERRUPTED, "", "")


def test_ctrl_c_during_a_command_is_exit_code_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_args: object, **_options: object) -> Client:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "connect", interrupted)
    result = run("jobs", "ls")
    assert (result.exit_code, result.output) == (ExitCode.INTERRUPTED, "")


def test_characters_that_the_locale_does_not_have_are_replaced(server: FakeServer) -> None:
    server.put_job(name="jobs/1", model="models/größe")
    done = subprocess.run(
        [sys.executable, "-m", "chainrule.client", "jobs", "status", "1", "--address", server.address],
        capture_output=True,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert b"models/gr??e" in done.stdout


@pytest.mark.parametrize("words", [("--help",), ("jobs", "status", "nothing")])
def test_no_color_takes_the_colours_away(server: FakeServer, words: tuple[str, ...]) -> None:
    def printed(**variables: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "chainrule.client", *words],
            capture_output=True,
            text=True,
            env={**os.environ, "CHAINRULE_ADDRESS": server.address, "FORCE_COLOR": "1", "TERM": "xterm", **variables},
        )
        return done.stdout + done.stderr

    colour = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|38;[\d;]+)m")
    assert colour.search(printed())
    assert not colour.search(printed(NO_COLOR="1"))


# Commands of other packages


@pytest.mark.parametrize("command", ["serve", "cluster up"])
@pytest.mark.parametrize("words", [("--format", "json"), ("--address", "localhost:1")])
def test_options_that_a_command_of_another_package_would_not_see_are_refused(
    words: tuple[str, ...], command: str
) -> None:
    result = CliRunner().invoke(app, [*words, *command.split(), "--help"])
    assert result.exit_code == ExitCode.USAGE
    assert words[0] in result.stderr


def greet(name: str, loud: bool = False) -> None:
    """Greet somebody."""
    typer.echo(f"HELLO {name}" if loud else f"hello {name}")


def app_with(value: str) -> typer.Typer:
    """A command line with the plug-in `greet`, which is said to be at `value`."""
    base = typer.Typer()
    base.callback()(lambda: None)
    plugins.add_commands(base, (EntryPoint(name="greet", value=value, group=plugins.GROUP),))
    return base


def test_a_command_of_another_package_gets_its_arguments() -> None:
    result = CliRunner().invoke(app_with(f"{__name__}:greet"), ["greet", "you", "--loud"])
    assert (result.exit_code, result.stdout) == (0, "HELLO you\n")


def test_a_command_of_another_package_has_its_own_help() -> None:
    result = CliRunner().invoke(app_with(f"{__name__}:greet"), ["greet", "--help"])
    assert result.exit_code == 0
    assert "Greet somebody." in result.stdout
    assert "--loud" in result.stdout


@pytest.mark.parametrize("value", ["no_such_package_anywhere:serve", f"{__name__}:nothing"])
def test_a_command_that_cannot_be_loaded_breaks_nothing_until_it_is_called(value: str) -> None:
    base = app_with(value)
    assert CliRunner().invoke(base, ["--help"]).exit_code == 0
    result = CliRunner().invoke(base, ["greet", "--port", "0"])
    assert result.exit_code == ExitCode.USAGE
    assert f'"chainrule greet" cannot be loaded from {value}' in result.stderr
    assert "pip install 'chainrule[server]'" in result.stderr


@pytest.mark.parametrize("group", ["people", "cluster"])
def test_a_command_of_another_package_can_belong_to_a_group(group: str) -> None:
    base = typer.Typer()
    base.callback()(lambda: None)
    present = typer.Typer(invoke_without_command=True)
    present.callback()(lambda: typer.echo("about the cluster"))
    base.add_typer(present, name="cluster")
    found = EntryPoint(name=f"{group}.greet", value=f"{__name__}:greet", group=plugins.GROUP)
    again = EntryPoint(name=f"{group}.welcome", value="nowhere:at_all", group=plugins.GROUP)
    plugins.add_commands(base, (found, again))
    result = CliRunner().invoke(base, [group, "greet", "you"])
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "hello you")
    result = CliRunner().invoke(base, [group, "welcome"])
    assert result.exit_code == ExitCode.USAGE
    assert f'"chainrule {group} welcome" cannot be loaded from nowhere:at_all' in result.stderr
    assert CliRunner().invoke(base, ["cluster"]).stdout == "about the cluster\n"


def test_help_loads_no_command_of_another_package() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from chainrule.client.cli.app import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "assert 'chainrule.server' not in sys.modules, 'loaded'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


def test_the_commands_of_the_installed_packages_are_there() -> None:
    assert "serve" in {command.name for command in app.registered_commands}
    [cluster] = [group.typer_instance for group in app.registered_groups if group.name == "cluster"]
    assert cluster is not None
    assert {command.name for command in cluster.registered_commands} == {"up", "down", "status"}


def test_options_of_a_group_that_a_command_in_it_would_not_see_are_refused() -> None:
    result = CliRunner().invoke(app, ["cluster", "--address", "localhost:1", "up", "--help"])
    assert result.exit_code == ExitCode.USAGE
    assert '"chainrule cluster up" takes its options' in result.stderr
