"""What an attempt reports, put into the store in order."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from chainrule.server.errors import IllegalStateError
from chainrule.server.jobs.checkpoints import Checkpoints
from chainrule.server.jobs.feed import Feed
from chainrule.server.jobs.logs import IN_JOB_LOGS
from chainrule.server.jobs.patience import to_the_end
from chainrule.server.jobs.transitions import Transitions
from chainrule.server.records import Cause, Job, JobState
from chainrule.server.store import Store
from chainrule.server.training.events import (
    CheckpointTaken,
    Evaluated,
    Failed,
    Incident,
    Logged,
    ReceiptTaken,
    Started,
    StepsDone,
    WorkersChanged,
)
from chainrule.server.training.plan import Plan
from chainrule.server.training.state import StepMetric

NOT_REPRODUCIBLE = "NOT_REPRODUCIBLE"
"""Reason of a job that computed a step again and came to another state."""

Report = Started | StepsDone | Evaluated | CheckpointTaken | ReceiptTaken | Incident | WorkersChanged | Logged
"""The events that do not end an attempt."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setback:
    """That an attempt does not go on where the one before it stood."""

    cause: str
    reached: int
    """Steps that were done before."""
    since_s: float
    """When progress stopped, in seconds since 1970 UTC."""


def setback(job: Job, latest: StepMetric | None, *, step: int) -> Setback | None:
    """What an attempt that begins after `step` steps has to make up for; None if that is nothing. It is told from the
    job's history, so that it is the same whether or not the service was restarted meanwhile.

    Progress stopped when the last stored step was done; where there is none, when the job began to recover; and while
    the job was paused it was not expected.
    """
    last_run = max((i for i, change in enumerate(job.history) if change.state is JobState.RUNNING), default=-1)
    since_then = job.history[last_run + 1 :]
    losses = [change for change in since_then if change.state is JobState.RECOVERING]
    pauses = [change for change in since_then if change.state is JobState.PAUSED]
    reached = latest.step if latest is not None else 0
    if not losses and not (pauses and step < reached):
        return None
    since_s = latest.time_s if latest is not None else (losses or pauses)[0].time.timestamp()
    resumed = [change.time.timestamp() for change in since_then if change.state is JobState.QUEUED]
    if pauses and resumed:
        since_s = resumed[-1]
    return Setback((losses or pauses)[-1].reason, reached, since_s)


class Recorder:
    """Stores what one attempt at a job reports."""

    def __init__(
        self,
        job: str,
        plan: Plan,
        *,
        first_step: int,
        setback: Setback | None,
        store: Store,
        checkpoints: Checkpoints,
        transitions: Transitions,
        feed: Feed,
    ) -> None:
        self.step = first_step
        """Steps done, as far as reported."""
        self.started = False
        """Whether the attempt has begun to compute."""
        self._job = job
        self._plan = plan
        self._setback = setback
        self._recovery: int | None = None  # number of the event whose cost is not known yet
        self._enough = True
        self._store = store
        self._checkpoints = checkpoints
        self._transitions = transitions
        self._feed = feed

    async def record(self, event: Report) -> Failed | None:
        """Store an event. What it shows to be wrong with the job ends the attempt.

        Raises StoreUnavailableError, or IllegalStateError if a cancel or a pause came before the attempt began.
        """
        failed = None
        match event:
            case Started():
                await self._start(event)
            case StepsDone(metrics):
                await to_the_end(self._store.add_metrics, self._job, metrics)
                self.step = metrics[-1].step if metrics else self.step
                await self._count_cost(metrics)
            case Evaluated(metric):
                await to_the_end(self._store.add_evaluation, self._job, metric)
            case CheckpointTaken():
                await to_the_end(self._checkpoints.add, self._job, event)
                await to_the_end(self._checkpoints.retire, self._job, self._plan)
            case ReceiptTaken():
                failed = await self._chain(event)
            case Incident():
                logger.info("%s: %s: %s", self._job, event.kind, event.message, **IN_JOB_LOGS)
                await self._tell(event)
            case Logged(entries):
                await to_the_end(self._store.add_logs, self._job, entries)
                self._feed.ring_logs(self._job)
                return None
            case WorkersChanged():
                await self._count_workers(event)
        self._feed.ring(self._job)
        return failed

    async def _start(self, event: Started) -> None:
        await to_the_end(self._store.set_fingerprint, self._job, event.fingerprint)
        reason = f"{event.workers} of {self._plan.config.max_workers} workers are in place"
        await self._transitions.move(JobState.RUNNING, reason, cause=Cause.TRAINING, running_workers=event.workers)
        self.started = True
        if self._setback is not None:
            lost = self._setback.reached - self.step
            what = (
                f"went back from step {self._setback.reached} to {self.step}"
                if lost
                else f"goes on at step {self.step}"
            )
            self._recovery = await self._tell(Incident("recovery", f"{what}: {self._setback.cause}", self.step))

    async def _count_cost(self, metrics: tuple[StepMetric, ...]) -> None:
        """Once the job is further than before a loss, it is known what that has cost."""
        if self._setback is None or self._recovery is None:
            return
        beyond = next((metric for metric in metrics if metric.step > self._setback.reached), None)
        if beyond is not None:
            cost_s = max(0.0, beyond.time_s - self._setback.since_s)
            await to_the_end(self._store.set_seconds_lost, self._recovery, cost_s)
            self._recovery = None

    async def _chain(self, taken: ReceiptTaken) -> Failed | None:
        known = await to_the_end(self._store.add_receipt, self._job, step=taken.step, state_digest=taken.state_digest)
        if known is None:
            logger.warning("%s: the receipt of step %d came after later ones and is left out", self._job, taken.step)
            return None
        if known.state_digest == taken.state_digest:
            return None
        message = (
            f"step {taken.step} was computed again and led to another state: its SHA-256 was {known.state_digest} and "
            f"is {taken.state_digest} now. A machine computes wrongly, or something was damaged on the way; look at "
            "the job's events for what ran it, and submit it again, with exact false if this is to be allowed"
        )
        logger.error("%s: %s", self._job, message)
        await self._tell(Incident("corruption", message, taken.step))
        return Failed(NOT_REPRODUCIBLE, message, traceback="", lost=False)

    async def _tell(self, incident: Incident) -> int:
        return await to_the_end(
            self._store.add_event,
            self._job,
            incident.kind,
            incident.message,
            step=incident.step,
            seconds_lost=incident.seconds_lost,
        )

    async def _count_workers(self, event: WorkersChanged) -> None:
        """Without enough workers the job recovers; one that is about to pause does that with the workers it has."""
        if event.enough == self._enough:
            await to_the_end(self._store.set_running_workers, self._job, event.workers)
            return
        self._enough = event.enough
        to, cause = (JobState.RUNNING, Cause.CAPACITY) if event.enough else (JobState.RECOVERING, Cause.LOSS)
        try:
            await self._transitions.move(to, event.reason, cause=cause, running_workers=event.workers)
        except IllegalStateError as error:
            logger.info("%s: %s", self._job, error)
            await to_the_end(self._store.set_running_workers, self._job, event.workers)
