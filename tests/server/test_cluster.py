"""What of a Ray cluster can be tested without one."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from chainrule.server import cluster


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cr-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_the_folder_is_private_and_short(temporary: Path) -> None:
    folder, lock = cluster._private_folder()
    assert folder.parent == temporary
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    lock.close()


def test_a_long_temporary_path_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 60)))
    folder, lock = cluster._private_folder()
    assert folder.parent == Path("/tmp")
    lock.close()
    (folder / "lock").unlink()
    folder.rmdir()


def test_folders_of_killed_servers_are_removed_and_those_in_use_are_not(temporary: Path) -> None:
    script = (
        "import os, sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from chainrule.server import cluster\n"
        "print(cluster._private_folder()[0], flush=True); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, str(temporary)], capture_output=True, text=True, timeout=60, check=False
    )
    left = Path(killed.stdout.strip())
    assert left.exists()
    used, used_lock = cluster._private_folder()
    assert not left.exists()
    _, lock = cluster._private_folder()
    assert used.exists()
    used_lock.close()
    lock.close()


def test_a_folder_that_is_just_being_made_is_not_taken_for_left_behind(temporary: Path) -> None:
    being_made = temporary / f"{cluster.FOLDER_PREFIX}x"
    being_made.mkdir()
    _, lock = cluster._private_folder()
    assert being_made.exists()
    lock.close()


def test_a_cluster_is_not_started_where_ray_was_imported_without_its_settings() -> None:
    """Ray would go by the settings of its import, and fail after 20 s for want of a token."""
    script = (
        "import asyncio, ray\nfrom chainrule.server.cluster import RayCluster\n"
        "cluster = RayCluster(num_cpus=1)\n"
        "try: asyncio.run(cluster.start())\nexcept Exception as error: print(type(error).__name__, error)\n"
        "finally: cluster.stop()"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert result.stdout.startswith("StartupError Ray was imported before its cluster was configured")
