"""Anomaly detection: which forward call recorded the operation whose gradient went wrong."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from chainrule.engine.autograd.graph import Node, watching
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.errors import AutogradError

_engine = str(Path(__file__).parents[1])


class _Anomaly:
    """Whether it is on, for all threads."""

    def __init__(self) -> None:
        self.enabled = False
        self.check_nan = True
        self.watch = ExitStack()


anomaly = _Anomaly()
_switching = threading.Lock()


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
        self._before = anomaly.enabled, anomaly.check_nan
        _switch(mode, check_nan)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _switch(*self._before)


class detect_anomaly(set_detect_anomaly):  # noqa: N801 - PyTorch's name
    """Anomaly detection inside a `with` block; see `set_detect_anomaly`."""

    def __init__(self, check_nan: bool = True) -> None:
        self._before = anomaly.enabled, anomaly.check_nan
        self.check_nan = check_nan

    def __enter__(self) -> None:
        self._before = anomaly.enabled, anomaly.check_nan
        _switch(True, self.check_nan)


def _switch(enabled: bool, check_nan: bool) -> None:
    with _switching:
        if enabled and not anomaly.enabled:
            anomaly.watch.enter_context(watching(_note_stack))
        if not enabled:
            anomaly.watch.close()
        anomaly.enabled, anomaly.check_nan = enabled, check_nan


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
