"""What the service itself logs about jobs, on its way into their logs."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from chainrule.server.errors import StoreUnavailableError
from chainrule.server.jobs.feed import Feed
from chainrule.server.store import Store
from chainrule.server.training.logs import LogEntry, collected, entry_of

SOURCE = "service"
"""Whose entries these are."""
MAX_WAITING = 5000
"""Most entries that wait for the store, of all jobs; then the oldest are dropped."""
INTERVAL_S = 0.25
"""Least time between two transactions that store what has come meanwhile."""
IN_JOB_LOGS: dict[str, Any] = {"extra": {"in_job_logs": True}}
"""Arguments of a call to a logger for what a job's own processes have logged already."""

logger = logging.getLogger(__name__)

_ABOUT = re.compile(r"(jobs/[a-z0-9-]+): ")


class ServiceLogs(logging.Handler):
    """Hears what this process logs, and stores what begins with a job's name; `async with ServiceLogs(store, feed)`."""

    def __init__(self, store: Store, feed: Feed) -> None:
        super().__init__(logging.INFO)
        self._store = store
        self._feed = feed
        self._waiting: deque[tuple[str, LogEntry]] = deque(maxlen=MAX_WAITING)
        self._guard = threading.Lock()
        self._storing = asyncio.Lock()
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._collecting = collected(self)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._collecting.__enter__()
        self._task = asyncio.create_task(self._work())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._collecting.__exit__(None, None, None)
        assert self._task is not None
        self._stopped.set()
        self._news.set()
        await self._task
        with suppress(StoreUnavailableError):  # it is the end: there is nobody left to wait
            await self.settle()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what is about a job; from any thread."""
        try:
            found = _ABOUT.match(record.getMessage())
            if found is None or hasattr(record, "in_job_logs"):
                return
            entry = entry_of(record, about=found[1], source=SOURCE)
        except Exception:  # noqa: BLE001 — who logs is not to fail by it
            self.handleError(record)
            return
        with self._guard:
            self._waiting.append((found[1], entry))
        with suppress(RuntimeError):  # the loop has ended, and with it this
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._news.set)

    async def settle(self) -> None:
        """Store what has come; that goes on if the caller is cancelled. Raises StoreUnavailableError; then it is stored
        later."""
        storing = asyncio.create_task(self._store_all())
        storing.add_done_callback(lambda done: done.cancelled() or done.exception())  # the caller may have gone
        await asyncio.shield(storing)

    async def _store_all(self) -> None:
        async with self._storing:
            with self._guard:
                taken, self._waiting = self._waiting, deque(maxlen=MAX_WAITING)
            of_jobs: dict[str, list[LogEntry]] = {}
            for job, entry in taken:
                of_jobs.setdefault(job, []).append(entry)
            try:
                for job in list(of_jobs):
                    await self._store_of(job, of_jobs[job])
                    del of_jobs[job]
            finally:
                self._put_back(of_jobs)

    async def _store_of(self, job: str, entries: list[LogEntry]) -> None:
        try:
            await asyncio.to_thread(self._store.add_logs, job, entries)
        except StoreUnavailableError:
            raise
        except Exception:  # a defect met with one job is not to cost what is logged about the others
            logger.exception("%d messages about %s could not be stored", len(entries), job)
        else:
            self._feed.ring_logs(job)

    def _put_back(self, of_jobs: dict[str, list[LogEntry]]) -> None:
        with self._guard:
            left = [(job, entry) for job, entries in of_jobs.items() for entry in entries]
            self._waiting = deque([*left, *self._waiting], maxlen=MAX_WAITING)

    async def _work(self) -> None:
        while not self._stopped.is_set():
            await self._news.wait()
            self._news.clear()
            try:
                await self.settle()
            except StoreUnavailableError:  # it waits, and is tried again
                self._news.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S):
                    await self._stopped.wait()
