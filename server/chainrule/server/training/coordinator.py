"""The coordinator: places the parts of one job, watches them, and reports what happens as a sequence of events.

It is not in the loop of steps: workers and partitions exchange those between themselves. What it learns from the
partitions comes in batches, a few times a second.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from chainrule.engine import ChainruleError
from chainrule.server.training import checkpoint
from chainrule.server.training.parameter_server import NonFiniteError, Report
from chainrule.server.training.plan import Plan
from chainrule.server.training.reduction import assign
from chainrule.server.training.state import StepMetric, TrainingState, partition_names

REPORT_TIMEOUT_S = 5.0
"""How long one question to a partition waits for news."""
REPORT_INTERVAL_S = 0.1
"""Least time between two questions: fast steps are reported in batches, not one call each."""


class LostPartError(ChainruleError):
    """A process of the job is gone: nothing is wrong with the job itself, it can go on from its last checkpoint."""


class PlacementError(ChainruleError):
    """The cluster has no room for the job's parts."""


class PartitionHandle(Protocol):
    """A placed partition. Calls raise LostPartError if its process is gone."""

    async def report(self, after_step: int, timeout_s: float) -> Report: ...
    async def take_snapshot(self, step: int) -> TrainingState: ...


class WorkerHandle(Protocol):
    """A placed worker."""

    async def run(self) -> int:
        """Trains to the end. Raises LostPartError if the process is gone, or what the worker raised."""


class Placement(Protocol):
    """Where the parts of a job run."""

    async def start_partition(self, plan: Plan, state: TrainingState, *, fence: int) -> PartitionHandle:
        """Start a partition that owns `state`. Raises PlacementError."""

    async def start_workers(self, plan: Plan, shards: list[range], *, fence: int) -> list[WorkerHandle]:
        """Start a worker for each range of shards, linked to all partitions. Raises PlacementError."""

    async def stop(self) -> None:
        """End everything that was started."""


@dataclass(frozen=True)
class Started:
    """All parts are in place; the first step begins."""


@dataclass(frozen=True)
class StepsDone:
    """Steps that are done, in order."""

    metrics: tuple[StepMetric, ...]


@dataclass(frozen=True)
class CheckpointTaken:
    """A checkpoint, to be stored."""

    step: int
    epoch: int
    content: bytes
    """The packed state."""


@dataclass(frozen=True)
class Finished:
    """All steps are done. The last checkpoint holds the result."""


@dataclass(frozen=True)
class Failed:
    """The attempt is over without a result."""

    reason: str
    """Kind of failure, as a constant."""
    message: str
    traceback: str
    lost: bool
    """True if a process was lost: another attempt can do better. False if the job itself is at fault."""


Event = Started | StepsDone | CheckpointTaken | Finished | Failed


class Coordinator:
    """Runs one attempt at a job."""

    def __init__(self, plan: Plan, state: TrainingState, placement: Placement, *, fence: int) -> None:
        self._plan = plan
        self._state = state
        self._placement = placement
        self._fence = fence
        self._events: list[Event] = []
        self._dropped = 0
        self._news = asyncio.Condition()

    async def run(self) -> None:
        """Train to the end; how it ends is the last event."""
        try:
            await self._train()
        except Exception as error:  # noqa: BLE001 — whatever it was, it becomes the attempt's last event
            await self._emit(failure(error))
        else:
            await self._emit(Finished())
        finally:
            await self._placement.stop()

    async def events(self, after: int, timeout_s: float) -> list[Event]:
        """Events number `after` + 1 and on, waiting up to `timeout_s` seconds for one. Asking for what comes after an
        event says that all up to it have been dealt with: they are forgotten."""
        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(lambda: self._dropped + len(self._events) > after)
        except TimeoutError:
            return []
        del self._events[: after - self._dropped]
        self._dropped = after
        return list(self._events)

    async def _train(self) -> None:
        if self._state.step >= self._plan.total_steps:
            return
        parts = partition_names(self._state, self._plan.partitions)
        partitions = [
            await self._placement.start_partition(self._plan, self._state.restrict(part), fence=self._fence)
            for part in parts
        ]
        ranges = assign(self._plan.config.shards, self._plan.config.workers)
        workers = await self._placement.start_workers(self._plan, ranges, fence=self._fence)
        await self._emit(Started())
        await _first_failure(self._follow(partitions), *(worker.run() for worker in workers))

    async def _follow(self, partitions: list[PartitionHandle]) -> None:
        """Turn the partitions' reports into events until all steps are done."""
        step = self._state.step
        while True:
            report = await partitions[0].report(step, REPORT_TIMEOUT_S)
            if report.metrics:
                step = report.metrics[-1].step
                await self._emit(StepsDone(report.metrics))
            for snapshot in report.snapshots:
                parts = [await partition.take_snapshot(snapshot) for partition in partitions]
                content = checkpoint.pack(TrainingState.join(parts))
                epoch = self._plan.epoch_of(snapshot - 1) + 1
                await self._emit(CheckpointTaken(snapshot, epoch, content))
            if report.finished:
                return
            await asyncio.sleep(REPORT_INTERVAL_S)

    async def _emit(self, event: Event) -> None:
        async with self._news:
            self._events.append(event)
            self._news.notify_all()


def failure(error: Exception) -> Failed:
    """What an exception means for the attempt."""
    if isinstance(error, LostPartError):
        reason = "PART_LOST"
    elif isinstance(error, PlacementError):
        reason = "NO_ROOM"
    elif isinstance(error, NonFiniteError):
        reason = "NON_FINITE"
    else:
        reason = "TRAINING_ERROR"
    text = "".join(traceback.format_exception(error))
    return Failed(reason, str(error), text, lost=isinstance(error, LostPartError))


async def _first_failure(*parts: Coroutine[Any, Any, Any]) -> None:
    """Run all to the end; if some fail, raise the error that says most and leave the rest.

    When a partition refuses a push, every worker fails with what the partition raised; when a process dies, the others
    may fail for want of it. The cause is the one that is not a mere loss, if there is one.
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        errors = [error for task in done if (error := task.exception()) is not None]
        errors.sort(key=lambda error: isinstance(error, LostPartError))
        if errors:
            raise errors[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
