"""Streams of what happens to jobs, for any number of followers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from chainrule.server import names
from chainrule.server.errors import StoreUnavailableError
from chainrule.server.jobs.feed import Feed
from chainrule.server.records import LogRecord
from chainrule.server.store import Store

LOGS_PAGE = 500
"""Most log entries read at a time when streaming."""


async def _nothing() -> None:
    """Where nothing waits to be stored."""


class Following:
    """Who follows a job's logs.

    Args:
        settle: Stores what waits to be stored, so that nothing of a job that has ended is missed. May raise
            StoreUnavailableError.
    """

    def __init__(self, store: Store, feed: Feed, *, settle: Callable[[], Awaitable[None]] = _nothing) -> None:
        self._store = store
        self._feed = feed
        self._settle = settle

    async def logs(
        self, name: str, *, tenant: str, after_sequence: int, limit: int, min_severity: int = 0, source: str = ""
    ) -> list[LogRecord]:
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
    ) -> AsyncIterator[list[LogRecord]]:
        """What was logged so far, then what comes, until the job has ended. Raises NotFoundError."""
        name = names.existing("jobs", name)
        while True:
            bells = (self._feed.listen(name), self._feed.listen_to_logs(name))
            ended = (await asyncio.to_thread(self._store.get_job, name)).state.terminal
            if ended:
                with suppress(StoreUnavailableError):  # then the reads below say so
                    await self._settle()
            while page := await self.logs(
                name,
                tenant=tenant,
                after_sequence=after_sequence,
                limit=LOGS_PAGE,
                min_severity=min_severity,
                source=source,
            ):
                yield page
                after_sequence = page[-1].sequence
            if ended:
                return
            await _any_of(*bells)


async def _any_of(*bells: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(bell.wait()) for bell in bells]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
