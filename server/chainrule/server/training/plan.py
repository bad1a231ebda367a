"""What a job computes, as values: its configuration and, for every step, which examples make up which shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from chainrule.engine import data

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent with PyTorch's formulas."""

    lr: float = 0.01
    """Learning rate, above 0."""
    momentum: float = 0.0
    """Momentum factor, from 0."""
    dampening: float = 0.0
    """Dampening of the momentum."""
    weight_decay: float = 0.0
    """L2 penalty, from 0."""
    nesterov: bool = False
    """Nesterov momentum; needs momentum above 0 and no dampening."""


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. Everything but `workers` fixes the weights that come out."""

    epochs: int = 1
    """Passes over the dataset."""
    batch_size: int = 64
    """Examples of one step: the global batch."""
    shards: int = 1
    """Slices of each global batch. Fixes the numerics."""
    workers: int = 1
    """Worker processes. Does not change the weights."""
    seed: int = 0
    """Seed of the order of examples."""
    optimizer: Sgd = field(default_factory=Sgd)
    """What turns gradients into weights."""


@dataclass(frozen=True)
class Plan:
    """The whole training run as a pure function of (model, dataset size, configuration)."""

    family: str
    """Model family, as `engine.models.build` knows it."""
    family_config: Mapping[str, object]
    """Configuration of the family."""
    num_examples: int
    """Size of the dataset."""
    config: TrainingConfig
    """How to train."""

    @property
    def steps_per_epoch(self) -> int:
        return data.num_batches(self.num_examples, self.config.batch_size)

    @property
    def total_steps(self) -> int:
        return self.config.epochs * self.steps_per_epoch

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
        return data.batch_indices(order, self.config.batch_size, position)

    def shards(self, step: int) -> list[Indices]:
        """The global batch of a step cut into its K shards. The rule knows nothing of workers: the first shards are
        one example longer where the batch does not divide, and a ragged last batch may leave shards empty."""
        batch = self.batch(step)
        return [batch[part] for part in data.split(len(batch), self.config.shards)]


@lru_cache(maxsize=2)
def _epoch_order(num_examples: int, seed: int, epoch: int) -> Indices:
    return data.epoch_order(num_examples, seed=seed, epoch=epoch)
