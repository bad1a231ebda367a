"""Warm processes: they have started and imported all that a part of a job needs, and wait for a job to take them.

What takes longest when a job begins is to start processes and to import; so that is done before. A process is taken by
one attempt and ends with it: another is started in its place once the attempt is over, one at a time, so that running
jobs keep their CPUs. Waiting processes ask Ray for none: they are for a cluster of the service's own, of which nobody
else plans the use.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from chainrule.engine import ChainruleError

READY_TIMEOUT_S = 60.0
"""How long a process may take to start and to import."""
ANSWER_TIMEOUT_S = 1.0
"""How long one that waits may take to say that it is well, before another is taken."""

logger = logging.getLogger(__name__)


class Process(Protocol):
    """A process that waits for a job."""

    async def ready(self) -> None:
        """Return once it has imported everything. Raises LostPartError if it is gone."""

    async def end(self) -> None:
        """End it."""


P = TypeVar("P", bound=Process)


@dataclass(frozen=True)
class Taken(Generic[P]):
    """What an attempt has been given."""

    coordinator: P | None
    parts: list[P]

    async def end(self) -> None:
        """End them all; that goes on if the caller is cancelled."""
        given = (self.coordinator, *self.parts)
        await asyncio.shield(asyncio.gather(*(process.end() for process in given if process is not None)))


class WarmPool(Generic[P]):
    """Keeps as many processes waiting as attempts may want. Lives in one event loop.

    Args:
        workers: For how many workers; there are one more for a partition, and one for a coordinator. 0: none at all.
        start_coordinator, start_part: Start a process; it need not be ready.
    """

    def __init__(
        self,
        workers: int,
        *,
        start_coordinator: Callable[[], Awaitable[P]],
        start_part: Callable[[], Awaitable[P]],
    ) -> None:
        self._num_parts = workers + 1 if workers else 0
        self._num_coordinators = 1 if workers else 0
        self._start_coordinator = start_coordinator
        self._start_part = start_part
        self._coordinators: list[P] = []
        self._parts: list[P] = []
        self._filling: asyncio.Task[None] | None = None
        self._is_asked = False

    async def take(self, parts: int) -> Taken[P]:
        """A coordinator and as many parts as are wanted, as far as they are there and well."""
        coordinators: list[P] = []
        others: list[P] = []
        try:
            await self._move(self._coordinators, coordinators, 1)
            await self._move(self._parts, others, parts)
        except BaseException:  # who asked has gone: they wait on
            self._coordinators += coordinators
            self._parts += others
            raise
        return Taken(coordinators[0] if coordinators else None, others)

    @property
    def filling(self) -> bool:
        """Whether processes are being started."""
        return self._filling is not None and not self._filling.done()

    def fill(self) -> None:
        """Begin to start what is missing; asked while that goes on, it is looked again in the end."""
        self._is_asked = True
        if not self.filling:
            self._filling = asyncio.create_task(self._fill())

    async def _fill(self) -> None:
        kinds = (
            (self._coordinators, self._num_coordinators, self._start_coordinator),
            (self._parts, self._num_parts, self._start_part),
        )
        while self._is_asked:  # once more if an attempt was over meanwhile: it may have taken what was there
            self._is_asked = False
            try:
                for waiting, wanted, start in kinds:
                    while len(waiting) < wanted:
                        waiting.append(await self._started(start))
            except (ChainruleError, OSError, RuntimeError) as error:  # jobs start without, and the next end tries again
                logger.warning("no process could be kept ready for jobs: %s", error)

    async def _started(self, start: Callable[[], Awaitable[P]]) -> P:
        process = await start()
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await process.ready()
        except BaseException:
            await process.end()
            raise
        return process

    async def _move(self, waiting: list[P], taken: list[P], wanted: int) -> None:
        """Take so many that are well, as far as there are any."""
        while waiting and len(taken) < wanted:
            process = waiting.pop()
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    await process.ready()
            except (ChainruleError, OSError, RuntimeError) as error:
                logger.warning("a process that was kept ready is not there any more: %s", error)
                await process.end()
            except BaseException:
                waiting.append(process)
                raise
            else:
                taken.append(process)
