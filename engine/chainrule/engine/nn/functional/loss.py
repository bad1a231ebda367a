"""Losses: how far an input is from its target.

Each is computed for every example (or element) and then averaged, added up or left, by `reduction`: mean, sum or none.
`size_average` and `reduce` are PyTorch's older way to say so.
"""

from __future__ import annotations

import math
import warnings

import numpy as np

from chainrule.engine.autograd.mode import no_grad
from chainrule.engine.dtypes import is_floating, promote
from chainrule.engine.errors import ConfigError, DTypeError, ShapeError
from chainrule.engine.functions import arithmetic
from chainrule.engine.functions import reduction as reducing
from chainrule.engine.functions.autocast import active, raised
from chainrule.engine.nn.functional.checks import (
    SettingError,
    SizeError,
    check_constant,
    require_floating,
)
from chainrule.engine.nn.functional.distance import pairwise_distance
from chainrule.engine.ops import loss
from chainrule.engine.tensor import Tensor

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cosine_embedding_loss",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "margin_ranking_loss",
    "mse_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
    "triplet_margin_loss",
]

# ---- Of differences ----


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """w · (x − t)²; a weighted mean is divided by Σ w.

    Raises:
        ShapeError: the shapes do not broadcast; where they differ, a warning says so.
    """
    reduction = reduction_of(size_average, reduce, reduction)
    if active:
        input, target, weight = raised(input, target, weight)
    x, t = _alike("mse_cpu", input, target)
    if weight is None:
        return loss.mse_loss(x, t, reduction=reduction)
    _check_weight(weight, input)
    return _weighted_mean(arithmetic.square(x - t), weight, reduction)


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """w · |x − t|; a weighted mean is divided by Σ w. Errors as `mse_loss`."""
    reduction = reduction_of(size_average, reduce, reduction)
    if active:
        input, target, weight = raised(input, target, weight)
    x, t = _alike(None, input, target)
    if weight is None:
        return reduced(arithmetic.abs(x - t), reduction)
    _check_weight(weight, input)
    return _weighted_mean(arithmetic.abs(x - t), weight, reduction)


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """z² / 2β where |z| < β, else |z| − β/2, for z = x − t. Errors as `mse_loss`.

    Raises:
        SettingError: β is negative.
    """
    reduction = reduction_of(size_average, reduce, reduction)
    if active:
        input, target = raised(input, target)
    if beta < 0:
        raise SettingError("beta", beta, "smooth_l1_loss does not support negative values for beta.")
    x, t = _alike("smooth_l1_cpu" if beta else None, input, target)
    if beta == 0:
        return reduced(arithmetic.abs(x - t), reduction)
    return loss.smooth_l1_loss(x, t, reduction=reduction, beta=beta)


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """w · (z² / 2 where |z| ≤ δ, else δ · (|z| − δ/2)), for z = x − t. Errors as `mse_loss`.

    Raises:
        SettingError: δ is not positive.
    """
    loss.check_reduction(reduction)
    if active:
        input, target, weight = raised(input, target, weight)
    if delta <= 0:
        raise SettingError("delta", delta, "huber_loss does not support non-positive values for delta.")
    require_floating("huber_cpu", input)
    x, t = _alike("huber_cpu", input, target.to(input.dtype))  # the one loss whose result has the input's dtype
    if weight is None:
        return loss.huber_loss(x, t, reduction=reduction, delta=delta)
    _check_weight(weight, input)
    return reduced(loss.huber_loss(x, t, reduction="none", delta=delta) * weight, reduction)


def _alike(name: str | None, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one shape and one dtype, with a warning where the shapes differ; integers are refused under `name`."""
    if input.shape != target.shape:
        warnings.warn(
            f"Using a target size ({target.shape}) that is different to the input size ({input.shape}). This will "
            "likely lead to incorrect results due to broadcasting. Please ensure they have the same size.",
            stacklevel=3,
        )
        shape = _broadcast(input, target)
        input, target = input.expand(shape), target.expand(shape)
    if input.dtype != target.dtype:
        dtype = _promoted(input, target)
        input, target = input.to(dtype), target.to(dtype)
    if name is not None:
        require_floating(name, input)
    return input, target


def _broadcast(a: Tensor, b: Tensor) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ShapeError(
            f"The shapes {list(a.shape)} and {list(b.shape)} do not broadcast: each dimension must match, or be 1 in "
            "one of them"
        ) from None


def _promoted(a: Tensor, b: Tensor) -> np.dtype[np.generic]:
    return promote([x.dtype for x in (a, b) if x.ndim], [x.dtype for x in (a, b) if not x.ndim])


def _check_weight(weight: Tensor, input: Tensor) -> None:
    if weight.shape != input.shape:
        raise SizeError("Weights and input must have the same size.")


def _weighted_mean(y: Tensor, weight: Tensor, reduction: str) -> Tensor:
    y = y * weight
    return reducing.sum(y) / reducing.sum(weight) if reduction == "mean" else reduced(y, reduction)


# ---- Of probabilities ----


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """−w · (t · log x + (1 − t) · log(1 − x)), for probabilities x; the logarithms are −100 at least.

    Raises:
        SizeError: input and target have different shapes.
        ShapeError: an x is not in [0, 1].
        DTypeError: their dtypes differ.
    """
    reduction = reduction_of(size_average, reduce, reduction)
    if active:
        input, target, weight = raised(input, target, weight)
    if target.shape != input.shape:
        raise SizeError(
            f"Using a target size ({target.shape}) that is different to the input size ({input.shape}) is deprecated. "
            "Please ensure they have the same size."
        )
    require_floating("binary_cross_entropy", input)
    for other in (target, weight):
        if other is not None and other.dtype != input.dtype:
            raise DTypeError(f"Found dtype {other.dtype} but expected {input.dtype}; convert it with .to(dtype)")
    check_constant("binary_cross_entropy", "weight", weight)
    inside = (input.data >= 0) & (input.data <= 1)
    if not inside.all():
        raise SettingError(
            "input", input.data[~inside].flat[0].item(), "all elements of input should be between 0 and 1"
        )
    w = None if weight is None else np.broadcast_to(weight.data, input.shape)
    return loss.binary_cross_entropy(input, target, weight=w, reduction=reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """−w · (p · t · log σ(x) + (1 − t) · log(1 − σ(x))), where w and the weight p of positive examples broadcast.

    Raises:
        SizeError: input and target have different shapes.
        ShapeError: a weight does not broadcast to them.
        DTypeError: the target is of integers.
    """
    reduction = reduction_of(size_average, reduce, reduction)
    if active:
        input, target, weight, pos_weight = raised(input, target, weight, pos_weight)
    if target.shape != input.shape:
        raise SizeError(f"Target size ({target.shape}) must be the same as input size ({input.shape})")
    for name, value in (("target", target), ("input", input)):
        if not is_floating(value.dtype):
            raise DTypeError(
                f"result type Float can't be cast to the desired output type {value.dtype}: the {name} has to be of "
                "a floating dtype"
            )
    check_constant("binary_cross_entropy_with_logits", "weight", weight)
    check_constant("binary_cross_entropy_with_logits", "pos_weight", pos_weight)
    dtype = _promoted(input, target)
    return loss.binary_cross_entropy_with_logits(
        input.to(dtype),
        target.to(dtype),
        weight=None if weight is None else np.broadcast_to(weight.data.astype(dtype), input.shape),
        positive=None if pos_weight is None else np.broadcast_to(pos_weight.data.astype(dtype), input.shape),
        reduction=reduction,
    )


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """t · (log t − x), for a distribution t (or its logarithm) and the logarithm x of another.

    `reduction` may also be batchmean: the sum divided by the number of examples, which is the Kullback-Leibler
    divergence; mean divides by the number of elements, and warns.
    """
    old = size_average is not None or reduce is not None
    if not old and reduction == "mean":
        warnings.warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size."
            "'batchmean' divides only by the batch size, and aligns with the KL div math definition."
            "'mean' will be changed to behave the same as 'batchmean' in the next major release.",
            stacklevel=2,
        )
    if old or reduction != "batchmean":
        reduction = reduction_of(size_average, reduce, reduction)
    if active:
        input, target = raised(input, target)
    if log_target:
        y = arithmetic.exp(target) * (target - input)
    else:
        is_zero = target == 0
        y = target * arithmetic.log(arithmetic.where(is_zero, 1.0, target)) - target * input
    if reduction != "batchmean":
        return reduced(y, reduction)
    return reducing.sum(y) / input.shape[0] if input.ndim else reducing.sum(y)


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """eˣ − t · x, or of an input that is no logarithm x − t · log(x + ε).

    `full` adds Stirling's approximation of log t!, t · log t − t + ½ log 2πt, where t > 1.
    """
    reduction = reduction_of(size_average, reduce, reduction)
    if active:
        input, target = raised(input, target)
    y = arithmetic.exp(input) - target * input if log_input else input - target * arithmetic.log(input + eps)
    if full:
        small = target <= 1
        t = arithmetic.where(small, 1.0, target)
        y = y + arithmetic.where(small, 0.0, t * arithmetic.log(t) - t + 0.5 * arithmetic.log(2 * math.pi * t))
    return reduced(y, reduction)


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """½ (log v + (x − t)² / v), with the variance v of ε at least; `full` adds ½ log 2π.

    Raises:
        ConfigError: a variance is negative.
        SizeError: the variances are neither one for each element nor one for each row.
    """
    loss.check_reduction(reduction)
    v = Tensor(np.full(input.shape, var, input.dtype)) if isinstance(var, float) else var.clone()
    if (v.data < 0).any():
        raise ConfigError("var", float(v.data.min()), "var has negative entry/entries")
    if v.shape != input.shape:
        if input.shape[:-1] == v.shape:
            v = v.unsqueeze(-1)
        elif input.ndim != v.ndim or sum(b for a, b in zip(input.shape, v.shape, strict=True) if a != b) != 1:
            raise SizeError("var is of incorrect size")
    with no_grad():
        v.clamp_(min=eps)
    y = 0.5 * (arithmetic.log(v) + arithmetic.square(input - target) / v)
    return reduced(y + 0.5 * math.log(2 * math.pi) if full else y, reduction)


# ---- Of pairs and triples ----


def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """1 − cos(x₁, x₂) where t = 1, and max(0, cos(x₁, x₂) − margin) where t = −1, for x (N, D), t (N), or (D) and ().

    Raises:
        ShapeError: the dimensions do not fit.
    """
    reduction = reduction_of(size_average, reduce, reduction)
    if active:
        input1, input2, target = raised(input1, input2, target)
    if target.ndim > 1:
        raise ShapeError("0D or 1D target tensor expected, multi-target not supported")
    if input1.ndim != target.ndim + 1 or input2.ndim != target.ndim + 1:
        raise ShapeError(
            f"{target.ndim}D target tensor expects {target.ndim + 1}D input tensors, but found inputs with sizes "
            f"{list(input1.shape)} and {list(input2.shape)}."
        )
    tiny = 1e-12
    lengths = (reducing.sum(input1 * input1, -1) + tiny) * (reducing.sum(input2 * input2, -1) + tiny)
    cosine = reducing.sum(input1 * input2, -1) / arithmetic.sqrt(lengths)
    apart = arithmetic.clamp(cosine - margin, min=0)
    y = arithmetic.where(target == 1, 1 - cosine, 0.0) + arithmetic.where(target == -1, apart, 0.0)
    return reduced(y, reduction)


def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, −t · (x₁ − x₂) + margin), with t = 1 where x₁ should be the larger, else −1.

    Raises:
        ShapeError: the numbers of dimensions differ.
    """
    reduction = reduction_of(size_average, reduce, reduction)
    if active:
        input1, input2, target = raised(input1, input2, target)
    if not input1.ndim == input2.ndim == target.ndim:
        raise ShapeError(
            "margin_ranking_loss : All input tensors should have same dimension but got sizes: input1: "
            f"{input1.shape}, input2: {input2.shape}, target: {target.shape} "
        )
    return reduced(arithmetic.clamp(-target * (input1 - input2) + margin, min=0), reduction)


def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """x where t = 1, and max(0, margin − x) where t = −1"""
    reduction = reduction_of(size_average, reduce, reduction)
    if active:
        input, target = raised(input, target)
    near = arithmetic.where(target != 1, arithmetic.clamp(margin - input, min=0), 0.0)
    return reduced(near + arithmetic.where(target != -1, input, 0.0), reduction)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, ‖a − p‖ − ‖a − n‖ + margin); with `swap`, ‖p − n‖ counts where it is smaller than ‖a − n‖.

    Raises:
        ConfigError: the margin is not positive.
        ShapeError: the numbers of dimensions differ.
    """
    reduction = reduction_of(size_average, reduce, reduction)
    if active:
        anchor, positive, negative = raised(anchor, positive, negative)
    if margin <= 0:
        raise ConfigError("margin", margin, f"margin must be greater than 0, got {margin}")
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise ShapeError(
            "The anchor, positive, and negative tensors are expected to have the same number of dimensions, but got: "
            f"anchor {anchor.ndim}D, positive {positive.ndim}D, and negative {negative.ndim}D inputs"
        )
    near, far = pairwise_distance(anchor, positive, p, eps), pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = arithmetic.minimum(far, pairwise_distance(positive, negative, p, eps))
    return reduced(arithmetic.clamp(margin + near - far, min=0), reduction)


# ---- Reductions ----


def reduced(y: Tensor, reduction: str) -> Tensor:
    """The mean, the sum, or y itself."""
    return reducing.mean(y) if reduction == "mean" else reducing.sum(y) if reduction == "sum" else y


def reduction_of(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction meant, by the older arguments if they are given, with a warning.

    Raises:
        ConfigError: none of mean, sum and none.
    """
    if size_average is not None or reduce is not None:
        average, add = size_average is None or size_average, reduce is None or reduce
        reduction = "none" if not add else "mean" if average else "sum"
        warnings.warn(
            f"size_average and reduce args will be deprecated, please use reduction='{reduction}' instead.",
            stacklevel=3,
        )
    loss.check_reduction(reduction)
    return reduction
