"""A partition and a computation by hand: no process, no socket, and every push where the test wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from chainrule.server.training.compute import Computation
from chainrule.server.training.contributions import HEAD, WHOLE, Measured, Push
from chainrule.server.training.examples import Examples
from chainrule.server.training.layout import Layout, PartitionLayout, make_layout, views
from chainrule.server.training.memory import Segment, Weights
from chainrule.server.training.partition import Partition, merged
from chainrule.server.training.plan import Plan, Tick
from chainrule.server.training.reduction import Block, blocks_of
from chainrule.server.training.stale import StalePartition
from chainrule.server.training.state import Arrays, TrainingState
from tests.server.training.runs import images, initial_state, small_plan

LIMIT_S = 20.0
"""How long to wait for what must come."""
NOW_S = 1_700_000_000.0
TINY: dict[str, object] = {"width": 2, "image_size": 4}
"""A `small_cnn` of 144 parameters, with BatchNorm."""


def tiny_plan(num_validation: int = 0, **config: Any) -> Plan:
    """A plan of the tiny model: three steps an epoch of 16, 16 and 8 examples, four shards."""
    return replace(small_plan(family_config=TINY, num_validation=num_validation, **config), num_examples=40)


def tiny_images(count: int = 40, *, seed: int = 0) -> Examples:
    return images(count, size=4, seed=seed)


def layout_of(plan: Plan) -> Layout:
    return make_layout(plan, plan.architecture.build())


def make_weights(layout: PartitionLayout) -> Weights:
    segment = Segment.make("test", Weights.size(layout))
    segment.close()
    return Weights(segment, layout)


def make_partition(plan: Plan, layout: PartitionLayout | None = None, state: TrainingState | None = None) -> Partition:
    """A partition with weights of its own; the only one, unless a layout says otherwise."""
    if layout is None:
        [layout] = layout_of(plan).partitions
    kind = StalePartition if plan.config.staleness else Partition
    return kind(plan, layout, state or initial_state(plan), make_weights(layout))


def push_memory(
    layout: PartitionLayout, gradients: Arrays | None = None, statistics: Arrays | None = None
) -> memoryview:
    """A push region with these in it, and zeros."""
    memory = memoryview(bytearray(layout.push_bytes))
    for places, arrays in ((layout.parameters, gradients), (layout.statistics, statistics)):
        for name, target in views(places, memory).items():
            if arrays is not None and name in arrays:
                target[...] = arrays[name]
    return memory


@dataclass
class Result:
    """What some worker has computed for a block."""

    block: Block
    memory: memoryview
    measured: Measured = field(default_factory=lambda: Measured(0.25, 1, 4))

    def push(self, partition: Partition, *, part: int = WHOLE, worker: int = 1, tick: int | None = None) -> bool:
        """Give a part of it to a partition, as for the running tick."""
        number = partition.tick if tick is None else tick
        return partition.push(Push(number, worker, self.block, part, self.measured, self.memory))


def random_results(layout: PartitionLayout, count: int, *, seed: int = 0, scale: float = 1.0) -> list[Result]:
    """Gradients and statistics of so many shards, drawn at random."""
    rng = np.random.default_rng(seed)
    places = {**layout.parameters, **layout.statistics}
    found = []
    for shard in range(count):
        drawn = {name: scale * rng.normal(size=place.shape) for name, place in places.items()}
        measured = Measured(float(rng.random()), int(rng.integers(4)), 4)
        found.append(Result(Block(shard), push_memory(layout, drawn), measured))
    return found


class Bench:
    """The partitions of a plan and a computation, side by side."""

    def __init__(
        self,
        plan: Plan,
        *,
        examples: Examples | None = None,
        validation: Examples | None = None,
        state: TrainingState | None = None,
    ) -> None:
        self.plan = plan
        self.computation = Computation(plan, examples or tiny_images(plan.num_examples), validation)
        self.layout = self.computation.layout
        self.partitions = [make_partition(plan, part, state) for part in self.layout.partitions]
        self.computation.attach([partition.weights for partition in self.partitions])

    @property
    def tick(self) -> Tick:
        """The running one."""
        return self.plan.tick(self.partitions[0].tick)

    @property
    def state(self) -> TrainingState:
        return merged({partition.layout.index: partition.state_now() for partition in self.partitions})

    def compute(self, block: Block, *, tick: Tick | None = None) -> list[Result]:
        """What a worker sends for a block: a result for each partition."""
        found, memories = [], [push_memory(part) for part in self.layout.partitions]
        sent: list[tuple[int, int, Measured]] = []
        self.computation.load(self.plan.version(tick or self.tick))
        self.computation.block(
            tick or self.tick,
            block,
            self.computation.sink(memories),
            lambda partition, part, measured: sent.append((partition, part, measured)),
        )
        for index, memory in enumerate(memories):
            [measured] = [m for partition, part, m in sent if partition == index and part in (HEAD, WHOLE)]
            found.append(Result(block, memory, measured))
        return found

    def advance(self, blocks: Sequence[Block] | None = None) -> None:
        """One tick, computed in these blocks."""
        tick = self.tick
        computed = [self.compute(block) for block in blocks or blocks_of(range(self.plan.occupied_shards(tick)))]
        for index, partition in enumerate(self.partitions):
            done = [results[index].push(partition) for results in computed]
            assert done == [False] * (len(computed) - 1) + [True]

    def run(self) -> TrainingState:
        """To the end."""
        while not self.partitions[0].finished:
            self.advance()
        return self.state


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition of this event loop holds."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110 — of threads and sockets, which set no event
            await asyncio.sleep(0.001)
