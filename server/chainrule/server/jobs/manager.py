"""The jobs of the service: which of them run now, with how many workers, and how they are followed and stopped."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol, TypeVar

from chainrule.server import names
from chainrule.server.annotations import annotation_violations
from chainrule.server.errors import (
    ClusterUnreachableError,
    IllegalStateError,
    InvalidRequestError,
    NotFoundError,
    StoreUnavailableError,
)
from chainrule.server.jobs import policies
from chainrule.server.jobs.checkpoints import Checkpoints
from chainrule.server.jobs.checks import check_priority, scaled
from chainrule.server.jobs.feed import Feed
from chainrule.server.jobs.following import Following, nothing
from chainrule.server.jobs.patience import Undertakings, to_the_end, until_stored
from chainrule.server.jobs.run import JobRun
from chainrule.server.jobs.shown import Shown
from chainrule.server.jobs.submission import Submission, Submissions
from chainrule.server.records import Cause, Checkpoint, Job, JobState, Receipt, UnfinishedJob
from chainrule.server.store import JobChange, PageRequest, Store
from chainrule.server.training.config import TrainingConfig
from chainrule.server.training.state import StepMetric

QUEUE_INTERVAL_S = 1.0
"""How often the queue is looked at when nothing has happened here: a cluster can grow, and others can leave it."""

R = TypeVar("R")
T = TypeVar("T")

logger = logging.getLogger(__name__)


class Capacity(Protocol):
    """What the cluster has for workers."""

    async def total_cpus(self) -> float:
        """All of it. Raises ClusterUnreachableError."""

    async def free_cpus(self) -> float:
        """What is not in use at the moment, by anybody. Raises ClusterUnreachableError."""


def _nothing(_: object) -> None:
    """What follows from most changes."""


@dataclass
class Running:
    """A job that runs."""

    run: JobRun
    task: asyncio.Task[None]
    workers: int
    """Workers it has been given; it may have fewer."""
    tenant: str


class JobManager:
    """Owns the running jobs. `start` it before use and `stop` it in the end.

    Who asks for a job asks as a tenant: a job of another one is not found. Where an etag is given with what is to be
    changed, StaleEtagError is raised if the job has another one by then.

    Args:
        settle: stores what is logged about jobs and waits to be stored; may raise StoreUnavailableError.
        max_tenant_jobs: most jobs of one tenant that have workers at a time; None: any number.
    """

    def __init__(
        self,
        store: Store,
        submissions: Submissions,
        capacity: Capacity,
        feed: Feed,
        checkpoints: Checkpoints,
        make_run: Callable[[str, int], JobRun],
        *,
        settle: Callable[[], Awaitable[None]] = nothing,
        max_tenant_jobs: int | None = None,
    ) -> None:
        self._store = store
        self._submissions = submissions
        self._capacity = capacity
        self._feed = feed
        self._checkpoints = checkpoints
        self._make_run = make_run
        self._max_tenant_jobs = max_tenant_jobs
        self._settle = settle
        self._running: dict[str, Running] = {}
        self._cancelling: dict[str, asyncio.Task[None]] = {}
        self._undertakings = Undertakings()
        self._wake = asyncio.Event()
        self._queue: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up again what was unfinished when the service last stopped, then serve the queue."""
        for job in await asyncio.to_thread(self._store.unfinished_jobs):
            await self._take_up(job, cause=Cause.RESTART, reason="the service was restarted")
        self._queue = asyncio.create_task(self._serve_queue())

    async def stop(self) -> None:
        """Stop running jobs where they are: the next start goes on from their checkpoints. What was asked of jobs is
        stored before."""
        await self._undertakings.done()
        running = [running.task for running in self._running.values()]
        tasks = [*running, *self._cancelling.values(), *([self._queue] if self._queue else [])]
        for task in tasks:
            if not task.cancelling():
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def submit(self, submission: Submission) -> Job:
        """Queue a job. Raises what Submissions.submit raises, and ClusterUnreachableError."""
        known = await asyncio.to_thread(self._submissions.find, submission)
        if known is not None:
            return known
        cpus = await self._capacity.total_cpus()

        def store() -> Job:
            job, new = self._submissions.submit(submission, cluster_cpus=cpus)
            if new:
                logger.info("%s: submitted (%s on %s)", job.name, job.model, job.dataset)
            return job

        return await self._change(None, store)

    async def preview(self, submission: Submission) -> Job:
        """The job as `submit` would queue it, and what that raises; nothing is stored."""
        cpus = await self._capacity.total_cpus()
        return await asyncio.to_thread(self._submissions.preview, submission, cluster_cpus=cpus)

    async def get(self, name: str, *, tenant: str) -> Job:
        """Raises NotFoundError."""
        return await asyncio.to_thread(self._store.get_job, names.existing("jobs", name), tenant=tenant)

    async def page(self, asked: PageRequest, *, tenant: str) -> tuple[list[Job], str]:
        """A page, and the token of the next. Raises InvalidRequestError."""
        return await asyncio.to_thread(self._store.list_jobs, asked, tenant=tenant)

    async def metrics(self, name: str, *, after_step: int, limit: int, tenant: str) -> list[StepMetric]:
        """Raises NotFoundError."""
        name = names.existing("jobs", name)
        return await asyncio.to_thread(self._store.metrics, name, after_step=after_step, limit=limit, tenant=tenant)

    async def checkpoints(self, name: str, asked: PageRequest, *, tenant: str) -> tuple[list[Checkpoint], str]:
        """A page, newest first, and the token of the next. Raises NotFoundError or InvalidRequestError."""
        name = names.existing("jobs", name)
        return await asyncio.to_thread(self._store.list_checkpoints, name, asked, tenant=tenant)

    async def receipts(self, name: str, *, after_step: int, limit: int, tenant: str) -> list[Receipt]:
        """Raises NotFoundError."""
        name = names.existing("jobs", name)
        return await asyncio.to_thread(self._store.receipts, name, after_step=after_step, limit=limit, tenant=tenant)

    # --- what is asked of a job --------------------------------------------------------------------------------

    async def update(self, name: str, change: JobChange, *, tenant: str, etag: str = "") -> Job:
        """Change what a job is found by or how soon it goes. Raises NotFoundError, StaleEtagError or
        InvalidRequestError."""
        name = names.existing("jobs", name, field="job.name")
        violations = [
            *annotation_violations(labels=change.labels or {}, description=change.description or "", field="job"),
            *check_priority(change.priority or 0),
        ]
        if violations:
            raise InvalidRequestError(violations)
        return await self._change(name, lambda: self._store.update_job(name, change, tenant=tenant, etag=etag))

    async def delete(self, name: str, *, tenant: str, etag: str = "", allow_missing: bool = False) -> None:
        """Remove a job that has ended, and what it has left but for its weights. Raises NotFoundError unless it may be
        missing, StaleEtagError, or IllegalStateError if it has not ended."""
        name = names.existing("jobs", name)

        def remove() -> None:
            blobs = self._store.delete_job(name, tenant=tenant, etag=etag)
            logger.info("%s: removed", name)
            self._checkpoints.remove_blobs(blobs)

        try:
            await self._change(name, remove)
        except NotFoundError:
            if not allow_missing:
                raise

    async def cancel(self, name: str, *, tenant: str, etag: str = "") -> Job:
        """Begin to stop a job; one that is cancelled already stays so. Raises NotFoundError, StaleEtagError, or
        IllegalStateError if it has succeeded or failed."""
        name = names.existing("jobs", name)

        def stop(job: Job) -> None:
            if job.state is JobState.CANCELLING:
                self._see_cancelled(name)

        return await self._change(name, lambda: self._store.cancel(name, tenant=tenant, etag=etag)[0], stop)

    async def pause(self, name: str, *, tenant: str, etag: str = "") -> Job:
        """Begin to pause a job; one that is pausing or paused already stays so. Raises NotFoundError,
        StaleEtagError, or IllegalStateError if it is on its way out or has ended."""
        name = names.existing("jobs", name)

        def store() -> Job:
            job, began = self._store.pause(name, tenant=tenant, etag=etag)
            if began:
                logger.info("%s: asked to pause", name)
            return job

        def tell(job: Job) -> None:
            if job.state is JobState.PAUSING and (running := self._running.get(name)) is not None:
                running.run.pause()

        return await self._change(name, store, tell)

    async def resume(self, name: str, *, tenant: str, etag: str = "") -> Job:
        """Queue a paused job again; one that is on its way already stays so. Raises NotFoundError, StaleEtagError, or
        IllegalStateError if it is still pausing, on its way out, or has ended."""
        name = names.existing("jobs", name)
        return await self._change(name, lambda: self._store.resume(name, tenant=tenant, etag=etag)[0])

    async def scale(self, name: str, *, min_workers: int, max_workers: int, tenant: str, etag: str = "") -> Job:
        """Change the fewest and the most workers of a job, 0 leaving one as it is. It has no more than the most at
        once, and more when there is room; the fewest count from its next attempt on. Raises NotFoundError,
        StaleEtagError, InvalidRequestError, or IllegalStateError if it is being cancelled or has ended."""
        name = names.existing("jobs", name)

        def change(config: TrainingConfig) -> TrainingConfig:
            least, most = scaled(config, min_workers=min_workers, max_workers=max_workers)
            return replace(config, min_workers=least, max_workers=most)

        def shrink(job: Job) -> None:
            running = self._running.get(name)
            if running is not None and running.workers > job.config.max_workers:
                self._give(running, policies.Grant(name, job.config.max_workers))

        return await self._change(name, lambda: self._store.reconfigure(name, change, tenant=tenant, etag=etag), shrink)

    # --- following a job ---------------------------------------------------------------------------------------

    def shown(self, show: Callable[[Job], T], weigh: Callable[[T], int]) -> Shown[T]:
        """Jobs for those who ask and follow, as what `show` makes of them, whose size `weigh` tells in bytes."""
        return Shown(self.get, self._feed, show=show, weigh=weigh)

    def following(self, shown: Shown[Any]) -> Following:
        """Streams of what jobs measure and log, for those who follow them as what `shown` shows."""
        return Following(self._store, self._feed, shown, settle=self._settle)

    # --- private -----------------------------------------------------------------------------------------------

    async def _change(self, name: str | None, write: Callable[[], R], then: Callable[[R], None] = _nothing) -> R:
        """Make a write, in a thread, and `then` what follows from it: seen through, even if the caller gives up.

        Who follows the job is told whether or not it succeeds: a store that does not answer may have stored it. One
        that is new has no name yet: None.
        """

        async def change() -> R:
            try:
                result = await asyncio.to_thread(write)
            finally:
                if name is not None:
                    self._feed.ring(name)
            then(result)
            self._wake.set()
            return result

        return await self._undertakings.see_through(change())

    def _see_cancelled(self, name: str) -> None:
        """Have a job that is CANCELLING come to its end, unless that is under way."""
        if name not in self._cancelling:
            self._cancelling[name] = asyncio.create_task(self._finish_cancel(name), name=name)
            self._cancelling[name].add_done_callback(lambda _: self._cancelled(name))

    def _cancelled(self, name: str) -> None:
        _log_defect(name, self._cancelling.pop(name))

    async def _finish_cancel(self, name: str) -> None:
        if (running := self._running.get(name)) is not None:
            running.task.cancel()
            await asyncio.wait([running.task])
        with suppress(IllegalStateError, NotFoundError):  # it has ended by itself, and may have been removed
            job = await until_stored(f"read {name}", self._store.get_job, name)
            if job.state is JobState.CANCELLING:
                logger.info("%s: cancelled", name)  # before who follows the log takes it for ended
                await until_stored(
                    f"make {name} CANCELLED", self._store.transition, name, JobState.CANCELLED, cause=Cause.REQUEST
                )
        self._feed.ring(name)

    async def _serve_queue(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._distribute()
            except (ClusterUnreachableError, StoreUnavailableError) as error:
                logger.warning("the queue waits: %s", error)
            except Exception:  # a defect in one pass must not stop the queue for all jobs to come
                logger.exception("the queue failed; it goes on")
            with suppress(TimeoutError):
                async with asyncio.timeout(QUEUE_INTERVAL_S):
                    await self._wake.wait()

    async def _distribute(self) -> None:
        """Start what waits and has room; where nothing waits for room, give running jobs what is left."""
        jobs = await asyncio.to_thread(self._store.unfinished_jobs)
        await self._mend(jobs)
        tenants = {job.name: job.tenant for job in jobs}
        waiting = self._waiting(jobs)
        growing = [
            policies.Share(job.name, self._running[job.name].workers, job.config.max_workers)
            for job in jobs
            if job.state is JobState.RUNNING and job.name in self._running
        ]
        if not waiting and all(share.workers >= share.max_workers for share in growing):
            return
        total = await self._capacity.total_cpus()
        given = sum(running.workers for running in self._running.values())
        free = min(total - given, await self._capacity.free_cpus())
        if not waiting:
            for grant in policies.grow(growing, free_cpus=free):
                if (running := self._running.get(grant.job)) is not None:  # else it has ended since it was listed
                    self._give(running, grant)
            return
        for grant in policies.admit(waiting, free_cpus=free):
            try:
                await to_the_end(
                    self._store.transition,
                    grant.job,
                    JobState.PREPARING,
                    cause=Cause.CAPACITY,
                    reason="the cluster has room",
                )
            except (IllegalStateError, NotFoundError):  # cancelled, paused or removed since it was listed
                continue
            self._feed.ring(grant.job)
            self._begin(grant, tenants[grant.job])

    async def _mend(self, jobs: Sequence[UnfinishedJob]) -> None:
        """See to what a lost answer of the store has left: it had stored what was asked for, and nobody knew."""
        for job in jobs:
            running = self._running.get(job.name)
            if job.state is JobState.CANCELLING:
                self._see_cancelled(job.name)
            elif running is None:
                await self._take_up(job, cause=Cause.LOSS, reason="nothing of it was running")
            elif job.state is JobState.PAUSING:
                running.run.pause()

    async def _take_up(self, job: UnfinishedJob, *, cause: Cause, reason: str) -> None:
        """Bring a job that nobody runs, though its state says so, to where it can go on, or has ended."""
        if way := policies.way_back(job.state):
            logger.info("%s: is %s in the store alone: %s", job.name, job.state.value, reason)
        with suppress(IllegalStateError, NotFoundError):  # it was read before something else happened to it
            for since, to in pairwise((job.state, *way)):
                await to_the_end(self._store.transition, job.name, to, cause=cause, reason=reason, since=since)
                self._feed.ring(job.name)
                self._wake.set()

    def _waiting(self, jobs: Sequence[UnfinishedJob]) -> list[policies.Demand]:
        """What waits for room, the next one first. A job that is queued again has not quite left its place as long as
        its run has not ended."""
        demands = [
            policies.Demand(job.name, job.config.min_workers, job.config.max_workers, job.priority, job.tenant)
            for job in jobs
            if job.state is JobState.QUEUED and job.name not in self._running
        ]
        holding = Counter(running.tenant for running in self._running.values())
        return policies.in_turn(demands, holding=holding, max_tenant_jobs=self._max_tenant_jobs)

    def _give(self, running: Running, grant: policies.Grant) -> None:
        logger.info("%s: %d workers instead of %d", grant.job, grant.workers, running.workers)
        running.workers = grant.workers
        running.run.scale(grant.workers)

    def _begin(self, grant: policies.Grant, tenant: str) -> None:
        run = self._make_run(grant.job, grant.workers)
        task = asyncio.create_task(run.run(), name=grant.job)
        self._running[grant.job] = Running(run, task, grant.workers, tenant)
        task.add_done_callback(lambda _: self._ended(grant.job))

    def _ended(self, name: str) -> None:
        _log_defect(name, self._running.pop(name).task)
        self._wake.set()


def _log_defect(job: str, task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("%s: the service failed", job, exc_info=error)
