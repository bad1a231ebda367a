"""The handle that whoever registers a hook is given, to take it away again."""

from __future__ import annotations

import itertools
import weakref
from collections import OrderedDict
from typing import Any, Self

_ids = itertools.count()


class RemovableHandle:
    """Removes a hook, once, by `remove` or at the end of a `with`.

    It knows the hooks weakly: it keeps neither them alive nor what they belong to. The caller stores the hook itself,
    `hooks[handle.id] = hook`, so that a hook may be put first.

    Args:
        hooks: where the hook is kept, by number, in the order of the calls.
        extra: what else is kept of the hook under the same number.

    Attributes:
        id: the hook's number; no other handle of this process has it.
    """

    id: int

    def __init__(self, hooks: OrderedDict[int, Any], *extra: OrderedDict[int, Any]) -> None:
        self.id = next(_ids)
        self._kept: tuple[weakref.ref[OrderedDict[int, Any]], ...] = tuple(weakref.ref(d) for d in (hooks, *extra))

    def remove(self) -> None:
        """Takes the hook away; a second time it does nothing."""
        for reference in self._kept:
            kept = reference()
            if kept is not None:
                kept.pop(self.id, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    # Hooks travel with what they belong to, and keep their numbers; a handle comes out with references of its own.
    def __getstate__(self) -> tuple[int, tuple[OrderedDict[int, Any] | None, ...]]:
        return self.id, tuple(reference() for reference in self._kept)

    def __setstate__(self, state: tuple[int, tuple[OrderedDict[int, Any] | None, ...]]) -> None:
        global _ids
        self.id, kept = state
        self._kept = tuple(weakref.ref(OrderedDict() if hooks is None else hooks) for hooks in kept)
        _ids = itertools.count(max(next(_ids), self.id + 1))
