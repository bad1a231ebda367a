"""Threads that make batches ahead of time, and hand them out in order."""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from chainrule.engine.errors import ChainruleError

_check_s = 5.0  # how often a waiting consumer looks whether there is still someone to wait for


class DataLoaderError(ChainruleError, RuntimeError):
    """A DataLoader gives no batch: it took too long, or a dataset ended where it should not."""


class Task(NamedTuple):
    """A batch to be made.

    Attributes:
        number: of the batch.
        indices: of its examples.
        answer: where the batch, or the error instead, is put.
    """

    number: int
    indices: Any
    answer: SimpleQueue[tuple[Any, BaseException | None]]


Make = Callable[[int, Any], Any]  # a batch of its number and its indices


class Prefetcher(Iterator[Any]):
    """The batches of `indices` in order, made by threads that are ahead of the consumer by `ahead` batches.

    The threads know the tasks but not the prefetcher: when it ends, is let go of or the interpreter exits, each ends
    after the batch it is at. An error is raised where the batch would have come, and ends the iteration.

    Args:
        indices: of each batch; they are taken in the consumer's thread.
        make: makes a batch; called in the threads.
        start: called in each thread, with its number, before its first batch.
        timeout_s: how long to wait for a batch; 0: as long as the threads live.
    """

    def __init__(
        self,
        indices: Iterator[Any],
        make: Make,
        start: Callable[[int], None],
        *,
        num_workers: int,
        ahead: int,
        timeout_s: float = 0.0,
    ) -> None:
        self._indices = enumerate(indices)
        self._timeout_s = timeout_s
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._pending: deque[Task] = deque()
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(
                target=_work,
                args=(worker, self._tasks, self._stopped, make, start),
                name=f"chainrule-data-{worker}",
                daemon=True,
            )
            for worker in range(num_workers)
        ]
        self._close = weakref.finalize(self, _stop, self._tasks, self._stopped, num_workers)
        for thread in self._threads:
            thread.start()
        for number, batch in itertools.islice(self._indices, ahead):
            self._send(number, batch)

    def __next__(self) -> Any:
        if self._stopped.is_set():
            raise StopIteration
        if not self._pending:
            self._close()
            raise StopIteration
        try:
            batch, error = self._wait(self._pending[0])
            if error is not None:
                try:
                    raise error
                finally:
                    del error  # its traceback holds this frame
            self._pending.popleft()
            for number, indices in itertools.islice(self._indices, 1):
                self._send(number, indices)
        except BaseException:
            self._close()
            raise
        return batch

    def _send(self, number: int, indices: Any) -> None:
        task = Task(number, indices, SimpleQueue())
        self._pending.append(task)
        self._tasks.put(task)

    def _wait(self, task: Task) -> tuple[Any, BaseException | None]:
        end = time.monotonic() + self._timeout_s
        while True:
            left = end - time.monotonic() if self._timeout_s else _check_s
            try:
                return task.answer.get(timeout=max(0.0, min(left, _check_s)))
            except Empty:
                if self._timeout_s and time.monotonic() >= end:
                    raise DataLoaderError(f"DataLoader timed out after {self._timeout_s} seconds") from None
                if not any(thread.is_alive() for thread in self._threads):
                    raise DataLoaderError(f"DataLoader workers ended before batch {task.number}") from None


def _work(
    worker: int, tasks: SimpleQueue[Task | None], stopped: threading.Event, make: Make, start: Callable[[int], None]
) -> None:
    """Makes batches until told to stop; whoever waits for one gets it or the error."""
    failed: BaseException | None = None
    try:
        start(worker)
    except BaseException as error:  # noqa: BLE001 - the consumer raises it
        failed = error
    while (task := tasks.get()) is not None and not stopped.is_set():
        batch, raised = None, failed
        if raised is None:
            try:
                batch = make(task.number, task.indices)
            except BaseException as error:  # noqa: BLE001 - the consumer raises it
                raised = error
        task.answer.put((batch, raised))
        del task, batch, raised  # while waiting, keep nothing alive


def _stop(tasks: SimpleQueue[Task | None], stopped: threading.Event, num_workers: int) -> None:
    stopped.set()
    for _ in range(num_workers):
        tasks.put(None)
