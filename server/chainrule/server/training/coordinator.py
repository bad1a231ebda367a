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
from chainrule.server.training.link import LinkError
from chainrule.server.training.parameter_server import NonFiniteError, Report
from chainrule.server.training.plan import Plan
from chainrule.server.training.reduction import assign
from chainrule.server.training.state import StepMetric, TrainingState

REPORT_TIMEOUT_S = 5.0
"""How long one question to a partition waits for news."""
STEP_TIMEOUT_S = 900.0
"""How long a step may take before its workers count as lost."""
REPORT_INTERVAL_S = 0.1
"""Least time between two questions: fast steps are reported in batches, not one call each."""


NO_ROOM = "NO_ROOM"
"""Reason of an attempt for which the cluster had no room."""


class LostPartError(ChainruleError):
    """A process of the job is gone: nothing is wrong with the job itself, it can go on from its last checkpoint."""


class PlacementError(ChainruleError):
    """The cluster has no room for the job's parts."""


class PartitionHandle(Protocol):
    """A placed partition. Calls raise LostPartError if its process is gone."""

    async def report(self, after_step: int, timeout_s: float, *, with_snapshot: bool) -> Report: ...


class WorkerHandle(Protocol):
    """A placed worker."""

    async def run(self) -> int:
        """Trains to the end. Raises LostPartError if the process is gone, or what the worker raised."""


class Placement(Protocol):
    """Where the parts of a job run."""

    async def start_partition(self, plan: Plan, state: TrainingState, *, fence: int) -> PartitionHandle:
        """Start a partition that owns `state`. Raises PlacementError."""

    async def start_workers(self, plan: Plan, shards: list[range], *, fence: int) -> list[WorkerHandle]:
        """Start a worker for each range of shards, linked to the partition. Raises PlacementError."""

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
        async with self._news:
            del self._events[: after - self._dropped]
            self._dropped = after
            self._news.notify_all()
        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(lambda: bool(self._events))
        except TimeoutError:
            pass  # nothing new is an answer too
        return list(self._events)

    async def _train(self) -> None:
        if self._state.step >= self._plan.total_steps:
            return
        partition = await self._placement.start_partition(self._plan, self._state, fence=self._fence)
        ranges = assign(self._plan.config.shards, self._plan.config.workers)
        workers = await self._placement.start_workers(self._plan, ranges, fence=self._fence)
        await self._emit(Started())
        await _first_failure(self._follow(partition), *(worker.run() for worker in workers))

    async def _follow(self, partition: PartitionHandle) -> None:
        """Turn the partition's reports into events until the checkpoint after the last step is one of them.

        The next snapshot is fetched once the checkpoint before it has been stored: where epochs end faster than their
        checkpoints are stored, some have none, and none pile up.
        """
        clock = asyncio.get_running_loop().time
        step = checkpointed = self._state.step
        last_step_s = clock()
        while checkpointed < self._plan.total_steps:
            if step == self._plan.total_steps:
                await self._checkpoints_stored()
            report = await partition.report(step, REPORT_TIMEOUT_S, with_snapshot=not self._checkpoint_waits())
            if report.metrics:
                step, last_step_s = report.metrics[-1].step, clock()
                await self._emit(StepsDone(report.metrics))
            if report.snapshot is not None:
                checkpointed = report.snapshot.step
                content = checkpoint.pack(report.snapshot)
                await self._emit(CheckpointTaken(checkpointed, self._plan.epoch_of(checkpointed - 1) + 1, content))
            if clock() - last_step_s > STEP_TIMEOUT_S:
                raise LostPartError(f"step {step + 1} was not done within {STEP_TIMEOUT_S:.0f} s; a worker hangs")
            await asyncio.sleep(REPORT_INTERVAL_S)

    def _checkpoint_waits(self) -> bool:
        return any(isinstance(event, CheckpointTaken) for event in self._events)

    async def _checkpoints_stored(self) -> None:
        async with self._news:
            await self._news.wait_for(lambda: not self._checkpoint_waits())

    async def _emit(self, event: Event) -> None:
        async with self._news:
            self._events.append(event)
            self._news.notify_all()


def failure(error: Exception) -> Failed:
    """What an exception means for the attempt."""
    lost = isinstance(error, LostPartError | LinkError)  # no answer is no fault of the job
    if lost:
        reason = "PART_LOST"
    elif isinstance(error, PlacementError):
        reason = NO_ROOM
    elif isinstance(error, NonFiniteError):
        reason = "NON_FINITE"
    else:
        reason = "TRAINING_ERROR"
    text = "".join(traceback.format_exception(error))
    return Failed(reason, str(error), text, lost=lost)


async def _first_failure(*parts: Coroutine[Any, Any, Any]) -> None:
    """Run all to the end; if some fail, raise the error that says most and leave the rest.

    When a partition refuses a push, every worker fails with what the partition raised; when a process dies, the others
    may fail for want of it. The cause is the one that is not a mere loss, if there is one.
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        errors = [error for task in done if (error := task.exception()) is not None]
        errors.sort(key=lambda error: isinstance(error, LostPartError | LinkError))
        if errors:
            raise errors[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
