"""Faults on purpose, for tests: a process ends, halts, dawdles or computes wrong at a named point.

Nothing happens unless the environment variable CHAINRULE_FAULTS holds a JSON list of faults, for example

    [{"point": "worker.push", "step": 7, "lease": 1, "action": "kill", "once": "/path/of/a/marker"}]

Facts that a fault names must be those of the point; `once` is a file that the first process to come there makes, and
`wait` waits until there is a file `path`.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

VARIABLE = "CHAINRULE_FAULTS"
_faults: list[dict[str, Any]] = []
_CONTROLS = ("point", "action", "once", "seconds", "path")
_INTERVAL_S = 0.01


def load() -> None:
    """Read the environment variable."""
    _faults[:] = json.loads(os.environ.get(VARIABLE, "[]"))


def at(point: str, memory: memoryview | None = None, **facts: int) -> None:
    """A point where a fault may be wanted; `memory` is what may be made wrong there."""
    for fault in _faults:
        if fault["point"] == point and all(facts.get(k) == v for k, v in fault.items() if k not in _CONTROLS):
            _act(fault, memory)


def _act(fault: dict[str, Any], memory: memoryview | None) -> None:
    if "once" in fault:
        try:
            os.close(os.open(fault["once"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
    match fault["action"]:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "sleep":
            time.sleep(fault["seconds"])
        case "wait":
            while not os.path.exists(fault["path"]):
                time.sleep(_INTERVAL_S)
        case "raise":
            raise ArithmeticError("a fault on purpose")
        case "flip" if memory is not None and len(memory):
            memory[len(memory) // 8 * 4 + 2] ^= 0x10  # an eighth of a float32: enough for rounding not to hide it
        case other:
            raise ValueError(f"{VARIABLE} has a fault with the action {other!r}")


load()
