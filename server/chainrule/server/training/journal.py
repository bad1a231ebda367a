"""What the processes of an attempt have logged, gathered by its coordinator for the service."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from chainrule.server.training.eventlog import EventLog
from chainrule.server.training.events import Logged
from chainrule.server.training.logs import LogBuffer, collected, from_values


class Journal:
    """Entries of the coordinator and of what its parts have said, on their way into the events. A context manager: what
    is logged between is heard. No more than one event of them waits for the service, so that a service that does not
    ask costs old entries, not memory."""

    def __init__(self, job: str, events: EventLog, *, node: str) -> None:
        self._buffer = LogBuffer(about=job, source="coordinator", node=node)
        self._events = events
        self._closing = ExitStack()

    def __enter__(self) -> Journal:
        self._closing.enter_context(collected(self._buffer))
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def heard(self, who: dict[str, Any], message: dict[str, Any]) -> None:
        """A part has logged something."""
        source = f"worker {who['lease']}" if who.get("role") == "worker" else f"partition {who['index']}"
        for entry in from_values(message["entries"], source=source, node=str(message["node"])):
            self._buffer.add(entry)

    def report(self) -> None:
        """Hand on what has come, unless the service has not dealt with what came before."""
        if not self._events.waits(Logged) and (entries := self._buffer.take()):
            self._events.add(Logged(entries))

    def report_all(self) -> None:
        """Hand on everything: the attempt is over."""
        while entries := self._buffer.take():
            self._events.add(Logged(entries))
