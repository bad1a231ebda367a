"""What a job measures by name: sums over examples that shards can add up, and the value that is computed of them.

A value depends on the global batch or the validation examples alone, not on how they were spread: F1 comes of counts of
all of them, not of the mean of F1s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from chainrule.server.training.config import MetricSpec
from chainrule.server.training.errors import ObjectiveError
from chainrule.server.training.losses import TARGETS, Family, are_alike, class_axis, label_axis
from chainrule.server.training.state import Array
from chainrule.server.training.watching import metric_name

Vector = tuple[float, ...]
Finish = Callable[[Vector, str], dict[str, float]]
Floats = NDArray[np.float64]
MAX_SUMS = 4096
"""Most numbers that a shard's metrics are added up of: they travel with each of its contributions."""
MAX_VALUES = 64
"""Most classes that have a value each."""
AVERAGES = ("macro", "micro", "binary", "none")


# --- what is looked at -----------------------------------------------------------------------------------------


@dataclass
class Seen:
    """An output of the model and its targets, of the same examples.

    Raises ObjectiveError, of field "", where their shapes do not go together.
    """

    outputs: Array
    targets: Array
    family: Family | None = None
    """What a loss takes them for; None: told from their shapes."""
    ignore_index: int | None = None

    @cached_property
    def of_classes(self) -> bool:
        """Whether one class of several is right, rather than each of several labels."""
        if self.family == "labels":
            return False
        if self.targets.dtype.kind == "f":
            return self.family == "classes" and self.outputs.shape == self.targets.shape
        axis = class_axis(self.outputs.shape, self.targets.shape)
        return axis is not None and (self.family == "classes" or self.outputs.shape[axis] > 1)

    @cached_property
    def scores(self) -> tuple[Array, NDArray[np.int64]]:
        """Of classes: outputs (places, classes), and the labels (places,) that count."""
        outputs, targets = self.outputs, self.targets
        if targets.dtype.kind == "f":
            if outputs.shape != targets.shape:
                raise ObjectiveError("", f"needs labels that tell classes apart, but {self._shapes}")
            axis = label_axis(outputs.shape)
            targets = targets.argmax(axis)
        else:
            found = class_axis(outputs.shape, targets.shape)
            if found is None or not self.of_classes:
                raise ObjectiveError("", f"needs labels that tell classes apart, but {self._shapes}")
            axis = found
        rows = np.moveaxis(outputs, axis, -1).reshape(-1, outputs.shape[axis])
        labels = targets.reshape(-1)
        if self.ignore_index is not None:
            counts = labels != self.ignore_index
            rows, labels = rows[counts], labels[counts]
        return rows, labels

    @cached_property
    def numbers(self) -> tuple[Floats, Floats]:
        """Outputs and targets (N, places) as float64."""
        if not are_alike(self.outputs.shape, self.targets.shape):
            raise ObjectiveError("", f"needs a target for each number of the output, but {self._shapes}")
        shape = (len(self.targets), -1)
        return self.outputs.astype(np.float64).reshape(shape), self.targets.astype(np.float64).reshape(shape)

    def labels(self, threshold: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Of several labels: what is predicted and what is true (places, labels)."""
        if not are_alike(self.outputs.shape, self.targets.shape):
            raise ObjectiveError("", f"needs class labels, or a target for each output, but {self._shapes}")
        shape = self.outputs.shape if self.outputs.ndim > 1 else (*self.outputs.shape, 1)
        axis = label_axis(shape)
        predicted = self.outputs.reshape(shape) > math.log(threshold / (1.0 - threshold))
        truth = self.targets.reshape(shape) > 0.5
        return tuple(np.moveaxis(of, axis, -1).reshape(-1, shape[axis]) for of in (predicted, truth))  # type: ignore[return-value]

    @property
    def _shapes(self) -> str:
        whole = "floats" if self.targets.dtype.kind == "f" else "integers"
        return f"outputs have the shape {_batch(self.outputs.shape)} and targets, {whole}, {_batch(self.targets.shape)}"


def _batch(shape: tuple[int, ...]) -> str:
    return f"({', '.join(['N', *map(str, shape[1:])])})" if len(shape) > 1 else "(N,)"


# --- sums ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Statistic:
    """Sums over examples; two metrics may share them. The counts of examples are float64, exact up to 2^53."""

    kind: Literal["right", "top", "likelihood", "counts", "subset", "absolute", "squared", "variance"]
    k: int = 0
    threshold: float = 0.5

    def of(self, seen: Seen) -> Vector:
        """The sums over these examples. Raises ObjectiveError where it does not go with outputs and targets."""
        found: Vector = _STATISTICS[self.kind](self, seen)
        return found


def _right(statistic: Statistic, seen: Seen) -> Vector:
    """Predictions that are right, and all."""
    if seen.of_classes:
        rows, labels = seen.scores
        return float(np.count_nonzero(rows.argmax(axis=1) == labels)), float(labels.size)
    predicted, truth = seen.labels(statistic.threshold)
    return float(np.count_nonzero(predicted == truth)), float(truth.size)


def _top(statistic: Statistic, seen: Seen) -> Vector:
    """Labels that are among the k highest outputs, of equal ones the first, and all."""
    rows, labels = seen.scores
    if statistic.k > rows.shape[1]:
        raise ObjectiveError("k", f"is {statistic.k}, but there are {rows.shape[1]} classes; use at most that")
    own = np.take_along_axis(rows, labels[:, None], 1)
    before = np.arange(rows.shape[1]) < labels[:, None]
    rank = np.count_nonzero((rows > own) | ((rows == own) & before), axis=1)
    return float(np.count_nonzero(rank < statistic.k)), float(labels.size)


def _likelihood(_: Statistic, seen: Seen) -> Vector:
    """Σ −log softmax(x)[label], and how many labels."""
    rows, labels = seen.scores
    x = rows.astype(np.float64)
    highest = x.max(axis=1, keepdims=True) if x.size else x[:, :1]
    logs = highest[:, 0] + np.log(np.exp(x - highest).sum(axis=1)) - np.take_along_axis(x, labels[:, None], 1)[:, 0]
    return float(logs.sum()), float(labels.size)


def _counts(statistic: Statistic, seen: Seen) -> Vector:
    """Of each class: how often it was rightly predicted, predicted, and true."""
    if seen.of_classes:
        rows, labels = seen.scores
        count, predicted = rows.shape[1], rows.argmax(axis=1)
        found = [np.bincount(of, minlength=count) for of in (labels[predicted == labels], predicted, labels)]
    else:
        guessed, truth = seen.labels(statistic.threshold)
        found = [of.sum(axis=0) for of in (guessed & truth, guessed, truth)]
    return tuple(float(n) for of in found for n in of)


def _subset(statistic: Statistic, seen: Seen) -> Vector:
    """Examples of which all labels are right, and all."""
    if seen.of_classes:
        raise ObjectiveError("", "is of several labels, and here one class of several is right; use accuracy")
    predicted, truth = seen.labels(statistic.threshold)
    return float(np.count_nonzero((predicted == truth).all(axis=1))), float(len(truth))


def _absolute(_: Statistic, seen: Seen) -> Vector:
    x, t = seen.numbers
    return float(np.abs(x - t).sum()), float(t.size)


def _squared(_: Statistic, seen: Seen) -> Vector:
    x, t = seen.numbers
    return float(np.square(x - t).sum()), float(t.size)


def _variance(_: Statistic, seen: Seen) -> Vector:
    """How many examples; and for each place of a target Σ (x − t)², Σ t, Σ t²."""
    x, t = seen.numbers
    found = (np.square(x - t).sum(axis=0), t.sum(axis=0), np.square(t).sum(axis=0))
    return (float(len(t)), *(float(n) for of in found for n in of))


_STATISTICS: Mapping[str, Callable[[Statistic, Seen], Vector]] = {
    "right": _right,
    "top": _top,
    "likelihood": _likelihood,
    "counts": _counts,
    "subset": _subset,
    "absolute": _absolute,
    "squared": _squared,
    "variance": _variance,
}


# --- values ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Metric:
    """What there is to know of a metric by its name."""

    statistic: Callable[[MetricSpec], Statistic]
    finish: Finish
    """Of sums and an average: the values, by what is added to the metric's name. NaN: there was nothing to measure."""
    averages: tuple[str, ...] = ()
    """The averages it has."""
    parameters: frozenset[str] = field(default_factory=frozenset)
    """The settings of MetricSpec that it has, besides those of all."""


def column_of(spec: MetricSpec) -> str:
    return spec.target or TARGETS


def values_of(spec: MetricSpec, sums: Vector) -> dict[str, float]:
    """The values of a metric by name; without those for which there was nothing to measure."""
    found = METRICS[spec.name].finish(sums, spec.average or "macro")
    return {f"{metric_name(spec)}{suffix}": value for suffix, value in found.items() if not math.isnan(value)}


def _mean(sums: Vector, _: str) -> dict[str, float]:
    return {"": _ratio(sums[0], sums[1], nothing=math.nan)}


def _root(sums: Vector, _: str) -> dict[str, float]:
    return {"": math.sqrt(_ratio(sums[0], sums[1], nothing=math.nan))}


def _exponential(sums: Vector, _: str) -> dict[str, float]:
    mean = _ratio(sums[0], sums[1], nothing=math.nan)
    return {"": math.exp(mean) if mean < 700.0 or math.isnan(mean) else math.inf}


def _r2(sums: Vector, average: str) -> dict[str, float]:
    """1 − Σ (x − t)² / Σ (t − t̄)²; where targets do not vary, 1 if all are met, else 0.

    Source: scikit-learn's r2_score, whose uniform average is macro.
    """
    count, of_places = sums[0], np.asarray(sums[1:], np.float64).reshape(3, -1)
    if average == "micro":
        count, of_places = count * of_places.shape[1], of_places.sum(axis=1, keepdims=True)
    errors, total, squares = of_places
    spread = np.maximum(squares - total * total / count, 0.0)
    varies = spread > 1e-12 * squares
    constant = np.where(errors == 0.0, 1.0, 0.0)
    return {"": float(np.where(varies, 1.0 - errors / np.where(varies, spread, 1.0), constant).mean())}


def _of_counts(above: tuple[int, int, int], below: tuple[int, int, int]) -> Finish:
    """A metric that is, of a class, a sum of its counts (right, predicted, true; each times a factor) divided by
    another; 0 where that is 0."""

    def finish(sums: Vector, average: str) -> dict[str, float]:
        counts = np.asarray(sums, np.float64).reshape(3, -1)  # right, predicted, true; of each class
        if average == "micro":
            counts = counts.sum(axis=1, keepdims=True)
        if average == "binary":
            counts = counts[:, -1:]
        a, b = np.asarray(above, np.float64) @ counts, np.asarray(below, np.float64) @ counts
        each = np.divide(a, b, out=np.zeros_like(a), where=b > 0)
        occurs = counts[1] + counts[2] > 0
        if average == "none":
            return {f"_{index}": float(value) if occurs[index] else math.nan for index, value in enumerate(each)}
        if average != "macro":
            return {"": float(each[0])}
        return {"": float(each[occurs].mean()) if occurs.any() else math.nan}

    return finish


def _ratio(above: float, below: float, *, nothing: float) -> float:
    return above / below if below else nothing


def _statistic(kind: Any, *parameters: str) -> Callable[[MetricSpec], Statistic]:
    return lambda spec: Statistic(kind, **{name: getattr(spec, name) for name in parameters})


_COUNTS = _statistic("counts", "threshold")
_THRESHOLD = frozenset({"threshold"})
_AVERAGED = frozenset({"threshold", "average"})

METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(_statistic("right", "threshold"), _mean, parameters=_THRESHOLD),
    "top_k": Metric(_statistic("top", "k"), _mean, parameters=frozenset({"k"})),
    "perplexity": Metric(_statistic("likelihood"), _exponential),
    "precision": Metric(_COUNTS, _of_counts((1, 0, 0), (0, 1, 0)), AVERAGES, _AVERAGED),
    "recall": Metric(_COUNTS, _of_counts((1, 0, 0), (0, 0, 1)), AVERAGES, _AVERAGED),
    "f1": Metric(_COUNTS, _of_counts((2, 0, 0), (0, 1, 1)), AVERAGES, _AVERAGED),
    "iou": Metric(_COUNTS, _of_counts((1, 0, 0), (-1, 1, 1)), AVERAGES, _AVERAGED),
    "mean_iou": Metric(_COUNTS, _of_counts((1, 0, 0), (-1, 1, 1)), parameters=_THRESHOLD),
    "subset_accuracy": Metric(_statistic("subset", "threshold"), _mean, parameters=_THRESHOLD),
    "mae": Metric(_statistic("absolute"), _mean),
    "mse": Metric(_statistic("squared"), _mean),
    "rmse": Metric(_statistic("squared"), _root),
    "r2": Metric(_statistic("variance"), _r2, ("macro", "micro"), frozenset({"average"})),
}
"""The metrics there are."""
