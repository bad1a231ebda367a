"""Processes that measure, seen from outside: a fresh one for each order, or forks of one that has its engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.single.works import Order

ROOT = Path(__file__).parents[2]
DISTURBING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Settings that make numpy's products slower than they are for users: unset in every process."""


def environment(threads: int) -> dict[str, str]:
    """The variables of a process that measures on so many threads and finds the benchmarks and chainrule."""
    kept = {name: value for name, value in os.environ.items() if name not in DISTURBING}
    counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    folders = os.pathsep.join(str(ROOT / name) for name in (".", "protos", "engine", "server", "client"))
    return kept | counts | {"PYTHONPATH": folders}


class Host:
    """A process that has imported an engine, on so many threads; `process.main` is what runs in it."""

    def __init__(self, engine: str, threads: int, *, fork: bool) -> None:
        command = [sys.executable, "-m", "benchmarks.single.process", engine, *(["--fork"] if fork else [])]
        self._complaints = tempfile.TemporaryFile("a+")  # noqa: SIM115 - closed by close()
        self._read = 0  # complaints that were told
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
        )

    def measure(self, order: Order) -> dict[str, Any]:
        """What was measured; under `problem` the end of what the process complained of, if it failed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(order.to_json() + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:  # it died of its imports
            answer = ""
        if not answer:
            self._process.wait()  # nothing at all, not even a line's end: it is ending
        if answer.strip():
            found: dict[str, Any] = json.loads(answer)
            return found
        return {"problem": self._last_words() or f"{order.engine} ended without an answer or a complaint"}

    def _last_words(self) -> str:
        """The end of what was complained of since the last time."""
        self._complaints.seek(self._read)
        lines = [line.strip() for line in self._complaints.read().splitlines() if line.strip()]
        self._read = self._complaints.tell()
        return " | ".join(lines[-3:])

    @property
    def ended(self) -> bool:
        """Whether the process has come to its end, as one that cannot import its engine does."""
        return self._process.poll() is not None

    def close(self) -> None:
        """Ends the process, which ends by itself when there are no more orders."""
        if not self.ended:
            self._process.communicate()
        self._complaints.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._process.kill()
        self.close()


class Hosts:
    """Where orders are measured: each in a fresh process, or with `fork` in forks of a host for its engine and threads.

    A fork lacks the pages of its engine that it does not touch, so where there is a goal for memory it is not forked.
    """

    def __init__(self, *, fork: bool) -> None:
        self._fork = fork
        self._kept: dict[tuple[str, int], Host] = {}

    def measure(self, order: Order) -> dict[str, Any]:
        """What a process of this order's own measures."""
        if not self._fork or order.work.memory_goal is not None:
            with Host(order.engine, order.work.threads, fork=False) as host:
                return host.measure(order)
        key = order.engine, order.work.threads
        if key not in self._kept:
            self._kept[key] = Host(*key, fork=True)
        found = self._kept[key].measure(order)
        if self._kept[key].ended:
            self._kept.pop(key).close()
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in self._kept.values():
            host.__exit__(kind, error, trace)
