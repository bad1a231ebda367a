"""The servers that are measured, as processes of their own: the service, and a bare one of the same stack."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.single.host import environment

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0


class ServerError(Exception):
    """A server did not start."""


class Server:
    """A process that writes its address into a file once it serves; a context manager."""

    def __init__(self, *command: str) -> None:
        self._command = command
        self._folder = tempfile.TemporaryDirectory(prefix="chainrule-bench-")
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""

    @property
    def folder(self) -> Path:
        """Of the server's own; it goes with it."""
        return Path(self._folder.name)

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        address_file, log = self.folder / "address", self.folder / "log"
        variables = {name: value for name, value in environment(1).items() if not name.endswith("_NUM_THREADS")}
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, *self._command, "--address-file", str(address_file)],
                cwd=self.folder,  # where the service keeps its data
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not address_file.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace")[-2000:]
                self.__exit__(None, None, None)
                raise ServerError(f"{' '.join(self._command)} did not start:\n{said}")
            time.sleep(0.02)
        self.address = address_file.read_text().strip()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._folder.cleanup()


def service(*arguments: str) -> Server:
    """`chainrule serve`, with a Ray cluster of its own."""
    return Server("-m", "chainrule.client", "serve", "--port", "0", *arguments)


def bare(reply_bytes: int) -> Server:
    """A grpc.aio server that answers from memory: replies of a size, and downloads."""
    return Server("-m", "benchmarks.serving.bare", "--reply-bytes", str(reply_bytes))


def resident_mb(pid: int) -> float:
    """Memory of a process that is in RAM, in MB (10⁶ bytes), parts that it shares with others included."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ProcessLookupError(pid)


def children(pid: int) -> list[int]:
    """The processes that a process has started and that are alive."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]
