"""Where the parts of a job run: as actors on a Ray cluster. The only module of training that knows Ray."""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

import chainrule.engine as cr
from chainrule.server.ray_calls import RayCalls
from chainrule.server.training.coordinator import (
    Coordinator,
    Event,
    LostPartError,
    PartitionHandle,
    PlacementError,
    WorkerHandle,
)
from chainrule.server.training.link import LinkError, Push, Weights
from chainrule.server.training.parameter_server import Partition, PartitionServer, Report, batch_norm_rules
from chainrule.server.training.plan import Plan
from chainrule.server.training.state import TrainingState
from chainrule.server.training.worker import Examples, Worker

PLACEMENT_TIMEOUT_S = 30.0
"""How long the cluster may take to make room for a job, and then to start its workers."""
ROOM_INTERVAL_S = 1
"""How long one question for the room of a job waits for it: none keeps a thread from the others for longer."""
CALL_TIMEOUT_S = 15.0
"""How long Ray may take for a call that it answers at once when it is well."""
START_TIMEOUT_S = 60.0
"""How long Ray may take to copy a job's examples and state and to begin starting its coordinator."""
REPORT_MARGIN_S = 30.0
"""How long a partition may take to answer beyond the time that it waits for news."""
SNAPSHOT_TIMEOUT_S = 120.0
"""How long a partition may take to answer with a snapshot in addition."""
EXCHANGE_TIMEOUT_S = 600.0
"""How long a worker waits for the others in one step."""


class RayLink:
    """A link over Ray calls: one call per step; the weights come back as a reference to an object that every worker
    of the node reads in place."""

    def __init__(self, partition: ActorHandle, timeout_s: float) -> None:
        self._partition = partition
        self._timeout_s = timeout_s
        self._pending: Any = None

    def pull(self) -> Weights:
        return self._fetch(self._partition.pull.remote())

    def send(self, push: Push) -> None:
        self._pending = self._partition.exchange.remote(push)

    def receive(self) -> Weights:
        return self._fetch(self._pending)

    def _fetch(self, answer: Any) -> Weights:
        try:
            [weights] = ray.get(answer, timeout=self._timeout_s)
            fetched: Weights = ray.get(weights, timeout=self._timeout_s)
        except GetTimeoutError as error:
            raise LinkError(f"no answer from the parameter server within {self._timeout_s:.0f} s") from error
        return fetched


class PartitionActor(PartitionServer):
    """A partition in a process of its own."""

    def __init__(self, plan: Plan, state: TrainingState, fence: int) -> None:
        partition = Partition(plan, state, batch_norm_rules(plan), fence=fence)
        super().__init__(partition, publish=lambda weights: [ray.put(weights)])


class WorkerActor:
    """A worker in a process of its own, computing with one thread."""

    def __init__(
        self,
        plan: Plan,
        examples: Examples,
        partition: ActorHandle,
        index: int,
        shards: range,
        fence: int,
    ) -> None:
        cr.set_num_threads(1)  # the number of BLAS threads changes the bits
        link = RayLink(partition, EXCHANGE_TIMEOUT_S)
        self._worker = Worker(plan, examples, link, index=index, shards=shards, fence=fence)

    def ready(self) -> None:
        """Answers once the constructor has returned."""

    def run(self) -> int:
        return self._worker.run()


class CoordinatorActor(Coordinator):
    """A coordinator in a process of its own, placing its parts on the same cluster."""

    def __init__(
        self, plan: Plan, state: TrainingState, examples: list[Any], group: PlacementGroup, fence: int
    ) -> None:
        super().__init__(plan, state, RayPlacement(examples, group), fence=fence)


class RayPlacement:
    """Starts partitions and workers as actors: workers in the placement group that holds their CPUs."""

    def __init__(self, examples: list[Any], group: PlacementGroup) -> None:
        self._examples = examples  # [reference]: in a list, so that Ray does not fetch it for this process
        self._group = group
        self._partition: ActorHandle | None = None
        self._workers: list[ActorHandle] = []

    async def start_partition(self, plan: Plan, state: TrainingState, *, fence: int) -> PartitionHandle:
        self._partition = ray.remote(num_cpus=0)(PartitionActor).remote(plan, state, fence)
        return RayPartition(self._partition)

    async def start_workers(self, plan: Plan, shards: list[range], *, fence: int) -> list[WorkerHandle]:
        in_group = PlacementGroupSchedulingStrategy(placement_group=self._group)
        place = ray.remote(num_cpus=1, scheduling_strategy=in_group)(WorkerActor).remote
        self._workers = [
            place(plan, self._examples[0], self._partition, index, part, fence) for index, part in enumerate(shards)
        ]
        ready = [call(worker.ready.remote()) for worker in self._workers]
        try:
            async with asyncio.timeout(PLACEMENT_TIMEOUT_S):
                await asyncio.gather(*ready)
        except TimeoutError as error:
            raise PlacementError(
                f"{len(shards)} workers did not start within {PLACEMENT_TIMEOUT_S:.0f} s; "
                "look at the cluster with: chainrule cluster"
            ) from error
        return [RayWorker(worker) for worker in self._workers]

    async def stop(self) -> None:
        for actor in [*self._workers, *([self._partition] if self._partition else [])]:
            ray.kill(actor)


class RayPartition:
    """A handle on a partition's actor."""

    def __init__(self, actor: ActorHandle) -> None:
        self._actor = actor

    async def report(self, after_step: int, timeout_s: float, *, with_snapshot: bool) -> Report:
        deadline_s = timeout_s + REPORT_MARGIN_S + (SNAPSHOT_TIMEOUT_S if with_snapshot else 0.0)
        try:
            async with asyncio.timeout(deadline_s):
                report: Report = await call(
                    self._actor.report.remote(after_step, timeout_s, with_snapshot=with_snapshot)
                )
        except TimeoutError as error:
            raise LostPartError(f"the parameter server does not answer within {deadline_s:.0f} s") from error
        return report


class RayWorker:
    """A handle on a worker's actor."""

    def __init__(self, actor: ActorHandle) -> None:
        self._actor = actor

    async def run(self) -> int:
        steps: int = await call(self._actor.run.remote())
        return steps


class RayLauncher:
    """Starts attempts at jobs on the cluster that `calls` go to."""

    def __init__(self, calls: RayCalls) -> None:
        self._calls = calls

    async def launch(self, job: str, plan: Plan, state: TrainingState, examples: Examples, *, fence: int) -> RayAttempt:
        """Make room for the workers and start a coordinator. If it raises, nothing of it stays on the cluster.

        Raises PlacementError if there is no room in time, ClusterUnreachableError if Ray does not answer.
        """

        def make_group() -> PlacementGroup:
            return placement_group([{"CPU": 1}] * plan.config.workers, name=job)

        def start() -> RayAttempt:
            examples_ref = ray.put(examples)
            actor = (
                ray.remote(num_cpus=0)(CoordinatorActor)
                .options(name=f"coordinator:{job}:{fence}")
                .remote(plan, state, [examples_ref], group, fence)
            )
            return RayAttempt(self._calls, job, actor, group, examples_ref)

        group = await self._calls.run(make_group, timeout_s=CALL_TIMEOUT_S, undo=remove_placement_group)
        try:
            await self._room(job, plan.config.workers, group)
            return await self._calls.run(start, timeout_s=START_TIMEOUT_S, undo=RayAttempt.kill)
        except BaseException:
            await self._calls.finish(f"free the CPUs of {job}", lambda: remove_placement_group(group))
            raise

    async def _room(self, job: str, workers: int, group: PlacementGroup) -> None:
        """Wait until the cluster has made room for a group. Raises PlacementError, ClusterUnreachableError."""
        try:
            async with asyncio.timeout(PLACEMENT_TIMEOUT_S):
                while not await self._calls.run(lambda: group.wait(ROOM_INTERVAL_S), timeout_s=CALL_TIMEOUT_S):
                    pass
        except TimeoutError as error:
            free = await self._calls.ask(ray.available_resources, timeout_s=CALL_TIMEOUT_S)
            raise PlacementError(
                f"{job} waited {PLACEMENT_TIMEOUT_S:.0f} s for {workers} CPUs; free are {free.get('CPU', 0):g}; "
                "ask for fewer workers or add nodes"
            ) from error


class RayAttempt:
    """A running attempt: its coordinator, and all that ends with it."""

    def __init__(self, calls: RayCalls, job: str, actor: ActorHandle, group: PlacementGroup, examples_ref: Any) -> None:
        self._calls = calls
        self._job = job
        self._actor = actor
        self._group = group
        self._examples_ref = examples_ref  # the dataset stays in the object store as long as this lives
        self._run = actor.run.remote()

    async def events(self, after: int, timeout_s: float) -> list[Event]:
        """Events number `after` + 1 and on. Raises LostPartError if the coordinator is gone."""
        events: list[Event] = await call(self._actor.events.remote(after, timeout_s))
        return events

    async def stop(self) -> None:
        """End the coordinator; its parts end with their owner, and the group's CPUs are free again. If Ray does not
        answer, that happens once it does: the attempts to come have a later fence."""
        await self._calls.finish(f"end the processes of {self._job}", self._end)

    def kill(self) -> None:
        """End the coordinator. Blocks while Ray does not answer."""
        ray.kill(self._actor)

    def _end(self) -> None:
        self.kill()
        remove_placement_group(self._group)


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
