"""Training runs on this machine: jobs small enough for tests, run to their end in real processes, and their digests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np

from chainrule.engine import Generator
from chainrule.server.architecture import Builtin
from chainrule.server.training import checkpoint
from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.checkpoint import Packed
from chainrule.server.training.config import Sgd, TrainingConfig
from chainrule.server.training.coordinator import Coordinator
from chainrule.server.training.events import (
    CheckpointTaken,
    Evaluated,
    Event,
    Failed,
    Finished,
    Incident,
    Paused,
    ReceiptTaken,
    Started,
    StepsDone,
    WorkersChanged,
)
from chainrule.server.training.examples import Examples, ExampleSource
from chainrule.server.training.local import LocalPlacement
from chainrule.server.training.plan import Plan
from chainrule.server.training.state import TrainingState

NUM_EXAMPLES = 50
MAX_ATTEMPTS = 50
E = TypeVar("E")


def images(count: int = NUM_EXAMPLES, *, size: int = 8, channels: int = 1, seed: int = 0) -> Examples:
    """Random images of ten classes."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(count, channels, size, size)).astype(np.float32)
    return Examples(inputs, rng.integers(0, 10, size=count))


def small_plan(*, family_config: dict[str, object] | None = None, num_validation: int = 0, **config: Any) -> Plan:
    """A `small_cnn` on the images above; the last batch of an epoch is ragged."""
    settings: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 16,
        "shards": 4,
        "seed": 3,
        "optimizer": Sgd(lr=0.05, momentum=0.9, weight_decay=1e-4),
        "max_workers": 4,
    }
    return Plan(
        Builtin("small_cnn", family_config or {"width": 4}),
        NUM_EXAMPLES,
        num_validation,
        TrainingConfig(**{**settings, **config}),
    )


def with_config(plan: Plan, **config: Any) -> Plan:
    """The plan with another configuration."""
    return replace(plan, config=replace(plan.config, **config))


def initial_state(plan: Plan) -> TrainingState:
    """The state before the first step."""
    model = plan.architecture.build(Generator(1))
    parameters = {name: value.data.copy() for name, value in model.named_parameters()}
    saved = model.state_dict()
    buffers = {name: np.array(value.data, copy=True) for name, value in model.named_buffers() if name in saved}
    return TrainingState(0, parameters, buffers)


# --- what came of it -------------------------------------------------------------------------------------------


class Run:
    """A job that runs, and what it has reported."""

    coordinator: Coordinator
    """Of the present attempt."""
    placement: LocalPlacement
    """Of the present attempt: its processes."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.attempts = 0
        self._news = asyncio.Event()

    def add(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, CheckpointTaken):  # its memory is used again
                event = replace(event, content=Packed(bytes(event.content.memory)))
            self.events.append(event)
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition of what was reported holds."""
        while not condition():
            await self.news()

    async def news(self) -> None:
        """Wait until something is reported."""
        self._news.clear()
        await self._news.wait()

    async def until_step(self, step: int) -> None:
        """Wait until so many steps are done."""
        await self.until(lambda: step in self.steps)

    async def until_workers(self, workers: int) -> None:
        """Wait until so many workers are at work."""
        await self.until(lambda: self.workers == workers)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def last(self) -> Event:
        return self.events[-1]

    @property
    def is_over(self) -> bool:
        """Whether the attempt is."""
        return bool(self.events) and isinstance(self.last, Finished | Failed | Paused)

    @property
    def state(self) -> TrainingState:
        """The state of the checkpoint that holds the result, or of the last one."""
        content = {event.step: event.content for event in self.of(CheckpointTaken)}
        step = self.last.step if isinstance(self.last, Finished) else self.of(CheckpointTaken)[-1].step
        return checkpoint.unpacked(content[step].memory)

    @property
    def digest(self) -> str:
        """Of weights, optimizer state and statistics at the end."""
        assert isinstance(self.last, Finished | Paused), self.last
        return self.state.digest()

    @property
    def receipts(self) -> dict[int, str]:
        """Digests by step. One that comes again, after a recovery, must be what it was."""
        found: dict[int, str] = {}
        for event in self.of(ReceiptTaken):
            assert found.setdefault(event.step, event.state_digest) == event.state_digest, f"step {event.step}"
        return found

    @property
    def steps(self) -> list[int]:
        return [metric.step for event in self.of(StepsDone) for metric in event.metrics]

    @property
    def losses(self) -> dict[int, float]:
        """By step."""
        return {metric.step: metric.loss for event in self.of(StepsDone) for metric in event.metrics}

    @property
    def evaluations(self) -> dict[int, tuple[float, float | None]]:
        """Loss and accuracy by epoch."""
        return {event.metric.epoch: (event.metric.loss, event.metric.accuracy) for event in self.of(Evaluated)}

    @property
    def workers(self) -> int:
        """How many are at work, as far as was reported."""
        counts = [event.workers for event in self.events if isinstance(event, Started | WorkersChanged)]
        return counts[-1] if counts else 0

    @property
    def fingerprint(self) -> str:
        """What it was computed with."""
        return self.of(Started)[0].fingerprint

    @property
    def incidents(self) -> list[tuple[str, str]]:
        return [(event.kind, event.message) for event in self.of(Incident)]

    def incidents_of(self, kind: str) -> list[str]:
        return [message for found, message in self.incidents if found == kind]


Meddle = Callable[[Run], Awaitable[None]]


@dataclass(frozen=True)
class Setting:
    """Where and how the processes of a run are started; nothing of it may change what is computed."""

    workers: int = 1
    links: str = "memory"
    environment: Callable[[str], dict[str, str]] = field(default=lambda _: {})
    """Variables for a part: "worker 3", "partition 0"."""
    lease_s: float = 5.0
    start: Literal["spawn", "forkserver"] = "forkserver"
    placement: type[LocalPlacement] = LocalPlacement
    timeout_s: float = 120.0


# --- running ---------------------------------------------------------------------------------------------------


async def run(
    plan: Plan,
    *,
    state: TrainingState | None = None,
    data: ExampleSource | None = None,
    validation: ExampleSource | None = None,
    meddle: Meddle | None = None,
    fence: int = 1,
    fingerprint: str = "",
    **setting: Any,
) -> Run:
    """Run one attempt at a plan to its end; `meddle` can disturb it meanwhile. See Setting for the rest."""
    spec = AttemptSpec(
        job="jobs/test",
        plan=plan,
        state=state or initial_state(plan),
        examples=data or images(plan.num_examples),
        validation=validation,
        fence=fence,
        workers=0,
        fingerprint=fingerprint,
    )
    return await _with_meddling(spec, meddle, Setting(**setting), attempts=1)


async def train(
    plan: Plan,
    *,
    data: ExampleSource | None = None,
    validation: ExampleSource | None = None,
    meddle: Meddle | None = None,
    fingerprint: str = "",
    **setting: Any,
) -> Run:
    """Run a job to its end as the service does: an attempt that was lost or paused is followed by another, with the
    next fence, from the last checkpoint. `meddle` goes on from one to the next."""
    spec = AttemptSpec(
        job="jobs/test",
        plan=plan,
        state=initial_state(plan),
        examples=data or images(plan.num_examples),
        validation=validation,
        fence=1,
        workers=0,
        fingerprint=fingerprint,
    )
    return await _with_meddling(spec, meddle, Setting(**setting), attempts=MAX_ATTEMPTS)


async def _with_meddling(spec: AttemptSpec, meddle: Meddle | None, setting: Setting, *, attempts: int) -> Run:
    found = Run()
    meddling = asyncio.ensure_future(meddle(found)) if meddle else None
    try:
        async with asyncio.timeout(setting.timeout_s):
            while True:
                await _attempt(replace(spec, workers=setting.workers), setting, found, meddling)
                found.attempts += 1
                lost = isinstance(found.last, Failed) and found.last.lost
                if found.attempts == attempts or not (lost or isinstance(found.last, Paused)):
                    break
                spec = _next(spec, found)
            if meddling is not None:
                await meddling
    finally:
        if meddling is not None:
            meddling.cancel()
            await asyncio.gather(meddling, return_exceptions=True)
    return found


async def _attempt(spec: AttemptSpec, setting: Setting, found: Run, meddling: asyncio.Future[None] | None) -> None:
    placement = setting.placement(spec, links=setting.links, environment=setting.environment, start=setting.start)
    coordinator = Coordinator(spec, placement, lease_s=setting.lease_s)
    found.coordinator, found.placement = coordinator, placement
    running = asyncio.create_task(coordinator.run())
    seen = 0
    try:
        while not (seen and found.is_over):
            events = await coordinator.events(seen, 10.0)
            seen += len(events)
            found.add(events)
            if meddling is not None and meddling.done():
                meddling.result()  # what it raised ends the run
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _next(spec: AttemptSpec, found: Run) -> AttemptSpec:
    """The attempt after one that is over."""
    checkpoints = found.of(CheckpointTaken)
    state = checkpoint.unpacked(checkpoints[-1].content.memory) if checkpoints else spec.state
    evaluations = {event.metric.epoch: event.metric for event in found.of(Evaluated) if event.metric.step < state.step}
    return replace(
        spec,
        state=state,
        fence=spec.fence + 1,
        fingerprint=found.fingerprint if found.of(Started) else spec.fingerprint,
        evaluations=tuple(evaluations[epoch] for epoch in sorted(evaluations)),
    )
