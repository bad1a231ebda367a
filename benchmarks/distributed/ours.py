"""One of our runs: `python -m benchmarks.distributed.ours WORK ORDER`.

Trains as the service does, with the same coordinator, parameter server and workers in processes of their own, but
without Ray, and stores the checkpoints as the service does. Writes what it measured to its standard output, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import chainrule.engine as cr
from benchmarks.distributed import data
from benchmarks.distributed.orders import Order
from benchmarks.distributed.works import Work
from chainrule.server.blobs import BlobStore
from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.checkpoint import Manifest
from chainrule.server.training.coordinator import Coordinator
from chainrule.server.training.events import CheckpointTaken, Event, Failed, Finished, Incident, StepsDone
from chainrule.server.training.examples import Examples
from chainrule.server.training.local import LocalPlacement
from chainrule.server.training.plan import Plan
from chainrule.server.training.state import StepMetric, TrainingState

JOB = "jobs/benchmark"
EVENTS_TIMEOUT_S = 10.0
"""How long one question for events waits for them."""


class FailedError(Exception):
    """The attempt ended without a result."""


def main() -> None:
    """Trains and writes what was measured."""
    work, order = Work.from_json(sys.argv[1]), Order.from_json(sys.argv[2])
    found = asyncio.run(measure(work, order))
    print(json.dumps(found), flush=True)


async def measure(work: Work, order: Order) -> dict[str, Any]:
    """When each step was done, in the order in which that was reported, its loss, and when something was killed.

    Raises:
        FailedError: the attempt failed.
    """
    spec = attempt(work, order)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(spec, LocalPlacement(spec), order, BlobStore(Path(folder, "blobs")))
        await run.follow()
    return {
        "steps": [metric.step for metric in run.metrics],
        "times_s": [metric.time_s for metric in run.metrics],
        "losses": [metric.loss for metric in run.metrics],
        "parameters": sum(parameter.size for parameter in spec.state.parameters.values()),
        "description": str(cr.kernels.info()),
        "kill_s": run.kill_s,
        "incidents": [asdict(incident) for incident in run.incidents],
    }


def attempt(work: Work, order: Order) -> AttemptSpec:
    """What is computed, from where and on what."""
    plan = data.plan(
        work, workers=order.workers, shards=work.workers, checkpoint_every_steps=order.checkpoint_every_steps
    )
    inputs, targets = data.examples(work)
    return AttemptSpec(
        job=JOB,
        plan=plan,
        state=initial_state(plan),
        examples=Examples(inputs, targets),
        validation=None,
        fence=1,
        workers=order.workers,
    )


def initial_state(plan: Plan) -> TrainingState:
    """The state before the first step, with the parameters that both sides start from."""
    model = plan.architecture.build()
    parameters = {name: parameter.data for name, parameter in model.named_parameters()}
    values = data.initial((name, array.shape) for name, array in parameters.items())
    return TrainingState(
        step=0,
        parameters=dict(zip(parameters, values, strict=True)),
        buffers={name: np.array(buffer.data) for name, buffer in model.named_buffers()},
    )


@dataclass(slots=True)
class Run:
    """An attempt, followed as the service follows it."""

    spec: AttemptSpec
    placement: LocalPlacement
    order: Order
    blobs: BlobStore
    metrics: list[StepMetric] = field(default_factory=list)
    """Of each step, in the order of the reports."""
    incidents: list[Incident] = field(default_factory=list)
    """What the history of the job would tell."""
    kill_s: float | None = None
    """When something was killed, in seconds since 1970 UTC."""

    async def follow(self) -> None:
        """From the beginning to the end. Raises FailedError."""
        coordinator = Coordinator(self.spec, self.placement)
        training = asyncio.create_task(coordinator.run())
        seen = 0
        finished = False
        while not finished:
            events = await coordinator.events(seen, EVENTS_TIMEOUT_S)
            for event in events:
                finished = await self._take(event) or finished
            seen += len(events)
        await training

    async def _take(self, event: Event) -> bool:
        """Deal with an event; whether it was the last. Raises FailedError."""
        match event:
            case StepsDone(metrics):
                self.metrics += metrics
                if self.order.kill and self.kill_s is None and metrics[-1].step >= self.order.kill_after_steps:
                    self._kill()
            case CheckpointTaken():
                await asyncio.to_thread(self._store, event)
            case Incident():
                self.incidents.append(event)
            case Failed(message=message, traceback=text):
                raise FailedError(f"{message}\n{text}".strip())
            case Finished():
                return True
        return False

    def _store(self, taken: CheckpointTaken) -> None:
        digest = self.blobs.put(taken.content.memory)
        self.blobs.put(Manifest(JOB, taken.epoch, taken.step, digest, len(taken.content)).to_json())

    def _kill(self) -> None:
        processes = self.placement.workers if self.order.kill == "worker" else self.placement.partitions
        process = processes[min(processes)]
        assert process.pid is not None  # it has been started
        self.kill_s = time.time()
        os.kill(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
