"""A worker: computes the gradients of its shards, step after step. It holds nothing that cannot be recomputed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

import chainrule.engine as cr
from chainrule.engine import models, nn
from chainrule.engine.nn import functional as F
from chainrule.server.training.link import Link, Push
from chainrule.server.training.plan import Indices, Plan
from chainrule.server.training.reduction import Block, TreeSum
from chainrule.server.training.state import NOTHING, Array, Contribution


@dataclass(frozen=True)
class Examples:
    """A dataset in memory."""

    inputs: Array
    """float32, (N, ...)."""
    targets: Array
    """int64 class labels, (N,)."""


class Worker:
    """Computes some shards of every step of a plan."""

    def __init__(self, plan: Plan, examples: Examples, link: Link, *, index: int, shards: range, fence: int) -> None:
        self.plan = plan
        self.examples = examples
        self.link = link
        self.index = index
        self.shards = shards
        self.fence = fence
        self.model = models.build(plan.family, plan.family_config)
        self.model.train()
        self.parameters = dict(self.model.named_parameters())

    def run(self) -> int:
        """Train to the end of the plan; returns the number of steps computed."""
        return sum(1 for _ in self.steps())

    def steps(self) -> Iterator[int]:
        """Train, one step per iteration: hand over the contribution, yield, then wait for the next weights.

        A driver that steps several workers in one thread can so let all of them send before any waits.
        """
        weights = self.link.pull()
        while (step := weights.step) < self.plan.total_steps:
            self.load(weights.parameters)
            self.link.send(Push(self.fence, step, self.index, tuple(self.compute(step))))
            yield step
            weights = self.link.receive()

    def load(self, parameters: Mapping[str, Array]) -> None:
        """Compute with these parameters from now on; they are only read."""
        for name, array in parameters.items():
            self.parameters[name].data = array

    def compute(self, step: int) -> list[tuple[Block, Contribution]]:
        """The contribution of this worker's shards to a step, added up as far as the tree allows."""
        shards = self.plan.shards(step)
        batch_size = sum(len(indices) for indices in shards)
        total = TreeSum[Contribution](self.plan.config.shards)
        for shard in self.shards:
            with cr.random.using(self._draws(step, shard)):
                total.add(Block(shard), self.compute_shard(shards[shard], batch_size))
        return total.blocks()

    def _draws(self, step: int, shard: int) -> cr.Generator:
        """What dropout and the like draw from: a function of the job's seed, the step and the shard."""
        return cr.Generator(int(cr.random.raw_stream(self.plan.config.seed, step, shard, size=1)[0]))

    def compute_shard(self, indices: Indices, batch_size: int) -> Contribution:
        """Forward and backward on one shard of a global batch of `batch_size` examples.

        The loss of the job is the mean over the global batch. A shard of n of its N examples has the share n/N in it,
        so backward starts from n/N instead of 1: no division is left for later, and with one shard the gradients have
        the bits of plain local training.
        """
        if len(indices) == 0:
            return NOTHING
        share = len(indices) / batch_size
        inputs = cr.from_numpy(self.examples.inputs[indices])
        targets = cr.from_numpy(self.examples.targets[indices])

        self.model.zero_grad()
        with nn.collect_batch_statistics(self.model) as statistics:
            logits = self.model(inputs)  # (n, num_classes)
        loss = F.cross_entropy(logits, targets)
        loss.backward(cr.tensor(share, dtype=loss.dtype))

        return Contribution(
            gradients={name: _gradient(p) for name, p in self.parameters.items()},
            statistics={name: value * value.dtype.type(share) for name, value in statistics.items()},
            loss=float(loss.item()) * share,
            num_correct=int(np.count_nonzero(logits.data.argmax(axis=1) == targets.data)),
            num_examples=len(indices),
        )


def _gradient(parameter: cr.Tensor) -> Array:
    if parameter.grad is None:  # not used by this forward: contributes nothing
        return np.zeros_like(parameter.data)
    return parameter.grad.data
