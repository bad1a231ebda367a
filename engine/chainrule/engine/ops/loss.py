"""Softmax and the losses."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.engine.dtypes import Array
from chainrule.engine.errors import ConfigError, DTypeError, ShapeError, TargetError
from chainrule.engine.ops.elementwise import exp
from chainrule.engine.ops.op import expand, op
from chainrule.engine.ops.reduction import sum
from chainrule.engine.ops.shape import gather, reshape, scatter


@op("LogSoftmax", x=lambda g, y, dim: g - exp(y) * sum(g, dim=dim, keepdim=True))
def log_softmax(x: Any, *, dim: int) -> Any:
    """y = x − log Σ eˣ along `dim`."""
    shifted = x - np.max(x, axis=dim, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=dim, keepdims=True))


@op("Softmax", x=lambda g, y, dim: y * (g - sum(g * y, dim=dim, keepdim=True)))
def softmax(x: Any, *, dim: int) -> Any:
    """y = eˣ / Σ eˣ along `dim`."""
    e = np.exp(x - np.max(x, axis=dim, keepdims=True))
    return e / np.sum(e, axis=dim, keepdims=True)


@op(
    "NllLoss",
    x=lambda g, x_shape, target, weight, reduction: scatter(
        -_column(_share(g, weight, reduction)), dim=1, index=_column(target), shape=x_shape
    ),
)
def nll_loss(x: Any, *, target: Array, weight: Array, reduction: str) -> Any:
    """yₙ = −wₙ · x[n, targetₙ], then their sum, or their sum / Σ wₙ, by `reduction`.

    x (N, C), target (N) of indices that are there, weight (N): 0 for an example to ignore, else 1.
    """
    y = np.where(weight, -gather(x, dim=1, index=_column(target))[:, 0], 0)
    if reduction == "none":
        return y
    total = np.sum(y)
    return total if reduction == "sum" else total / np.sum(weight)


def _share(g: Any, weight: Array, reduction: str) -> Any:
    """The part of each example in the gradient of the reduced loss."""
    if reduction == "none":
        return g * weight
    return expand(g, shape=weight.shape) * (weight if reduction == "sum" else weight / np.sum(weight))


def _column(x: Any) -> Any:
    return reshape(x, shape=(-1, 1))


@op(
    "MseLoss",
    x=lambda g, x, t, reduction: g * (x - t) * (2 / _terms(x, reduction)),
    t=lambda g, x, t, reduction: g * (t - x) * (2 / _terms(x, reduction)),
)
def mse_loss(x: Any, t: Any, *, reduction: str) -> Any:
    """y = (x − t)², then the sum or the mean, by `reduction`; x and t have one shape."""
    square = np.square(x - t)
    return square if reduction == "none" else np.sum(square) / _terms(x, reduction)


def _terms(x: Any, reduction: str) -> int:
    return int(np.prod(x.shape)) if reduction == "mean" else 1


# ---- Checks ----


def check_reduction(reduction: str) -> None:
    """Raises ConfigError unless `reduction` is none, mean or sum."""
    if reduction not in ("none", "mean", "sum"):
        raise ConfigError("reduction", reduction, "not a valid reduction; choose none, mean or sum")


def check_targets(target: Array, num_examples: int, num_classes: int, ignore_index: int) -> tuple[Array, Array]:
    """The targets to look up and the weight of each: an ignored one looks up class 0 with weight 0.

    Raises:
        DTypeError: the targets are no integers.
        ShapeError: there is not one for each example.
        TargetError: one is outside [0, num_classes).
    """
    if target.dtype.kind != "i":
        raise DTypeError(f"targets must be class indices (int64 or int32), got {target.dtype}; class probabilities "
                         "are not supported by this version")  # fmt: skip
    if target.shape != (num_examples,):
        raise ShapeError(f"Expected input batch_size ({num_examples}) to match target batch_size ({target.size})")
    ignored = target == ignore_index
    outside = ~ignored & ((target < 0) | (target >= num_classes))
    if outside.any():
        first = int(np.argmax(outside))
        raise TargetError(
            f"Target {target[first]} is out of bounds: example {first} names it, and there are {num_classes} classes "
            f"(0 to {num_classes - 1})"
        )
    return np.where(ignored, 0, target), ~ignored
