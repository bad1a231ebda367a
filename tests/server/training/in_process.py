"""Training without Ray: workers and partitions as plain objects in one process, stepped or in threads."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from concurrent.futures import FIRST_COMPLETED, Future, wait
from threading import Thread
from typing import Any

import numpy as np

from chainrule.engine import Generator, io, models
from chainrule.server.training.coordinator import PartitionHandle, WorkerHandle
from chainrule.server.training.link import LinkError, Push, Weights
from chainrule.server.training.parameter_server import Partition, PartitionServer, Report, batch_norm_rules
from chainrule.server.training.plan import Plan, Sgd, TrainingConfig
from chainrule.server.training.reduction import assign
from chainrule.server.training.state import TrainingState
from chainrule.server.training.worker import Examples, Worker

NUM_EXAMPLES = 50


def examples(seed: int = 0) -> Examples:
    """Random 8×8 images of ten classes."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(NUM_EXAMPLES, 1, 8, 8)).astype(np.float32)
    return Examples(inputs, rng.integers(0, 10, size=NUM_EXAMPLES))


def small_plan(*, shards: int = 4, workers: int = 1, epochs: int = 2, batch_size: int = 16) -> Plan:
    """A `small_cnn` on the examples above; the last batch of an epoch is ragged."""
    optimizer = Sgd(lr=0.05, momentum=0.9, weight_decay=1e-4)
    config = TrainingConfig(
        epochs=epochs, batch_size=batch_size, shards=shards, workers=workers, seed=3, optimizer=optimizer
    )
    return Plan("small_cnn", {"width": 4}, NUM_EXAMPLES, config)


def initial_state(plan: Plan) -> TrainingState:
    """The state before the first step."""
    model = models.build(plan.family, plan.family_config, generator=Generator(1))
    parameters = {name: value.data.copy() for name, value in model.named_parameters()}
    buffers = {name: np.array(value.data, copy=True) for name, value in model.named_buffers()}
    return TrainingState(0, parameters, buffers)


def digest(state: TrainingState) -> str:
    """One SHA-256 of weights, momentum and statistics."""
    momentum = {f"momentum/{name}": array for name, array in state.momentum.items()}
    return io.digest(io.save({**state.weights(), **momentum}))


class LocalLink:
    """A link to a partition in the same thread."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition

    def pull(self) -> Weights:
        return self._partition.weights()

    def send(self, push: Push) -> None:
        self._partition.push(push)

    def receive(self) -> Weights:
        return self._partition.weights()


def make_partition(plan: Plan, state: TrainingState) -> Partition:
    return Partition(plan, state, batch_norm_rules(plan), fence=1)


def train(plan: Plan, state: TrainingState, data: Examples, *, arrival_seed: int = 0) -> Partition:
    """Run a plan to its end, step by step; the order in which workers push is shuffled in every step."""
    partition = make_partition(plan, state)
    ranges = assign(plan.config.shards, plan.config.workers)
    steps = [
        Worker(plan, data, LocalLink(partition), index=index, shards=shards, fence=1).steps()
        for index, shards in enumerate(ranges)
    ]
    arrival = random.Random(arrival_seed)
    for _ in range(state.step, plan.total_steps):
        for worker in arrival.sample(steps, len(steps)):
            next(worker)
    return partition


class ThreadLink:
    """A link to a partition that an event loop of another thread serves. It breaks when `broken` is done."""

    def __init__(self, server: PartitionServer, loop: asyncio.AbstractEventLoop, broken: Future[None]) -> None:
        self._server = server
        self._loop = loop
        self._broken = broken
        self._answer: Future[Weights] = Future()

    def pull(self) -> Weights:
        self._answer = self._ask(self._server.pull())
        return self.receive()

    def send(self, push: Push) -> None:
        self._answer = self._ask(self._server.exchange(push))

    def receive(self) -> Weights:
        either: list[Future[Any]] = [self._answer, self._broken]
        wait(either, return_when=FIRST_COMPLETED)
        if not self._answer.done():
            raise LinkError("the attempt was stopped")
        return self._answer.result()

    def _ask(self, question: Coroutine[Any, Any, Weights]) -> Future[Weights]:
        if self._broken.done():
            question.close()
            raise LinkError("the attempt was stopped")
        return asyncio.run_coroutine_threadsafe(question, self._loop)


class ThreadWorker:
    """A worker that runs in a thread of its own."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def run(self) -> int:
        steps: Future[int] = Future()
        steps.set_running_or_notify_cancel()  # who waits can be cancelled, the thread cannot

        def compute() -> None:
            try:
                steps.set_result(self._worker.run())
            except Exception as error:  # noqa: BLE001 — handed to who waits
                steps.set_exception(error)

        Thread(target=compute, daemon=True).start()
        return await asyncio.wrap_future(steps)


class PatientPartitionServer(PartitionServer):
    """Holds the workers back at the end of each epoch until its snapshot has been fetched, so that each epoch has its
    checkpoint however fast it was."""

    async def exchange(self, push: Push) -> Any:
        weights = await super().exchange(push)
        async with self._moved:
            await self._moved.wait_for(lambda: self._partition.snapshot is None)
        return weights

    async def report(self, after_step: int, timeout_s: float, *, with_snapshot: bool) -> Report:
        report = await super().report(after_step, timeout_s, with_snapshot=with_snapshot)
        async with self._moved:
            self._moved.notify_all()
        return report


class LocalPlacement:
    """Places the partition in the running event loop and workers in threads; `wrap` can put something around one."""

    def __init__(
        self,
        data: Examples,
        wrap: Callable[[WorkerHandle, int], WorkerHandle] | None = None,
        server_class: type[PartitionServer] = PatientPartitionServer,
    ) -> None:
        self._data = data
        self._wrap = wrap
        self._server_class = server_class
        self._server: PartitionServer | None = None
        self._broken: Future[None] = Future()

    async def start_partition(self, plan: Plan, state: TrainingState, *, fence: int) -> PartitionHandle:
        # Weights go out as copies, as they do between processes: what a worker holds does not change under it.
        partition = Partition(plan, state, batch_norm_rules(plan), fence=fence)
        self._server = self._server_class(partition, publish=_copied)
        return self._server

    async def start_workers(self, plan: Plan, shards: list[range], *, fence: int) -> list[WorkerHandle]:
        assert self._server is not None
        loop = asyncio.get_running_loop()
        handles: list[WorkerHandle] = []
        for index, part in enumerate(shards):
            link = ThreadLink(self._server, loop, self._broken)
            handle = ThreadWorker(Worker(plan, self._data, link, index=index, shards=part, fence=fence))
            handles.append(self._wrap(handle, index) if self._wrap else handle)
        return handles

    @property
    def stopped(self) -> bool:
        return self._broken.done()

    async def stop(self) -> None:
        self._broken.set_result(None)


def _copied(weights: Weights) -> Weights:
    return Weights(weights.step, {name: array.copy() for name, array in weights.parameters.items()})
