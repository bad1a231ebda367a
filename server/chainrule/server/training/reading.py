"""What shards are computed from: examples read and prepared, those of the next step while this one is computed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from chainrule.engine import data
from chainrule.server.training.augmentation import mixing
from chainrule.server.training.config import TrainingConfig
from chainrule.server.training.examples import INPUTS, ExampleSource
from chainrule.server.training.objectives import Objective
from chainrule.server.training.plan import Indices, Plan
from chainrule.server.training.state import Array, Arrays


def input_names(model: object) -> list[str]:
    """What a network calls its inputs, in their order; none: it does not say, as a family, which has one."""
    declared: Sequence[object] = getattr(model, "inputs", ())
    return [str(getattr(spec, "name", "")) for spec in declared]


def input_columns(model: object, config: TrainingConfig) -> tuple[str, ...]:
    """The columns that a network's inputs are read from, in the order of its inputs: what `config.inputs` says; else,
    of a network with one input, "inputs", and of one with several, the columns of their names."""
    names = input_names(model)
    if len(names) <= 1:
        return (next(iter(config.inputs.values()), INPUTS),)
    return tuple(config.inputs.get(name, name) for name in names)


@dataclass(frozen=True)
class Lot:
    """Some examples as the network takes them."""

    inputs: tuple[Array, ...]
    """In the order in which the network takes them."""
    targets: Arrays
    """By column, also those that are weights of examples."""
    others: Arrays | None = None
    """Targets of those that they are mixed with; None: they are not mixed."""
    weight: float = 1.0
    """What counts for the first of the two; the rest to 1 counts for the second."""

    def __len__(self) -> int:
        return len(self.inputs[0])

    def part(self, part: slice) -> Lot:
        """A slice of them."""
        others = None if self.others is None else {name: column[part] for name, column in self.others.items()}
        targets = {name: column[part] for name, column in self.targets.items()}
        return Lot(tuple(array[part] for array in self.inputs), targets, others, self.weight)


class Reader:
    """Reads what the shards of a plan are computed from, and no other columns. It is a function of the plan and the
    examples alone, never of what was announced.

    Args:
        inputs: the columns of the network's inputs, in their order.
    """

    def __init__(
        self,
        plan: Plan,
        examples: ExampleSource,
        validation: ExampleSource | None = None,
        *,
        inputs: Sequence[str] = (INPUTS,),
    ) -> None:
        self._plan = plan
        self._inputs = tuple(inputs)
        self._targets = Objective(plan.config).columns
        self._columns = tuple(dict.fromkeys((*self._inputs, *self._targets)))
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
        return self._examples.read(self._plan.batch(step), self._targets)

    # --- evaluation --------------------------------------------------------------------------------------------

    def evaluated(self, indices: Indices) -> Lot:
        """Some validation examples."""
        return self._ahead.take(("evaluated", *indices[:1].tolist()), lambda: self._evaluated(indices))

    def expect_evaluated(self, indices: Indices) -> None:
        """Begin to read them, if there are any and that takes time."""
        if self._validation is not None and not self._validation.in_memory and len(indices):
            self._ahead.begin(("evaluated", *indices[:1].tolist()), lambda: self._evaluated(indices))

    def evaluated_targets(self) -> Arrays:
        """Of all validation examples."""
        assert self._validation is not None
        return self._validation.read(np.arange(self._plan.num_validation), self._targets)

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
        mixed = (x * own + other * (np.float32(1) - own) for x, other in zip(inputs, others, strict=True))
        return Lot(tuple(mixed), targets, other_targets, weight)

    def _prepared(self, indices: Indices, step: int) -> tuple[tuple[Array, ...], Arrays]:
        config, epoch = self._plan.config, self._plan.epoch_of(step)
        examples = self._examples.read(indices, self._columns)

        def augment(images: Array) -> Array:
            return config.augmentation.train(images, indices, seed=config.seed, epoch=epoch)

        return self._taken(examples, augment), self._targets_of(examples)

    def _evaluated(self, indices: Indices) -> Lot:
        assert self._validation is not None
        examples = self._validation.read(indices, self._columns)
        return Lot(self._taken(examples, self._plan.config.augmentation.evaluate), self._targets_of(examples))

    def _taken(self, examples: Arrays, augment: Callable[[Array], Array]) -> tuple[Array, ...]:
        """What the network takes; of several inputs the first is augmented. What is read twice is there twice: a
        network may write to its inputs."""
        taken, arrays = set(self._targets), []
        for name in self._inputs:
            arrays.append(examples[name].copy() if name in taken else examples[name])
            taken.add(name)
        arrays[0] = augment(arrays[0])
        return tuple(arrays)

    def _targets_of(self, examples: Arrays) -> Arrays:
        return {name: examples[name] for name in self._targets}


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
