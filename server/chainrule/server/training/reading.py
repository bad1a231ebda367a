"""What shards are computed from: examples read and prepared, those of the next step while this one is computed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from chainrule.engine import data
from chainrule.server.training.augmentation import mixing
from chainrule.server.training.examples import ExampleSource
from chainrule.server.training.losses import TARGETS
from chainrule.server.training.plan import Indices, Plan
from chainrule.server.training.state import Array, Arrays

INPUTS = "inputs"
"""The column that the network reads."""


@dataclass(frozen=True)
class Lot:
    """Some examples as the network takes them."""

    inputs: Array
    targets: Arrays
    """By column."""
    others: Arrays | None = None
    """Targets of those that they are mixed with; None: they are not mixed."""
    weight: float = 1.0
    """What counts for the first of the two; the rest to 1 counts for the second."""

    def part(self, part: slice) -> Lot:
        """A slice of them."""
        others = None if self.others is None else {name: column[part] for name, column in self.others.items()}
        return Lot(
            self.inputs[part], {name: column[part] for name, column in self.targets.items()}, others, self.weight
        )


class Reader:
    """Reads what the shards of a plan are computed from. It is a function of the plan and the examples alone, never of
    what was announced."""

    def __init__(self, plan: Plan, examples: ExampleSource, validation: ExampleSource | None = None) -> None:
        self._plan = plan
        self._examples = examples
        self._validation = validation
        augmentation = plan.config.augmentation
        self._ahead = Ahead(plan.config.shards)
        self._is_slow = not examples.in_memory or bool(augmentation.transforms) or augmentation.mixup > 0

    # --- training ----------------------------------------------------------------------------------------------

    def shard(self, step: int, shard: int) -> Lot:
        """The examples of a shard, as they are trained on at a step. Raises what reading them raises."""
        return self._ahead.take((step, shard), lambda: self._shard(step, shard))

    def expect_shard(self, step: int, shard: int) -> None:
        """Begin to read a shard, if that takes time; a step beyond the last has none."""
        if self._is_slow and step < self._plan.total_steps:
            self._ahead.begin((step, shard), lambda: self._shard(step, shard))

    def targets(self, step: int) -> Arrays:
        """Of the whole global batch of a step."""
        return _targets(self._examples.read(self._plan.batch(step)))

    # --- evaluation --------------------------------------------------------------------------------------------

    def evaluated(self, indices: Indices) -> Lot:
        """Some validation examples."""
        return self._ahead.take(("evaluated", *indices[:1].tolist()), lambda: self._evaluated(indices))

    def expect_evaluated(self, indices: Indices) -> None:
        """Begin to read them, if there are any and that takes time."""
        if self._validation is not None and not self._validation.in_memory and len(indices):
            self._ahead.begin(("evaluated", *indices[:1].tolist()), lambda: self._evaluated(indices))

    def evaluated_targets(self) -> Arrays:
        """Of all validation examples; no more inputs than of a batch are in memory for it."""
        assert self._validation is not None
        count, size = self._plan.num_validation, self._plan.config.batch_size
        pieces = [
            _targets(self._validation.read(np.arange(start, min(start + size, count))))
            for start in range(0, count, size)
        ]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    # --- private -----------------------------------------------------------------------------------------------

    def _shard(self, step: int, shard: int) -> Lot:
        config, batch = self._plan.config, self._plan.batch(step)
        part = data.split(len(batch), config.shards)[shard]
        inputs, targets = self._prepared(batch[part], step)
        if not config.augmentation.mixup:
            return Lot(inputs, targets)
        partners, weight = mixing(config.augmentation.mixup, batch, seed=config.seed, step=step)
        others, other_targets = self._prepared(batch[partners[part]], step)
        own = np.float32(weight)
        return Lot(inputs * own + others * (np.float32(1) - own), targets, other_targets, weight)

    def _prepared(self, indices: Indices, step: int) -> tuple[Array, Arrays]:
        config, examples = self._plan.config, self._examples.read(indices)
        inputs = config.augmentation.train(examples[INPUTS], indices, seed=config.seed, epoch=self._plan.epoch_of(step))
        return inputs, _targets(examples)

    def _evaluated(self, indices: Indices) -> Lot:
        assert self._validation is not None
        examples = self._validation.read(indices)
        return Lot(self._plan.config.augmentation.evaluate(examples[INPUTS]), _targets(examples))


class Ahead:
    """Makes what is announced in a thread.

    Args:
        most: how many that nobody has taken are kept; the oldest go first.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._begun: OrderedDict[tuple[object, ...], Future[Lot]] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None

    def take(self, key: tuple[object, ...], make: Callable[[], Lot]) -> Lot:
        """What was announced under the key, or what is made now."""
        begun = self._begun.pop(key, None)
        return make() if begun is None else begun.result()

    def begin(self, key: tuple[object, ...], make: Callable[[], Lot]) -> None:
        """Announce it."""
        if key in self._begun:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="examples")
        self._begun[key] = self._pool.submit(make)
        while len(self._begun) > self._most:
            self._begun.popitem(last=False)[1].cancel()


def _targets(examples: Arrays) -> Arrays:
    return {TARGETS: examples[TARGETS]}
