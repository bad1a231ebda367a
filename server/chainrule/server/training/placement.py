"""Where the parts of a job run: as actors on a Ray cluster. The only module of training that knows Ray, which starts
them and tells when they have ended; nothing of it is in the loop of steps."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from chainrule.server.architecture import Architecture, CodeArchitecture
from chainrule.server.ray_calls import RayCalls
from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.coordinator import Coordinator
from chainrule.server.training.errors import DatasetError, LinkError, LostPartError
from chainrule.server.training.events import Event
from chainrule.server.training.examples import Examples, ExampleSource
from chainrule.server.training.fingerprint import fingerprint
from chainrule.server.training.layout import with_partitions
from chainrule.server.training.parts import Ended
from chainrule.server.training.serving import PartitionSpec, run_partition
from chainrule.server.training.tls import Identity
from chainrule.server.training.warm import Taken, WarmPool
from chainrule.server.training.wire import Endpoint
from chainrule.server.training.worker import WorkerSpec, run_worker

START_TIMEOUT_S = 60.0
"""How long Ray may take to copy a job's examples and state and to begin starting its coordinator."""
FETCH_TIMEOUT_S = 120.0
"""How long a chunk of a dataset may take to come from the service's machine."""
CALL_TIMEOUT_S = 30.0
"""How long a coordinator may take to answer what it answers at once when it is well."""
LINKS = "CHAINRULE_LINKS"
"""Environment variable: "tls" has workers reach partitions of their own machine as if these were on another."""
NO_EXAMPLES = Examples(np.empty((0, 1), np.float32), np.empty(0, np.int64))
"""For the coordinator, who computes nothing."""


logger = logging.getLogger(__name__)


class PartitionActor:
    """A partition in a process of its own."""

    def run(self, spec: PartitionSpec) -> None:
        run_partition(replace(spec, host=ray.util.get_node_ip_address(), node_id=_node_id()))


class WorkerActor:
    """A worker in a process of its own."""

    def run(
        self,
        spec: WorkerSpec,
        examples: ExampleSource,
        validation: ExampleSource | None,
        chunks: ActorHandle | None = None,
    ) -> None:
        if chunks is not None:
            fetch = partial(_fetch, chunks)
            examples = examples.fetched_with(fetch)
            validation = None if validation is None else validation.fetched_with(fetch)
        node_id = _node_id()
        spec = replace(spec, node=f"{ray.util.get_node_ip_address()} ({node_id[:8]})", node_id=node_id)
        local = os.environ.get(LINKS) != "tls"
        run_worker(replace(spec, examples=examples, validation=validation, local=local))


class WarmActor:
    """A process that is there before the job whose part it becomes."""

    def __init__(self) -> None:
        fingerprint()  # loads kernels, and computes with them once

    def ready(self) -> None:
        """Answers once the process has begun."""

    def run_partition(self, spec: PartitionSpec) -> None:
        _entitle("PartitionActor")
        PartitionActor().run(spec)

    def run_worker(self, spec: WorkerSpec, *examples: Any) -> None:
        _entitle("WorkerActor")
        WorkerActor().run(spec, *examples)


class ChunkActor:
    """Reads chunks of datasets for workers on other machines than the service's. It runs on that one."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def read(self, digest: str) -> bytes:
        """The content of a chunk. Raises OSError; ConnectionError if the folder of all blobs is not there, which says
        nothing of any of them."""
        if not self._folder.is_dir():
            raise ConnectionError(f"the folder of all blobs, {self._folder}, is not there")
        return (self._folder / digest[:2] / digest).read_bytes()


class CoordinatorActor:
    """A coordinator in a process of its own, placing its parts on the same cluster."""

    def __init__(self) -> None:
        self._coordinator: Coordinator | None = None
        self._there = asyncio.Event()

    async def ready(self) -> None:
        """Answers once the process has begun."""

    async def run(self, spec: AttemptSpec, examples: list[Any], warm: list[ActorHandle]) -> None:
        """Lead an attempt.

        Args:
            examples: References, in a list, so that Ray does not fetch them for this process.
            warm: Processes that are to become its parts before others are started.
        """
        nodes = sum(node["Alive"] for node in await asyncio.to_thread(ray.nodes))
        plan = await asyncio.to_thread(with_partitions, spec.plan, nodes=nodes)
        spec = replace(spec, plan=plan)
        self._coordinator = Coordinator(spec, RayPlacement(spec, examples, warm), node=_node_id())
        self._there.set()
        await self._coordinator.run()

    async def events(self, after: int, timeout_s: float) -> list[Event]:
        return await (await self._present()).events(after, timeout_s)

    async def scale(self, workers: int) -> None:
        await (await self._present()).scale(workers)

    async def pause(self) -> None:
        await (await self._present()).pause()

    async def _present(self) -> Coordinator:
        await self._there.wait()
        assert self._coordinator is not None
        return self._coordinator


def runtime_environment(architecture: Architecture) -> dict[str, Any]:
    """Options of workers that run code: Ray starts a process for each, with an environment that names the file, and
    gives it to nobody else afterwards. Empty: any process will do."""
    if not isinstance(architecture, CodeArchitecture):
        return {}
    return {"runtime_env": {"env_vars": architecture.environment}}


class RayPlacement:
    """Starts partitions and workers as actors; they end with the process that this is in."""

    def __init__(self, spec: AttemptSpec, examples: list[Any], warm: Sequence[ActorHandle] = ()) -> None:
        self._warm = list(warm)
        self.host = ray.util.get_node_ip_address()
        self._spec = spec
        self._examples = examples
        self._partitions: list[ActorHandle] = []
        self._workers: dict[int, ActorHandle] = {}
        self._watches: set[asyncio.Task[None]] = set()

    async def start_partition(self, spec: PartitionSpec, ended: Ended) -> None:
        local = os.environ.get(LINKS) != "tls"
        with _lost_if_ray_refuses():
            if self._warm:
                actor = self._warm.pop()
                running = actor.run_partition.remote(replace(spec, local=local))
            else:
                actor = ray.remote(num_cpus=0, scheduling_strategy="SPREAD")(PartitionActor).remote()
                running = actor.run.remote(replace(spec, local=local))
            self._partitions.append(actor)
            self._watch(running, ended)

    async def start_worker(self, lease: int, identity: Identity, coordinator: Endpoint, ended: Ended) -> None:
        spec = WorkerSpec(
            job=self._spec.job,
            plan=self._spec.plan,
            lease=lease,
            identity=identity,
            coordinator=coordinator,
            examples=NO_EXAMPLES,
        )
        environment = runtime_environment(self._spec.plan.architecture)
        with _lost_if_ray_refuses():
            if self._warm and not environment:
                actor = self._warm.pop()
                running = actor.run_worker.remote(spec, *self._examples)
            else:
                actor = ray.remote(num_cpus=1, **environment)(WorkerActor).remote()
                running = actor.run.remote(spec, *self._examples)
            self._workers[lease] = actor
            self._watch(running, ended)

    async def end_partitions(self) -> None:
        ending, self._partitions = self._partitions, []
        await asyncio.gather(*(asyncio.to_thread(_end, actor) for actor in ending))

    async def end_worker(self, lease: int) -> None:
        if (actor := self._workers.pop(lease, None)) is not None:
            await asyncio.to_thread(_end, actor)

    async def stop(self) -> None:
        for watch in self._watches:
            watch.cancel()
        await self.end_partitions()
        for lease in list(self._workers):
            await self.end_worker(lease)

    def _watch(self, running: Any, ended: Ended) -> None:
        async def watch() -> None:
            try:
                await call(running)
            except Exception as error:  # noqa: BLE001 — whatever it was, the process is not there
                ended((str(error).strip() or type(error).__name__).splitlines()[0])
            else:
                ended("it returned")

        task = asyncio.create_task(watch())
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)


class RayLauncher:
    """Starts attempts at jobs on the cluster that `calls` go to.

    Args:
        warm_workers: For how many workers processes are kept ready; 0: for none.
    """

    def __init__(self, calls: RayCalls, *, warm_workers: int = 0) -> None:
        self._calls = calls
        self._pool = WarmPool(
            warm_workers,
            start_coordinator=lambda: self._start(CoordinatorActor),
            start_part=lambda: self._start(WarmActor),
        )

    def warm_up(self) -> None:
        """Begin to start the processes that are kept ready."""
        self._pool.fill()

    async def launch(self, spec: AttemptSpec) -> RayAttempt:
        """See Launcher."""
        try:
            runs_code = bool(runtime_environment(spec.plan.architecture))
            taken = await self._pool.take(1 if runs_code else spec.workers + 1)
            return await self._launch(spec, taken)
        except BaseException:
            self._pool.fill()
            raise

    async def _launch(self, spec: AttemptSpec, taken: Taken[_Warm]) -> RayAttempt:
        parts = [process.actor for process in taken.parts]

        def start() -> RayAttempt:
            sources = [ray.put(spec.examples), None if spec.validation is None else ray.put(spec.validation)]
            reader = _start_chunks(spec)
            examples = sources if reader is None else [*sources, reader]
            made = taken.coordinator
            actor = ray.remote(num_cpus=0)(CoordinatorActor).remote() if made is None else made.actor
            order = (replace(spec, examples=NO_EXAMPLES, validation=None), examples, parts)
            over = self._pool.fill
            all_parts = parts if reader is None else [*parts, reader]
            return RayAttempt(self._calls, spec.job, actor, examples, order=order, parts=all_parts, when_over=over)

        try:
            return await self._calls.run(start, timeout_s=START_TIMEOUT_S, undo=RayAttempt.kill)
        except BaseException:
            await taken.end()
            raise

    async def _start(self, kind: type[CoordinatorActor | WarmActor]) -> _Warm:
        def start() -> _Warm:
            return _Warm(self._calls, ray.remote(num_cpus=0)(kind).remote())

        return await self._calls.run(start, timeout_s=START_TIMEOUT_S, undo=lambda process: _end(process.actor))


class _Warm:
    """A process that is kept ready, as an actor."""

    def __init__(self, calls: RayCalls, actor: ActorHandle) -> None:
        self._calls = calls
        self.actor = actor

    async def ready(self) -> None:
        """See warm.Process."""
        await call(self.actor.ready.remote())

    async def end(self) -> None:
        """See warm.Process."""
        await self._calls.finish("end a process that was kept ready", lambda: _end(self.actor))


class RayAttempt:
    """A running attempt: its coordinator, and all that ends with it.

    Args:
        order: Arguments of CoordinatorActor.run.
        parts: Processes that the coordinator was given and has not started itself.
        when_over: Called once it has been stopped.
    """

    def __init__(
        self,
        calls: RayCalls,
        job: str,
        actor: ActorHandle,
        examples: list[Any],
        *,
        order: Sequence[Any] = (),
        parts: Sequence[ActorHandle] = (),
        when_over: Callable[[], None] = lambda: None,
    ) -> None:
        self._calls = calls
        self._job = job
        self._actor = actor
        self._examples = examples  # the datasets stay in the object store as long as this lives
        self._parts = parts
        self._when_over = when_over
        self._run = actor.run.remote(*order)

    async def events(self, after: int, timeout_s: float) -> list[Event]:
        """See Attempt."""
        events: list[Event] = await call(self._actor.events.remote(after, timeout_s))
        if not events and await self._has_ended():
            events = await call(self._actor.events.remote(after, 0.0))
            if not events:
                raise LostPartError(f"the coordinator of {self._job} has ended without a last word")
        return events

    async def _has_ended(self) -> bool:
        try:
            ended, _ = await asyncio.to_thread(ray.wait, [self._run], timeout=0)
        except RayError as error:
            raise LostPartError(f"Ray does not say whether the coordinator of {self._job} is there: {error}") from error
        return bool(ended)

    async def scale(self, workers: int) -> None:
        """See Attempt."""
        await self._tell(self._actor.scale.remote(workers))

    async def pause(self) -> None:
        """See Attempt."""
        await self._tell(self._actor.pause.remote())

    async def stop(self) -> None:
        """End the coordinator; its parts end with their owner. If Ray does not answer, that happens once it does: the
        attempts to come have a later fence."""
        try:
            await self._calls.finish(f"end the processes of {self._job}", self.kill)
        finally:
            self._when_over()

    def kill(self) -> None:
        """End the coordinator, and the parts that do not end with it as others have started them. Blocks while Ray does
        not answer."""
        try:
            ray.kill(self._actor)
        finally:
            for actor in self._parts:
                _end(actor)

    async def _tell(self, reference: Any) -> None:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await call(reference)
        except TimeoutError as error:
            raise LostPartError(f"the coordinator of {self._job} does not answer in {CALL_TIMEOUT_S:g} s") from error


def _start_chunks(spec: AttemptSpec) -> ActorHandle | None:
    """What hands chunks to workers on other machines; None if all examples are in memory."""
    folder = spec.examples.folder or ("" if spec.validation is None else spec.validation.folder)
    if not folder:
        return None
    here = NodeAffinitySchedulingStrategy(_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here, max_concurrency=4)(ChunkActor).remote(folder)


def _fetch(chunks: ActorHandle, digest: str) -> bytes:
    """A chunk from the service's machine. Raises LinkError if that cannot be reached, DatasetError if the chunk cannot
    be read there."""
    try:
        content: bytes = ray.get(chunks.read.remote(digest), timeout=FETCH_TIMEOUT_S)
    except RayTaskError as error:
        if isinstance(error.cause, ConnectionError):
            raise LinkError(str(error.cause)) from error
        raise DatasetError(f"chunk {digest} of the dataset cannot be read: {error.cause}") from error
    except RayError as error:
        raise LinkError(f"chunk {digest} of the dataset does not come: {error}") from error
    return content


def _entitle(actor: str) -> None:
    """Give this process the title of an actor at work, as Ray gives it to others."""
    ray._raylet.setproctitle(f"ray::{actor}.run")


def _node_id() -> str:
    """Ray's id of the node that this process runs on."""
    return str(ray.get_runtime_context().get_node_id())


def _end(actor: ActorHandle) -> None:
    """End an actor. If Ray does not answer, it ends with its line to the coordinator, or with the coordinator."""
    try:
        ray.kill(actor)
    except (RayError, OSError, RuntimeError) as error:
        logger.warning("Ray did not end a process: %s", error)


@contextmanager
def _lost_if_ray_refuses() -> Iterator[None]:
    """What Ray cannot start at the moment, another attempt may."""
    try:
        yield
    except (RayError, OSError) as error:
        raise LostPartError(f"Ray cannot start a process: {error}") from error


async def call(reference: Any) -> Any:
    """The result of an actor call. Raises what the method raised, or LostPartError if the process is gone."""
    try:
        return await reference
    except RayTaskError as error:
        cause: BaseException = error
        while isinstance(cause, RayTaskError):  # an error that crossed several actors is wrapped by each
            cause = cause.cause
        if isinstance(cause, RayError):
            raise LostPartError(str(cause)) from error
        raise cause from error
    except RayError as error:  # the process, its node or an object of it is gone
        raise LostPartError(str(error)) from error
