"""Stand-ins for what a coordinator has around it: processes that do not run, and lines that only remember."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.crew import Crew
from chainrule.server.training.events import Event, IncidentKind
from chainrule.server.training.parts import Ended
from chainrule.server.training.plan import Plan
from chainrule.server.training.serving import PartitionSpec
from chainrule.server.training.switchboard import Line, Message
from chainrule.server.training.tls import Identity, make_identity
from chainrule.server.training.wire import Endpoint
from tests.server.training.bench import tiny_images, tiny_plan
from tests.server.training.runs import initial_state

FINGERPRINT = {"kernels": "reference", "threads": "1"}
OTHER = {**FINGERPRINT, "kernels": "onednn"}
IDENTITY = make_identity("chainrule-test")
FENCE = 7
ENDPOINTS = [{"machine": "m", "path": "p", "host": "h", "port": 1}]


def attempt(plan: Plan, *, workers: int = 2, **fields: Any) -> AttemptSpec:
    """An attempt at a plan, from its beginning."""
    settings: dict[str, Any] = {
        "job": "jobs/test",
        "state": initial_state(plan),
        "examples": tiny_images(plan.num_examples),
        "validation": None,
        "fence": 3,
        **fields,
    }
    return AttemptSpec(plan=plan, workers=workers, **settings)


class Exhausted(socket.socket):
    """A listening socket for whose callers there are no descriptors left at first."""

    left = 3

    def accept(self) -> tuple[socket.socket, Any]:
        if self.left:
            self.left -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


class FakeLine(Line):
    """A line that remembers what was said on it; `log` may be shared, to tell the order."""

    def __init__(self, *, log: list[tuple[Line, Message]] | None = None, **who: Any) -> None:
        self.open = True
        self.who = who
        self.said: list[Message] = []
        self._log = log

    def send(self, **message: Any) -> None:
        if self.open:
            self.said.append(message)
            if self._log is not None:
                self._log.append((self, message))

    def close(self) -> None:
        self.open = False

    def last(self, kind: str) -> Message:
        """The last message of a kind, without it."""
        found = next(message for message in reversed(self.said) if message["type"] == kind)
        return {key: value for key, value in found.items() if key != "type"}

    def heard(self, kind: str) -> int:
        """How many messages of a kind were said on it."""
        return sum(message["type"] == kind for message in self.said)


@dataclass
class FakePlacement:
    """Remembers which processes were asked for and ended."""

    host: str = "127.0.0.1"
    partitions: list[PartitionSpec] = field(default_factory=list)
    workers: list[int] = field(default_factory=list)
    """Leases, in the order in which they were asked for."""
    ended: list[int] = field(default_factory=list)
    """Leases of workers that were ended."""
    ends_of_partitions: int = 0
    stopped: bool = False
    gate: asyncio.Event | None = None
    """What the end of partitions waits for."""
    refusal: Exception | None = None
    """What to raise instead of starting anything."""
    stop_error: Exception | None = None
    """What to raise when all are ended."""
    callbacks: dict[str, Ended] = field(default_factory=dict)
    """To be called for a process that has ended: "worker 3", "partition 0"."""

    async def start_partition(self, spec: PartitionSpec, ended: Ended) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.partitions.append(spec)
        self.callbacks[f"partition {spec.index}"] = ended

    async def start_worker(self, lease: int, identity: Identity, coordinator: Endpoint, ended: Ended) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.workers.append(lease)
        self.callbacks[f"worker {lease}"] = ended

    async def end_partitions(self) -> None:
        self.ends_of_partitions += 1
        if self.gate is not None:
            await self.gate.wait()

    async def end_worker(self, lease: int) -> None:
        self.ended.append(lease)

    async def stop(self) -> None:
        self.stopped = True
        if self.stop_error is not None:
            raise self.stop_error


class FakeDesk:
    """A coordinator that only remembers what its crew asks of it."""

    identity = IDENTITY
    endpoint = Endpoint("here", "coordinator", "127.0.0.1", 1)

    def __init__(self) -> None:
        self.told: list[Message] = []
        """What was said to all partitions."""
        self.events: list[Event] = []
        self.notes: list[tuple[str, str]] = []
        self.ends: list[Event] = []
        self.losses: list[str] = []
        self.pauses: list[float] = []
        """Least time before each of those is replaced."""
        self.recoveries: list[str] = []
        self.roll_backs: list[str] = []
        self._replacing: list[Any] = []

    def tell_partitions(self, **message: Any) -> None:
        self.told.append(message)

    def add(self, event: Event) -> None:
        self.events.append(event)

    def note(self, kind: IncidentKind, message: str) -> None:
        self.notes.append((kind, message))

    def end(self, event: Event) -> None:
        self.ends.append(event)

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it to its end, at once: nothing here waits."""
        try:
            while True:
                work.send(None)
        except StopIteration:
            return

    def after_loss(self, cause: str, replace: Any, *, at_least_s: float = 0.0) -> None:
        self.losses.append(cause)
        self.pauses.append(at_least_s)
        self._replacing.append(replace)

    def recovers(self, cause: str) -> None:
        self.recoveries.append(cause)

    def roll_back(self, cause: str) -> None:
        self.roll_backs.append(cause)

    def replace(self) -> None:
        """Do what was to be done after losses."""
        replacing, self._replacing = self._replacing, []
        for replace in replacing:
            self.do(replace())


class Team:
    """A crew with its surroundings."""

    def __init__(self, *, workers: int = 2, fingerprint: str = "", join: bool = True, **config: Any) -> None:
        self.desk, self.placement = FakeDesk(), FakePlacement()
        spec = attempt(tiny_plan(shards=8, **config), workers=workers, fingerprint=fingerprint)
        self.crew = Crew(spec, self.placement, self.desk)
        self.lines: dict[int, FakeLine] = {}
        self.log: list[tuple[Line, Message]] = []
        self.crew.fill()
        self.crew.introduce(FENCE, ENDPOINTS)
        if join:
            for lease in self.placement.workers:
                self.join(lease)

    def call(self, lease: int, fingerprint: dict[str, str] = FINGERPRINT) -> FakeLine:
        line = self.lines[lease] = FakeLine(log=self.log, role="worker", lease=lease)
        self.crew.is_there(lease, line, {"type": "ready", "node": f"node {lease}", "fingerprint": fingerprint})
        return line

    def join(self, lease: int) -> FakeLine:
        line = self.call(lease)
        self.crew.heard(lease, {"type": "joined", "fence": FENCE})
        return line

    def fails(self, lease: int, message: str = "division by zero", tick: int = 4) -> None:
        text = {"type": "failed", "reason": "TRAINING_ERROR", "message": message, "traceback": f"Traceback of {lease}"}
        self.crew.heard(lease, {**text, "tick": tick})

    def beats(self, lease: int, tick: int, *, working: bool = False) -> None:
        self.crew.heard(lease, {"type": "beat", "tick": tick, "working": working})

    def replace(self) -> None:
        """Have those replaced that were lost, and let them join."""
        before = len(self.placement.workers)
        self.desk.replace()
        for lease in self.placement.workers[before:]:
            self.join(lease)

    @property
    def shards(self) -> dict[int, tuple[int, ...]]:
        """By the lease of those present, as they were told last."""
        found = {}
        for worker in self.crew.present:
            found[worker.lease] = tuple(self.lines[worker.lease].last("assign")["shards"])
            assert worker.shards == found[worker.lease]
        return found
