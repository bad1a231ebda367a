"""Anomaly detection: which forward call recorded the operation whose gradient went wrong."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from chainrule.engine.autograd.graph import Node, watching
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.errors import AutogradError

_engine = str(Path(__file__).parents[1])


class _Anomaly:
    """Whether it is on, for all threads: as the last of the blocks says that were entered and not left.

    So it does not matter in which order the blocks of several threads end.
    """

    def __init__(self) -> None:
        self.enabled = False
        self.check_nan = True
        self.lock = threading.Lock()
        self._settings = [_Setting(False, True)]  # the first holds outside of all blocks
        self._watch = ExitStack()

    def set(self, enabled: bool, check_nan: bool) -> _Setting:
        """Changes what the last block says; returns what it said."""
        with self.lock:
            last = self._settings[-1]
            before = _Setting(last.enabled, last.check_nan)
            last.enabled, last.check_nan = enabled, check_nan
            self._follow()
        return before

    def enter(self, setting: _Setting) -> None:
        """Begins a block."""
        with self.lock:
            self._settings.append(setting)
            self._follow()

    def leave(self, setting: _Setting) -> None:
        """Ends a block, which need not be the last."""
        with self.lock:
            self._settings.remove(setting)
            self._follow()

    def _follow(self) -> None:
        last = self._settings[-1]
        if last.enabled and not self.enabled:
            self._watch.enter_context(watching(_note_stack))
        if not last.enabled:
            self._watch.close()
        self.enabled, self.check_nan = last.enabled, last.check_nan


@dataclass(eq=False)  # two blocks that say the same are two
class _Setting:
    enabled: bool
    check_nan: bool


anomaly = _Anomaly()


def is_anomaly_enabled() -> bool:
    """Whether anomaly detection is on."""
    return anomaly.enabled


def is_anomaly_check_nan_enabled() -> bool:
    """Whether gradients are searched for nan while anomaly detection is on."""
    return anomaly.check_nan


class set_detect_anomaly:  # noqa: N801 - PyTorch's name
    """Turns anomaly detection on or off: from this call on, or until the end of the `with` block.

    While it is on, every recorded operation keeps the stack of its forward call, and backward raises, naming that,
    where a gradient is nan or cannot be computed. It slows everything down.

    Args:
        mode: on or off.
        check_nan: whether gradients are searched for nan.
    """

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self.mode = mode
        self.check_nan = check_nan
        self._entered: list[_Setting] = []  # a stack: one object may be entered again inside itself
        self._before: _Setting | None = anomaly.set(mode, check_nan)

    def __enter__(self) -> None:
        if self._before is not None:  # what was said for good is said for the block only
            anomaly.set(self._before.enabled, self._before.check_nan)
            self._before = None
        self._entered.append(_Setting(self.mode, self.check_nan))
        anomaly.enter(self._entered[-1])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        anomaly.leave(self._entered.pop())


class detect_anomaly(set_detect_anomaly):  # noqa: N801 - PyTorch's name
    """Anomaly detection inside a `with` block; see `set_detect_anomaly`."""

    def __init__(self, check_nan: bool = True) -> None:
        self.mode = True
        self.check_nan = check_nan
        self._entered = []
        self._before = None


def _note_stack(node: Node) -> None:
    """Notes who called the engine."""
    frames = [frame for frame in traceback.extract_stack() if not frame.filename.startswith(_engine)]
    node.more().recorded_at = traceback.format_list(frames)


def check_numbers(node: Node, gradients: Sequence[Any]) -> None:
    """Raises AutogradError if anomaly detection is on and a gradient is nan."""
    if not (anomaly.enabled and anomaly.check_nan):
        return
    for number, gradient in enumerate(gradients):
        values = gradient.data if isinstance(gradient, Variable) else gradient
        if isinstance(values, np.ndarray | np.generic) and np.isnan(values).any():
            raise AutogradError(f"Function '{node.name()}' returned nan values in its {number}th output.")


def explain(node: Node, error: Exception) -> None:
    """Adds to an error of a node the forward call that recorded the node, if that is known."""
    if node.extra is not None and node.extra.recorded_at is not None:
        calls = "".join(node.extra.recorded_at)
        error.add_note(f"Error detected in {node.name()}. Traceback of forward call that caused the error:\n{calls}")
    elif anomaly.enabled:
        error.add_note(
            f"Error detected in {node.name()}. No forward pass information: it was recorded before anomaly detection "
            "was turned on."
        )
