"""`chainrule serve`: what its options come to."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from chainrule.server import cli
from chainrule.server.config import ServerConfig


@pytest.mark.parametrize(
    ("options", "limits"), [([], (None, 1000)), (["--tenant-jobs", "3", "--queue-limit", "50"], (3, 50))]
)
def test_the_limits_of_tenants_are_as_asked_for(
    monkeypatch: pytest.MonkeyPatch, options: list[str], limits: tuple[int | None, int]
) -> None:
    served: list[ServerConfig] = []

    def run(config: ServerConfig, address_file: Path | None = None) -> None:
        served.append(config)

    monkeypatch.setattr(cli, "run", run)
    app = typer.Typer()
    app.command()(cli.serve)
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    assert [(config.max_tenant_jobs, config.queue_limit) for config in served] == [limits]


@pytest.mark.parametrize("option", ["--tenant-jobs", "--queue-limit"])
def test_a_limit_of_nothing_is_refused(option: str) -> None:
    app = typer.Typer()
    app.command()(cli.serve)
    assert CliRunner().invoke(app, [option, "0"]).exit_code == 2
