"""What deploy/ says to `chainrule serve` and `ray start` is what these understand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from chainrule.server import cli
from chainrule.server.cluster import settings  # noqa: F401 — before Ray: it sets its environment
from chainrule.server.config import ServerConfig
from tests.deploy.files import DEPLOY, ROOT, commands, only


def options(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


def used(program: str, subcommand: str | None) -> set[tuple[str, str]]:
    return {
        (where, word.partition("=")[0])
        for where, words in commands(program)
        if subcommand is None or words[:1] == [subcommand]
        for word in words
        if word.startswith("--")
    }


def serve_command() -> Any:
    app = typer.Typer()
    app.command()(cli.serve)
    return typer.main.get_command(app)


def test_the_options_of_the_service_are_its_own() -> None:
    places = used("chainrule", "serve") | used("serve-on-ray", None)
    assert {"--ray-address", "--host", "--tls-cert", "--tokens"} <= {option for _, option in places}
    assert {(where, option) for where, option in places if option not in options(serve_command())} == set()


def test_nothing_here_takes_code() -> None:
    """Neither an option nor a variable, nor a key of a file: it is for each operator to decide."""
    files = [file for file in DEPLOY.rglob("*") if file.is_file()]
    assert len(files) > 10
    spelled = re.compile(rb"allow[-_]code", re.IGNORECASE)
    assert [str(file) for file in files if spelled.search(file.read_bytes())] == []


def test_code_is_off_unless_it_is_asked_for() -> None:
    assert not ServerConfig().allow_code


def test_the_options_of_ray_are_its_own() -> None:
    from ray.scripts.scripts import start

    places = used("ray", "start")
    assert len({where for where, _ in places}) >= 5  # head and worker of compose, the unit, the script, ray up
    assert {(where, option) for where, option in places if option not in options(start)} == set()
    spec = only("RayCluster", "chainrule-ray")["spec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    assert {f"--{name}" for group in groups for name in group["rayStartParams"]} <= options(start)


@pytest.mark.parametrize("path", ["kubernetes/base/ray.yaml", "README.md"])
def test_the_version_of_ray_is_the_one_that_is_installed(path: str) -> None:
    """Nodes and service have to agree on it."""
    [pinned] = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("ray==")]
    assert pinned.removeprefix("ray==") in Path(DEPLOY / path).read_text()
