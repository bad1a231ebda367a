"""Settings: which of several sources counts, what is refused, and the template."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from chainrule.server.cli import serve
from chainrule.server.config import ServerConfig, setting
from chainrule.server.errors import StartupError
from chainrule.server.settings import Loaded, options_of, settings_of


@dataclass(frozen=True)
class Few:
    """One of each kind."""

    folder: Path = setting(Path("here"), "A folder.", variable="FEW_FOLDER")
    port: int = setting(7, "A port.", least=0, most=65535)
    limit_gb: float | None = setting(None, "A limit.", option="limit", least=0, example=2.5)
    form: Literal["text", "json"] = setting("text", "A form.")
    loud: bool = setting(False, "More.", short="-l")


def load(
    tmp_path: Path, *, given: dict[str, object] | None = None, environment: dict[str, str] | None = None, file: str = ""
) -> Loaded[Few]:
    path = tmp_path / "few.toml"
    path.write_text(file)
    return Loaded(Few, given or {}, file=path, environment=environment or {})


def test_an_option_comes_before_a_variable_before_the_file_before_the_default(tmp_path: Path) -> None:
    file = "port = 1\nlimit = 1\nloud = true\n"
    environment = {"CHAINRULE_SERVE_PORT": "2", "CHAINRULE_SERVE_LIMIT": "2"}
    found = load(tmp_path, given={"port": 3, "limit_gb": None}, environment=environment, file=file)
    assert found.config == Few(Path("here"), 3, 2.0, "text", True)
    assert found.sources == {
        "port": "--port",
        "limit_gb": "$CHAINRULE_SERVE_LIMIT",
        "loud": str(tmp_path / "few.toml"),
    }


def test_a_variable_that_is_no_setting_is_told(tmp_path: Path) -> None:
    environment = {"CHAINRULE_SERVE_PROT": "1", "CHAINRULE_SERVE_PORT": "2", "CHAINRULE_ADDRESS": "3"}
    assert load(tmp_path, environment=environment).unknown_variables == ["CHAINRULE_SERVE_PROT"]


def test_an_empty_variable_is_none(tmp_path: Path) -> None:
    assert load(tmp_path, environment={"CHAINRULE_SERVE_PORT": "", "FEW_FOLDER": "there"}).config == Few(Path("there"))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("prot = 1", """there is no setting 'prot'; the nearest is "port\""""),
        ("limit_gb = 1", """there is no setting 'limit_gb'; the nearest is "limit\""""),
        ("[server]\nport = 1", "there is no setting 'server'"),
        ("port = 70000", "port in .*few.toml is 70000; use a whole number from 0 to 65535"),
        ("port = '1'", "port in .*few.toml is '1'; use a whole number"),
        ("port = 1.5", "port in .*few.toml is 1.5; use a whole number"),
        ("port = true", "port in .*few.toml is True; use a whole number"),
        ("limit = nan", "limit in .*few.toml is nan; use a number from 0"),
        ("loud = 1", "loud in .*few.toml is 1; use true or false"),
        ("form = 'xml'", """form in .*few.toml is 'xml'; use "text" or "json\""""),
        ("folder = ''", "folder in .*few.toml is ''; use a text that is not empty"),
        ("port 1", "few.toml is not TOML: .*--show-config prints a file to begin with"),
    ],
)
def test_what_a_file_cannot_say_is_refused_with_its_remedy(tmp_path: Path, file: str, message: str) -> None:
    with pytest.raises(StartupError, match=message):
        load(tmp_path, file=file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"--config .*none.toml cannot be read: no such file"):
        Loaded(Few, {}, file=tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("PORT", "tcp://10.0.0.1:7", r"\$CHAINRULE_SERVE_PORT is 'tcp://10.0.0.1:7'; use a whole number"),
        ("PORT", "-1", r"\$CHAINRULE_SERVE_PORT is -1; use a whole number from 0"),
        ("LOUD", "maybe", r"\$CHAINRULE_SERVE_LOUD is 'maybe'; use true or false"),
        ("LIMIT", "inf", r"\$CHAINRULE_SERVE_LIMIT is inf; use a number from 0"),
    ],
)
def test_a_variable_that_is_wrong_is_named(tmp_path: Path, variable: str, text: str, message: str) -> None:
    with pytest.raises(StartupError, match=message):
        load(tmp_path, environment={f"CHAINRULE_SERVE_{variable}": text})


@pytest.mark.parametrize("text", ["1", "TRUE", "yes", "on"])
def test_a_variable_says_yes_in_several_ways(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, environment={"CHAINRULE_SERVE_LOUD": text}).config.loud


def test_the_template_says_what_each_is_and_sets_what_was_set(tmp_path: Path) -> None:
    odd = load(tmp_path, given={"folder": Path('a "b"\\ü\n'), "loud": True})
    text = odd.template()
    assert '# A folder.\n# $FEW_FOLDER; set by --folder, by default "here"\n' in text
    assert "# A limit.\n# $CHAINRULE_SERVE_LIMIT\n# limit = 2.5\n" in text
    assert load(tmp_path, file=text).config == odd.config


def test_every_setting_of_the_server_is_in_its_template_and_is_told_in_help(tmp_path: Path) -> None:
    file = tmp_path / "file.toml"
    file.write_text(Loaded(ServerConfig, {"data_dir": tmp_path, "port": 0}, environment={}).template())
    again = Loaded(ServerConfig, {}, file=file, environment={})
    assert again.config == replace(ServerConfig(), data_dir=tmp_path, port=0)
    uncommented = file.read_text().replace("\n# ", "\n")
    for one in settings_of(ServerConfig):
        assert f"\n{one.option} = " in uncommented
        assert one.about.help.rstrip().endswith(".")


def test_names_of_options_and_variables_are_told_apart() -> None:
    settings = settings_of(ServerConfig)
    assert len({one.option for one in settings}) == len({one.variable for one in settings}) == len(settings)
    # Those that the client reads mean something else.
    assert {one.variable for one in settings}.isdisjoint({"CHAINRULE_TLS_CERT", "CHAINRULE_TLS_KEY", "CHAINRULE_TOKEN"})


# --- the command line ------------------------------------------------------------------------------------------


def run(command: Any, *arguments: str, **environment: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(command)
    found = CliRunner().invoke(app, arguments, env=environment)
    return found.exit_code, found.stdout + found.stderr


@options_of(Few)
def show(given: dict[str, object], twice: bool = False) -> None:
    """Show."""
    print({name: value for name, value in given.items() if value is not None}, twice)


def test_options_are_seen_as_far_as_they_are_used() -> None:
    assert run(show) == (0, "{} False\n")
    assert run(show, "--port", "1", "-l", "--twice") == (0, "{'port': 1, 'loud': True} True\n")
    assert run(show, "--no-loud", "--limit", "0.5") == (0, "{'limit_gb': 0.5, 'loud': False} False\n")


def test_an_option_that_is_out_of_bounds_is_wrong_usage() -> None:
    code, text = run(show, "--port", "70000")
    assert code == 2
    assert "--port" in text


def test_serve_shows_its_settings_and_ends(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('port = 1\nhost = "::1"\n')
    code, text = run(serve, "--config", str(file), "--port", "2", "--show-config", CHAINRULE_SERVE_GRACE="3")
    assert code == 0
    assert "\nport = 2\n" in text
    assert '\nhost = "::1"\n' in text
    assert "\ngrace = 3.0\n" in text
    assert not (tmp_path / ".chainrule").exists()


def test_serve_refuses_a_file_with_an_unknown_key(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text("matrics-port = 1\n")
    code, text = run(serve, "--config", str(file))
    assert code == 1
    assert text.startswith("error: --config")
    assert 'the nearest is "metrics-port"' in text
