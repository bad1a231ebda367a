"""What turns the sum of gradients into weights: the optimizer's rule on flat arrays, a cache's worth at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chainrule.engine import optim
from chainrule.server.training.config import Adam, TrainingConfig
from chainrule.server.training.reduction import Block, additions, root
from chainrule.server.training.state import Array

CHUNK = 32_768
"""Elements that are summed and updated at a time: parameters, gradients and state of them stay in a core's cache."""
SMALL = 4 * CHUNK
"""Elements up to which nothing is cut: the calls would cost more than the cache saves."""


class Updater:
    """The update of a job: which state it keeps, and what it does to a run of elements."""

    def __init__(self, config: TrainingConfig, total_steps: int) -> None:
        self.config = config
        self.total_steps = total_steps
        optimizer = config.optimizer
        if isinstance(optimizer, Adam):
            self.slots: tuple[str, ...] = ("exp_avg", "exp_avg_sq")
        else:
            self.slots = ("momentum_buffer",) if optimizer.momentum else ()

    def rate(self, step: int) -> float:
        """The learning rate of step number `step`, from 0."""
        return self.config.optimizer.lr * self.config.schedule.factor(step, self.total_steps)

    def apply(
        self,
        old: Array,
        new: Array,
        gradient: Array,
        slots: Mapping[str, Array],
        *,
        lr: float,
        updates: int,
    ) -> None:
        """Write the updated parameter to `new`, which may be `old`, and update its slots in place; `updates` have been
        made before this one."""
        optimizer = self.config.optimizer
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
        buffer = slots.get("momentum_buffer")
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
