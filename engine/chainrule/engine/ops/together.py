"""Gradients that are computed together, as one kernel gives those of all inputs."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from chainrule.engine.dtypes import Array


class Together:
    """The gradients of several inputs, which one kernel computes at once and formulas ask for one by one."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: tuple[weakref.ref[Array], dict[int, Array]] | None = None

    def take(self, position: int, g: Array, compute: Callable[[], tuple[Array, ...]]) -> Array:
        """One of what `compute` makes of g: computed when the first is asked for, kept until g is gone.

        Each is handed out once, since it belongs to whom it was given.
        """
        found = self._found
        if found is not None and found[0]() is g:
            gradient = found[1].pop(position, None)
            if gradient is not None:
                return gradient
        gradients = dict(enumerate(compute()))
        gradient = gradients.pop(position)
        self._found = weakref.ref(g, self._forget), gradients
        return gradient

    def _forget(self, g: weakref.ref[Array]) -> None:
        if self._found is not None and self._found[0] is g:
            self._found = None
