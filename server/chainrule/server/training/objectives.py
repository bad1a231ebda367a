"""What a job minimises and measures: its losses, summed, and its metrics, as one value made of its configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

import chainrule.engine as cr
from chainrule.server.training.config import Loss, MetricSpec, TrainingConfig
from chainrule.server.training.contributions import Measured, Sums
from chainrule.server.training.errors import ObjectiveError
from chainrule.server.training.losses import Term
from chainrule.server.training.metrics import METRICS, Seen, Statistic, Vector, column_of, values_of
from chainrule.server.training.state import Array
from chainrule.server.training.watching import ACCURACY, measured, metric_name

Outputs = object
"""What a model gives: a Tensor; several in a tuple or list; or several by name."""
Targets = Mapping[str, Array]
"""Columns of a dataset, of the same examples."""


@dataclass(frozen=True)
class Cost:
    """What some examples of a batch add to the job's loss."""

    tensor: cr.Tensor
    """A loss over these examples."""
    seed: float
    """What its backward pass starts from: what it is multiplied by in the mean over the batch."""
    parts: tuple[float, ...] = ()
    """What each of several losses adds to its own mean; empty: there is one."""

    @property
    def value(self) -> float:
        """What is added to the job's loss."""
        return float(self.tensor.item()) * self.seed

    def mixed(self, other: Cost, weight: float) -> Cost:
        """The cost of the same outputs for targets of two kinds: of these with a weight, of the other with the rest."""
        first, second = self.seed * weight, other.seed * (1.0 - weight)
        parts = tuple(weight * a + (1.0 - weight) * b for a, b in zip(self.parts, other.parts, strict=True))
        return Cost(self.tensor * first + other.tensor * second, 1.0, parts)


class Objective:
    """The losses and metrics of a job. It holds no data.

    Args:
        config: of which `losses` and `metrics` are read.
        output_names: of the model's outputs, where they come in a tuple and have names.
    """

    def __init__(self, config: TrainingConfig, output_names: Sequence[str] = ()) -> None:
        self.losses = config.losses or (Loss(),)
        self.terms = tuple(Term(loss) for loss in self.losses)
        self.metrics = measured(config)
        self.output_names = tuple(output_names)
        self._others = tuple(spec for spec in self.metrics if metric_name(spec) != ACCURACY)
        self._accuracy = next((spec for spec in self.metrics if metric_name(spec) == ACCURACY), None)

    @classmethod
    def of(cls, config: TrainingConfig, model: object = None) -> Objective:
        """The objective of a job, with the names that a model gives to its outputs as `output_names`, if it does."""
        return cls(config, getattr(model, "output_names", ()))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns of the dataset that are read."""
        of_losses = [column for term in self.terms for column in term.columns]
        return tuple(dict.fromkeys([*of_losses, *map(column_of, self.metrics)]))

    @cached_property
    def weighs(self) -> bool:
        """Whether the targets of a whole batch must be known to tell what a part of it counts."""
        return any(term.weighs for term in self.terms)

    @cached_property
    def statistics(self) -> tuple[tuple[Statistic, str, str], ...]:
        """What is added up for the metrics but accuracy: each with its output and column, and once."""
        return tuple(dict.fromkeys(map(self._place, self._others)))

    # --- losses ------------------------------------------------------------------------------------------------

    def amounts(self, num_examples: int, targets: Callable[[], Targets]) -> tuple[float, ...]:
        """What the mean of each loss over a batch is divided by; `targets`, those of the whole batch, are asked for
        only where they matter."""
        if not self.weighs:
            return (float(num_examples),) * len(self.terms)
        known = targets()
        return tuple(term.amount(known) for term in self.terms)

    def cost(self, outputs: Outputs, targets: Targets, amounts: Sequence[float]) -> Cost:
        """What these examples add to the loss of the batch whose `amounts` these are. The sum over the parts of a batch
        is the mean over the batch: Σᵢ weightᵢ · meanᵢ."""
        found = [
            (term.settings.weight, *term.of(self.output(outputs, term.settings.output), targets, amount))
            for term, amount in zip(self.terms, amounts, strict=True)
        ]
        if len(found) == 1:
            [(weight, tensor, share)] = found
            return Cost(tensor, weight * share)
        weight, tensor, share = found[0]
        total = tensor * (weight * share)
        for weight, tensor, share in found[1:]:
            total = total + tensor * (weight * share)
        return Cost(total, 1.0, tuple(float(tensor.item()) * share for _, tensor, share in found))

    # --- metrics -----------------------------------------------------------------------------------------------

    def measure(self, cost: Cost, outputs: Outputs, targets: Targets) -> Measured:
        """What these examples add to what is measured of the batch."""
        right = count = 0.0
        if self._accuracy is not None:
            right, count = self.sums_of(self._accuracy, outputs, targets)
        sums: Sums = tuple(
            statistic.of(self._seen(outputs, output, targets, column)) for statistic, output, column in self.statistics
        )
        if cost.parts:
            sums = (cost.parts, *sums)
        return Measured(cost.value, int(right), int(count), sums)

    def sums_of(self, spec: MetricSpec, outputs: Outputs, targets: Targets) -> Vector:
        """What is added up for one metric. Raises ObjectiveError where it does not go with outputs and targets."""
        statistic, output, column = self._place(spec)
        return statistic.of(self._seen(outputs, output, targets, column))

    def finish(self, measured: Measured) -> tuple[float | None, dict[str, float]]:
        """Of what was added up over a batch: its accuracy, None if it is not measured, and all other values by name.
        Those for which there was nothing to measure are left out."""
        accuracy = measured.num_correct / measured.num_predictions if measured.num_predictions else None
        values: dict[str, float] = {}
        sums = list(measured.sums)
        if len(self.terms) > 1 and sums:
            values.update(zip(self.loss_names, sums.pop(0), strict=True))
        if sums:
            by_place = dict(zip(self.statistics, sums, strict=True))
            for spec in self._others:
                values.update(values_of(spec, by_place[self._place(spec)]))
        return accuracy, values

    @cached_property
    def loss_names(self) -> tuple[str, ...]:
        """What the values of several losses are called: "loss.mse", of a named output "loss.head.mse"; of equal names
        the second is "loss.mse.2"."""
        found: list[str] = []
        for loss in self.losses:
            name = ".".join(part for part in ("loss", loss.output, loss.name) if part)
            same = sum(one == name or one.startswith(f"{name}.") for one in found)
            found.append(f"{name}.{same + 1}" if same else name)
        return tuple(found)

    # --- outputs -----------------------------------------------------------------------------------------------

    def output(self, outputs: Outputs, name: str) -> cr.Tensor:
        """The output of this name or place; "" is the first. Raises ObjectiveError, of field "output"."""
        if isinstance(outputs, cr.Tensor):
            known = {self.output_names[0] if self.output_names else "0": outputs}
        elif isinstance(outputs, Mapping):
            known = dict(outputs)
        elif isinstance(outputs, tuple | list):
            names = self.output_names if len(self.output_names) == len(outputs) else map(str, range(len(outputs)))
            known = dict(zip(names, outputs, strict=True))
        else:
            raise ObjectiveError("output", f"cannot be taken of a {type(outputs).__name__}: models give tensors")
        places = list(known)
        if not name:
            name = places[0] if places else ""
        elif name not in known and name.isdecimal() and int(name) < len(places):
            name = places[int(name)]
        found = known.get(name)
        if not isinstance(found, cr.Tensor):
            raise ObjectiveError(
                "output", f'is "{name}", which is no output; name one of {", ".join(places)}, the outputs'
            )
        return found

    # --- private -----------------------------------------------------------------------------------------------

    def _place(self, spec: MetricSpec) -> tuple[Statistic, str, str]:
        return METRICS[spec.name].statistic(spec), spec.output, column_of(spec)

    def _seen(self, outputs: Outputs, output: str, targets: Targets, column: str) -> Seen:
        found = np.asarray(self.output(outputs, output).data)
        if found.dtype not in (np.float32, np.float64):
            found = found.astype(np.float32)
        term = next((t for t in self.terms if t.column == column and t.settings.output == output), None)
        if term is None:
            return Seen(found, targets[column])
        return Seen(found, targets[column], term.kind.family, term.settings.ignore_index)
