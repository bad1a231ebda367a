"""What training changes: the state a parameter server owns, and what shards contribute to it in a step."""

from __future__ import annotations

from collections.abc import Mapping
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


def _copied(arrays: Mapping[str, Array]) -> Arrays:
    return {name: np.array(array, copy=True) for name, array in arrays.items()}
