"""Folders of clusters: who may read them, what becomes of those that nobody needs, and which names are possible."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from chainrule.server.cluster import folders, processes, settings
from chainrule.server.cluster.processes import Process
from chainrule.server.errors import StartupError


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cr-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_the_folder_is_private_and_short(temporary: Path) -> None:
    folder, lock = folders.passing()
    assert folder.parent == temporary
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(str(folder)) <= folders.MAX_PATH
    lock.close()


def test_a_long_temporary_path_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 60)))
    folder, lock = folders.passing()
    assert folder.parent == Path("/tmp")
    lock.close()
    folders.remove(folder)


LEAVE_ONE = (
    "import os, subprocess, sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
    "from chainrule.server.cluster import folders, settings\n"
    "folder, _ = folders.passing()\n"
    "nap = [sys.executable, '-c', 'import subprocess; subprocess.run([\"sleep\", \"600\"])']\n"
    "left = subprocess.Popen(nap, env=os.environ | settings.marked(folder), stdout=2, start_new_session=True)\n"
    "print(folder, left.pid, flush=True); os.kill(os.getpid(), 9)"
)


def test_what_a_killed_process_has_left_is_ended_and_removed_and_what_is_in_use_is_not(temporary: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", LEAVE_ONE, str(temporary)], stdout=subprocess.PIPE, text=True, timeout=60, check=False
    )
    folder, pid = killed.stdout.split()
    assert int(pid) in [process.pid for process in processes.of_folder(Path(folder))]
    used, used_lock = folders.passing()
    assert not Path(folder).exists()
    assert processes.of_folder(Path(folder)) == []
    _, lock = folders.passing()
    assert used.exists()
    used_lock.close()
    lock.close()


def test_a_folder_that_is_just_being_made_is_not_taken_for_left_behind(temporary: Path) -> None:
    being_made = temporary / f"{folders.PREFIX}x"
    being_made.mkdir()
    _, lock = folders.passing()
    assert being_made.exists()
    lock.close()


@pytest.mark.parametrize("name", ["", "Big", "a b", "1st", "../x", "a" * 30])
def test_a_name_that_is_no_part_of_a_short_path_is_refused(temporary: Path, name: str) -> None:
    with pytest.raises(StartupError, match="a cluster cannot be called"):
        folders.lasting(name)


def test_a_folder_that_others_can_read_is_not_used(temporary: Path) -> None:
    folder = folders.lasting("mine")
    folder.mkdir(mode=0o755)
    with pytest.raises(StartupError, match="can be read by others; choose another name"):
        folders.make_lasting("mine")
    assert list(folders.present()) == []
    folder.chmod(0o700)
    assert folders.make_lasting("mine") == folder
    assert list(folders.present()) == [folder]


def test_a_folder_behind_a_link_is_not_used(temporary: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    folders.lasting("mine").symlink_to(tmp_path)
    with pytest.raises(StartupError, match="belongs to somebody else"):
        folders.make_lasting("mine")


def test_a_token_is_for_its_owner_alone(tmp_path: Path) -> None:
    token = settings.make_token(tmp_path)
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert len(token.read_text()) == 64


# --- processes -------------------------------------------------------------------------------------------------


def test_processes_are_found_by_their_folder_or_one_below_and_no_other(tmp_path: Path) -> None:
    def nap(folder: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sleep", "600"], env=os.environ | settings.marked(folder))

    naps = [nap(tmp_path / "a"), nap(tmp_path / "a" / "1"), nap(tmp_path / "ab")]
    try:
        assert [process.pid for process in processes.of_folder(tmp_path / "a")] == [naps[0].pid, naps[1].pid]
        processes.kill_folder(tmp_path / "a")
        assert processes.of_folder(tmp_path / "a") == []
        assert [process.pid for process in processes.of_folder(tmp_path / "ab")] == [naps[2].pid]
    finally:
        for left in naps:
            left.kill()
            left.wait()


def test_a_later_process_with_the_same_number_is_another_one() -> None:
    with subprocess.Popen(["sleep", "600"]) as nap:
        earlier = Process(nap.pid, 1)
        assert not earlier.alive
        earlier.kill()
        assert nap.poll() is None
        nap.kill()
