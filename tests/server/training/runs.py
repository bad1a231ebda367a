"""Training runs on this machine: jobs small enough for tests, run to their end in real processes, and their digests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from chainrule.engine import Generator, models
from chainrule.server.training import checkpoint
from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.config import Sgd, TrainingConfig
from chainrule.server.training.coordinator import Coordinator
from chainrule.server.training.events import (
    CheckpointTaken,
    Event,
    Failed,
    Finished,
    Incident,
    Paused,
    ReceiptTaken,
    StepsDone,
)
from chainrule.server.training.examples import Examples
from chainrule.server.training.local import LocalPlacement
from chainrule.server.training.plan import Plan
from chainrule.server.training.state import TrainingState

NUM_EXAMPLES = 50
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
        "small_cnn",
        family_config or {"width": 4},
        NUM_EXAMPLES,
        num_validation,
        TrainingConfig(**{**settings, **config}),
    )


def initial_state(plan: Plan) -> TrainingState:
    """The state before the first step."""
    model = models.build(plan.family, plan.family_config, generator=Generator(1))
    parameters = {name: value.data.copy() for name, value in model.named_parameters()}
    buffers = {name: np.array(value.data, copy=True) for name, value in model.named_buffers()}
    return TrainingState(0, parameters, buffers)


@dataclass
class Run:
    """What a run reported."""

    events: list[Event] = field(default_factory=list)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def last(self) -> Event:
        return self.events[-1]

    @property
    def state(self) -> TrainingState:
        """The state of the last checkpoint."""
        return checkpoint.unpacked(self.of(CheckpointTaken)[-1].content)

    @property
    def digest(self) -> str:
        """Of weights, optimizer state and statistics at the end."""
        assert isinstance(self.last, Finished | Paused), self.last
        return self.state.digest()

    @property
    def receipts(self) -> dict[int, str]:
        return {event.step: event.state_digest for event in self.of(ReceiptTaken)}

    @property
    def steps(self) -> list[int]:
        return [metric.step for event in self.of(StepsDone) for metric in event.metrics]

    @property
    def incidents(self) -> list[tuple[str, str]]:
        return [(event.kind, event.message) for event in self.of(Incident)]


Meddle = Callable[[Coordinator, LocalPlacement, Run], Awaitable[None]]


async def run(
    plan: Plan,
    *,
    workers: int = 1,
    state: TrainingState | None = None,
    data: Examples | None = None,
    validation: Examples | None = None,
    meddle: Meddle | None = None,
    environment: Callable[[str], dict[str, str]] = lambda _: {},
    links: str = "memory",
    fence: int = 1,
    lease_s: float = 5.0,
    fingerprint: str = "",
    timeout_s: float = 120.0,
) -> Run:
    """Run a plan to its end; `meddle` can disturb it meanwhile."""
    spec = AttemptSpec(
        job="jobs/test",
        plan=plan,
        state=state or initial_state(plan),
        examples=data or images(),
        validation=validation,
        fence=fence,
        workers=workers,
        fingerprint=fingerprint,
    )
    placement = LocalPlacement(spec, links=links, environment=environment)
    coordinator = Coordinator(spec, placement, lease_s=lease_s)
    found = Run()
    running = asyncio.create_task(coordinator.run())
    meddling = asyncio.ensure_future(meddle(coordinator, placement, found)) if meddle else None
    try:
        async with asyncio.timeout(timeout_s):
            while not (found.events and isinstance(found.last, Finished | Failed | Paused)):
                found.events += await coordinator.events(len(found.events), 10.0)
            await running
            if meddling is not None:
                await meddling
    finally:
        running.cancel()
        if meddling is not None:
            meddling.cancel()
        await asyncio.gather(running, *([meddling] if meddling else []), return_exceptions=True)
    return found


def with_workers(plan: Plan, **config: Any) -> Plan:
    """The plan with another configuration."""
    return replace(plan, config=replace(plan.config, **config))
