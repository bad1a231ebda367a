"""One job, from PREPARING to its end: starts attempts, stores what they report, and starts the next one from the last
checkpoint when a process was lost."""

from __future__ import annotations

import asyncio
import logging
import traceback
from dataclasses import replace
from typing import Protocol

from chainrule.engine import io
from chainrule.server.blobs import BlobStore
from chainrule.server.datasets import DatasetCatalog
from chainrule.server.errors import (
    ClusterUnreachableError,
    IllegalStateError,
    ServiceError,
    StoreUnavailableError,
)
from chainrule.server.jobs import policies
from chainrule.server.jobs.feed import Feed
from chainrule.server.jobs.patience import to_the_end, until_stored
from chainrule.server.jobs.submission import make_plan
from chainrule.server.models import ModelCatalog
from chainrule.server.records import JobFailure, JobState
from chainrule.server.store import Store
from chainrule.server.training import checkpoint
from chainrule.server.training.checkpoint import CheckpointError, Manifest
from chainrule.server.training.coordinator import (
    NO_ROOM,
    CheckpointTaken,
    Event,
    Failed,
    Finished,
    LostPartError,
    PlacementError,
    Started,
    StepsDone,
    failure,
)
from chainrule.server.training.plan import Plan
from chainrule.server.training.state import TrainingState
from chainrule.server.training.worker import Examples

EVENTS_TIMEOUT_S = 10.0
"""How long one question to a coordinator waits for news."""
SILENCE_TIMEOUT_S = 60.0
"""How long a coordinator may take to answer before it counts as lost."""

logger = logging.getLogger(__name__)


class Attempt(Protocol):
    """A coordinator at work."""

    async def events(self, after: int, timeout_s: float) -> list[Event]:
        """Events number `after` + 1 and on. Raises LostPartError if the coordinator is gone."""

    async def stop(self) -> None:
        """End the coordinator and its parts."""


class Launcher(Protocol):
    """Starts coordinators."""

    async def launch(
        self, job: str, plan: Plan, state: TrainingState, examples: Examples, *, fence: int
    ) -> Attempt: ...


class JobRun:
    """Takes one job through its states. What it is told to stop by is cancellation of `run`."""

    def __init__(
        self,
        name: str,
        *,
        workers: int,
        store: Store,
        blobs: BlobStore,
        models: ModelCatalog,
        datasets: DatasetCatalog,
        launcher: Launcher,
        feed: Feed,
    ) -> None:
        self._name = name
        self._workers = workers
        self._store = store
        self._blobs = blobs
        self._models = models
        self._datasets = datasets
        self._launcher = launcher
        self._feed = feed

    async def run(self) -> None:
        """Run the job to a terminal state, or back to QUEUED if the cluster has no room; unless cancelled."""
        try:
            job = await until_stored(f"read {self._name}", self._store.get_job, self._name)
            if job.state is JobState.PREPARING:  # else it was cancelled before this began
                await self._attempts()
        except IllegalStateError as error:  # only a cancel moves a job under its run's feet, and cancels the run next
            logger.info("%s: %s", self._name, error)
        except ServiceError as error:
            await self._fail(JobFailure(error.reason, error.message))
        except Exception as error:  # a defect of the service: the job's owner must learn of it too
            logger.exception("%s: the service failed", self._name)
            text = "".join(traceback.format_exception(error))
            await self._fail(JobFailure("INTERNAL", f"the service failed: {error}", text))

    async def _attempts(self) -> None:
        losses = 0
        outages = 0
        while True:
            before = await self._last_step()
            try:
                failed = await self._attempt() or await self._finalize()
            except (ClusterUnreachableError, StoreUnavailableError) as error:
                outages += 1  # cannot reach is not failed: wait as long as it takes
                await self._recover(str(error), policies.delay(outages))
                continue
            except PlacementError as error:
                await self._move(JobState.QUEUED, f"waits for room: {error}")
                return
            if failed is None:
                return
            outages = 0
            if not failed.lost:
                await self._fail(JobFailure(failed.reason, failed.message, failed.traceback))
                return
            losses = 1 if await self._last_step() > before else losses + 1
            decision = policies.after_loss(losses, failed.message)
            logger.warning("%s: lost a part (%s); %s", self._name, failed.message, decision)
            if isinstance(decision, policies.GiveUp):
                await self._fail(JobFailure(failed.reason, decision.message, failed.traceback))
                return
            await self._recover(_first_line(failed.message), decision.delay_s)

    async def _attempt(self) -> Failed | None:
        """Start a coordinator from the last checkpoint and store what it reports; None once all steps are done."""
        plan, state, examples = await to_the_end(self._load)
        if state.step >= plan.total_steps:  # the service stopped between the last checkpoint and the end
            return None
        fence = await to_the_end(self._store.next_attempt, self._name)
        logger.info("%s: attempt %d from step %d, %d workers", self._name, fence, state.step, self._workers)
        attempt = await self._launcher.launch(self._name, plan, state, examples, fence=fence)
        del examples
        try:
            return await self._store_events(attempt)
        except LostPartError as error:
            return failure(error)
        except TimeoutError:
            return failure(LostPartError(f"the coordinator did not answer within {SILENCE_TIMEOUT_S:.0f} s"))
        finally:
            await attempt.stop()

    async def _store_events(self, attempt: Attempt) -> Failed | None:
        done = 0
        while True:
            async with asyncio.timeout(SILENCE_TIMEOUT_S):
                events = await attempt.events(done, EVENTS_TIMEOUT_S)
            for event in events:
                match event:
                    case Finished():
                        return None
                    case Failed(reason=reason) if reason == NO_ROOM:
                        raise PlacementError(event.message)
                    case Failed():
                        return event
                    case _:
                        await self._store_event(event)
                done += 1

    async def _store_event(self, event: Started | StepsDone | CheckpointTaken) -> None:
        match event:
            case Started():
                await self._move(JobState.RUNNING, "all workers are in place")
            case StepsDone(metrics):
                await to_the_end(self._store.add_metrics, self._name, metrics)
            case CheckpointTaken():
                await to_the_end(self._store_checkpoint, event)
        self._feed.ring(self._name)

    async def _finalize(self) -> Failed | None:
        """Store the weights; if the last checkpoint turns out to be damaged, there is nothing to store yet."""
        await self._move(JobState.FINALIZING, "all steps are done")
        try:
            digest = await to_the_end(self._store_weights)
        except CheckpointError as error:
            return failure(LostPartError(str(error)))
        await self._move(JobState.SUCCEEDED, "", weights_digest=digest)
        logger.info("%s: succeeded, weights %s", self._name, digest)
        return None

    async def _recover(self, reason: str, delay_s: float) -> None:
        await self._move(JobState.RECOVERING, reason)
        await asyncio.sleep(delay_s)

    async def _fail(self, cause: JobFailure) -> None:
        logger.warning("%s: failed: %s", self._name, cause.message)
        await self._move(JobState.FAILED, cause.reason, failure=cause)

    async def _move(
        self, to: JobState, reason: str, *, failure: JobFailure | None = None, weights_digest: str = ""
    ) -> None:
        """Persist a transition; nothing is done on one that is not stored."""
        await until_stored(
            f"make {self._name} {to.value}",
            self._store.transition,
            self._name,
            to,
            reason=reason,
            failure=failure,
            weights_digest=weights_digest,
        )
        self._feed.ring(self._name)

    async def _last_step(self) -> int:
        stored = await until_stored(f"read {self._name}", self._store.checkpoints, self._name)
        return stored[0].step if stored else 0

    # --- blocking parts, called in a thread --------------------------------------------------------------------

    def _load(self) -> tuple[Plan, TrainingState, Examples]:
        job = self._store.get_job(self._name)
        model = self._store.get_model(job.model)
        dataset = self._store.get_dataset(job.dataset)
        plan = make_plan(model, dataset, replace(job.config, workers=self._workers))
        state = self._last_state()
        if state is None:
            module = self._models.load(model)
            parameters = {name: value.data for name, value in module.named_parameters()}
            weights = {name: value.data for name, value in module.state_dict().items()}
            buffers = {name: value for name, value in weights.items() if name not in parameters}
            state = TrainingState(0, parameters, buffers)
        return plan, state, self._datasets.load(dataset)

    def _last_state(self) -> TrainingState | None:
        """The state of the latest checkpoint that is whole; None if there is none."""
        for stored in self._store.checkpoints(self._name):
            try:
                manifest = Manifest.from_json(self._blobs.read(stored.manifest_digest))
                return checkpoint.unpack(self._blobs.read(manifest.state_digest), manifest)
            except (CheckpointError, ServiceError) as error:
                logger.warning("%s: the checkpoint of step %d is refused: %s", self._name, stored.step, error)
        return None

    def _store_checkpoint(self, taken: CheckpointTaken) -> None:
        digest = self._blobs.put(taken.content)
        manifest = Manifest(
            job=self._name,
            epoch=taken.epoch,
            step=taken.step,
            state_digest=digest,
            state_bytes=len(taken.content),
        )
        manifest_digest = self._blobs.put(manifest.to_json())
        self._store.add_checkpoint(self._name, step=taken.step, epoch=taken.epoch, manifest_digest=manifest_digest)

    def _store_weights(self) -> str:
        state = self._last_state()
        job = self._store.get_job(self._name)
        if state is None or state.step != job.progress.total_steps:
            raise CheckpointError(f"the last checkpoint of {self._name} cannot be read; its steps are computed again")
        return self._blobs.put(io.save(state.weights()))


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""
