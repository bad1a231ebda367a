"""Reads examples ahead: those of the next step while this one is computed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from chainrule.server.training.examples import ExampleSource
from chainrule.server.training.state import Arrays

Indices = NDArray[np.int64]


class Reader:
    """A source whose next reads may be announced. What is read depends on the indices alone, never on what was
    announced.

    Args:
        source: the examples. Those in memory are never read ahead.
        most: how many announced reads are kept at a time; the oldest, which nobody has taken, go first.
    """

    def __init__(self, source: ExampleSource, *, most: int) -> None:
        self._source = source
        self._most = max(1, most)
        self._ahead: OrderedDict[bytes, Future[Arrays]] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None

    def read(self, indices: Indices) -> Arrays:
        """The columns of some examples. Raises what reading them raises."""
        if self._ahead and (begun := self._ahead.pop(indices.tobytes(), None)) is not None:
            return begun.result()
        return self._source.read(indices)

    def expect(self, indices: Callable[[], Indices | None]) -> None:
        """Begin to read what is to come; None: nothing is. It is not asked for where nothing is read ahead."""
        if self._source.in_memory:
            return
        found = indices()
        if found is None or len(found) == 0 or (key := found.tobytes()) in self._ahead:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="examples")
        self._ahead[key] = self._pool.submit(self._source.read, found)
        while len(self._ahead) > self._most:
            self._ahead.popitem(last=False)[1].cancel()
