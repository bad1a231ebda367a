"""The losses of a job by name: what each takes, computes on a shard, and divides by.

A loss is a mean over the global batch, of which a shard sees a part. Most means are over examples that all count the
same. Where classes or examples have weights, or labels do not count, PyTorch divides by the sum of the weights of the
whole batch: `Term.amount` is that sum, a function of targets alone, so that whoever has those of the global batch knows
it before any forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

import chainrule.engine as cr
from chainrule.engine.nn import functional as F
from chainrule.server.training.config import Loss
from chainrule.server.training.examples import TARGETS as TARGETS
from chainrule.server.training.state import Array

Family = Literal["classes", "labels", "numbers"]
"""What targets are: one class of several, several labels of which each holds or not, or numbers."""
_NOTHING = -(1 << 62)
"""An ignore_index that no label is: a label outside the classes is then refused."""


# --- shapes ----------------------------------------------------------------------------------------------------


def class_axis(outputs: tuple[int, ...], targets: tuple[int, ...]) -> int | None:
    """Which dimension of outputs tells classes apart, for labels of a shape: the last, as of (N, T, V) with (N, T), or
    1, as of (N, C, H, W) with (N, H, W); None if the shapes do not go together. Where both would do, it is 1 for
    images, of four dimensions and more, and the last for sequences."""
    if len(outputs) != len(targets) + 1 or len(outputs) < 2:
        return None
    axes = [axis for axis in (1, len(outputs) - 1) if outputs[:axis] + outputs[axis + 1 :] == targets]
    if not axes:
        return None
    return axes[0] if len(outputs) > 3 else axes[-1]


def label_axis(outputs: tuple[int, ...]) -> int:
    """Which dimension of outputs tells labels, or classes, apart where targets have the same shape."""
    return 1 if len(outputs) > 3 else len(outputs) - 1


def are_alike(outputs: tuple[int, ...], targets: tuple[int, ...]) -> bool:
    """Whether there is a target for each output; dimensions of 1 may be missing, as of (N,) for (N, 1)."""
    return outputs[:1] == targets[:1] and _without_ones(outputs) == _without_ones(targets)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape[1:] if size != 1)


# --- a loss ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """What there is to know of a loss by its name."""

    family: Family
    compute: Callable[[Loss, cr.Tensor, Array, str], cr.Tensor]
    """Of the settings, an output, its target and a reduction: mean, sum or none."""
    parameters: frozenset[str] = frozenset()
    """The settings of Loss that it has, besides those of all."""


@dataclass(frozen=True)
class Term:
    """One of the losses of a job."""

    settings: Loss

    @property
    def kind(self) -> Kind:
        return LOSSES[self.settings.name]

    @property
    def column(self) -> str:
        return self.settings.target or TARGETS

    @property
    def weighs(self) -> bool:
        """Whether examples, or places in them, may count differently."""
        return bool(self.settings.class_weights or self.settings.example_weight) or (
            self.settings.ignore_index is not None and self.settings.name != "dice"
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """What is read of the dataset."""
        return (self.column, self.settings.example_weight) if self.settings.example_weight else (self.column,)

    def amount(self, targets: Mapping[str, Array]) -> float:
        """What the mean over examples with these targets is divided by, in units in which parts add up."""
        t = targets[self.column]
        if not self.weighs:
            return float(len(t))
        has_labels = self.settings.name in ("cross_entropy", "nll") and t.dtype.kind in "iu"
        weights = self._weights_of_labels(t) if has_labels else None
        if self.settings.example_weight:
            w = _per_example(targets[self.settings.example_weight], t.ndim)
            weights = np.broadcast_to(w, t.shape) if weights is None else weights * w
        return float(len(t)) if weights is None else float(weights.sum())

    def of(self, outputs: cr.Tensor, targets: Mapping[str, Array], whole: float) -> tuple[cr.Tensor, float]:
        """A loss over some examples of a batch, and what to multiply it by so that the products over all parts of the
        batch add up to the mean; `whole` is the amount of the batch. A batch of which nothing counts has the loss 0."""
        t, amount = targets[self.column], self.amount(targets)
        if self.settings.example_weight:
            return self._of_weighted(outputs, t, targets[self.settings.example_weight]), 1.0 / whole if whole else 0.0
        if amount == 0.0:
            return self.kind.compute(self.settings, outputs, t, "sum"), 1.0 / whole if whole else 0.0
        return self.kind.compute(self.settings, outputs, t, "mean"), amount / whole

    def _of_weighted(self, outputs: cr.Tensor, t: Array, weights: Array) -> cr.Tensor:
        y = self.kind.compute(self.settings, outputs, t, "none")
        w = cr.from_numpy(np.ascontiguousarray(weights, y.dtype))
        places = y.reshape(len(t), -1)  # (N, places of an example)
        targets_of_place = float(t[0].size / places.shape[1])  # several, of probabilities
        total: cr.Tensor = (places * w.reshape(-1, 1)).sum() * targets_of_place
        return total

    def _weights_of_labels(self, t: Array) -> Array:
        counts = np.ones(t.shape, bool) if self.settings.ignore_index is None else t != self.settings.ignore_index
        if not self.settings.class_weights:
            return counts.astype(np.float64)
        of_classes = np.asarray(self.settings.class_weights, np.float32).astype(np.float64)
        return np.where(counts, of_classes[np.clip(t, 0, len(of_classes) - 1)], 0.0)


def _per_example(weights: Array, ndim: int) -> Array:
    return np.asarray(weights, np.float64).reshape(-1, *[1] * (ndim - 1))


# --- of classes ------------------------------------------------------------------------------------------------


def _cross_entropy(settings: Loss, x: cr.Tensor, t: Array, reduction: str) -> cr.Tensor:
    x, target, weight, ignore_index = _classes(settings, x, t)
    return F.cross_entropy(
        x,
        target,
        weight,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=settings.label_smoothing,
    )


def _nll(settings: Loss, x: cr.Tensor, t: Array, reduction: str) -> cr.Tensor:
    x, target, weight, ignore_index = _classes(settings, x, t)
    return F.nll_loss(x, target, weight, ignore_index=ignore_index, reduction=reduction)


def _classes(settings: Loss, x: cr.Tensor, t: Array) -> tuple[cr.Tensor, cr.Tensor, cr.Tensor | None, int]:
    """As the engine takes them: classes in dimension 1, labels or probabilities, weights, the label to ignore."""
    weight = cr.tensor(settings.class_weights, dtype=x.dtype) if settings.class_weights else None
    ignored = _NOTHING if settings.ignore_index is None else settings.ignore_index
    if t.dtype.kind == "f":  # probabilities in the shape of the output
        if label_axis(x.shape) != 1:
            x, t = x.reshape(-1, x.shape[-1]), t.reshape(-1, t.shape[-1])
        return x, cr.from_numpy(np.ascontiguousarray(t, x.dtype)), weight, _NOTHING
    if settings.ignore_index is None and t.size and t.min() < 0:
        raise cr.TargetError(
            f"a target is {t.min()}, which stands for no label; set ignore_index of the loss to {t.min()} to leave out "
            "the places without one"
        )
    if x.ndim > 2 and class_axis(x.shape, t.shape) == 1:
        return x, cr.from_numpy(t), weight, ignored
    rows = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])  # (places, classes)
    return rows, cr.from_numpy(t.reshape(-1)), weight, ignored


def _dice(settings: Loss, x: cr.Tensor, t: Array, reduction: str) -> cr.Tensor:
    """1 − (2 Σ p t + 1) / (Σ p + Σ t + 1), the sums over the places of an example, the mean over its classes; p is the
    softmax over the classes or, where the target has the shape of the output, the sigmoid.

    Source: Milletari et al., V-Net, https://arxiv.org/abs/1606.04797, with 1 added above and below.
    """
    if t.dtype.kind == "f":
        p, truth = F.sigmoid(x), t.reshape(x.shape)
        shape = (len(t), x.shape[1] if x.ndim > 3 else 1, -1)
    else:
        if x.ndim > 2 and class_axis(x.shape, t.shape) != 1:
            x = x.movedim(x.ndim - 1, 1)
        counted = np.ones(t.shape, bool) if settings.ignore_index is None else t != settings.ignore_index
        if (counted & ((t < 0) | (t >= x.shape[1]))).any():
            raise cr.TargetError(f"a target is out of bounds: there are {x.shape[1]} classes (0 to {x.shape[1] - 1})")
        classes = np.arange(x.shape[1]).reshape(-1, *[1] * (t.ndim - 1))
        truth = counted[:, None] & (t[:, None] == classes)
        p = F.softmax(x, dim=1) * cr.from_numpy(counted[:, None].astype(np.float32))
        shape = (len(t), x.shape[1], -1)
    p, true = p.reshape(*shape), cr.from_numpy(np.ascontiguousarray(truth, np.float32)).reshape(*shape)
    y = (1.0 - (2.0 * (p * true).sum(2) + 1.0) / (p.sum(2) + true.sum(2) + 1.0)).mean(1)  # (N,)
    return y.mean() if reduction == "mean" else y.sum() if reduction == "sum" else y


# --- of labels and numbers -------------------------------------------------------------------------------------


def _bce_with_logits(settings: Loss, x: cr.Tensor, t: Array, reduction: str) -> cr.Tensor:
    positive = None
    if settings.pos_weight:
        positive = cr.tensor(settings.pos_weight, dtype=x.dtype)
        behind = x.ndim - 1 - label_axis(x.shape)
        positive = positive.reshape(-1, *[1] * behind)
    return F.binary_cross_entropy_with_logits(x, _numbers(x, t), reduction=reduction, pos_weight=positive)


def _mse(_: Loss, x: cr.Tensor, t: Array, reduction: str) -> cr.Tensor:
    return F.mse_loss(x, _numbers(x, t), reduction=reduction)


def _l1(_: Loss, x: cr.Tensor, t: Array, reduction: str) -> cr.Tensor:
    return F.l1_loss(x, _numbers(x, t), reduction=reduction)


def _huber(settings: Loss, x: cr.Tensor, t: Array, reduction: str) -> cr.Tensor:
    return F.huber_loss(x, _numbers(x, t), reduction=reduction, delta=settings.delta)


def _smooth_l1(settings: Loss, x: cr.Tensor, t: Array, reduction: str) -> cr.Tensor:
    return F.smooth_l1_loss(x, _numbers(x, t), reduction=reduction, beta=settings.beta)


def _numbers(x: cr.Tensor, t: Array) -> cr.Tensor:
    """Targets in the shape of the output, as float32."""
    return cr.from_numpy(np.ascontiguousarray(t.reshape(x.shape), np.float32))


LOSSES: Mapping[str, Kind] = {
    "cross_entropy": Kind("classes", _cross_entropy, frozenset({"label_smoothing", "class_weights", "ignore_index"})),
    "nll": Kind("classes", _nll, frozenset({"class_weights", "ignore_index"})),
    "bce_with_logits": Kind("labels", _bce_with_logits, frozenset({"pos_weight"})),
    "mse": Kind("numbers", _mse),
    "l1": Kind("numbers", _l1),
    "huber": Kind("numbers", _huber, frozenset({"delta"})),
    "smooth_l1": Kind("numbers", _smooth_l1, frozenset({"beta"})),
    "dice": Kind("classes", _dice, frozenset({"ignore_index"})),
}
"""The losses there are."""
