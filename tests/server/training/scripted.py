"""A coordinator whose parts only say what a test has them say."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from chainrule.server.training import checkpoint, coordinator, crew, layout
from chainrule.server.training.checkpoint import Packed
from chainrule.server.training.coordinator import Coordinator
from chainrule.server.training.events import (
    Event,
    Incident,
    Logged,
)
from chainrule.server.training.logs import LogEntry
from chainrule.server.training.plan import Plan
from chainrule.server.training.state import EvaluationMetric, StepMetric, TrainingState
from chainrule.server.training.wire import Endpoint
from tests.server.training.bench import LIMIT_S, NOW_S, tiny_plan, until
from tests.server.training.runs import initial_state
from tests.server.training.stand_ins import FINGERPRINT, FakeLine, FakePlacement, attempt


class Scripted:
    """A coordinator at work, its parts, and what it has reported."""

    def __init__(self, plan: Plan, *, workers: int = 2, lease_s: float = 1e6, **spec: Any) -> None:
        self.plan = plan
        self.placement = FakePlacement()
        self.coordinator = Coordinator(attempt(plan, workers=workers, **spec), self.placement, lease_s=lease_s)
        self.count = layout.count_partitions(plan)
        self.partitions: dict[int, FakeLine] = {}
        self.workers: dict[int, FakeLine] = {}
        self.found: list[Event] = []
        self.running = asyncio.create_task(self.coordinator.run())

    # --- parts ---

    @property
    def fence(self) -> int:
        return self.placement.partitions[-1].fence

    async def asked_for(self, *, lives: int = 1) -> None:
        """Until partitions and workers have been asked for."""
        await until(lambda: len(self.placement.partitions) == lives * self.count and bool(self.placement.workers))

    def start_partition(self, index: int) -> FakeLine:
        line = self.partitions[index] = FakeLine(role="partition", index=index, fence=self.fence)
        endpoint = Endpoint("here", f"partition {index}", "127.0.0.1", index)
        self.coordinator.heard(line, {"type": "ready", "endpoint": asdict(endpoint)}, memoryview(b""))
        return line

    def start_worker(self, lease: int) -> FakeLine:
        line = self.workers[lease] = FakeLine(role="worker", lease=lease)
        self.coordinator.heard(line, {"type": "ready", "node": "here", "fingerprint": FINGERPRINT}, memoryview(b""))
        self.join(lease)
        return line

    def join(self, lease: int) -> None:
        self.worker_says(lease, type="joined", fence=self.fence)

    def start(self) -> None:
        for index in range(self.count):
            self.start_partition(index)
        for lease in self.placement.workers:
            self.start_worker(lease)

    def worker_says(self, lease: int, **message: Any) -> None:
        self.coordinator.heard(self.workers[lease], message, memoryview(b""))

    def says(self, index: int = 0, *, blob: bytes = b"", **message: Any) -> None:
        """A partition says something."""
        self.coordinator.heard(self.partitions[index], {"index": index, **message}, memoryview(blob))

    def progress(self, *steps: int, missing: Sequence[int] = (), evaluations: Sequence[EvaluationMetric] = ()) -> None:
        """The first partition has done these steps, or is where it was."""
        done = max(steps, default=0)
        metrics = [asdict(StepMetric(step, 1, 0.5, 0.25, 16, NOW_S)) for step in steps]
        tick = self.plan.tick_after(done)
        found = [asdict(evaluation) for evaluation in evaluations]
        self.says(
            type="progress", tick=tick, step=done, metrics=metrics, evaluations=found, skipped=[], missing=list(missing)
        )

    def snapshot(self, step: int, *, index: int = 0) -> Packed:
        content = checkpoint.pack(state_at(self.plan, step))
        self.says(index, type="snapshot", step=step, blob=content)
        return Packed(content)

    # --- what it has reported ---

    async def events(self) -> list[Event]:
        """What is new; all of it has been dealt with when this is called again."""
        new = await self.coordinator.events(len(self.found), 0.001)
        self.found += new
        return new

    async def end(self) -> Event:
        """How it ends."""
        async with asyncio.timeout(LIMIT_S):
            await self.running
        await self.events()
        return self.found[-1]

    @property
    def found_but_logs(self) -> list[Event]:
        return [event for event in self.found if not isinstance(event, Logged)]

    @property
    def logged(self) -> list[LogEntry]:
        return [entry for event in self.of(Logged) for entry in event.entries]

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.found if isinstance(event, kind)]

    async def incidents(self, kind: str) -> list[str]:
        await self.events()
        return [event.message for event in self.of(Incident) if event.kind == kind]


class Clock:
    """Time as coordinators and crews see it, which passes when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(coordinator, "AWAY_S", math.inf)  # nobody was held up
        for module in (coordinator, crew):
            monkeypatch.setattr(module, "time", self)

    def monotonic(self) -> float:
        return self.now_s

    def passes(self, seconds: float) -> None:
        self.now_s += seconds


def state_at(plan: Plan, step: int) -> TrainingState:
    """Something like the state after a step."""
    state = initial_state(plan)
    slots = {"momentum_buffer": {name: np.zeros_like(array) for name, array in state.parameters.items()}}
    return replace(state, step=step, updates=step, slots=slots)


@asynccontextmanager
async def running(plan: Plan | None = None, *, start: bool = True, **spec: Any) -> AsyncIterator[Scripted]:
    run = Scripted(plan or tiny_plan(), **spec)
    try:
        if start:
            await run.asked_for()
            run.start()
        yield run
    finally:
        run.running.cancel()
        await asyncio.gather(run.running, return_exceptions=True)


def evaluation(epoch: int, loss: float) -> EvaluationMetric:
    return EvaluationMetric(epoch, 3 * epoch, loss, 0.5, 10, NOW_S)


def hangs_up(run: Scripted) -> None:
    """The first partition does."""
    run.coordinator.lost(run.partitions[0])
