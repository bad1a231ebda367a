"""What training changes: the state a parameter server owns, and what shards contribute to it in a step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = dict[str, Array]


@dataclass(frozen=True)
class TrainingState:
    """Everything a job carries from one step to the next."""

    step: int
    """Steps done."""
    parameters: Arrays
    """Trainable values by their names in the model's state_dict."""
    buffers: Arrays
    """Running statistics and counters, likewise."""
    momentum: Arrays = field(default_factory=dict)
    """Momentum buffers by parameter name; a parameter has none before its first step."""

    def weights(self) -> Arrays:
        """The model's state_dict: parameters and buffers."""
        return {**self.parameters, **self.buffers}

    def copy(self) -> TrainingState:
        """The same state in memory of its own."""
        return TrainingState(self.step, _copied(self.parameters), _copied(self.buffers), _copied(self.momentum))

    def restrict(self, names: Collection[str]) -> TrainingState:
        """The part of the state under some names; the arrays are shared."""
        return TrainingState(
            self.step,
            _restricted(self.parameters, names),
            _restricted(self.buffers, names),
            _restricted(self.momentum, names),
        )

    @classmethod
    def join(cls, parts: Iterable[TrainingState]) -> TrainingState:
        """Partitions' states put together again. All must be of one step."""
        parts = list(parts)
        steps = {part.step for part in parts}
        if len(steps) != 1:
            raise ValueError(f"cannot join states of different steps: {sorted(steps)}")
        joined = cls(steps.pop(), {}, {}, {})
        for part in parts:
            joined.parameters.update(part.parameters)
            joined.buffers.update(part.buffers)
            joined.momentum.update(part.momentum)
        return joined


@dataclass(frozen=True)
class Contribution:
    """What a shard, or the sum over a block of shards, adds to a step. All values are already weighted by the share
    of the global batch, so that the plain sum over the shards is the mean over the batch."""

    gradients: Arrays
    """Gradients of the mean loss over the global batch, by parameter name."""
    statistics: Arrays
    """BatchNorm's batch statistics, by buffer name."""
    loss: float
    """Share in the mean loss over the global batch."""
    num_correct: int
    """Examples classified right."""
    num_examples: int
    """Examples; 0 for an empty shard, which adds nothing."""

    def __add__(self, other: Contribution) -> Contribution:
        if self.num_examples == 0:
            return other
        if other.num_examples == 0:
            return self
        return Contribution(
            {name: g + other.gradients[name] for name, g in self.gradients.items()},
            {name: value + other.statistics[name] for name, value in self.statistics.items()},
            self.loss + other.loss,
            self.num_correct + other.num_correct,
            self.num_examples + other.num_examples,
        )

    def restrict(self, names: Collection[str]) -> Contribution:
        """The part that concerns some names; loss and counts stay whole."""
        return Contribution(
            _restricted(self.gradients, names),
            _restricted(self.statistics, names),
            self.loss,
            self.num_correct,
            self.num_examples,
        )


NOTHING = Contribution({}, {}, 0.0, 0, 0)
"""The contribution of an empty shard."""


@dataclass(frozen=True)
class StepMetric:
    """What one step measured."""

    step: int
    """Step, from 1; also its place in the job's sequence of metrics."""
    epoch: int
    """Epoch, from 1."""
    loss: float
    """Mean loss over the global batch."""
    accuracy: float
    """Share of the global batch classified right."""
    num_examples: int
    """Examples of the global batch."""
    time_s: float
    """When it was done, in seconds since 1970 UTC."""


def partition_names(state: TrainingState, num_partitions: int) -> list[frozenset[str]]:
    """Names of parameters and buffers for each partition: the largest first, each to the partition with the least.
    The buffers of one layer are updated together and stay together."""
    groups: dict[str, list[str]] = {}
    for name in state.parameters:
        groups[name] = [name]
    for name in state.buffers:
        groups.setdefault(f"buffers of {name.rpartition('.')[0]}", []).append(name)
    arrays = state.weights()
    sizes = {group: sum(arrays[name].nbytes for name in names) for group, names in groups.items()}
    parts: list[list[str]] = [[] for _ in range(num_partitions)]
    loads = [0] * num_partitions
    for group in sorted(sizes, key=lambda group: (-sizes[group], group)):
        lightest = loads.index(min(loads))
        parts[lightest] += groups[group]
        loads[lightest] += sizes[group]
    return [frozenset(part) for part in parts]


def _copied(arrays: Mapping[str, Array]) -> Arrays:
    return {name: np.array(array, copy=True) for name, array in arrays.items()}


def _restricted(arrays: Mapping[str, Array], names: Collection[str]) -> Arrays:
    return {name: array for name, array in arrays.items() if name in names}
