"""What is wrong with the metrics of a job, with its model and dataset."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import chainrule.engine as cr
from chainrule.server.errors import InvalidRequestError
from chainrule.server.jobs.fitting import Fit, Goal, batch_text
from chainrule.server.training.config import MetricSpec
from chainrule.server.training.errors import ObjectiveError
from chainrule.server.training.losses import LOSSES, class_axis
from chainrule.server.training.metrics import MAX_SUMS, MAX_VALUES, column_of
from chainrule.server.training.objectives import Objective
from chainrule.server.training.state import Array
from chainrule.server.training.watching import metric_name

_OF_NUMBERS = ("mae", "mse", "rmse", "r2")
"""Metrics; all others are of classes or labels."""


def check_metrics(fit: Fit, objective: Objective, outputs: object, targets: Mapping[str, Array]) -> None:
    total, several = 0, _twice(outputs)  # of one example, shapes may go together that do not of a batch
    columns = {name: column.repeat(2, axis=0) for name, column in targets.items()}
    for index, spec in enumerate(fit.config.metrics):
        path = f"job.config.metrics[{index}]"
        try:
            sums = objective.sums_of(spec, several, columns)
        except ObjectiveError as error:
            place = f"{path}.{error.field}" if error.field else f"{path}.name"
            what = error.description if error.field else f'"{spec.name}" {error.description}'
            raise InvalidRequestError.of(place, what) from error
        except (ValueError, RuntimeError, IndexError, TypeError) as error:
            goal = Goal(fit.dataset, column_of(spec), targets[column_of(spec)])
            raise InvalidRequestError.of(
                f"{path}.name",
                f'"{spec.name}" cannot be computed of the outputs of "{fit.model.name}" and {goal.where}, of shape '
                f"{batch_text(goal.shape)}: {error}",
            ) from error
        _check_kind(objective, outputs, spec, path)
        _check_labels_known(fit, f"{path}.target", spec, objective, outputs, targets)
        total += len(sums)
        classes = len(sums) // 3
        if spec.average == "binary" and classes > 2:
            raise InvalidRequestError.of(
                f"{path}.average", f"is binary, but there are {classes} classes; use macro, micro or none"
            )
        if spec.average == "none" and classes > MAX_VALUES:
            raise InvalidRequestError.of(
                f"{path}.average",
                f"is none, and there are {classes} classes; at most {MAX_VALUES} have a value each: use macro or micro",
            )
        if total > MAX_SUMS:
            raise InvalidRequestError.of(
                path,
                f"{metric_name(spec)} makes them {total:,} sums for each contribution, more than {MAX_SUMS:,}; leave "
                "it out, or use accuracy or top_k, which need two",
            )


def _twice(outputs: object) -> object:
    """What a model gives for one example, as if for two."""
    match outputs:
        case cr.Tensor():
            return cr.from_numpy(np.repeat(outputs.data, 2, axis=0))
        case Mapping():
            return {name: _twice(part) for name, part in outputs.items()}
        case tuple() | list():
            return [_twice(part) for part in outputs]
        case _:
            return outputs


def _check_kind(objective: Objective, outputs: object, spec: MetricSpec, path: str) -> None:
    """A metric of classes or labels says nothing of an output and targets that every loss of both takes for numbers."""
    if spec.name in _OF_NUMBERS:
        return
    measured = objective.output(outputs, spec.output)
    of_output = [
        term
        for term in objective.terms
        if term.column == column_of(spec) and objective.output(outputs, term.settings.output) is measured
    ]
    if of_output and all(LOSSES[term.settings.name].family == "numbers" for term in of_output):
        names = " and ".join(f'"{term.settings.name}"' for term in of_output)
        raise InvalidRequestError.of(
            f"{path}.name",
            f'"{spec.name}" is of classes or labels, but {names}, the loss of that output, takes targets for numbers; '
            f"measure {', '.join(_OF_NUMBERS)}, or train with cross_entropy or bce_with_logits",
        )


def _check_labels_known(
    fit: Fit, path: str, spec: MetricSpec, objective: Objective, outputs: object, targets: Mapping[str, Array]
) -> None:
    """Labels that no loss compares with this output must be those of its classes, too."""
    column, output = column_of(spec), spec.output
    goal, shape = Goal(fit.dataset, column, targets[column]), objective.output(outputs, output).shape
    axis, known = class_axis(shape, goal.shape), fit.dataset.statistics_of(column)
    is_checked = any((term.column, term.settings.output) == (column, output) for term in objective.terms)
    if is_checked or not goal.num_classes or known is None or axis is None or shape[axis] < 2:
        return
    if known.min < 0 or goal.num_classes > shape[axis]:
        wrong = known.min if known.min < 0 else known.max
        raise InvalidRequestError.of(
            path if fit.is_first else fit.field,
            f'{goal.where} have the label {wrong:g}, but "{fit.model.name}" tells {shape[axis]} classes apart (0 to '
            f"{shape[axis] - 1}); name another column or output for {metric_name(spec)}",
        )
