"""The processes of a cluster of ours: found by the folder that their environment names, and ended."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from chainrule.server.cluster.settings import MARK

KILL_TIMEOUT_S = 10.0
"""How long killed processes may take to be gone."""
POLL_INTERVAL_S = 0.02
"""How often they are looked at: nothing announces the end of a process that is not a child."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class Process:
    """A process, told apart from a later one with the same number by when it started."""

    pid: int
    started: int
    """Clock ticks between the start of the machine and that of the process."""

    @property
    def alive(self) -> bool:
        """Whether it still runs; one that has ended and waits for its parent to notice does not."""
        fields = _stat(self.pid)
        return fields is not None and int(fields[19]) == self.started and fields[0] not in "ZX"

    @property
    def command(self) -> str:
        """Its command line; empty if it has ended."""
        return _read(self.pid, "cmdline").replace(b"\0", b" ").decode(errors="replace")

    def kill(self) -> None:
        """End it with SIGKILL, if it is still there."""
        if self.alive:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, signal.SIGKILL)


def of_folder(folder: Path) -> list[Process]:
    """The processes that run for a folder of a cluster, or for one below it, by id. Empty where there is no /proc."""
    mark = f"{MARK}={folder}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        if not any(part == mark or part.startswith(mark + b"/") for part in _read(pid, "environ").split(b"\0")):
            continue
        if (fields := _stat(pid)) is not None:
            process = Process(pid, int(fields[19]))
            if process.alive:
                found.append(process)
    return sorted(found)


def kill_folder(folder: Path) -> None:
    """Kill what runs for a folder, and what that starts meanwhile, and wait until all of it is gone."""
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while left := of_folder(folder):
        if not _gone(left, deadline):
            return


def _gone(processes: Iterable[Process], deadline: float) -> bool:
    processes = list(processes)
    for process in processes:
        process.kill()
    while left := [process.pid for process in processes if process.alive]:
        if time.monotonic() > deadline:
            logger.warning("processes of Ray that were killed are still there: %s", left)
            return False
        time.sleep(POLL_INTERVAL_S)
    return True


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name, beginning with the state; None if there is no such process."""
    fields = _read(pid, "stat").decode(errors="replace").rpartition(")")[2].split()
    return fields or None


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended, or is somebody else's
        return b""
