"""What a job computes, as values: for every step, which examples make up which shard; and when it is evaluated."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from chainrule.engine import data
from chainrule.server.architecture import Architecture
from chainrule.server.training.config import TrainingConfig

Indices = NDArray[np.int64]
AVERAGED = 1 << 40
"""Added to the version of weights, the number of steps done, to name the average of the weights after so many steps."""


@dataclass(frozen=True)
class Tick:
    """One exchange between workers and parameter server: a step, or the evaluation after an epoch."""

    number: int
    """Place in the sequence, from 0."""
    step: int
    """Steps done before it: the version of the weights it computes with."""
    epoch: int
    """Epoch it belongs to, from 0."""
    evaluates: bool
    """Whether it evaluates instead of training."""


@dataclass(frozen=True)
class Plan:
    """The whole training run as a pure function of (model, dataset size, configuration)."""

    architecture: Architecture
    """The network, with all that is needed to build it."""
    num_examples: int
    """Examples to train on."""
    num_validation: int = 0
    """Examples to evaluate on after each epoch; 0: it is not evaluated."""
    config: TrainingConfig = field(default_factory=TrainingConfig)
    """How to train."""

    @cached_property
    def steps_per_epoch(self) -> int:
        return data.num_batches(self.num_examples, self.config.batch_size)

    @cached_property
    def total_steps(self) -> int:
        return self.config.epochs * self.steps_per_epoch

    @cached_property
    def ticks_per_epoch(self) -> int:
        return self.steps_per_epoch + (1 if self.num_validation else 0)

    @cached_property
    def total_ticks(self) -> int:
        return self.config.epochs * self.ticks_per_epoch

    def tick(self, number: int) -> Tick:
        """Tick number `number`, from 0."""
        epoch, position = divmod(number, self.ticks_per_epoch)
        return Tick(number, epoch * self.steps_per_epoch + position, epoch, position == self.steps_per_epoch)

    def version(self, tick: Tick) -> int:
        """The weights that a tick computes with: those after the steps done before it, or their average."""
        averaged = tick.evaluates and self.config.ema_decay > 0
        return tick.step + (AVERAGED if averaged else 0)

    def tick_after(self, steps_done: int) -> int:
        """Number of the tick that follows so many steps: after an epoch, its evaluation."""
        if steps_done == 0:
            return 0
        epoch, position = divmod(steps_done - 1, self.steps_per_epoch)
        return epoch * self.ticks_per_epoch + position + 1

    def epoch_of(self, step: int) -> int:
        """Epoch that step number `step` (from 0) belongs to, from 0."""
        return step // self.steps_per_epoch

    def ends_epoch(self, steps_done: int) -> bool:
        """Whether an epoch is complete once `steps_done` steps are."""
        return steps_done > 0 and steps_done % self.steps_per_epoch == 0

    def batch(self, step: int) -> Indices:
        """Examples of the global batch of step number `step` (from 0), in order."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _epoch_order(self.num_examples, self.config.seed, epoch)
        return data.batch_indices(order, self.config.batch_size, position).astype(np.int64, copy=False)

    def batch_size(self, step: int) -> int:
        """How many examples the global batch of a step has: the last of an epoch may be smaller."""
        position = step % self.steps_per_epoch
        return min(self.config.batch_size, self.num_examples - position * self.config.batch_size)

    def shards(self, step: int) -> list[Indices]:
        """The global batch of a step cut into its K shards. The rule knows nothing of workers: the first shards are
        one example longer where the batch does not divide, and a ragged last batch may leave the last ones empty."""
        batch = self.batch(step)
        return [batch[part] for part in data.split(len(batch), self.config.shards)]

    def validation_shards(self) -> list[Indices]:
        """The validation examples cut into K shards, in order."""
        indices = np.arange(self.num_validation)
        return [indices[part] for part in data.split(self.num_validation, self.config.shards)]

    def occupied_shards(self, tick: Tick) -> int:
        """How many shards of a tick are not empty; the first ones."""
        size = self.num_validation if tick.evaluates else self.batch_size(tick.step)
        return min(self.config.shards, size)


@lru_cache(maxsize=2)
def _epoch_order(num_examples: int, seed: int, epoch: int) -> NDArray[np.uint32 | np.int64]:
    return data.compact_epoch_order(num_examples, seed=seed, epoch=epoch)
