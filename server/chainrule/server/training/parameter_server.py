"""A partition of the parameter server: the single writer of its parameters, momentum and running statistics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chainrule.engine import ChainruleError, models, nn, optim
from chainrule.engine.nn import functional as F
from chainrule.server.training.link import Push, Weights
from chainrule.server.training.plan import Plan
from chainrule.server.training.reduction import TreeSum
from chainrule.server.training.state import Contribution, StepMetric, TrainingState

REMEDY = "lower job.config.sgd.lr or look at the inputs' scale"


class StalePushError(ChainruleError):
    """A push from an attempt or a step that is over."""


class NonFiniteError(ChainruleError):
    """The loss or a gradient became NaN or infinite."""


@dataclass(frozen=True)
class BatchNormRule:
    """How the running statistics of one BatchNorm layer follow the batch statistics."""

    mean: str
    """Buffer of the running mean."""
    variance: str
    """Buffer of the running variance."""
    count: str
    """Buffer that counts the batches."""
    momentum: float | None
    """Weight of the new value; None: the cumulative average."""


def batch_norm_rules(plan: Plan) -> tuple[BatchNormRule, ...]:
    """How the running statistics of a plan's model are updated."""
    model = models.build(plan.family, plan.family_config)
    return tuple(
        BatchNormRule(
            mean=f"{name}.running_mean",
            variance=f"{name}.running_var",
            count=f"{name}.num_batches_tracked",
            momentum=module.momentum,
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats
    )


@dataclass(frozen=True)
class Report:
    """What happened since a step."""

    metrics: tuple[StepMetric, ...]
    """One for each step done since, in order."""
    snapshot: TrainingState | None
    """The state after the last epoch that ended, if it was asked for and has not been handed out before."""


class Partition:
    """State and update rule, without any waiting."""

    def __init__(
        self,
        plan: Plan,
        state: TrainingState,
        rules: tuple[BatchNormRule, ...],
        *,
        fence: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.plan = plan
        self.state = state.copy()
        self.rules = rules
        self.fence = fence
        self.step = state.step
        self.metrics: list[StepMetric] = []
        self.snapshot: TrainingState | None = None
        """The state after the last epoch that ended and has not been fetched: one that nobody fetches in time gives way
        to the next, so that snapshots cannot pile up."""
        self._clock = clock
        self._sum = TreeSum[Contribution](plan.config.shards)

    def push(self, push: Push) -> bool:
        """Take in a worker's contribution; True if it was the last of its step and the weights have moved on.

        Raises StalePushError, ReductionError or NonFiniteError.
        """
        if push.fence != self.fence or push.step != self.step:
            raise StalePushError(
                f"worker {push.worker} pushed step {push.step} of attempt {push.fence}; "
                f"the parameter server is at step {self.step} of attempt {self.fence}"
            )
        for block, value in push.blocks:
            self._sum.add(block, value)
        if not self._sum.complete:
            return False
        self._update(self._sum.total())
        self._sum = TreeSum(self.plan.config.shards)
        return True

    def weights(self) -> Weights:
        return Weights(self.step, self.state.parameters)

    def state_now(self) -> TrainingState:
        """A copy of the state as it is now."""
        return replace(self.state, step=self.step).copy()

    def _update(self, total: Contribution) -> None:
        self._refuse_non_finite(total)
        self._apply_gradients(total)
        self._apply_statistics(total)
        epoch = self.plan.epoch_of(self.step) + 1
        self.step += 1
        self.metrics.append(
            StepMetric(
                step=self.step,
                epoch=epoch,
                loss=total.loss,
                accuracy=total.num_correct / total.num_examples,
                num_examples=total.num_examples,
                time_s=self._clock(),
            )
        )
        if self.plan.ends_epoch(self.step):
            self._refuse_non_finite_parameters()
            self.snapshot = self.state_now()

    def _refuse_non_finite(self, total: Contribution) -> None:
        where = f"step {self.step + 1} (epoch {self.plan.epoch_of(self.step) + 1})"
        if not np.isfinite(total.loss):
            raise NonFiniteError(f"the loss is {total.loss} at {where}; {REMEDY}")
        bad = sorted(name for name, g in total.gradients.items() if not np.isfinite(g).all())
        if bad:
            raise NonFiniteError(f"the gradient of {', '.join(bad)} is not finite at {where}; {REMEDY}")

    def _refuse_non_finite_parameters(self) -> None:
        """The last update of all is followed by no loss that would show what it has done."""
        bad = sorted(name for name, parameter in self.state.parameters.items() if not np.isfinite(parameter).all())
        if bad:
            raise NonFiniteError(f"{', '.join(bad)} is not finite after step {self.step}; {REMEDY}")

    def _apply_gradients(self, total: Contribution) -> None:
        sgd = self.plan.config.optimizer
        for name, parameter in self.state.parameters.items():
            buffer = optim.sgd_update(
                parameter,
                total.gradients[name],
                self.state.momentum.get(name),
                lr=sgd.lr,
                momentum=sgd.momentum,
                dampening=sgd.dampening,
                weight_decay=sgd.weight_decay,
                nesterov=sgd.nesterov,
            )
            if buffer is not None:
                self.state.momentum[name] = buffer

    def _apply_statistics(self, total: Contribution) -> None:
        buffers = self.state.buffers
        for rule in self.rules:
            buffers[rule.count] = buffers[rule.count] + 1
            factor = 1.0 / int(buffers[rule.count]) if rule.momentum is None else rule.momentum
            for name in (rule.mean, rule.variance):
                buffers[name] = F.running_update(buffers[name], total.statistics[name], factor)


class PartitionServer:
    """A partition that many can talk to at once: whoever pushes waits for the step to be complete."""

    def __init__(self, partition: Partition, publish: Callable[[Weights], Any] = lambda weights: weights) -> None:
        self._partition = partition
        self._publish = publish
        self._published = publish(partition.weights())
        self._failure: ChainruleError | None = None
        self._moved = asyncio.Condition()

    async def pull(self) -> Any:
        """The weights as they are now, published."""
        return self._published

    async def exchange(self, push: Push) -> Any:
        """Take in a contribution and answer with the weights of the next step, once all shards have come in."""
        async with self._moved:
            if self._failure is None:
                try:
                    moved = self._partition.push(push)
                except ChainruleError as failure:
                    self._failure = failure
                    self._moved.notify_all()
                    raise
                if moved:
                    self._published = self._publish(self._partition.weights())
                    self._moved.notify_all()
            await self._moved.wait_for(lambda: self._failure is not None or self._partition.step > push.step)
            if self._failure is not None:
                raise self._failure
            return self._published

    async def report(self, after_step: int, timeout_s: float, *, with_snapshot: bool) -> Report:
        """What happened since a step; waits up to `timeout_s` seconds for something to happen.

        Asking for what comes after a step says that what came up to it has arrived: it is not kept any longer.
        """
        partition = self._partition

        def news() -> bool:
            waiting = with_snapshot and partition.snapshot is not None
            return self._failure is not None or partition.step > after_step or waiting

        try:
            async with asyncio.timeout(timeout_s), self._moved:
                await self._moved.wait_for(news)
        except TimeoutError:
            pass  # nothing new is an answer too
        partition.metrics = [metric for metric in partition.metrics if metric.step > after_step]
        if self._failure is not None and not partition.metrics:
            raise self._failure
        snapshot = None
        if with_snapshot:
            snapshot, partition.snapshot = partition.snapshot, None
        return Report(tuple(partition.metrics), snapshot)
