"""The coordinator: its events are complete and in order, and it tells a lost process from a job at fault."""

from __future__ import annotations

import asyncio
import pickle

import pytest

from chainrule.engine import io
from chainrule.server.training import checkpoint
from chainrule.server.training.checkpoint import Manifest
from chainrule.server.training.coordinator import (
    CheckpointTaken,
    Coordinator,
    Event,
    Failed,
    Finished,
    LostPartError,
    PlacementError,
    Started,
    StepsDone,
    WorkerHandle,
    failure,
)
from chainrule.server.training.link import LinkError
from chainrule.server.training.parameter_server import NonFiniteError, PartitionServer, StalePushError
from chainrule.server.training.reduction import ReductionError
from tests.server.training.in_process import (
    LocalPlacement,
    digest,
    examples,
    initial_state,
    small_plan,
    train,
)


async def all_events(coordinator: Coordinator) -> list[Event]:
    running = asyncio.create_task(coordinator.run())
    events: list[Event] = []
    while not (events and isinstance(events[-1], Finished | Failed)):
        async with asyncio.timeout(60):
            events += await coordinator.events(len(events), timeout_s=10)
    await running
    return events


async def test_a_run_reports_every_step_and_epoch_and_the_same_weights() -> None:
    plan = small_plan(shards=4, workers=3)
    placement = LocalPlacement(examples())
    events = await all_events(Coordinator(plan, initial_state(plan), placement, fence=1))

    steps = [metric.step for event in events if isinstance(event, StepsDone) for metric in event.metrics]
    checkpoints = [event for event in events if isinstance(event, CheckpointTaken)]
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert steps == list(range(1, plan.total_steps + 1))
    assert [(event.epoch, event.step) for event in checkpoints] == [(1, 4), (2, 8)]
    assert placement.stopped

    content = checkpoints[-1].content
    manifest = Manifest("jobs/j", 2, 8, io.digest(content), len(content))
    expected = train(small_plan(shards=4), initial_state(plan), examples()).state_now()
    assert digest(checkpoint.unpack(content, manifest)) == digest(expected)


class Dying:
    """A worker whose process is lost, or whose code raises."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def run(self) -> int:
        raise self._error


@pytest.mark.parametrize(
    ("error", "reason", "lost"),
    [
        (LostPartError("worker died of signal 9"), "PART_LOST", True),
        (LinkError("no answer within 600 s"), "PART_LOST", True),
        (NonFiniteError("the loss is nan at step 3"), "NON_FINITE", False),
        (PlacementError("no CPUs"), "NO_ROOM", False),
        (ZeroDivisionError("division by zero"), "TRAINING_ERROR", False),
    ],
)
async def test_a_failing_worker_ends_the_attempt(error: Exception, reason: str, lost: bool) -> None:
    def wrap(handle: WorkerHandle, index: int) -> WorkerHandle:
        return Dying(error)

    plan = small_plan(workers=2)
    placement = LocalPlacement(examples(), wrap)
    events = await all_events(Coordinator(plan, initial_state(plan), placement, fence=1))
    last = events[-1]
    assert isinstance(last, Failed)
    assert (last.reason, last.message, last.lost) == (reason, str(error), lost)
    assert type(error).__name__ in last.traceback
    assert placement.stopped


async def test_a_job_that_diverges_fails_with_the_cause_and_not_with_what_followed_from_it() -> None:
    plan = small_plan(workers=2)
    state = initial_state(plan)
    state.parameters["fc.weight"][0, 0] = float("nan")
    events = await all_events(Coordinator(plan, state, LocalPlacement(examples()), fence=1))
    last = events[-1]
    assert isinstance(last, Failed)
    assert last.reason == "NON_FINITE"
    assert "the loss is nan at step 1 (epoch 1)" in last.message


async def test_checkpoints_wait_for_one_another_and_metrics_do_not_wait_for_them() -> None:
    """A service that stores slowly gets fewer checkpoints, not a heap of them; but every step, and the last state."""
    plan = small_plan(epochs=40)
    coordinator = Coordinator(
        plan, initial_state(plan), LocalPlacement(examples(), server_class=PartitionServer), fence=1
    )
    running = asyncio.create_task(coordinator.run())
    held: list[Event] = []
    async with asyncio.timeout(60):
        while sum(len(e.metrics) for e in held if isinstance(e, StepsDone)) < plan.total_steps:
            held = await coordinator.events(0, timeout_s=1)  # asks again for the first: nothing is stored yet
            await asyncio.sleep(0.01)
    assert sum(isinstance(event, CheckpointTaken) for event in held) == 1
    rest: list[Event] = []
    while not (rest and isinstance(rest[-1], Finished)):
        async with asyncio.timeout(60):
            rest += await coordinator.events(len(held) + len(rest), timeout_s=10)
    await running
    checkpoints = [event.step for event in rest if isinstance(event, CheckpointTaken)]
    assert checkpoints[-1] == plan.total_steps


async def test_events_that_were_dealt_with_are_forgotten() -> None:
    plan = small_plan(epochs=1)
    coordinator = Coordinator(plan, initial_state(plan), LocalPlacement(examples()), fence=1)
    events = await all_events(coordinator)
    assert await coordinator.events(len(events) - 1, timeout_s=1) == events[-1:]
    assert await coordinator.events(len(events), timeout_s=0.01) == []


async def test_a_plan_that_is_done_finishes_at_once() -> None:
    plan = small_plan(epochs=1)
    done = train(plan, initial_state(plan), examples()).state_now()
    events = await all_events(Coordinator(plan, done, LocalPlacement(examples()), fence=1))
    assert events == [Finished()]


@pytest.mark.parametrize(
    "error",
    [
        LostPartError("gone"),
        NonFiniteError("nan"),
        PlacementError("full"),
        LinkError("late"),
        StalePushError("old"),
        ReductionError("twice"),
    ],
)
def test_errors_survive_the_way_between_processes(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert failure(again).message == failure(error).message
