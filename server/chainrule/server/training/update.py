"""What turns the sum of gradients into weights: the optimizer's rule on flat arrays, a cache's worth at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.engine import optim
from chainrule.server.training.config import Adam, Optimizer, TrainingConfig
from chainrule.server.training.layout import PartitionLayout
from chainrule.server.training.reduction import Block, additions, root
from chainrule.server.training.state import AVERAGE, Array

CHUNK = 32_768
"""Elements that are summed and updated at a time: parameters, gradients and state of them stay in a core's cache."""
SMALL = 4 * CHUNK
"""Elements up to which nothing is cut: the calls would cost more than the cache saves."""


@dataclass(frozen=True)
class Run:
    """Elements of a bucket that are updated at a time, and how."""

    start: int
    stop: int
    optimizer: Optimizer


class Updater:
    """The update of a job: which state it keeps, and what it does to a run of elements."""

    def __init__(self, config: TrainingConfig, total_steps: int) -> None:
        self.config = config
        self.total_steps = total_steps
        used = [config.optimizer, *(group.of(config.optimizer) for group in config.parameter_groups)]
        kept = [slot for optimizer in used for slot in _slots(optimizer)]
        self.slots: tuple[str, ...] = tuple(dict.fromkeys([*kept, *((AVERAGE,) if config.ema_decay else ())]))
        """What is kept for the elements of a bucket."""

    def slots_of(self, name: str) -> tuple[str, ...]:
        """What is kept for a parameter."""
        return (*_slots(self.config.optimizer_of(name)), *((AVERAGE,) if self.config.ema_decay else ()))

    def rate(self, step: int, optimizer: Optimizer | None = None) -> float:
        """The learning rate of step number `step`, from 0; of the job's optimizer, or of that of a group."""
        return (optimizer or self.config.optimizer).lr * self.config.schedule.factor(step, self.total_steps)

    def runs(self, layout: PartitionLayout, bucket: int) -> list[Run]:
        """How a bucket is updated: in runs, which end where the settings change."""
        place = layout.buckets[bucket]
        borders: list[tuple[int, Optimizer]] = []
        for name in (name for name, of in layout.bucket_of.items() if of == bucket):
            optimizer = self.config.optimizer_of(name)
            if not borders or optimizer != borders[-1][1]:
                borders.append((layout.first_of(name), optimizer))
        ends = [*(first for first, _ in borders[1:]), place.size]
        return [
            Run(max(start, first), min(stop, end), optimizer)
            for (first, optimizer), end in zip(borders, ends, strict=True)
            for start, stop in runs(place.size)
            if start < end and first < stop
        ]

    def apply(
        self,
        old: Array,
        new: Array,
        gradient: Array,
        slots: Mapping[str, Array],
        *,
        lr: float,
        updates: int,
        optimizer: Optimizer | None = None,
    ) -> None:
        """Write the updated parameter to `new`, which may be `old`, and update its slots in place; `updates` have been
        made before this one. The optimizer is that of a group, or the job's."""
        optimizer = optimizer or self.config.optimizer
        self._optimize(optimizer, old, new, gradient, slots, lr=lr, updates=updates)
        if self.config.ema_decay:
            move_average(slots[AVERAGE], new, self.config.ema_decay, is_first=updates == 0)

    @staticmethod
    def _optimize(
        optimizer: Optimizer,
        old: Array,
        new: Array,
        gradient: Array,
        slots: Mapping[str, Array],
        *,
        lr: float,
        updates: int,
    ) -> None:
        if isinstance(optimizer, Adam):
            if new is not old:
                np.copyto(new, old)
            optim.adam_update(
                new,
                gradient,
                slots["exp_avg"],
                slots["exp_avg_sq"],
                step=updates + 1,
                lr=lr,
                betas=(optimizer.beta1, optimizer.beta2),
                eps=optimizer.eps,
                weight_decay=optimizer.weight_decay,
                decoupled_weight_decay=optimizer.decoupled,
            )
            return
        buffer = slots["momentum_buffer"] if optimizer.momentum else None
        first = optim.sgd_update(
            old,
            gradient,
            buffer if updates else None,
            lr=lr,
            momentum=optimizer.momentum,
            dampening=optimizer.dampening,
            weight_decay=optimizer.weight_decay,
            nesterov=optimizer.nesterov,
            out=new,
        )
        if updates == 0 and first is not None and buffer is not None:
            buffer[...] = first


def move_average(average: Array, x: Array, decay: float, *, is_first: bool) -> None:
    """The average of the weights after an update, in place.

        a ← d·a + (1 − d)·x, computed as a + (1 − d)·(x − a); a = x at the first

    Source: torch.optim.swa_utils.AveragedModel with get_ema_multi_avg_fn(d).
    """
    if is_first:
        np.copyto(average, x)
        return
    towards = np.subtract(x, average)
    towards *= 1.0 - decay
    average += towards


def is_finite(values: Array) -> bool:
    """Whether all of a flat array are numbers."""
    is_plain = values.dtype in (np.float32, np.float64)
    if is_plain and math.isfinite(np.dot(values, values)):  # the fastest pass there is; NaN and infinity show in it
        return True
    return bool(np.isfinite(values).all())  # they may be where their squares are not


class TreeSum:
    """The sum over shards of flat arrays, run by run, without a copy of all of it."""

    def __init__(self, values: Mapping[Block, Array], num_shards: int) -> None:
        blocks = tuple(sorted(values))
        self._values = [values[block] for block in blocks]
        self._steps = additions(blocks, root(num_shards))
        longest = self._values[0].size if self._values[0].size <= SMALL else CHUNK
        self._scratch = [np.empty(longest, self._values[0].dtype) for _ in self._steps]

    def run(self, start: int, stop: int) -> Array:
        """The elements of a run; only to be read, until the next call."""
        held: list[Any] = [value[start:stop] for value in self._values]
        for (left, right), scratch in zip(self._steps, self._scratch, strict=True):
            held.append(np.add(held[left], held[right], out=scratch[: stop - start]))
        return held[-1]  # type: ignore[no-any-return]

    def whole(self) -> Array:
        """All elements, in memory of their own."""
        return np.concatenate([self.run(start, stop).copy() for start, stop in runs(self._values[0].size)])


def _slots(optimizer: Optimizer) -> tuple[str, ...]:
    """What an optimizer keeps for each parameter."""
    if isinstance(optimizer, Adam):
        return ("exp_avg", "exp_avg_sq")
    return ("momentum_buffer",) if optimizer.momentum else ()


def runs(size: int) -> Sequence[tuple[int, int]]:
    """The bounds of the runs of so many elements."""
    if size <= SMALL:
        return [(0, size)] if size else []
    return [(start, min(start + CHUNK, size)) for start in range(0, size, CHUNK)]


def clip_factor(squares: Mapping[str, float], longest: float) -> float:
    """What gradients are multiplied with to be at most `longest` together, from the sum of squares of each parameter.

        min(1, c / (‖g‖ + 10⁻⁶))

    Source: torch.nn.utils.clip_grad_norm_. The squares are added in the order of the names.
    """
    norm = math.sqrt(math.fsum(squares[name] for name in sorted(squares)))
    return min(1.0, longest / (norm + 1e-6))


def sum_of_squares(gradient: Array) -> float:
    """Σ g², in an order that depends on the number of elements only: runs in float64, then their exact sum."""
    flat = gradient.reshape(-1)
    return math.fsum(
        float(np.add.reduce(np.square(flat[start:stop], dtype=np.float64))) for start, stop in runs(flat.size)
    )
