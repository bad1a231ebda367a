"""Whether operations are recorded: switches per thread, turned by context managers that also decorate."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Generator
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload

P = ParamSpec("P")
R = TypeVar("R")


class _State(threading.local):
    enabled = True
    inference = False
    recording = True
    """Whether operations are recorded: enabled, and not in inference mode."""

    def set(self, enabled: bool, inference: bool) -> None:
        self.enabled = enabled
        self.inference = inference
        self.recording = enabled and not inference


state = _State()


def is_grad_enabled() -> bool:
    """Whether this thread records operations now; but in inference mode it does not, whatever is enabled."""
    return state.enabled


def is_inference_mode_enabled() -> bool:
    """Whether this thread is inside `inference_mode`."""
    return state.inference


class _GradMode:
    """Sets the switches inside a `with` block, or inside every call of the function it decorates."""

    mode: bool
    inference: bool | None = None  # None leaves that switch alone

    def __init__(self, *_: object, **__: object) -> None:
        self._previous: list[tuple[bool, bool]] = []  # a stack: one object may be entered again inside itself

    def __enter__(self) -> None:
        self._previous.append((state.enabled, state.inference))
        state.set(self.mode, state.inference if self.inference is None else self.inference)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        state.set(*self._previous.pop())

    def fresh(self) -> _GradMode:
        """Another of the same setting, for one call."""
        copied = object.__new__(type(self))
        _GradMode.__init__(copied)
        copied.mode, copied.inference = self.mode, self.inference
        return copied

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        if inspect.isgeneratorfunction(function):
            return self._around_generator(function)

        @wraps(function)
        def decorated(*args: P.args, **kwargs: P.kwargs) -> R:
            with self.fresh():
                return function(*args, **kwargs)

        return decorated

    def _around_generator(self, function: Callable[P, Any]) -> Callable[P, Any]:
        """The switches are set while the generator runs, not while its consumer does."""

        @wraps(function)
        def decorated(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, Any]:
            generator = function(*args, **kwargs)
            step: Callable[[], Any] = lambda: next(generator)
            while True:
                try:
                    with self.fresh():
                        value = step()
                except StopIteration as end:
                    return end.value
                try:
                    sent = yield value
                except GeneratorExit:
                    with self.fresh():
                        generator.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - handed to the generator, whose it is to handle
                    step = lambda error=error: generator.throw(error)  # type: ignore[misc]
                else:
                    step = lambda sent=sent: generator.send(sent)  # type: ignore[misc]

        return decorated


class _BareMode(_GradMode):
    """A mode without settings, which decorates with and without parentheses: `@no_grad` and `@no_grad()`."""

    @overload
    def __new__(cls, function: Callable[P, R], /) -> Callable[P, R]: ...  # type: ignore[misc]
    @overload
    def __new__(cls) -> Self: ...
    def __new__(cls, function: Callable[..., Any] | None = None, /) -> Any:  # type: ignore[misc]
        made = object.__new__(cls)
        if function is None:
            return made
        made.__init__()  # type: ignore[misc]
        return made(function)


class no_grad(_BareMode):  # noqa: N801 - PyTorch's name
    """Nothing inside is recorded."""

    mode = False


class enable_grad(_BareMode):  # noqa: N801 - PyTorch's name
    """Everything inside is recorded, also within `no_grad`; not within `inference_mode`."""

    mode = True


class inference_mode(_GradMode):  # noqa: N801 - PyTorch's name
    """Nothing inside is recorded, now or later: what is computed inside can't be part of a graph.

    Args:
        mode: False leaves the mode, inside; a function is decorated.
    """

    @overload
    def __new__(cls, mode: Callable[P, R], /) -> Callable[P, R]: ...  # type: ignore[misc]
    @overload
    def __new__(cls, mode: bool = True) -> Self: ...
    def __new__(cls, mode: bool | Callable[..., Any] = True) -> Any:
        made = object.__new__(cls)
        made.mode, made.inference = (False, True) if callable(mode) else (not mode, bool(mode))
        if not callable(mode):
            return made
        made.__init__()  # type: ignore[misc]
        return made(mode)


class set_grad_enabled(_GradMode):  # noqa: N801 - PyTorch's name
    """Records or not, as `mode` says: from this call on, or until the end of the `with` block.

    Used as a decorator, it governs the decorated function alone.
    """

    def __init__(self, mode: bool) -> None:
        super().__init__()
        self.mode = bool(mode)
        self._before = state.enabled
        state.set(self.mode, state.inference)

    def __enter__(self) -> None:
        self._previous.append((self._before, state.inference))
        state.set(self.mode, state.inference)

    def fresh(self) -> _GradMode:
        copied = super().fresh()
        assert isinstance(copied, set_grad_enabled)
        copied._before = state.enabled
        return copied

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        state.set(self._before, state.inference)
        return super().__call__(function)
