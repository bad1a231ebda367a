"""What a job measures, by name, and which of it tells whether an evaluation is better than another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from chainrule.server.training.config import Loss, MetricSpec, TrainingConfig
from chainrule.server.training.state import EvaluationMetric

ACCURACY = "accuracy"
FALLING = frozenset({"perplexity", "mae", "mse", "rmse"})
"""Metrics of which less is better."""


def metric_name(spec: MetricSpec) -> str:
    """What its value is called: "accuracy", "top_5", "f1_micro"; of a named output "head.accuracy"."""
    name = f"top_{spec.k}" if spec.name == "top_k" else spec.name
    if spec.average and spec.average != "none":
        name = f"{name}_{spec.average}"
    return f"{spec.output}.{name}" if spec.output else name


def measured(config: TrainingConfig) -> tuple[MetricSpec, ...]:
    """The metrics of a job: those that it names or, where its first loss is one of classes, accuracy."""
    first = config.losses[0] if config.losses else Loss()
    if config.metrics or first.name not in ("cross_entropy", "nll"):
        return config.metrics
    return (MetricSpec(ACCURACY, output=first.output, target=first.target),)


@dataclass(frozen=True)
class Watched:
    """A measured value that evaluations are compared by."""

    name: str = ""
    """Of a metric, as `metric_name` has it; empty: the loss."""
    rises: bool = False
    """Whether more is better."""

    def of(self, evaluation: EvaluationMetric) -> float:
        """Its value; NaN if it could not be measured."""
        if not self.name:
            return evaluation.loss
        value = evaluation.accuracy if self.name == ACCURACY else evaluation.values.get(self.name)
        return math.nan if value is None else value

    def best(self, evaluations: Sequence[EvaluationMetric]) -> EvaluationMetric:
        """The best evaluation; the first of equals, and one without a value only where none has one."""

        def rank(evaluation: EvaluationMetric) -> tuple[bool, float, int]:
            value = self.of(evaluation)
            return math.isnan(value), -value if self.rises else value, evaluation.epoch

        return min(evaluations, key=rank)

    def told(self, evaluation: EvaluationMetric) -> str:
        """What none that is not better has: "a validation loss below 0.5"."""
        return f"a validation {self.name or 'loss'} {'above' if self.rises else 'below'} {self.of(evaluation):.6g}"


def watched(config: TrainingConfig) -> Watched:
    """What the evaluations of a job are compared by."""
    name = config.validation.metric
    falls = any(spec.name in FALLING for spec in measured(config) if metric_name(spec) == name)
    return Watched(name, rises=bool(name) and not falls)
