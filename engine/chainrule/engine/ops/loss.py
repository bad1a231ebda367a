"""Softmax, the losses that are operations of their own, and the checks of their arguments."""

# mypy: disable-error-code=has-type
# A formula may name operations declared further down.

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chainrule.engine import kernels
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import Array, type_name
from chainrule.engine.errors import ConfigError, DTypeError, ShapeError, TargetError
from chainrule.engine.ops.activation import logsigmoid
from chainrule.engine.ops.elementwise import abs, clamp, exp, log, sigmoid, sign, where
from chainrule.engine.ops.op import op
from chainrule.engine.ops.reduction import sum


@op("LogSoftmax", x=lambda g, y, dim: log_softmax_gradient(g, y, dim=dim))
def log_softmax(x: Any, *, dim: int) -> Any:
    """y = x − log Σ eˣ along `dim`."""
    return kernels.log_softmax(x, dim)


@op(
    "LogSoftmaxBackwardData",
    x=lambda g, z, dim: g - sum(g * exp(z), dim=dim, keepdim=True),
    z=lambda g, x, z, dim: -g * exp(z) * sum(x, dim=dim, keepdim=True),
)
def log_softmax_gradient(x: Any, z: Any, *, dim: int) -> Any:
    """y = x − eᶻ · Σ x along `dim`, for the gradient x of the log-softmax z."""
    return kernels.log_softmax_gradient(x, z, dim)


@op("Softmax", x=lambda g, y, dim: _softmax_gradient(g, y, dim))
def softmax(x: Any, *, dim: int) -> Any:
    """y = eˣ / Σ eˣ along `dim`."""
    return kernels.softmax(x, dim)


def _softmax_gradient(g: Any, y: Any, dim: int) -> Any:
    if isinstance(y, Variable):
        return y * (g - sum(g * y, dim=dim, keepdim=True))
    return kernels.softmax_gradient(g, y, dim)


# ---- Of classes ----


@op(
    "NllLoss",
    x=lambda g, x_shape, target, weight, reduction: nll_loss_gradient(
        g, target=target, weight=weight, reduction=reduction, shape=x_shape
    ),
)
def nll_loss(x: Any, *, target: Array, weight: Array | None, reduction: str) -> Any:
    """yₙ = −wₙ · x[n, targetₙ], then their sum, or their sum / Σ wₙ, by `reduction`.

    x (N, C), target (N) of indices that are there, weight (N): 0 for an example to ignore, else that of its class; None
    where all are 1.
    """
    y = -x[np.arange(len(x)), target]
    if weight is not None:
        y = np.where(weight, y, 0) * weight
    if reduction == "none":
        return y
    total = np.add.reduce(y)
    if reduction == "sum":
        return total
    weights = _sum_of_weights(x, weight)
    return total / weights if weights else np.full_like(total, np.nan)


@op(
    "NllLossBackward",
    x=lambda g, target, weight, reduction: nll_loss(g, target=target, weight=weight, reduction=reduction),
)
def nll_loss_gradient(x: Any, *, target: Array, weight: Array | None, reduction: str, shape: tuple[int, ...]) -> Any:
    """y[n, targetₙ] = −wₙ · xₙ, and 0 elsewhere, for the gradient x of the loss; for the mean −wₙ / Σ wₙ · x."""
    y = np.zeros(shape, x.dtype)
    share = y.dtype.type(1) if weight is None else weight
    if reduction == "mean":
        share = share / (_sum_of_weights(y, weight) or 1)
    y[np.arange(len(y)), target] = -(x * share)
    return y


def _sum_of_weights(x: Array, weight: Array | None) -> Any:
    return x.dtype.type(len(x)) if weight is None else np.add.reduce(weight)


# ---- Of differences z = x − t, where x and t have one shape ----


@op(
    "MseLoss",
    x=lambda g, x, t, reduction: g * (x - t) * (2 / _terms(x, reduction)),
    t=lambda g, x, t, reduction: g * (t - x) * (2 / _terms(x, reduction)),
)
def mse_loss(x: Any, t: Any, *, reduction: str) -> Any:
    """y = z², then the sum or the mean, by `reduction`."""
    return _reduced(np.square(x - t), reduction)


@op(
    "SmoothL1Loss",
    x=lambda g, x, t, reduction, beta: g * _smooth_slope(x - t, beta) / _terms(x, reduction),
    t=lambda g, x, t, reduction, beta: g * _smooth_slope(t - x, beta) / _terms(x, reduction),
)
def smooth_l1_loss(x: Any, t: Any, *, reduction: str, beta: float) -> Any:
    """y = z² / 2β where |z| < β, else |z| − β/2, then the sum or the mean, by `reduction`."""
    size = np.abs(x - t)
    return _reduced(np.where(size < beta, 0.5 * size * size / beta, size - 0.5 * beta), reduction)


def _smooth_slope(z: Any, beta: float) -> Any:
    return where(abs(z) < beta, z / beta, sign(z))


@op(
    "HuberLoss",
    x=lambda g, x, t, reduction, delta: g * clamp(x - t, min=-delta, max=delta) / _terms(x, reduction),
    t=lambda g, x, t, reduction, delta: g * clamp(t - x, min=-delta, max=delta) / _terms(x, reduction),
)
def huber_loss(x: Any, t: Any, *, reduction: str, delta: float) -> Any:
    """y = z² / 2 where |z| ≤ δ, else δ · (|z| − δ/2), then the sum or the mean, by `reduction`."""
    size = np.abs(x - t)
    return _reduced(np.where(size <= delta, 0.5 * size * size, delta * (size - 0.5 * delta)), reduction)


# ---- Of two classes; weights broadcast to the shape of x and t ----


@op(
    "BinaryCrossEntropy",
    x=lambda g, x, t, weight, reduction: g * (x - t) / clamp(x * (1 - x), min=1e-12) * _rate(x, weight, reduction),
    t=lambda g, x, weight, reduction: g * (log(1 - x) - log(x)) * _rate(x, weight, reduction),
)
def binary_cross_entropy(x: Any, t: Any, *, weight: Array | None, reduction: str) -> Any:
    """y = −w · (t · log x + (1 − t) · log(1 − x)), of logarithms of −100 at least, then the sum or the mean."""
    with np.errstate(divide="ignore"):
        y = (t - 1) * np.maximum(np.log1p(-x), -100) - t * np.maximum(np.log(x), -100)
    return _reduced(y if weight is None else y * weight, reduction)


@op(
    "BinaryCrossEntropyWithLogits",
    x=lambda g, x, t, weight, positive, reduction: g * _logit_slope(x, t, positive) * _rate(x, weight, reduction),
    t=lambda g, x, weight, positive, reduction: g * _target_slope(x, positive) * _rate(x, weight, reduction),
)
def binary_cross_entropy_with_logits(
    x: Any, t: Any, *, weight: Array | None, positive: Array | None, reduction: str
) -> Any:
    """y = w · ((1 − t) · x − l · log σ(x)) with l = 1 + (p − 1) · t, for the weight p of positive examples."""
    factor = 1 if positive is None else 1 + (positive - 1) * t
    y = (1 - t) * x - factor * logsigmoid(x)
    return _reduced(y if weight is None else y * weight, reduction)


def _logit_slope(x: Any, t: Any, positive: Array | None) -> Any:
    """dy/dx = (p · t + 1 − t) · σ(x) − p · t"""
    if positive is None:
        return sigmoid(x) - t
    chosen = t * positive
    return (chosen + 1 - t) * sigmoid(x) - chosen


def _target_slope(x: Any, positive: Array | None) -> Any:
    """dy/dt = −x − (p − 1) · log σ(x)"""
    return -x if positive is None else -x - logsigmoid(x) * (positive - 1)


def _rate(x: Any, weight: Array | None, reduction: str) -> Any:
    share = 1 / _terms(x, reduction)
    return share if weight is None else weight * np.asarray(share, weight.dtype)


# ---- Reductions ----


def _reduced(y: Any, reduction: str) -> Any:
    if reduction == "none":
        return y
    total = np.sum(y)
    return total / _terms(y, reduction) if np.size(y) or reduction == "sum" else np.full_like(total, np.nan)


def _terms(x: Any, reduction: str) -> int:
    """What the sum is divided by; 1 if there is nothing to add up."""
    return math.prod(x.shape) or 1 if reduction == "mean" else 1


# ---- Checks ----


def check_reduction(reduction: str) -> None:
    """Raises ConfigError unless `reduction` is none, mean or sum."""
    if reduction not in ("none", "mean", "sum"):
        raise ConfigError(
            "reduction", reduction, f"{reduction} is not a valid value for reduction; choose none, mean or sum"
        )


def check_targets(target: Array, num_examples: int, num_classes: int, ignore_index: int) -> tuple[Array, Array | None]:
    """The targets to look up and whether each counts; None if all do. An ignored one looks up class 0.

    Raises:
        DTypeError: the targets are no integers.
        ShapeError: there is not one for each example.
        TargetError: one is outside [0, num_classes).
    """
    if target.dtype.kind not in "iu":
        raise DTypeError(
            f"expected target dtype to be Long or Byte, but got {type_name(target.dtype)}; targets are class indices, "
            "or for cross_entropy probabilities in the shape of the input"
        )
    if target.shape != (num_examples,):
        raise ShapeError(f"Expected input batch_size ({num_examples}) to match target batch_size ({target.size})")
    if len(target) and not 0 <= ignore_index < num_classes:
        low, high = np.minimum.reduce(target), np.maximum.reduce(target)
        if low >= 0 and high < num_classes:  # nearly always
            return target.copy(), None
    ignored = target == ignore_index
    outside = ~ignored & ((target < 0) | (target >= num_classes))
    if outside.any():
        first = int(np.argmax(outside))
        raise TargetError(
            f"Target {target[first]} is out of bounds: example {first} names it, and there are {num_classes} classes "
            f"(0 to {num_classes - 1})"
        )
    return np.where(ignored, 0, target), ~ignored
