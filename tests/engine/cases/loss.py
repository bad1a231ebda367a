"""Rows: Softmax and losses."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.engine.ops import loss
from tests.engine.cases.case import Case, normal, transposed

_index = np.array([[0, 2], [1, 1], [2, 0]])
_target = np.array([1, 0, 3])


def unit(*size: int) -> Any:
    """Probabilities, neither 0 nor 1."""
    return lambda draws: np.asarray(draws.uniform(0.1, 0.9, size))


def _loss(name: str, **settings: Any) -> Any:
    return lambda m, *xs: getattr(m.nn.functional, name)(*xs, **settings)


def _weighted(name: str, reduction: str, **weights: list[float]) -> Any:
    def call(m: Any, x: Any, t: Any) -> Any:
        chosen = {key: m.tensor(value, dtype=x.dtype) for key, value in weights.items()}
        return getattr(m.nn.functional, name)(x, t, reduction=reduction, **chosen)

    return call


def _nll_loss_gradient(x: Any, reduction: str) -> Any:
    weight = np.array([0.5, 0.0, 2.0], x.dtype)
    return loss.nll_loss_gradient(x, target=_target, weight=weight, reduction=reduction, shape=(3, 4))


def _of_classes(m: Any, x: Any, **settings: Any) -> Any:
    weight = m.tensor([0.5, 1.0, 2.0, 0.0], dtype=x.dtype)
    return m.nn.functional.cross_entropy(x, m.tensor(_index), weight=weight, **settings)


CASES = (
    # of classes
    Case("loss.log_softmax", lambda m, x: m.log_softmax(x, 1), (normal(3, 4),)),
    Case("loss.log_softmax", lambda m, x: m.log_softmax(100 * x, 0), (normal(3, 4),), note="far"),
    Case("loss.log_softmax", lambda m, x: m.log_softmax(x, 1), (normal(33, 4),), note="many-rows"),
    Case(
        "loss.log_softmax_gradient",
        lambda m, x, z: loss.log_softmax_gradient(x, z, dim=1),
        (normal(3, 4), normal(3, 4)),
        torch=False,
    ),
    Case("loss.softmax", lambda m, x: m.softmax(x, -1), (normal(3, 4),)),
    Case("loss.nll_loss", lambda m, x: m.nn.functional.nll_loss(x, m.tensor(_target)), (normal(3, 4),)),
    Case(
        "loss.nll_loss",
        lambda m, x: m.nn.functional.nll_loss(x, m.tensor(_target), reduction="none"),
        (normal(3, 4),),
        note="none",
    ),
    Case(
        "loss.nll_loss",
        lambda m, x: m.nn.functional.nll_loss(x, m.tensor(_target), reduction="sum", ignore_index=0),
        (normal(3, 4),),
        note="ignore",
    ),
    Case("loss.nll_loss_gradient", lambda m, x: _nll_loss_gradient(x, "mean"), (normal(),), torch=False),
    Case("loss.nll_loss_gradient", lambda m, x: _nll_loss_gradient(x, "none"), (normal(3),), torch=False, note="none"),
    Case(
        "loss.nll_loss",
        lambda m, x: m.nn.functional.cross_entropy(x, m.tensor(_target), ignore_index=3),
        (normal(3, 4),),
        note="cross-entropy",
    ),
    Case(
        "loss.nll_loss",
        lambda m, x: m.nn.functional.cross_entropy(x, m.tensor(_index), reduction="none"),
        (normal(3, 4, 2),),
        note="images",
    ),
    Case("loss.mse_loss", lambda m, x, t: m.nn.functional.mse_loss(x, t), (normal(3, 2), normal(3, 2))),
    Case(
        "loss.mse_loss",
        lambda m, x, t: m.nn.functional.mse_loss(x, t, reduction="sum"),
        (normal(3, 2), normal(3, 2)),
        note="sum",
    ),
    Case(
        "loss.mse_loss",
        lambda m, x, t: m.nn.functional.mse_loss(x, t, reduction="none"),
        (normal(3, 2), normal(3, 2)),
        note="none",
    ),
    Case("loss.log_softmax", lambda m, x: m.nn.functional.log_softmax(x, 0), (normal(),), note="0d"),
    Case("loss.softmax", lambda m, x: m.nn.functional.softmax(x, 1), (normal(2, 0),), note="empty"),
    Case("loss.softmax", lambda m, x: m.nn.functional.softmin(x, 0), (transposed(3, 2),), note="softmin"),
    Case("loss.nll_loss", lambda m, x: _of_classes(m, x), (normal(3, 4, 2),), note="class-weights"),
    Case(
        "loss.nll_loss",
        lambda m, x: _of_classes(m, x, ignore_index=1, label_smoothing=0.3, reduction="sum"),
        (normal(3, 4, 2),),
        note="smoothed",
    ),
    Case(
        "loss.nll_loss",
        lambda m, x: _of_classes(m, x, ignore_index=0, label_smoothing=0.2),
        (normal(3, 4, 2),),
        note="smoothed-mean",
    ),
    # of differences
    Case("loss.mse_loss", _loss("mse_loss"), (transposed(3, 2), normal(3, 2)), note="not-contiguous"),
    Case("loss.smooth_l1_loss", _loss("smooth_l1_loss", beta=0.7), (normal(3, 2), normal(3, 2))),
    Case("loss.smooth_l1_loss", _loss("smooth_l1_loss", reduction="sum"), (normal(3, 2), normal(3, 2)), note="sum"),
    Case("loss.smooth_l1_loss", _loss("smooth_l1_loss", reduction="none"), (normal(3, 2), normal(3, 2)), note="none"),
    Case("loss.huber_loss", _loss("huber_loss", delta=0.7), (normal(3, 2), normal(3, 2))),
    Case("loss.huber_loss", _loss("huber_loss", reduction="sum"), (normal(3, 2), normal(3, 2)), note="sum"),
    Case("loss.huber_loss", _loss("huber_loss", reduction="none"), (normal(), normal()), note="none"),
    # of probabilities
    Case("loss.binary_cross_entropy", _loss("binary_cross_entropy"), (unit(3, 2), unit(3, 2))),
    Case(
        "loss.binary_cross_entropy",
        _weighted("binary_cross_entropy", "sum", weight=[0.5, 2.0]),
        (unit(3, 2), unit(3, 2)),
        note="weighted",
    ),
    Case(
        "loss.binary_cross_entropy",
        _weighted("binary_cross_entropy", "none", weight=[2.0]),
        (unit(4), unit(4)),
        note="none",
    ),
    Case(
        "loss.binary_cross_entropy_with_logits",
        _loss("binary_cross_entropy_with_logits"),
        (normal(3, 2), unit(3, 2)),
    ),
    Case(
        "loss.binary_cross_entropy_with_logits",
        _weighted("binary_cross_entropy_with_logits", "mean", weight=[0.5, 2.0], pos_weight=[3.0, 0.2]),
        (normal(3, 2), unit(3, 2)),
        note="weighted",
    ),
    Case(
        "loss.binary_cross_entropy_with_logits",
        _weighted("binary_cross_entropy_with_logits", "none", pos_weight=[3.0]),
        (lambda draws: np.array([-200.0, -3.0, 4.0, 200.0]), unit(4)),
        note="far",
    ),
)
