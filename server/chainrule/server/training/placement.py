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
from chainrule.engine import models, nn
from chainrule.server.errors import ClusterUnreachableError
from chainrule.server.training.coordinator import (
    Coordinator,
    Event,
    LostPartError,
    PartitionHandle,
    PlacementError,
    WorkerHandle,
)
from chainrule.server.training.link import LinkError, Push, Weights
from chainrule.server.training.parameter_server import BatchNormRule, Partition, PartitionServer, Report
from chainrule.server.training.plan import Plan
from chainrule.server.training.state import TrainingState
from chainrule.server.training.worker import Examples, Worker

PLACEMENT_TIMEOUT_S = 120.0
"""How long the cluster may take to make room for a job and start its parts."""
EXCHANGE_TIMEOUT_S = 600.0
"""How long a worker waits for the others in one step."""


def batch_norm_rules(plan: Plan) -> tuple[BatchNormRule, ...]:
    """How the running statistics of a plan's model are updated."""
    model = models.build(plan.family, plan.family_config)
    return tuple(
        BatchNormRule(
            mean=f"{name}.running_mean",
            variance=f"{name}.running_var",
            count=f"{name}.num_batches_tracked",
            momentum=module.momentum,
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats
    )


class RayLink:
    """A link over Ray calls: one call per step; the weights come back as a reference to an object that every worker
    of the node reads in place."""

    def __init__(self, partition: ActorHandle, names: frozenset[str], timeout_s: float) -> None:
        self.names = names
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
        partitions: list[tuple[ActorHandle, frozenset[str]]],
        index: int,
        shards: range,
        fence: int,
    ) -> None:
        cr.set_num_threads(1)  # the number of BLAS threads changes the bits
        links = [RayLink(partition, names, EXCHANGE_TIMEOUT_S) for partition, names in partitions]
        self._worker = Worker(plan, examples, links, index=index, shards=shards, fence=fence)

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
        self._partitions: list[tuple[ActorHandle, frozenset[str]]] = []
        self._workers: list[ActorHandle] = []

    async def start_partition(self, plan: Plan, state: TrainingState, *, fence: int) -> PartitionHandle:
        actor = ray.remote(num_cpus=0)(PartitionActor).remote(plan, state, fence)
        self._partitions.append((actor, frozenset(state.weights())))
        return RayPartition(actor)

    async def start_workers(self, plan: Plan, shards: list[range], *, fence: int) -> list[WorkerHandle]:
        in_group = PlacementGroupSchedulingStrategy(placement_group=self._group)
        place = ray.remote(num_cpus=1, scheduling_strategy=in_group)(WorkerActor).remote
        self._workers = [
            place(plan, self._examples[0], self._partitions, index, part, fence) for index, part in enumerate(shards)
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
        for actor in [*self._workers, *(actor for actor, _ in self._partitions)]:
            ray.kill(actor)


class RayPartition:
    """A handle on a partition's actor."""

    def __init__(self, actor: ActorHandle) -> None:
        self._actor = actor

    async def report(self, after_step: int, timeout_s: float) -> Report:
        report: Report = await call(self._actor.report.remote(after_step, timeout_s))
        return report

    async def take_snapshot(self, step: int) -> TrainingState:
        state: TrainingState = await call(self._actor.take_snapshot.remote(step))
        return state


class RayWorker:
    """A handle on a worker's actor."""

    def __init__(self, actor: ActorHandle) -> None:
        self._actor = actor

    async def run(self) -> int:
        steps: int = await call(self._actor.run.remote())
        return steps


class RayLauncher:
    """Starts attempts at jobs on the cluster this process is connected to."""

    async def launch(self, job: str, plan: Plan, state: TrainingState, examples: Examples, *, fence: int) -> RayAttempt:
        """Make room for the workers and start a coordinator.

        Raises PlacementError if there is no room in time, ClusterUnreachableError if Ray does not answer.
        """
        try:
            return await self._launch(job, plan, state, examples, fence)
        except (RayError, ConnectionError) as error:
            raise ClusterUnreachableError(f"the Ray cluster does not start {job}: {error}") from error

    async def _launch(self, job: str, plan: Plan, state: TrainingState, examples: Examples, fence: int) -> RayAttempt:
        group = placement_group([{"CPU": 1}] * plan.config.workers, name=job)
        try:
            if not await asyncio.to_thread(group.wait, PLACEMENT_TIMEOUT_S):
                raise PlacementError(
                    f"{job} waited {PLACEMENT_TIMEOUT_S:.0f} s for {plan.config.workers} CPUs; "
                    f"free are {ray.available_resources().get('CPU', 0):g}; "
                    "ask for fewer workers or add nodes"
                )
            examples_ref = await asyncio.to_thread(ray.put, examples)
            actor = (
                ray.remote(num_cpus=0)(CoordinatorActor)
                .options(name=f"coordinator:{job}:{fence}")
                .remote(plan, state, [examples_ref], group, fence)
            )
        except BaseException:
            remove_placement_group(group)
            raise
        return RayAttempt(actor, group, examples_ref)


class RayAttempt:
    """A running attempt: its coordinator, and all that ends with it."""

    def __init__(self, actor: ActorHandle, group: PlacementGroup, examples_ref: Any) -> None:
        self._actor = actor
        self._group = group
        self._examples_ref = examples_ref  # the dataset stays in the object store as long as this lives
        self._run = actor.run.remote()

    async def events(self, after: int, timeout_s: float) -> list[Event]:
        """Events number `after` + 1 and on. Raises LostPartError if the coordinator is gone."""
        events: list[Event] = await call(self._actor.events.remote(after, timeout_s))
        return events

    async def stop(self) -> None:
        """End the coordinator; its parts end with their owner, and the group's CPUs are free again."""
        ray.kill(self._actor)
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
