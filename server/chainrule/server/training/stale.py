"""A partition that does not wait for all shards: every contribution is applied when it comes, and a worker may be some
steps ahead of the slowest. The weights then depend on timing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from chainrule.server.training.contributions import Measured, Push, add_heads
from chainrule.server.training.errors import NonFiniteError
from chainrule.server.training.layout import PartitionLayout
from chainrule.server.training.memory import IN_PLACE, Weights
from chainrule.server.training.partition import REMEDY, Partition
from chainrule.server.training.plan import Plan
from chainrule.server.training.reduction import Block, root, tree_sum
from chainrule.server.training.state import Array, TrainingState


class StalePartition(Partition):
    """Bounded staleness: each shard has a clock, the tick it contributes to next; none may be more than `staleness`
    ahead of the slowest. A tick counts as complete once every shard has contributed to it.

    Weights are changed in place while workers read them. A contribution has the weight n/N of its examples in the
    global batch, so that with plain SGD a step moves as far as a synchronous one; momentum is applied with each
    contribution.
    Source: Ho et al., More effective distributed ML via a stale synchronous parallel parameter server, 2013.
    """

    def __init__(self, plan: Plan, layout: PartitionLayout, state: TrainingState, weights: Weights) -> None:
        super().__init__(plan, layout, state, weights)
        first = weights.region(self.step)
        for name, array in weights.moving[0].items():
            array[...] = weights.moving[first][name]
        weights.versions[:] = IN_PLACE
        self._clocks = [self.tick] * plan.config.shards
        self._heads: dict[int, dict[Block, tuple[Array | None, Measured]]] = defaultdict(dict)
        self._skip_empty()

    def push(self, push: Push) -> bool:
        """Apply the contribution of one shard to the tick it is at; another's is one too many. True if a tick is
        complete. Raises NonFiniteError."""
        shard = push.block.start
        if push.tick != self._clocks[shard]:
            return False
        tick = self.plan.tick(push.tick)
        statistics = None
        if not tick.evaluates:
            self._refuse_loss(push)
            for bucket, place in enumerate(self.layout.buckets):
                gradient = place.view(push.memory)
                self._update(bucket, lambda start, stop, of=gradient: of[start:stop])  # type: ignore[misc]
            self.updates += 1
            if self.layout.statistics:
                start, stop = self.layout.statistics_range
                statistics = np.frombuffer(push.memory[start:stop], np.float32).copy()
        self._heads[push.tick][push.block] = statistics, push.measured
        self._clocks[shard] += 1
        self._skip_empty()
        return self.goes_on()

    def goes_on(self) -> bool:
        """Complete the running tick if all shards have contributed to it; whether that was so."""
        if self.finished or min(self._clocks) == self.tick:
            return False
        self._tick_is_complete()
        return True

    @property
    def clocks(self) -> Sequence[int]:
        """The tick that each shard contributes to next."""
        return self._clocks

    @property
    def missing(self) -> list[int]:
        """The shards that are furthest behind."""
        return [shard for shard, clock in enumerate(self._clocks) if clock == self.tick]

    @property
    def untouched(self) -> bool:
        """Whether nothing of the running tick has been applied."""
        return all(clock == self.tick for clock in self._clocks)

    # --- private -----------------------------------------------------------------------------------------------

    def _tick_is_complete(self) -> None:
        tick = self.plan.tick(self.tick)
        heads = self._heads.pop(self.tick)
        statistics, measured = tree_sum(heads, root(self.plan.occupied_shards(tick)), add_heads)
        if not tick.evaluates:
            if statistics is not None:
                now = self.weights.arrays(self.step)
                self._apply_statistics(statistics, now, now)
            self.step += 1
        self._record(tick, measured)
        self.tick += 1

    def _skip_empty(self) -> None:
        """Shards without examples in a tick have nothing to contribute to it."""
        for shard, clock in enumerate(self._clocks):
            while clock < self.plan.total_ticks and shard >= self.plan.occupied_shards(self.plan.tick(clock)):
                clock += 1
            self._clocks[shard] = clock

    def _refuse_loss(self, push: Push) -> None:
        if not np.isfinite(push.measured.loss):
            raise NonFiniteError(
                f"the loss of shard {push.block.start} is {push.measured.loss} at {self._where}; {REMEDY}"
            )

    def _writes(self) -> None:
        """The weights are changed in place: no region is ever closed to readers."""
