"""Streams of what jobs measure and log, for any number of followers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from chainrule.server import names
from chainrule.server.errors import StoreUnavailableError
from chainrule.server.jobs import shown
from chainrule.server.jobs.feed import Feed
from chainrule.server.jobs.shown import Shown
from chainrule.server.records import LogRecord
from chainrule.server.store import LogPage, Store
from chainrule.server.training.state import StepMetric

METRICS_PAGE = 1000
"""Most metrics read at a time when streaming."""
LOGS_PAGE = 500
"""Most log entries read at a time when streaming."""

T = TypeVar("T")


async def nothing() -> None:
    """Where nothing waits to be stored."""


class Following:
    """Who follows a job's metrics and logs. Lives in one event loop.

    Args:
        shown: Tells all of them what has become of a job, with one reading.
        settle: Stores what waits to be stored, so that nothing of a job that has ended is missed. May raise
            StoreUnavailableError.
    """

    def __init__(
        self, store: Store, feed: Feed, shown: Shown[Any], *, settle: Callable[[], Awaitable[None]] = nothing
    ) -> None:
        self._store = store
        self._feed = feed
        self._shown = shown
        self._settle = settle
        self._log_followers: Counter[str] = Counter()

    async def stream_metrics(self, name: str, *, after_step: int, tenant: str) -> AsyncIterator[list[StepMetric]]:
        """Metrics recorded so far, then new ones as they come, until the job has ended. Raises NotFoundError."""
        name = names.existing("jobs", name)
        async for _ in self._shown.sights(name, tenant=tenant):  # each was read after what it tells was stored
            is_full = True
            while is_full:
                page = await asyncio.to_thread(
                    self._store.metrics, name, after_step=after_step, limit=METRICS_PAGE, tenant=tenant
                )
                is_full = len(page) == METRICS_PAGE
                if page:
                    yield page
                    after_step = page[-1].step

    async def logs(
        self, name: str, *, tenant: str, after_sequence: int, limit: int, min_severity: int = 0, source: str = ""
    ) -> LogPage:
        """Entries after `after_sequence`, in order; see Store.logs. Raises NotFoundError."""
        return await asyncio.to_thread(
            self._store.logs,
            names.existing("jobs", name),
            tenant=tenant,
            after_sequence=after_sequence,
            limit=limit,
            min_severity=min_severity,
            source=source,
        )

    async def stream_logs(
        self, name: str, *, tenant: str, after_sequence: int, min_severity: int = 0, source: str = ""
    ) -> AsyncIterator[tuple[LogRecord, ...]]:
        """What was logged so far, then what comes, until the job has ended. Raises NotFoundError."""
        name = names.existing("jobs", name)
        asked: dict[str, Any] = {"tenant": tenant, "min_severity": min_severity, "source": source}
        with self._counted(name), _task(self._ended(name, tenant)) as ended:
            while True:
                bell, since_s = self._feed.listen_to_logs(name), time.monotonic()
                is_over = ended.done()
                if is_over:
                    ended.result()
                    with suppress(StoreUnavailableError):  # then the reads below say so
                        await self._settle()
                has_more = True
                while has_more:
                    page = await self.logs(name, after_sequence=after_sequence, limit=LOGS_PAGE, **asked)
                    has_more, after_sequence = page.has_more, page.seen
                    if page.entries:
                        yield page.entries
                if is_over:
                    return
                with _task(self._news(name, bell, since_s)) as news:
                    await asyncio.wait([ended, news], return_when=asyncio.FIRST_COMPLETED)

    # --- private -----------------------------------------------------------------------------------------------

    async def _ended(self, name: str, tenant: str) -> None:
        """Returns once a job has ended. Raises NotFoundError if it is not there any more."""
        async for _ in self._shown.sights(name, tenant=tenant):
            pass

    async def _news(self, name: str, bell: asyncio.Event, since_s: float) -> None:
        """Returns once there are logs, and those who follow them may read again."""
        await bell.wait()
        await asyncio.sleep(since_s + shown.A_FOLLOWER_S * self._log_followers[name] - time.monotonic())

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        self._log_followers[name] += 1
        try:
            yield
        finally:
            self._log_followers[name] -= 1
            if not self._log_followers[name]:
                del self._log_followers[name]


@contextmanager
def _task(work: Coroutine[Any, Any, T]) -> Iterator[asyncio.Task[T]]:
    """Work that ends with the block; what it raises is for whoever looks at it."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        yield task
    finally:
        task.cancel()
