"""What the service and the training runtime know of each other: an attempt at a job, asked for and followed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from chainrule.server.training.events import Event
from chainrule.server.training.examples import ExampleSource
from chainrule.server.training.plan import Plan
from chainrule.server.training.state import EvaluationMetric, TrainingState


@dataclass(frozen=True)
class AttemptSpec:
    """One life of a job's processes."""

    job: str
    """Resource name."""
    plan: Plan
    """What is computed."""
    state: TrainingState
    """Where it begins."""
    examples: ExampleSource
    """What it is trained on: `plan.num_examples` examples."""
    validation: ExampleSource | None
    """What it is evaluated on: `plan.num_validation` examples; None if that is 0."""
    fence: int
    """Number of the attempt; those of one job rise and never repeat."""
    workers: int
    """Workers to begin with; `scale` changes it."""
    fingerprint: str = ""
    """What the job's workers must compute with, as the first attempt reported it; empty: nothing is known yet."""
    evaluations: tuple[EvaluationMetric, ...] = ()
    """Evaluations stored so far, for early stopping."""


class Attempt(Protocol):
    """A coordinator at work."""

    async def events(self, after: int, timeout_s: float) -> list[Event]:
        """Events number `after` + 1 and on, waiting up to `timeout_s` seconds for one. Asking for what comes after an
        event says that all up to it are stored: they are forgotten. Raises LostPartError if the coordinator is gone."""

    async def scale(self, workers: int) -> None:
        """Go on with that many workers, as far as the cluster has room. Raises LostPartError."""

    async def pause(self) -> None:
        """Stop after the running step, take a checkpoint, and report Paused. Raises LostPartError."""

    async def stop(self) -> None:
        """End the coordinator and its parts."""


class Launcher(Protocol):
    """Starts attempts."""

    async def launch(self, spec: AttemptSpec) -> Attempt:
        """Start a coordinator. If it raises, nothing of it stays on the cluster.

        Raises PlacementError if there is no room, ClusterUnreachableError if the cluster does not answer.
        """
