"""Who is told of operations while they are computed, as `graph.export` is of those of a module.

Nobody is, nearly always, and that costs a look at an empty list. A watcher hears of its own thread only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Watcher(Protocol):
    """What it is told."""

    def operation(self, op: Any, inputs: tuple[Any, ...], attributes: dict[str, Any], y: Any) -> None:
        """An operation made the tensor `y`."""

    def written(self, x: Any, result: Any) -> None:
        """What the tensor `result` holds was written into the tensor `x`."""

    def detached(self, x: Any, y: Any) -> None:
        """`y` is `x` without its history."""

    def read(self, x: Any) -> None:
        """Elements of `x` become Python's numbers, or an array."""

    def function(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A function that is `watched` is to be called: the watcher does so."""

    def module(self, module: Any, call: Callable[[], Any]) -> Any:
        """A module is to be called: the watcher does so."""


watchers: list[tuple[int, Watcher]] = []
"""Each with the thread it watches."""


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Tells the watcher of what this thread computes inside."""
    entry = threading.get_ident(), watcher
    watchers.append(entry)
    try:
        yield
    finally:
        watchers.remove(entry)


def watcher_here() -> Watcher | None:
    """The watcher of this thread."""
    here = threading.get_ident()
    return next((watcher for thread, watcher in reversed(watchers) if thread == here), None)


def tell_operation(op: Any, inputs: tuple[Any, ...], attributes: dict[str, Any], y: Any) -> None:
    """Tells of an operation."""
    watcher = watcher_here()
    if watcher is not None:
        watcher.operation(op, inputs, attributes, y)


def tell_written(x: Any, result: Any) -> None:
    """Tells that a tensor was written to."""
    watcher = watcher_here()
    if watcher is not None:
        watcher.written(x, result)


def tell_detached(x: Any, y: Any) -> None:
    """Tells of a tensor without a history."""
    watcher = watcher_here()
    if watcher is not None:
        watcher.detached(x, y)


def tell_read(x: Any) -> None:
    """Tells that elements of a tensor are looked at, other than by an operation."""
    watcher = watcher_here()
    if watcher is not None:
        watcher.read(x)


def call_module(module: Any, call: Callable[[], Any]) -> Any:
    """Calls a module, by its watcher if there is one."""
    watcher = watcher_here()
    return call() if watcher is None else watcher.module(module, call)


def watched(function: Callable[P, R]) -> Callable[P, R]:
    """The function, of which a watcher hears as a whole: what its operations compute from is not all tensors."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        watcher = watcher_here() if watchers else None
        if watcher is None:
            return function(*args, **kwargs)
        result: R = watcher.function(function, args, kwargs)
        return result

    return call
