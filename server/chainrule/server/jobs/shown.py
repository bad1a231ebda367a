"""Jobs as they are shown to those who ask and follow: read once after each change, whatever the number of both."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from chainrule.server import names
from chainrule.server.jobs.feed import Feed
from chainrule.server.records import Job

MAX_KEPT_BYTES = 32 * 1024**2
"""Most memory that readings take which are kept for the next who asks."""
A_READING_BYTES = 8192
"""Memory of a reading beside what grows with the job: measured, as the next."""
BYTES_PER_BYTE = 5
"""Memory of a reading for each byte that is shown: the record takes more than what is made of it."""
A_FOLLOWER_S = 0.005
"""Least time between two reports of progress, for each follower of a job: who are many are told less often, so that the
service does not spend on them what the machine has for the job. A change of state is told at once."""

FRESH_S = 1.0
"""Longest that a job which has not ended is shown without being read again: it tells how long it has been in its state,
and how long it may take."""

T = TypeVar("T")


class Read(Protocol):
    """Reads a job of a tenant. Raises NotFoundError."""

    def __call__(self, name: str, *, tenant: str) -> Awaitable[Job]: ...


@dataclass(frozen=True)
class Sight(Generic[T]):
    """A job as it was read."""

    number: int
    """They rise with the time at which reading began."""
    job: Job
    shown: T


@dataclass
class _Kept(Generic[T]):
    """A reading, until the job changes."""

    bell: asyncio.Event
    """Rung once it is not the latest any more."""
    reading: asyncio.Task[Sight[T]]
    since_s: float
    size: int = 0

    def is_over(self, now_s: float) -> bool:
        """Whether the job is to be read again."""
        if self.bell.is_set():
            return True
        is_old = now_s - self.since_s > FRESH_S and self.reading.done()
        return is_old and not self.reading.result().job.state.terminal


class Shown(Generic[T]):
    """What jobs are shown as. Lives in one event loop.

    Args:
        feed: Rings whenever something of a job has changed, once that is stored and before it is acknowledged: what was
            read before is not shown after that.
        show: Makes what is shown of a job.
        weigh: The size of that in bytes; what is kept takes more, see BYTES_PER_BYTE.
        clock: Seconds, of any beginning.
    """

    def __init__(
        self,
        read: Read,
        feed: Feed,
        *,
        show: Callable[[Job], T],
        weigh: Callable[[T], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._feed = feed
        self._show = show
        self._weigh = weigh
        self._clock = clock
        self._numbers = itertools.count(1)
        self._kept: dict[tuple[str, str], _Kept[T]] = {}  # the one asked for longest ago first
        self._kept_bytes = 0
        self._broadcasts: dict[tuple[str, str], _Broadcast[T]] = {}

    async def get(self, name: str, *, tenant: str) -> T:
        """What a job is shown as now. Raises NotFoundError."""
        return (await self.sight(names.existing("jobs", name), tenant=tenant)).shown

    async def sight(self, name: str, *, tenant: str) -> Sight[T]:
        """A job as it is now. Those who ask while it is being read wait for the same reading."""
        key = (tenant, name)
        kept = self._kept.pop(key, None)
        if kept is not None and kept.is_over(self._clock()):
            self._kept_bytes -= kept.size
            kept = None
        if kept is None:
            bell = self._feed.listen(name)
            kept = _Kept(bell, asyncio.create_task(self._sight(key)), self._clock())
            kept.reading.add_done_callback(_look_at)
        self._kept[key] = kept
        return kept.reading.result() if kept.reading.done() else await asyncio.shield(kept.reading)

    async def watch(self, name: str, *, tenant: str) -> AsyncIterator[T]:
        """What a job is shown as now, and after changes, until it has ended. Raises NotFoundError."""
        async for sight in self.sights(names.existing("jobs", name), tenant=tenant):
            yield sight.shown

    async def sights(self, name: str, *, tenant: str) -> AsyncIterator[Sight[T]]:
        """A job as it is now, and after changes, until it has ended; all who follow it share the readings. Raises
        NotFoundError."""
        broadcast = self._broadcasts.get((tenant, name))
        if broadcast is None:
            broadcast = self._broadcasts[tenant, name] = _Broadcast(self, self._feed, name, tenant)
        async with broadcast:
            seen = await self.sight(name, tenant=tenant)
            yield seen
            while not seen.job.state.terminal:
                latest = await broadcast.after(seen)
                if latest.job != seen.job:
                    yield latest
                seen = latest

    def over(self, broadcast: _Broadcast[T]) -> None:
        """A broadcast has no listeners any more, or has ended."""
        if self._broadcasts.get(broadcast.key) is broadcast:
            del self._broadcasts[broadcast.key]

    async def _sight(self, key: tuple[str, str]) -> Sight[T]:
        number = next(self._numbers)
        tenant, name = key
        try:
            job = await self._read(name, tenant=tenant)
            sight = Sight(number, job, self._show(job))
        except BaseException:
            self._forget(key)
            raise
        self._keep(key, A_READING_BYTES + BYTES_PER_BYTE * self._weigh(sight.shown))
        return sight

    def _forget(self, key: tuple[str, str]) -> None:
        kept = self._kept.get(key)
        if kept is not None and kept.reading is asyncio.current_task():
            del self._kept[key]

    def _keep(self, key: tuple[str, str], size: int) -> None:
        kept = self._kept.get(key)
        if kept is None or kept.reading is not asyncio.current_task():  # another has been read meanwhile
            return
        kept.size = size
        self._kept_bytes += size
        while self._kept_bytes > MAX_KEPT_BYTES:
            oldest = self._kept.pop(next(iter(self._kept)))
            self._kept_bytes -= oldest.size


class _Broadcast(Generic[T]):
    """What followers of one job are told, as long as there are any."""

    def __init__(self, shown: Shown[T], feed: Feed, name: str, tenant: str) -> None:
        self.key = (tenant, name)
        self._shown = shown
        self._feed = feed
        self._latest: Sight[T] | None = None
        self._error: Exception | None = None
        self._followers = 0
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._followers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._follow())

    async def __aexit__(self, *_: object) -> None:
        self._followers -= 1
        if not self._followers:
            self._shown.over(self)
            if self._task is not None:
                self._task.cancel()

    async def after(self, seen: Sight[T]) -> Sight[T]:
        """The next that is told. Raises what reading the job has raised."""
        while self._latest is None or self._latest.number <= seen.number:
            if self._error is not None:
                raise self._error
            await self._news.wait()
        return self._latest

    async def _follow(self) -> None:
        try:
            await self._tell_all()
        except Exception as error:  # noqa: BLE001 — it is raised where the followers wait
            self._error = error
            self._shown.over(self)  # who comes now begins anew
        self._ring()

    async def _tell_all(self) -> None:
        tenant, name = self.key
        told_s = float("-inf")
        while self._latest is None or not self._latest.job.state.terminal:
            bell = self._feed.listen(name)
            sight = await self._shown.sight(name, tenant=tenant)
            wait_s: float | None = None
            if self._latest is None or sight.job != self._latest.job:
                wait_s = told_s + A_FOLLOWER_S * self._followers - time.monotonic()
                if self._latest is None or sight.job.state is not self._latest.job.state or wait_s <= 0:
                    self._latest, told_s, wait_s = sight, time.monotonic(), None
                    self._ring()
            if self._latest.job.state.terminal:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await bell.wait()

    def _ring(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def _look_at(reading: asyncio.Task[Sight[T]]) -> None:
    """Who asked may have gone: then nobody else looks at what went wrong."""
    if not reading.cancelled():
        reading.exception()
