"""What training changes: the state that the parameter server owns, and what a step or an evaluation measured."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = dict[str, Array]
AVERAGE = "ema"
"""Slot of the average of the weights."""


@dataclass(frozen=True)
class TrainingState:
    """Everything a job carries from one step to the next."""

    step: int
    """Steps done."""
    parameters: Arrays
    """Parameters, trained or not, by their names in the model's state_dict."""
    buffers: Arrays
    """Running statistics and counters, likewise."""
    slots: dict[str, Arrays] = field(default_factory=dict)
    """What the optimizer keeps for each parameter, by slot ("momentum_buffer", or "exp_avg" and "exp_avg_sq") and
    parameter, and likewise the average of the weights; empty before the first update."""
    updates: int = 0
    """Updates applied: steps done less those that were skipped."""

    def weights(self) -> Arrays:
        """The model's state_dict, as a job would have it for a result: parameters, or their averages where these are
        kept, and buffers."""
        return {**self.parameters, **self.slots.get(AVERAGE, {}), **self.buffers}

    def copy(self) -> TrainingState:
        """The same state in memory of its own."""
        slots = {slot: _copied(arrays) for slot, arrays in self.slots.items()}
        return TrainingState(self.step, _copied(self.parameters), _copied(self.buffers), slots, self.updates)

    def digest(self) -> str:
        """One SHA-256 of the position, the weights, the statistics and the optimizer's state; of their values, not of
        how these are spread over memory or partitions."""
        return combined_digest(self.step, self.updates, self.array_digests())

    def array_digests(self) -> dict[str, str]:
        """The SHA-256 of each array with its dtype and shape, by section/name."""
        sections = {"parameters": self.parameters, "buffers": self.buffers, **self.slots}
        return {f"{s}/{name}": _array_digest(a) for s, arrays in sections.items() for name, a in arrays.items()}


def combined_digest(step: int, updates: int, array_digests: Mapping[str, str]) -> str:
    """The digest of a state, from those of its arrays: parts of it can be digested in different places."""
    found = hashlib.sha256(f"{step} {updates}\n".encode())
    for name in sorted(array_digests):
        found.update(f"{name} {array_digests[name]}\n".encode())
    return found.hexdigest()


@dataclass(frozen=True)
class StepMetric:
    """What one step measured."""

    step: int
    """Step, from 1; also its place in the job's sequence of metrics."""
    epoch: int
    """Epoch, from 1."""
    loss: float
    """Mean loss over the global batch."""
    accuracy: float | None
    """Share of the global batch classified right; None: not measured."""
    num_examples: int
    """Examples of the global batch."""
    time_s: float
    """When it was done, in seconds since 1970 UTC."""
    values: Mapping[str, float] = field(default_factory=dict)
    """What else was measured, by name."""


@dataclass(frozen=True)
class EvaluationMetric:
    """What an evaluation after an epoch measured."""

    epoch: int
    """Epoch that had ended, from 1."""
    step: int
    """Steps done by then."""
    loss: float
    """Mean loss over the validation examples."""
    accuracy: float | None
    """Share of them classified right; None: not measured."""
    num_examples: int
    """How many they are."""
    time_s: float
    """When it was done, in seconds since 1970 UTC."""
    values: Mapping[str, float] = field(default_factory=dict)
    """What else was measured, by name."""


def _copied(arrays: Mapping[str, Array]) -> Arrays:
    return {name: np.array(array, copy=True) for name, array in arrays.items()}


def _array_digest(array: Array) -> str:
    found = hashlib.sha256(f"{array.dtype.name} {array.shape}\n".encode())
    found.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
    return found.hexdigest()
