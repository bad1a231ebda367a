"""What a work is trained on, how, and where it starts: the same for both sides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.distributed.works import LEARNING_RATE, MOMENTUM, Work
from chainrule.server.architecture import Builtin
from chainrule.server.training.config import Sgd, TrainingConfig
from chainrule.server.training.plan import Plan

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


def examples(work: Work) -> tuple[Floats, Integers]:
    """Noise and random classes, in one epoch of batches for all steps of the work."""
    random = np.random.default_rng(0)
    count = work.batch * work.total_steps
    inputs = random.standard_normal((count, *work.example_shape), dtype=np.float32)
    return inputs, random.integers(work.classes, size=count)


def plan(work: Work, *, workers: int, shards: int, checkpoint_every_steps: int = 0) -> Plan:
    """Our training run."""
    config = TrainingConfig(
        batch_size=work.batch,
        shards=shards,
        optimizer=Sgd(lr=LEARNING_RATE, momentum=MOMENTUM),
        min_workers=1,
        max_workers=workers,
        checkpoint_every_steps=checkpoint_every_steps,
    )
    return Plan(Builtin(work.network, work.family_config), work.batch * work.total_steps, config=config)


def shards(work: Work) -> Integers:
    """Which examples each process takes in each step, as ours do: (steps, workers, batch / workers)."""
    training = plan(work, workers=work.workers, shards=work.workers)
    return np.array([training.shards(step) for step in range(work.total_steps)])


def initial(parameters: Iterable[tuple[str, tuple[int, ...]]]) -> Iterator[Floats]:
    """Values for parameters of these names and shapes, in order: weights from N(0, 2 / fan_in), by their place, as
    layers are called otherwise by the two sides; scales 1, biases 0."""
    for place, (name, shape) in enumerate(parameters):
        if len(shape) > 1:
            random = np.random.default_rng(place)
            yield random.standard_normal(shape, dtype=np.float32) * np.float32((2 / np.prod(shape[1:])) ** 0.5)
        else:
            yield np.full(shape, 0 if name.endswith("bias") else 1, np.float32)
