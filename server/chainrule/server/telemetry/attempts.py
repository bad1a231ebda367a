"""Counts what attempts at jobs report, on its way to the service."""

from __future__ import annotations

from chainrule.server.telemetry.metrics import Metrics
from chainrule.server.training.attempt import Attempt, AttemptSpec, Launcher
from chainrule.server.training.errors import LostPartError
from chainrule.server.training.events import Event, Failed, Incident, StepsDone

PART_LOST = "part_lost"
"""Cause of a recovery within an attempt: a worker or a partition is gone. Stragglers and corruption are causes, too."""
ATTEMPT_LOST = "attempt_lost"
"""Cause of a recovery where a coordinator gave up and the next one begins from the last checkpoint."""
COORDINATOR_LOST = "coordinator_lost"
"""Cause of a recovery where the coordinator itself is gone. One that is there and silent is not counted: whether it has
been so for too long is decided by who asks."""


class CountingLauncher:
    """A launcher whose attempts are counted."""

    def __init__(self, launcher: Launcher, metrics: Metrics) -> None:
        self._launcher = launcher
        self._metrics = metrics

    async def launch(self, spec: AttemptSpec) -> Attempt:
        """As `Launcher` says."""
        return _CountedAttempt(await self._launcher.launch(spec), self._metrics)


class _CountedAttempt:
    """An attempt whose events are counted, each once."""

    def __init__(self, attempt: Attempt, metrics: Metrics) -> None:
        self._attempt = attempt
        self._metrics = metrics
        self._counted = 0

    async def events(self, after: int, timeout_s: float) -> list[Event]:
        try:
            events = await self._attempt.events(after, timeout_s)
        except LostPartError:
            self._metrics.recoveries.labels(COORDINATOR_LOST).inc()
            raise
        for event in events[max(0, self._counted - after) :]:
            self._count(event)
        self._counted = max(self._counted, after + len(events))
        return events

    async def scale(self, workers: int) -> None:
        await self._attempt.scale(workers)

    async def pause(self) -> None:
        await self._attempt.pause()

    async def stop(self) -> None:
        await self._attempt.stop()

    def _count(self, event: Event) -> None:
        match event:
            case StepsDone(metrics):
                self._metrics.steps.inc(len(metrics))
                self._metrics.examples.inc(sum(metric.num_examples for metric in metrics))
            case Incident(kind="recovery"):
                self._metrics.recoveries.labels(PART_LOST).inc()
            case Incident(kind="straggler" | "corruption"):
                self._metrics.recoveries.labels(event.kind).inc()
            case Failed(lost=True):
                self._metrics.recoveries.labels(ATTEMPT_LOST).inc()
