"""The events of an attempt, kept until whoever asks for them has dealt with them."""

from __future__ import annotations

import asyncio

from chainrule.server.training.events import CheckpointTaken, Event


class EventLog:
    """Events in order. Lives in one event loop."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._dropped = 0
        self._news = asyncio.Event()

    def add(self, event: Event) -> None:
        self._events.append(event)
        self._news.set()

    def forget(self, number: int) -> None:
        """The events up to number `number` have been dealt with."""
        count = min(max(0, number - self._dropped), len(self._events))  # who asked before that may be heard after it
        del self._events[:count]
        self._dropped += count

    async def after(self, number: int, timeout_s: float) -> list[Event]:
        """Events number `number` + 1 and on, waiting up to `timeout_s` seconds for one. Asking for what comes after an
        event says that all up to it have been dealt with: they are forgotten."""
        self.forget(number)
        try:
            async with asyncio.timeout(timeout_s):
                while not self._events:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass  # nothing new is an answer too
        return list(self._events)

    @property
    def checkpoint_waits(self) -> bool:
        """Whether there is a checkpoint that has not been dealt with."""
        return self.waits(CheckpointTaken)

    def waits(self, kind: type[Event]) -> bool:
        """Whether there is an event of a kind that has not been dealt with."""
        return any(isinstance(event, kind) for event in self._events)
