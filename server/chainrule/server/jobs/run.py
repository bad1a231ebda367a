"""One job, from PREPARING to its end: starts attempts, stores what they report, and starts the next one from the last
checkpoint when a process was lost."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import TypeVar

from chainrule.server import logs
from chainrule.server.blobs import BlobStore
from chainrule.server.datasets import DatasetCatalog
from chainrule.server.errors import (
    ClusterUnreachableError,
    IllegalStateError,
    ServiceError,
    StoreUnavailableError,
)
from chainrule.server.jobs import policies
from chainrule.server.jobs.checkpoints import Checkpoints
from chainrule.server.jobs.feed import Feed
from chainrule.server.jobs.loading import Loader, inputs_of
from chainrule.server.jobs.patience import to_the_end, until_stored
from chainrule.server.jobs.recording import Recorder
from chainrule.server.jobs.transitions import Transitions
from chainrule.server.models import ModelCatalog
from chainrule.server.ray_calls import StoreFullError
from chainrule.server.records import Cause, Job, JobFailure, JobState
from chainrule.server.store import Store
from chainrule.server.training.attempt import Attempt, AttemptSpec, Launcher
from chainrule.server.training.checkpoint import CheckpointError
from chainrule.server.training.errors import LostPartError, PlacementError
from chainrule.server.training.events import NO_ROOM, Failed, Finished, Paused
from chainrule.server.training.state import Array

EVENTS_TIMEOUT_S = 10.0
"""How long one question to a coordinator waits for news."""
SILENCE_TIMEOUT_S = 60.0
"""How long a coordinator may take to answer before it counts as lost."""
PAUSE_TIMEOUT_S = 300.0
"""How long a coordinator may take to finish its step and take a checkpoint; after that the job is paused without."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


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
        checkpoints: Checkpoints,
        launcher: Launcher,
        feed: Feed,
    ) -> None:
        self._name = name
        self._workers = workers
        self._store = store
        self._blobs = blobs
        self._models = models
        self._checkpoints = checkpoints
        self._launcher = launcher
        self._feed = feed
        self._loader = Loader(name, store=store, models=models, datasets=datasets, checkpoints=checkpoints)
        self._transitions = Transitions(name, store, feed)
        self._pausing = asyncio.Event()
        self._asked = asyncio.Event()  # something was asked of the attempt that runs
        self._step = 0

    def pause(self) -> None:
        """Pause, once the job is PAUSING."""
        self._pausing.set()
        self._asked.set()

    def scale(self, workers: int) -> None:
        """Go on with that many workers, now and in attempts to come."""
        self._workers = workers
        self._asked.set()

    async def run(self) -> None:
        """Run the job until it has ended, is paused or waits in the queue again."""
        logs.set_job(self._name)
        try:
            try:
                await self._begin()
            except IllegalStateError as error:
                await self._give_way(error)
        except ServiceError as error:
            await self._fail(JobFailure(error.reason, error.message))
        except Exception as error:  # a defect of the service: the job's owner must learn of it too
            logger.exception("%s: the service failed", self._name)
            text = "".join(traceback.format_exception(error))
            await self._fail(JobFailure("INTERNAL", f"the service failed: {error}", text))

    async def _begin(self) -> None:
        job = await self._job()
        if job.state is JobState.PAUSING:
            self._pausing.set()
        if job.state in (JobState.PREPARING, JobState.PAUSING):  # else it was cancelled before this began
            await self._attempts()

    async def _attempts(self) -> None:
        losses: list[policies.Loss] = []
        outages = 0
        while not self._pausing.is_set():
            reached = (await self._job()).progress.step
            try:
                outcome: Finished | Failed | Paused | None = await self._attempt()
                if isinstance(outcome, Finished):
                    outcome = await self._finalize(outcome.step)
            except (ClusterUnreachableError, StoreUnavailableError, OSError) as error:
                # Cannot reach is not failed: wait as long as it takes. A folder that is gone, or a disk that does not
                # answer, says no more about the job than a cluster does.
                outages += 1
                if isinstance(error, OSError):
                    logger.warning("%s: waits for what it needs", self._name, exc_info=error)
                if not await self._recover(str(error), policies.delay(outages)):
                    return
                continue
            except PlacementError as error:
                await self._transitions.move(JobState.QUEUED, f"waits for room: {error}", cause=Cause.CAPACITY)
                return
            outages = 0
            match outcome:
                case Failed(lost=False):
                    await self._fail(JobFailure(outcome.reason, outcome.message, outcome.traceback))
                    return
                case Failed():
                    if not await self._goes_on_after(outcome, losses, reached):
                        return
                case Paused():
                    break
                case _:
                    return
        await self._stand_still()

    async def _goes_on_after(self, failed: Failed, losses: list[policies.Loss], reached: int) -> bool:
        """Wait for the next attempt after one that was lost. False if there is to be none: the job has failed or is
        paused."""
        job = await self._job()
        if job.progress.step > reached:
            losses.clear()
        losses.append(policies.Loss(failed.reason, failed.message, self._step))
        decision = policies.after_loss(losses, max_failures=job.config.max_failures)
        logger.warning("%s: lost a part (%s); %s", self._name, failed.message, decision)
        if isinstance(decision, policies.GiveUp):
            await self._fail(JobFailure(failed.reason, decision.message, failed.traceback))
            return False
        return await self._recover(_first_line(failed.message), decision.delay_s)

    async def _give_way(self, error: IllegalStateError) -> None:
        """End for a pause or a cancel that came first, which is why a state was refused. Raises the error if there is
        none of these."""
        state = (await self._job()).state
        if policies.is_at_work(state):
            raise error
        logger.info("%s: %s", self._name, error)
        if state is JobState.PAUSING:  # who cancels it ends this next
            with suppress(IllegalStateError):
                await self._transitions.move(JobState.PAUSED, "asked to", cause=Cause.REQUEST)

    # --- an attempt --------------------------------------------------------------------------------------------

    async def _attempt(self) -> Finished | Failed | Paused:
        """Start a coordinator from the last checkpoint and store what it reports, until one of these ends it."""
        try:
            spec, setback = await to_the_end(self._loader.spec, self._workers)
        finally:
            self._feed.ring(self._name)  # what was forgotten for it, and told
        plan, self._step = spec.plan, spec.state.step
        if self._step >= plan.total_steps and not plan.num_validation:
            return Finished(plan.total_steps)  # the service stopped between the last checkpoint and the end
        logger.info("%s: attempt %d from step %d, %d workers", self._name, spec.fence, self._step, spec.workers)
        recorder = Recorder(
            self._name,
            plan,
            first_step=self._step,
            setback=setback,
            store=self._store,
            checkpoints=self._checkpoints,
            transitions=self._transitions,
            feed=self._feed,
        )
        workers = spec.workers
        try:
            attempt = await self._launch(spec)
        except StoreFullError as error:
            raise StoreFullError(_too_large(spec, error)) from error
        del spec  # and with it the examples, which the cluster has now
        if attempt is None:
            return Paused()
        try:
            return await self._follow(attempt, recorder, workers)
        except LostPartError as error:
            return _lost(error)
        finally:
            self._step = recorder.step
            await attempt.stop()

    async def _launch(self, spec: AttemptSpec) -> Attempt | None:
        """Start a coordinator, unless a pause is asked for before it is there."""
        launching = asyncio.ensure_future(self._launcher.launch(spec))
        pausing = asyncio.ensure_future(self._pausing.wait())
        try:
            await asyncio.wait([launching, pausing], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await _abandon(launching)
            if not launching.cancelled() and launching.exception() is None:  # it was faster than the cancel
                await launching.result().stop()
            raise
        finally:
            pausing.cancel()
        if not launching.done():
            await _abandon(launching)
        return None if launching.cancelled() else launching.result()

    async def _follow(self, attempt: Attempt, recorder: Recorder, workers: int) -> Finished | Failed | Paused:
        """Store what an attempt reports and hand it what is asked for, until it ends. Raises LostPartError."""
        storing = asyncio.ensure_future(self._store_events(attempt, recorder))
        obeying = asyncio.ensure_future(self._obey(attempt, recorder, workers))
        both = [storing, obeying]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            return (storing if storing.done() else obeying).result()
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _store_events(self, attempt: Attempt, recorder: Recorder) -> Finished | Failed | Paused:
        done = 0
        while True:
            for event in await _answer(attempt.events(done, EVENTS_TIMEOUT_S)):
                match event:
                    case Failed(reason=reason) if reason == NO_ROOM:
                        raise PlacementError(event.message)
                    case Finished() | Failed() | Paused():
                        return event
                    case _:
                        failed = await recorder.record(event)
                if failed is not None:
                    return failed
                done += 1
            self._asked.set()  # it may have started, and what was asked for before can be handed to it

    async def _obey(self, attempt: Attempt, recorder: Recorder, workers: int) -> Paused:
        """Hand what is asked for to an attempt that computes. One that does not yet has nothing to lose by a pause: it
        is Paused at once."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            if self._pausing.is_set():
                if recorder.started:
                    await _answer(attempt.pause())
                    await asyncio.sleep(PAUSE_TIMEOUT_S)  # the attempt ends it before
                    raise LostPartError(f"the coordinator did not pause within {PAUSE_TIMEOUT_S:.0f} s")
                return Paused()
            if recorder.started and workers != self._workers:
                workers = self._workers
                await _answer(attempt.scale(workers))

    # --- states ------------------------------------------------------------------------------------------------

    async def _finalize(self, step: int) -> Failed | None:
        """Store the weights of a step; if its checkpoint turns out to be damaged, there is nothing to store yet."""
        total = (await self._job()).progress.total_steps
        which = "all steps are done" if step == total else f"the weights of step {step} of {total} are the result"
        await self._transitions.move(JobState.FINALIZING, which, cause=Cause.TRAINING)
        try:
            digest = await to_the_end(self._store_weights, step)
        except CheckpointError as error:
            await to_the_end(self._loader.drop_from, step, str(error))
            self._feed.ring(self._name)
            return _lost(LostPartError(str(error)))
        logger.info("%s: succeeded, weights %s", self._name, digest)  # before who follows the log takes it for ended
        await self._transitions.move(
            JobState.SUCCEEDED, "", cause=Cause.TRAINING, weights_digest=digest, weights_step=step
        )
        return None

    def _store_weights(self, step: int) -> str:
        model = inputs_of(self._store.get_job(self._name), self._store).model
        state = self._loader.state_at(step)
        return self._blobs.put(self._models.trained(model, state.weights()))

    async def _stand_still(self) -> None:
        """Become PAUSED. A pause that came while training ended, and then did not after all, is still due."""
        if (await self._job()).state is not JobState.PAUSING:
            await self._transitions.move(JobState.PAUSING, "asked to", cause=Cause.REQUEST)
        await self._transitions.move(JobState.PAUSED, "asked to", cause=Cause.REQUEST)
        logger.info("%s: paused", self._name)

    async def _recover(self, reason: str, delay_s: float) -> bool:
        """Wait before the next attempt, unless a pause is asked for. False if one was asked for before: the job is
        PAUSED then, and what was lost is computed again once it is resumed."""
        try:
            last = (await self._job()).history[-1]
            if (last.state, last.cause) != (JobState.RECOVERING, Cause.LOSS):  # an outage is told once, in first words
                await self._transitions.move(JobState.RECOVERING, reason, cause=Cause.LOSS)
        except IllegalStateError:  # it is PAUSING; or CANCELLING, which cannot become PAUSED either
            why = f"a part was lost while pausing: {reason}"
            await self._transitions.move(JobState.PAUSED, why, cause=Cause.LOSS)
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._pausing.wait()
        return True

    async def _fail(self, failure: JobFailure) -> None:
        logger.warning("%s: failed: %s", self._name, failure.message)
        await self._transitions.move(JobState.FAILED, failure.reason, cause=Cause.FAILURE, failure=failure)

    async def _job(self) -> Job:
        return await until_stored(f"read {self._name}", self._store.get_job, self._name)


async def _abandon(launching: asyncio.Future[Attempt]) -> None:
    launching.cancel()
    await asyncio.wait([launching])


async def _answer(question: Awaitable[T]) -> T:
    """What a coordinator answers. Raises LostPartError if it does not."""
    try:
        async with asyncio.timeout(SILENCE_TIMEOUT_S):
            return await question
    except TimeoutError as error:
        raise LostPartError(f"the coordinator did not answer within {SILENCE_TIMEOUT_S:.0f} s") from error


def _lost(error: LostPartError) -> Failed:
    return Failed(policies.PART_LOST, str(error), "".join(traceback.format_exception(error)), lost=True)


def _too_large(spec: AttemptSpec, error: StoreFullError) -> str:
    """That the cluster cannot hold what an attempt begins with, how much that is, and what to do about it."""
    sizes = {
        "examples": spec.examples.num_bytes + (0 if spec.validation is None else spec.validation.num_bytes),
        "weights and optimizer state": _num_bytes(spec.state.weights(), *spec.state.slots.values()),
    }
    listed = " and ".join(f"{size:,} bytes of {what}" for what, size in sizes.items())
    return (
        f"the cluster cannot hold what {spec.job} begins with, {listed}: {error}; submit it with a smaller dataset, "
        "once other jobs have ended, or to a cluster with more free disk or a larger object store (ray start "
        "--object-store-memory)"
    )


def _num_bytes(*arrays: Mapping[str, Array]) -> int:
    return sum(array.nbytes for named in arrays for array in named.values())


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""
