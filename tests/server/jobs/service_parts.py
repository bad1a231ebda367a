"""The service's parts without gRPC and without Ray, and a launcher that can be told to lose processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from chainrule.engine import io
from chainrule.server.blobs import BlobStore
from chainrule.server.datasets import DatasetCatalog
from chainrule.server.errors import ClusterUnreachableError
from chainrule.server.jobs.feed import Feed
from chainrule.server.jobs.manager import JobManager
from chainrule.server.jobs.run import JobRun
from chainrule.server.jobs.submission import Submission, Submissions
from chainrule.server.models import ModelCatalog
from chainrule.server.records import Job
from chainrule.server.store import Store
from chainrule.server.training.coordinator import CheckpointTaken, Coordinator, Event, LostPartError, PlacementError
from chainrule.server.training.plan import Plan, Sgd, TrainingConfig
from chainrule.server.training.state import TrainingState
from chainrule.server.training.worker import Examples
from tests.server.training.in_process import LocalPlacement, examples

CONFIG = TrainingConfig(epochs=3, batch_size=16, shards=4, workers=2, optimizer=Sgd(lr=0.05, momentum=0.9))


class LocalAttempt:
    """A coordinator in this event loop; lost after a number of checkpoints, if told so."""

    def __init__(self, coordinator: Coordinator, lost_after_checkpoints: int | None) -> None:
        self._coordinator = coordinator
        self._lost_after = lost_after_checkpoints
        self._task = asyncio.create_task(coordinator.run())
        self.stopped = False
        self.on_stop: Callable[[], None] = lambda: None

    async def events(self, after: int, timeout_s: float) -> list[Event]:
        if self._lost_after == 0:
            raise LostPartError("the coordinator died of signal 9")
        events = (await self._coordinator.events(after, timeout_s))[:1]
        if events and isinstance(events[0], CheckpointTaken) and self._lost_after is not None:
            self._lost_after -= 1
        return events

    async def stop(self) -> None:
        self.stopped = True
        self.on_stop()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class LocalLauncher:
    """Starts attempts in this process. `script` has a word for each: after how many checkpoints it is lost (None: it
    runs to its end), "unreachable" or "no room". Attempts beyond the script run to their end."""

    def __init__(self, *script: int | str | None) -> None:
        self._script = list(script)
        self.attempts: list[LocalAttempt] = []
        self.fences: list[int] = []
        self.first_steps: list[int] = []
        self.workers: list[int] = []

    async def launch(self, job: str, plan: Plan, state: TrainingState, data: Examples, *, fence: int) -> LocalAttempt:
        self.fences.append(fence)
        self.first_steps.append(state.step)
        self.workers.append(plan.config.workers)
        word = self._script.pop(0) if self._script else None
        if word == "unreachable":
            raise ClusterUnreachableError("no route to host")
        if word == "no room":
            raise PlacementError("2 CPUs are wanted")
        assert not isinstance(word, str)
        attempt = LocalAttempt(Coordinator(plan, state, LocalPlacement(data), fence=fence), word)
        self.attempts.append(attempt)
        return attempt


class FixedCapacity:
    """A cluster of so many CPUs."""

    def __init__(self, cpus: float) -> None:
        self.cpus = cpus

    async def total_cpus(self) -> float:
        return self.cpus

    async def free_cpus(self) -> float:
        return self.cpus


class Parts:
    """Everything between the servicers and Ray."""

    def __init__(self, folder: Path, launcher: LocalLauncher, *, cpus: float = 4) -> None:
        self.blobs = BlobStore(folder / "blobs")
        self.store = Store(f"sqlite:///{folder / 'store.db'}")
        self.models = ModelCatalog(self.store, self.blobs)
        self.datasets = DatasetCatalog(self.store, self.blobs)
        self.submissions = Submissions(self.store, self.models, self.datasets)
        self.launcher = launcher
        self.feed = Feed()
        self.manager = JobManager(self.store, self.submissions, FixedCapacity(cpus), self.feed, make_run=self.make_run)

    def make_run(self, name: str, workers: int = 2) -> JobRun:
        return JobRun(
            name,
            workers=workers,
            store=self.store,
            blobs=self.blobs,
            models=self.models,
            datasets=self.datasets,
            launcher=self.launcher,
            feed=self.feed,
        )

    def submission(self, config: TrainingConfig = CONFIG, request_id: str = "") -> Submission:
        """A job that trains a small network on random images; both are created if they are not there."""
        data = examples()
        digest = self.blobs.put(io.save({"inputs": data.inputs, "targets": data.targets}))
        model = self.models.create("m", family="small_cnn", config={"width": 4}, weights_digest="", init_seed=1)
        return Submission(model.name, self.datasets.create("d", digest=digest).name, config, request_id)

    async def ended(self, name: str) -> Job:
        """The job, once it has ended."""
        async with asyncio.timeout(60):
            async for job in self.manager.watch(name):
                last = job
        assert last.state.terminal
        return last
