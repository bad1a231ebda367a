"""Wakes those who follow a job when something about it has changed."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary


class Feed:
    """One bell for each job. Lives in one event loop."""

    def __init__(self) -> None:
        self._bells: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()  # kept by who listens

    def ring(self, job: str) -> None:
        """Wake all that listen to a job now."""
        if (bell := self._bells.pop(job, None)) is not None:
            bell.set()

    def ring_logs(self, job: str) -> None:
        """Wake all that listen to a job's logs now."""
        self.ring(_logs_of(job))

    def listen_to_logs(self, job: str) -> asyncio.Event:
        """As `listen`, for the job's logs alone: nobody else is woken by them."""
        return self.listen(_logs_of(job))

    def listen(self, job: str) -> asyncio.Event:
        """An event that is set at the next ring. Listen first, then read the job, then wait: so no change is missed."""
        return self._bells.setdefault(job, asyncio.Event())


def _logs_of(job: str) -> str:
    return f"{job} logs"
