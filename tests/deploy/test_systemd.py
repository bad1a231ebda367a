"""The units, as systemd reads them."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from chainrule.server.config import ServerConfig
from tests.deploy.files import DEPLOY

UNITS = DEPLOY / "systemd"
NAMES = ("chainrule.service", "chainrule-ray.service")
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units in a folder, with programs that are there."""
    (tmp_path / "bin").mkdir()
    for program in ("chainrule", "ray"):
        (tmp_path / "bin" / program).touch(mode=0o755)
    shutil.copytree(UNITS, tmp_path, dirs_exist_ok=True)
    for unit in tmp_path.rglob("*.service"):
        if unit.is_file():
            unit.write_text(unit.read_text().replace("/opt/chainrule/bin", str(tmp_path / "bin")))
    return tmp_path


@needs_systemd
@pytest.mark.parametrize("name", NAMES)
def test_systemd_understands_every_line(name: str, installed: Path) -> None:
    command = ["systemd-analyze", "verify", "--man=no", str(installed / name)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    ours = [line for line in ran.stderr.splitlines() if "chainrule" in line]
    assert (ran.returncode, ours) == (0, [])


@needs_systemd
def test_a_wrong_line_would_be_noticed(installed: Path) -> None:
    unit = installed / NAMES[0]
    unit.write_text(unit.read_text().replace("OOMPolicy=continue", "OOMPolicy=carry-on"))
    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60
    )
    assert "carry-on" in ran.stderr


@pytest.mark.parametrize("name", NAMES)
def test_both_units_shut_themselves_in_alike(name: str) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(UNITS / name)
    settings = dict(unit["Service"])
    assert settings["User"] == "chainrule"
    assert settings["ProtectSystem"] == "strict"
    assert settings["NoNewPrivileges"] == "yes"
    assert "MemoryDenyWriteExecute" not in settings  # oneDNN could not compute
    assert settings["KillMode"] == "mixed"  # else Ray is told to end together with the service that still drains


def test_the_service_may_take_as_long_to_stop_as_it_needs() -> None:
    [line] = [line for line in (UNITS / NAMES[0]).read_text().splitlines() if line.startswith("TimeoutStopSec=")]
    ray_s = 10 + 5 + 10  # STOP_TIMEOUT_S, MARGIN_S and KILL_TIMEOUT_S of cluster/
    assert int(line.partition("=")[2]) >= ServerConfig(data_dir=Path()).grace_s + ray_s
