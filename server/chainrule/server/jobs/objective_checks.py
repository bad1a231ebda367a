"""What is wrong with the losses and metrics of a job: by themselves, and with its model and dataset."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from chainrule.server.datasets import NO_LABEL
from chainrule.server.errors import InvalidRequestError, Violation, echo
from chainrule.server.jobs.column_checks import example_of, listed, missing
from chainrule.server.jobs.fitting import Fit, Goal, batch_text
from chainrule.server.jobs.metric_checks import check_metrics
from chainrule.server.records import Dataset, Model
from chainrule.server.training.config import Loss, MetricSpec, TrainingConfig
from chainrule.server.training.errors import ObjectiveError
from chainrule.server.training.examples import TARGETS
from chainrule.server.training.losses import LOSSES, Term, are_alike, class_axis, label_axis
from chainrule.server.training.metrics import METRICS, column_of
from chainrule.server.training.objectives import Cost, Objective
from chainrule.server.training.watching import measured, metric_name

MAX_LOSSES = 16
MAX_METRICS = 32
MAX_WEIGHTS = 65_536
"""Most weights of classes or labels."""
MAX_NAME_LENGTH = 128
"""Longest name of an output or a column."""

_OF_ALL = frozenset({"name", "output", "target", "weight", "example_weight"})


# --- by themselves ---------------------------------------------------------------------------------------------


def check_objective(config: TrainingConfig) -> list[Violation]:
    """Everything that is wrong with losses and metrics, whatever the model and the data."""
    found: list[Violation] = []
    for field, given, most in (("losses", config.losses, MAX_LOSSES), ("metrics", config.metrics, MAX_METRICS)):
        if len(given) > most:
            return [Violation(f"job.config.{field}", f"are {len(given)}; use at most {most}")]
    for index, loss in enumerate(config.losses):
        found += _prefixed(f"job.config.losses[{index}]", _check_loss(loss))
    for index, metric in enumerate(config.metrics):
        found += _prefixed(f"job.config.metrics[{index}]", _check_metric(metric))
    found += _check_watched(config)
    names = Counter(map(metric_name, config.metrics))
    found += [
        Violation(f"job.config.metrics[{index}]", f"is called {echo(name)} as another one is; leave one of them out")
        for index, name in enumerate(map(metric_name, config.metrics))
        if names[name] > 1 and name in list(map(metric_name, config.metrics))[:index]
    ]
    return found


def _check_watched(config: TrainingConfig) -> list[Violation]:
    """What evaluations are compared by must be measured, and be one value."""
    name, specs = config.validation.metric, {metric_name(spec): spec for spec in measured(config)}
    if not name or (name in specs and specs[name].average != "none"):
        return []
    if name in specs:
        why = f"is {echo(name)}, which has a value for each class; measure it with the average macro or micro"
    else:
        instead = f", or use {', '.join(specs)}" if specs else ""
        why = f"is {echo(name)}, which the job does not measure; name it in metrics, too{instead}"
    return [Violation("job.config.validation.metric", why)]


def _prefixed(path: str, found: Sequence[tuple[str, str]]) -> list[Violation]:
    return [Violation(f"{path}.{field}", description) for field, description in found]


def _check_loss(loss: Loss) -> list[tuple[str, str]]:
    if loss.name not in LOSSES:
        return [("name", f"is {echo(loss.name)}, which is no loss; there are {', '.join(LOSSES)}")]
    found = _check_places(loss, "output", "target", "example_weight")
    found += _not_taken(loss, LOSSES[loss.name].parameters | _OF_ALL, f'the loss "{loss.name}"')
    rules: tuple[tuple[str, bool, str], ...] = (
        ("weight", _is_finite(loss.weight) and loss.weight > 0, "use a number above 0"),
        ("label_smoothing", 0 <= loss.label_smoothing <= 1, "use 0 to 1"),
        ("delta", _is_finite(loss.delta) and loss.delta > 0, "use a number above 0"),
        ("beta", _is_finite(loss.beta) and loss.beta >= 0, "use 0 or more"),
    )
    found += [(field, f"is {getattr(loss, field)}; {use}") for field, right, use in rules if not right]
    found += _check_weights(loss.class_weights, "class_weights", "use 0 or more, and not 0 for all", _from_zero)
    found += _check_weights(loss.pos_weight, "pos_weight", "use numbers above 0", _above_zero)
    return found


def _check_metric(metric: MetricSpec) -> list[tuple[str, str]]:
    if metric.name not in METRICS:
        return [("name", f"is {echo(metric.name)}, which is no metric; there are {', '.join(METRICS)}")]
    kind, found = METRICS[metric.name], _check_places(metric, "output", "target")
    found += _not_taken(metric, kind.parameters | _OF_ALL, f'the metric "{metric.name}"')
    if metric.k < 1:
        found.append(("k", f"is {metric.k}; use at least 1"))
    if not 0 < metric.threshold < 1:
        found.append(("threshold", f"is {metric.threshold}; use a number above 0, below 1"))
    if metric.average and kind.averages and metric.average not in kind.averages:
        found.append(("average", f"is {echo(metric.average)}; use {', '.join(kind.averages)}"))
    return found


def _check_places(spec: Loss | MetricSpec, *names: str) -> list[tuple[str, str]]:
    return [
        (name, f"has {len(getattr(spec, name))} characters; use at most {MAX_NAME_LENGTH}")
        for name in names
        if len(getattr(spec, name)) > MAX_NAME_LENGTH
    ]


def _not_taken(spec: Loss | MetricSpec, taken: frozenset[str], subject: str) -> list[tuple[str, str]]:
    """Settings that would do nothing."""
    default: Any = type(spec)(spec.name)
    return [
        (f.name, f"is {echo(getattr(spec, f.name))}, which {subject} does not have; leave it out")
        for f in fields(spec)
        if f.name not in taken and getattr(spec, f.name) != getattr(default, f.name)
    ]


def _check_weights(
    weights: tuple[float, ...], field: str, use: str, rule: Callable[[tuple[float, ...]], bool]
) -> list[tuple[str, str]]:
    if len(weights) > MAX_WEIGHTS:
        return [(field, f"has {len(weights):,} numbers; use at most {MAX_WEIGHTS:,}")]
    return [] if not weights or rule(weights) else [(field, f"is {echo(list(weights))}; {use}")]


def _from_zero(weights: tuple[float, ...]) -> bool:
    return all(_is_finite(w) and w >= 0 for w in weights) and any(weights)


def _above_zero(weights: tuple[float, ...]) -> bool:
    return all(_is_finite(w) and w > 0 for w in weights)


def _is_finite(value: float) -> bool:
    return math.isfinite(value) and abs(value) <= 3e38  # of float32


# --- with a model and a dataset --------------------------------------------------------------------------------


def check_columns(model: Model, dataset: Dataset, config: TrainingConfig, *, field: str) -> None:
    """Whether the dataset has what losses and metrics are computed from, whatever the model gives. Raises
    InvalidRequestError; `field` is that of the request that names the dataset."""
    _check_all_columns(Fit(model, dataset, config, field, is_first=field == "job.dataset"), Objective(config))


def check_fit(
    outputs: object, output_names: Sequence[str], model: Model, dataset: Dataset, config: TrainingConfig, *, field: str
) -> Cost:
    """Whether losses and metrics go with what the model gives for one example, and with the dataset's targets; what the
    example costs.

    Args:
        outputs: of one example of zeros.
        field: of the request, that names the dataset.

    Raises InvalidRequestError.
    """
    fit = Fit(model, dataset, config, field, field == "job.dataset")
    objective = Objective(config, output_names)
    _check_all_columns(fit, objective)
    targets = {name: example_of(dataset, name) for name in objective.columns}
    targets |= {w: np.ones_like(targets[w]) for term in objective.terms if (w := term.settings.example_weight)}
    for index, term in enumerate(objective.terms):
        try:
            shape = tuple(objective.output(outputs, term.settings.output).shape)
        except ObjectiveError as error:
            raise fit.refused(index, error.field, f'{error.description} of "{model.name}"') from error
        goal = Goal(dataset, term.column, targets[term.column])
        _CHECKS[LOSSES[term.settings.name].family](fit, index, term.settings, shape, goal)
        _check_values(fit, index, term.settings, goal)
    try:
        cost = objective.cost(outputs, targets, objective.amounts(1, lambda: targets))
    except (ValueError, RuntimeError, IndexError, TypeError) as error:
        raise InvalidRequestError.of(
            "job.config.losses" if config.losses else field,
            f'cannot be computed of the outputs of "{model.name}" and the targets of "{dataset.name}": {error}',
        ) from error
    check_metrics(fit, objective, outputs, targets)
    if config.metrics:
        objective.finish(objective.measure(cost, outputs, targets))
    return cost


def _without(fit: Fit, path: str, field: str, column: str) -> InvalidRequestError:
    """A loss or metric names a column that is not there."""
    if not fit.is_first:
        by = f"which {path} of the job needs as its {field}"
        return InvalidRequestError.of(fit.field, f"{missing(fit.dataset, column)}, {by}")
    if path.startswith("losses") and not fit.told:
        remedy = 'which the loss compares with where none is said; say which, as loss={"target": …}'
        return InvalidRequestError.of(fit.field, f"{missing(fit.dataset, column)}, {remedy}")
    remedy = f"name one of these, or make a dataset with it: columns={{{column!r}: …}}"
    return InvalidRequestError.of(
        f"job.config.{path}.{field}", f"is {echo(column)}, but {listed(fit.dataset)}; {remedy}"
    )


def _check_all_columns(fit: Fit, objective: Objective) -> None:
    for index, term in enumerate(objective.terms):
        _check_columns(fit, index, term)
    for index, spec in enumerate(fit.config.metrics):
        if fit.dataset.column(column_of(spec)) is None:
            raise _without(fit, f"metrics[{index}]", "target", column_of(spec))


def _check_columns(fit: Fit, index: int, term: Term) -> None:
    """The columns that a loss needs are there, and weights of examples are some."""
    dataset, weights = fit.dataset, term.settings.example_weight
    if dataset.column(term.column) is None:
        raise _without(fit, f"losses[{index}]", "target", term.column)
    if not weights:
        return
    column, known = dataset.column(weights), dataset.statistics_of(weights)
    if column is None:
        raise _without(fit, f"losses[{index}]", "example_weight", weights)
    if math.prod(column.shape) != 1:
        raise fit.refused(
            index,
            "example_weight",
            f'is {echo(weights)}, which has values of shape {batch_text((1, *column.shape))} in "{dataset.name}"; a '
            "weight for each example is (N,)",
        )
    if known is not None and known.min < 0:
        row = "" if known.min_row is None else f" of example {known.min_row}"
        raise fit.refused(
            index,
            "example_weight",
            f'is {echo(weights)}, and {known.min:g}{row} of "{dataset.name}"; weights are from 0',
        )
    if known is not None and known.max == 0:
        raise fit.refused(
            index, "example_weight", f'is {echo(weights)}, which is 0 for all examples of "{dataset.name}"; give others'
        )


def _check_classes(fit: Fit, index: int, loss: Loss, outputs: tuple[int, ...], goal: Goal) -> None:
    dataset, model, targets = fit.dataset, fit.model, goal.shape
    if goal.array.dtype != np.int64:
        if are_alike(outputs, targets) and (loss.name == "dice" or outputs == targets):
            _check_number_of_classes(fit, index, loss, outputs[label_axis(outputs)])
            return
        raise fit.refused(
            index,
            "name",
            f'"{loss.name}" goes with int64 class labels, but {goal.where} are float32 numbers; use mse, l1, huber or '
            f"smooth_l1, bce_with_logits for several labels, or a dataset whose {goal.what} are whole numbers",
        )
    axis = class_axis(outputs, targets)
    if axis is None:
        raise fit.refused(
            index,
            "name",
            f'"{dataset.name}" has {goal.what} of shape {batch_text(targets)}, which go with outputs of shape '
            f'{batch_text((*targets, "classes"))}, but those of "{model.name}" are {batch_text(outputs)}; use another '
            "model or other targets",
        )
    count = outputs[axis]
    _check_least_label(fit, index, loss, goal)
    highest = goal.highest_but(loss.ignore_index)
    if highest >= count:
        raise fit.refused(
            index,
            "name",
            f'"{dataset.name}" has the label {highest}{goal.among}, but "{model.name}" tells {count} '
            f"classes apart (0 to {count - 1}); correct the labels or use a model with num_classes {highest + 1}",
        )
    _check_number_of_classes(fit, index, loss, count)


def _check_least_label(fit: Fit, index: int, loss: Loss, goal: Goal) -> None:
    """Labels of another column than "targets", where -100 may stand for none, are from 0."""
    known = fit.dataset.statistics_of(goal.name)
    if goal.name == TARGETS or known is None or known.min >= 0 or known.min == loss.ignore_index:
        return
    row = "" if known.min_row is None else f" of example {known.min_row}"
    raise fit.refused(
        index,
        "target",
        f'is {echo(goal.name)}, and {known.min:g}{row} of "{fit.dataset.name}"; labels are from 0: correct it, or set '
        f"ignore_index to {known.min:g} if it stands for none",
    )


def _check_number_of_classes(fit: Fit, index: int, loss: Loss, count: int) -> None:
    if loss.class_weights and len(loss.class_weights) != count:
        raise fit.refused(
            index,
            "class_weights",
            f'has {len(loss.class_weights)} numbers, but "{fit.model.name}" tells {count} classes apart; give one for '
            "each",
        )


def _check_labels(fit: Fit, index: int, loss: Loss, outputs: tuple[int, ...], goal: Goal) -> None:
    _check_numbers(fit, index, loss, outputs, goal)
    if goal.num_classes > 2:
        raise fit.refused(
            index,
            "name",
            f'"{loss.name}" goes with targets of 0 and 1, but "{fit.dataset.name}" has the label '
            f"{goal.num_classes - 1}{goal.among}; use cross_entropy where one class of several is right",
        )
    count = outputs[label_axis(outputs)] if len(outputs) > 1 else 1
    if loss.pos_weight and len(loss.pos_weight) not in (1, count):
        raise fit.refused(
            index, "pos_weight", f"has {len(loss.pos_weight)} numbers, but there are {count} labels; give one for each"
        )


def _check_numbers(fit: Fit, index: int, loss: Loss, outputs: tuple[int, ...], goal: Goal) -> None:
    if not are_alike(outputs, goal.shape):
        raise fit.refused(
            index,
            "name",
            f'"{loss.name}" compares each output with a target, but the outputs of "{fit.model.name}" have the shape '
            f"{batch_text(outputs)} and {goal.where} {batch_text(goal.shape)}; use another model, other "
            "targets, or cross_entropy for class labels",
        )


_CHECKS: dict[str, Callable[[Fit, int, Loss, tuple[int, ...], Goal], None]] = {
    "classes": _check_classes,
    "labels": _check_labels,
    "numbers": _check_numbers,
}


def _check_values(fit: Fit, index: int, loss: Loss, goal: Goal) -> None:
    """Whether a loss means what the targets are, where their shape does not tell."""
    name, family, known = fit.dataset.name, LOSSES[loss.name].family, fit.dataset.statistics_of(goal.name)
    if known is None:
        return
    if goal.array.dtype == np.int64:
        if goal.name != TARGETS or known.min >= 0 or (family == "classes" and loss.ignore_index == NO_LABEL):
            return
        none = f'"{name}" has places without a label, which are {NO_LABEL}'
        if family == "classes":
            raise fit.refused(index, "ignore_index", f"{none}; set ignore_index of the loss to {NO_LABEL}")
        raise fit.refused(
            index, "name", f'{none}, and "{loss.name}" takes them for numbers; use cross_entropy, or another dataset'
        )
    if family != "numbers" and (known.min < 0 or known.max > 1):
        raise fit.refused(
            index,
            "name",
            f'"{loss.name}" goes with float32 targets from 0 to 1, but {goal.where} go from {known.min:g} to '
            f"{known.max:g}; use mse, l1, huber or smooth_l1 for numbers",
        )
