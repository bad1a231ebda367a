"""Whether operations are recorded: a switch per thread, turned by context managers that also decorate."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class _State(threading.local):
    enabled = True


state = _State()


def is_grad_enabled() -> bool:
    """Whether this thread records operations now."""
    return state.enabled


class _GradMode:
    """Sets the switch inside a `with` block, or inside every call of the function it decorates."""

    mode: bool

    def __init__(self) -> None:
        self._previous: list[bool] = []  # a stack: one object may be entered again inside itself

    def __enter__(self) -> None:
        self._previous.append(state.enabled)
        state.enabled = self.mode

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        state.enabled = self._previous.pop()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def decorated(*args: P.args, **kwargs: P.kwargs) -> R:
            previous, state.enabled = state.enabled, self.mode
            try:
                return function(*args, **kwargs)
            finally:
                state.enabled = previous

        return decorated


class no_grad(_GradMode):  # noqa: N801 - PyTorch's name
    """Nothing inside is recorded."""

    mode = False


class enable_grad(_GradMode):  # noqa: N801 - PyTorch's name
    """Everything inside is recorded, also within `no_grad`."""

    mode = True


class set_grad_enabled(_GradMode):  # noqa: N801 - PyTorch's name
    """Records or not, as `mode` says: from this call on, or until the end of the `with` block.

    Used as a decorator, it governs the decorated function alone.
    """

    def __init__(self, mode: bool) -> None:
        super().__init__()
        self.mode = bool(mode)
        self._before = state.enabled
        state.enabled = self.mode

    def __enter__(self) -> None:
        self._previous.append(self._before)
        state.enabled = self.mode

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        state.enabled = self._before
        return super().__call__(function)
