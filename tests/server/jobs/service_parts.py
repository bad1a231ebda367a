"""The service's parts without gRPC and without Ray, and a launcher whose attempts report what a script says."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from chainrule.engine import io
from chainrule.server.architecture import Builtin
from chainrule.server.blobs import BlobStore
from chainrule.server.datasets import DatasetCatalog
from chainrule.server.errors import ClusterUnreachableError
from chainrule.server.jobs.checkpoints import Checkpoints
from chainrule.server.jobs.feed import Feed
from chainrule.server.jobs.manager import JobManager
from chainrule.server.jobs.run import JobRun
from chainrule.server.jobs.submission import Submission, Submissions
from chainrule.server.models import ModelCatalog
from chainrule.server.records import Cause, Job, JobState
from chainrule.server.store import Store
from chainrule.server.store.schema import DEFAULT_TENANT
from chainrule.server.tenant_blobs import TenantBlobs
from chainrule.server.training import checkpoint
from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.checkpoint import Packed
from chainrule.server.training.config import Sgd, TrainingConfig
from chainrule.server.training.errors import LostPartError, PlacementError
from chainrule.server.training.events import (
    CheckpointTaken,
    Evaluated,
    Event,
    Finished,
    Paused,
    ReceiptTaken,
    Started,
    StepsDone,
    WorkersChanged,
)
from chainrule.server.training.examples import Examples
from chainrule.server.training.plan import Plan
from chainrule.server.training.policies import checkpoint_due, receipt_due
from chainrule.server.training.state import EvaluationMetric, StepMetric, TrainingState

TENANT = DEFAULT_TENANT
NUM_EXAMPLES = 50
STEPS_PER_EPOCH = 4
CONFIG = TrainingConfig(epochs=3, batch_size=16, shards=4, max_workers=2, optimizer=Sgd(lr=0.05, momentum=0.9))
FINGERPRINT = '{"kernels": "reference"}'

Item = Event | Exception | None
"""An event; an error that ends the attempt; or None: nothing happens for ever."""
Course = Callable[[AttemptSpec], Iterable[Item]]


def examples(seed: int = 0) -> Examples:
    """Random 8×8 images of ten classes."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(NUM_EXAMPLES, 1, 8, 8)).astype(np.float32)
    return Examples(inputs, rng.integers(0, 10, size=NUM_EXAMPLES))


# --- what an attempt reports -----------------------------------------------------------------------------------


def state_after(spec: AttemptSpec, step: int) -> TrainingState:
    """What the training of these tests makes of a state: a function of the step, however often it began again."""
    parameters = {name: np.full_like(array, step) for name, array in spec.state.parameters.items()}
    return TrainingState(step, parameters, spec.state.buffers, updates=step)


def metric(plan: Plan, step: int) -> StepMetric:
    return StepMetric(step, plan.epoch_of(step - 1) + 1, 1.0 / step, 0.5, plan.batch_size(step - 1), time.time())


def evaluated(plan: Plan, step: int, loss: float) -> Evaluated:
    epoch = step // plan.steps_per_epoch
    return Evaluated(EvaluationMetric(epoch, step, loss, 0.5, plan.num_validation, time.time()))


def taken(spec: AttemptSpec, step: int) -> CheckpointTaken:
    content = Packed(checkpoint.pack(state_after(spec, step)))
    return CheckpointTaken(step, step // spec.plan.steps_per_epoch, content)


def steps(
    spec: AttemptSpec, first: int, last: int, loss: Callable[[int], float] = lambda epoch: 1.0 / epoch
) -> Iterator[Event]:
    """What is reported of the steps `first` to `last`; `loss` gives the validation loss of an epoch."""
    plan = spec.plan
    for step in range(first, last + 1):
        yield StepsDone((metric(plan, step),))
        if receipt_due(plan, step):  # before the checkpoint: an attempt that begins there does not take it again
            yield ReceiptTaken(step, state_after(spec, step).digest())
        if checkpoint_due(plan, step):
            yield taken(spec, step)
        if plan.ends_epoch(step) and plan.num_validation:
            yield evaluated(plan, step, loss(step // plan.steps_per_epoch))


def to_the_end(spec: AttemptSpec) -> Iterator[Item]:
    """An attempt that nothing happens to."""
    yield Started(spec.workers, FINGERPRINT)
    yield from steps(spec, spec.state.step + 1, spec.plan.total_steps)
    yield Finished(spec.plan.total_steps)


def lost_after(num_checkpoints: int) -> Course:
    """An attempt whose coordinator dies after so many checkpoints."""

    def course(spec: AttemptSpec) -> Iterator[Item]:
        left = num_checkpoints
        for item in to_the_end(spec):
            if left == 0:
                break
            yield item
            left -= isinstance(item, CheckpointTaken)
        yield LostPartError("the coordinator died of signal 9")

    return course


def standing_after(last: int) -> Course:
    """An attempt that does not go on after a step."""

    def course(spec: AttemptSpec) -> Iterator[Item]:
        yield Started(spec.workers, FINGERPRINT)
        yield from steps(spec, spec.state.step + 1, last)
        yield None

    return course


# --- fakes -----------------------------------------------------------------------------------------------------


class FakeAttempt:
    """An attempt that reports one event at a time of its course, and what a test says besides."""

    def __init__(self, spec: AttemptSpec, course: Iterable[Item]) -> None:
        self.spec = spec
        self.step = spec.state.step
        self.scaled: list[int] = []
        self.pauses = 0
        self.stopped = False
        self.on_stop: Callable[[], None] = lambda: None
        self.answers_pause = True
        self._course: Iterator[Item] = iter(course)
        self._said: deque[Event] = deque()
        self._news = asyncio.Event()
        self._given: list[Event] = []
        self._dealt_with = 0

    def say(self, *events: Event) -> None:
        """Report these before anything else."""
        self._said.extend(events)
        self._news.set()

    async def events(self, after: int, timeout_s: float) -> list[Event]:
        assert not self.stopped
        del self._given[: after - self._dealt_with]
        self._dealt_with = after
        await asyncio.sleep(0)
        while not self._given:
            item = self._said.popleft() if self._said else next(self._course, None)
            if isinstance(item, Exception):
                raise item
            if item is not None:
                self._given.append(item)
            else:
                self._course = iter(())
                self._news.clear()
                await self._news.wait()
        if isinstance(self._given[0], StepsDone):
            self.step = self._given[0].metrics[-1].step
        return list(self._given)

    async def scale(self, workers: int) -> None:
        self.scaled.append(workers)
        self.say(WorkersChanged(workers, f"scaled to {workers}", enough=True))

    async def pause(self) -> None:
        self.pauses += 1
        if self.answers_pause:
            self._course = iter(())
            self.say(taken(self.spec, self.step), Paused())

    async def stop(self) -> None:
        self.stopped = True
        self.on_stop()


class FakeLauncher:
    """Starts attempts in this process. `script` has a word for each: after how many checkpoints it is lost, its course,
    or what its launch raises. Attempts beyond the script run to their end."""

    def __init__(self, *script: int | Course | Exception | None) -> None:
        self._script = list(script)
        self.attempts: list[FakeAttempt] = []
        self.specs: list[AttemptSpec] = []
        self.launched = asyncio.Event()
        """Set once there is an attempt."""

    def runs_on(self) -> None:
        """Have all attempts to come run to their end."""
        self._script.clear()

    @property
    def first_steps(self) -> list[int]:
        return [spec.state.step for spec in self.specs]

    async def launch(self, spec: AttemptSpec) -> FakeAttempt:
        self.specs.append(spec)
        word = self._script.pop(0) if self._script else None
        if isinstance(word, Exception):
            raise word
        course = lost_after(word) if isinstance(word, int) else word or to_the_end
        attempt = FakeAttempt(spec, course(spec))
        self.attempts.append(attempt)
        self.launched.set()
        return attempt


UNREACHABLE = ClusterUnreachableError("no route to host")
FULL = PlacementError("2 CPUs are wanted")


class FixedCapacity:
    """A cluster of so many CPUs, of which others use some."""

    def __init__(self, cpus: float) -> None:
        self.cpus = cpus
        self.used_by_others = 0.0

    async def total_cpus(self) -> float:
        return self.cpus

    async def free_cpus(self) -> float:
        return self.cpus - self.used_by_others


class Parts:
    """Everything between the servicers and Ray."""

    def __init__(
        self,
        folder: Path,
        launcher: FakeLauncher,
        *,
        cpus: float = 4,
        max_tenant_jobs: int | None = None,
        store_url: str = "",
        allow_code: bool = False,
    ) -> None:
        self.blobs = BlobStore(folder / "blobs")
        self.store = Store(store_url or f"sqlite:///{folder / 'store.db'}")
        self.tenant_blobs = TenantBlobs(self.blobs, self.store, are_apart=False)
        self.models = ModelCatalog(self.store, self.blobs, self.tenant_blobs, allow_code=allow_code)
        self.datasets = DatasetCatalog(self.store, self.blobs, self.tenant_blobs)
        self.checkpoints = Checkpoints(self.store, self.blobs)
        self.submissions = Submissions(self.store, self.models)
        self.launcher = launcher
        self.feed = Feed()
        self.capacity = FixedCapacity(cpus)
        self.manager = JobManager(
            self.store,
            self.submissions,
            self.capacity,
            self.feed,
            self.checkpoints,
            make_run=self.make_run,
            max_tenant_jobs=max_tenant_jobs,
        )
        self.shown = self.manager.shown(lambda job: job, lambda _: 1000)
        """Jobs as they are."""
        self.following = self.manager.following(self.shown)

    def make_run(self, name: str, workers: int = 2) -> JobRun:
        return JobRun(
            name,
            workers=workers,
            store=self.store,
            blobs=self.blobs,
            models=self.models,
            datasets=self.datasets,
            checkpoints=self.checkpoints,
            launcher=self.launcher,
            feed=self.feed,
        )

    def submission(self, config: TrainingConfig = CONFIG, request_id: str = "") -> Submission:
        """A job that trains a small network on random images; they, and others to evaluate on ("datasets/v"), are
        created if they are not there."""
        self.dataset("v", seed=1)
        model = self.models.create(
            "m", architecture=Builtin("small_cnn", {"width": 4}), weights_digest="", init_seed=1, tenant="default"
        )
        return Submission(model.name, self.dataset("d"), config, request_id)

    def dataset(self, dataset_id: str, seed: int = 0) -> str:
        data = examples(seed)
        digest = self.blobs.put(io.save({"inputs": data.inputs, "targets": data.targets}))
        return self.datasets.create(dataset_id, digest=digest, tenant="default").name

    def prepared(self, config: TrainingConfig = CONFIG) -> str:
        """A job that may begin."""
        job, _ = self.submissions.submit(self.submission(config), cluster_cpus=4)
        self.store.transition(job.name, JobState.PREPARING, cause=Cause.CAPACITY)
        return job.name

    async def ended(self, name: str) -> Job:
        """The job, once it has ended."""
        async with asyncio.timeout(60):
            async for job in self.shown.watch(name, tenant=TENANT):
                last = job
        assert last.state.terminal
        return last
