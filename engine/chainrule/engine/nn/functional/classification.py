"""The losses of classes: negative log-likelihood and cross-entropy."""

from __future__ import annotations

import numpy as np

from chainrule.engine.dtypes import Array, is_floating, type_name
from chainrule.engine.errors import DimensionError, DTypeError, ShapeError
from chainrule.engine.functions import arithmetic
from chainrule.engine.functions import reduction as reducing
from chainrule.engine.functions.autocast import active, raised
from chainrule.engine.nn.functional.checks import SettingError, SizeError, check_constant, require_floating
from chainrule.engine.nn.functional.loss import reduction_of
from chainrule.engine.ops import loss
from chainrule.engine.tensor import Tensor

__all__ = ["cross_entropy", "nll_loss"]


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """−w[target] · x[target] of log-probabilities (N, C), (C) or (N, C, d₁, ...), for targets (N), () or (N, d₁, ...).

    The mean is divided by the sum of the weights w (C) of the targets; those equal to `ignore_index` do not count.

    Raises:
        TargetError: a target is no class.
        SizeError: another number of examples.
        ShapeError: another shape, or not one weight for each class.
        DTypeError: the targets are no integers, or the weights of another dtype than the input.
    """
    reduction = reduction_of(size_average, reduce, reduction)
    if active:
        input, weight = raised(input, weight)
    require_floating("nll_loss_out_frame", input)
    return _nll_loss(input, target, weight, ignore_index, reduction)


def _nll_loss(input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str) -> Tensor:
    x, classes = input.data, target.data
    if x.ndim == 2 and x.shape[:1] == classes.shape:
        rows = input
    else:
        rows = _rows(input, target)
        classes = classes.reshape(-1)
    num_examples, num_classes = rows.data.shape
    classes, counts = loss.check_targets(classes, num_examples, num_classes, ignore_index)
    weights = None if counts is None else counts.astype(x.dtype)
    if weight is not None:
        of_classes = _class_weights(input, weight)[classes]
        weights = of_classes if weights is None else weights * of_classes
    y = loss.nll_loss(rows, target=classes, weight=weights, reduction=reduction)
    return y.reshape(target.shape) if reduction == "none" and target.ndim != 1 else y


def _rows(input: Tensor, target: Tensor) -> Tensor:
    """The input (N, C) of one example (C), or of all places (N·d₁·…, C) of (N, C, d₁, ...)."""
    _check_shapes(input, target)
    if input.ndim == 1:
        return input.unsqueeze(0)
    return input.permute(0, *range(2, input.ndim), 1).reshape(-1, input.shape[1])


def _check_shapes(input: Tensor, target: Tensor) -> None:
    if not input.ndim:
        raise SizeError("Expected 1 or more dimensions (got 0)")
    if input.ndim == 1:
        if target.numel() != 1 or target.ndim > 1:
            raise ShapeError(f"For 1D input, 1D target must have size 1, but got target size: {list(target.shape)}")
        return
    if input.shape[:1] != target.shape[:1]:
        raise SizeError(
            f"Expected input batch_size ({input.shape[0]}) to match target batch_size "
            f"({target.shape[0] if target.ndim else 0})."
        )
    expected = input.shape[:1] + input.shape[2:]
    if target.shape == expected:
        return
    if input.ndim == 2:
        raise ShapeError("0D or 1D target tensor expected, multi-target not supported")
    raise ShapeError(f"Expected target size {list(expected)}, got {list(target.shape)}")


def _class_weights(input: Tensor, weight: Tensor) -> Array:
    classes = input.shape[min(1, input.ndim - 1)]
    if weight.shape != (classes,):
        raise ShapeError(
            f"weight tensor should be defined either for all {classes} classes or no classes but got weight tensor of "
            f"shape: {list(weight.shape)}"
        )
    if weight.dtype != input.dtype:
        raise DTypeError(f"expected scalar type {type_name(input.dtype)} but found {type_name(weight.dtype)}")
    check_constant("nll_loss_forward", "weight", weight)
    return weight.data


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """−w[target] · log softmax(x)[target]; shapes and errors as `nll_loss`.

    A target in the shape of x holds probabilities p instead: −Σ w · p · log softmax(x) over the classes. Smoothing by ε
    makes 1 − ε of a target, and ε / C of each of the C classes.
    Source: Szegedy et al., Rethinking the inception architecture, https://arxiv.org/abs/1512.00567

    Raises:
        SettingError: `label_smoothing` is not in [0, 1], or `ignore_index` names a class where there are probabilities.
    """
    reduction = reduction_of(size_average, reduce, reduction)
    if active:
        input, target, weight = raised(input, target, weight)
    if not 0 <= label_smoothing <= 1:
        raise SettingError(
            "label_smoothing",
            label_smoothing,
            f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}",
        )
    if target.shape == input.shape and not is_floating(target.dtype):
        raise DTypeError(
            f"Expected floating point type for target with class probabilities, got {type_name(target.dtype)}"
        )
    if not input.ndim:
        raise DimensionError("Dimension out of range (expected to be in range of [-1, 0], but got 1)")
    require_floating("log_softmax_lastdim_kernel_impl", input)
    dim = min(1, input.ndim - 1)
    x = loss.log_softmax(input, dim=dim)
    if target.shape == input.shape:
        return _of_probabilities(x, target, weight, ignore_index, reduction, label_smoothing, dim)
    y = _nll_loss(x, target, weight, ignore_index, reduction)
    if not label_smoothing:
        return y
    even = _of_all_classes(x, target, weight, ignore_index, reduction, dim)
    return (1 - label_smoothing) * y + (label_smoothing / input.shape[dim]) * even


def _of_all_classes(
    x: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str, dim: int
) -> Tensor:
    """−Σ w · x over the classes, with the reduction of `nll_loss`."""
    kept = target.data.reshape(x.shape[:dim] + x.shape[dim + 1 :]) != ignore_index
    y = -reducing.sum(x if weight is None else x * _per_class(weight, x, dim), dim)
    y = arithmetic.where(Tensor(kept), y, 0.0)
    if reduction == "none":
        return y.reshape(target.shape)
    total = reducing.sum(y)
    if reduction == "sum":
        return total
    return total / Tensor(np.asarray(kept.sum() if weight is None else weight.data[target.data[kept]].sum()))


def _of_probabilities(
    x: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str, smoothing: float, dim: int
) -> Tensor:
    """−Σ w · p · x over the classes; the mean is over the examples."""
    if ignore_index >= 0:
        raise SettingError("ignore_index", ignore_index, "ignore_index is not supported for floating point target")
    if smoothing:
        target = target * (1 - smoothing) + smoothing / x.shape[dim]
    terms = x * target if weight is None else x * target * _per_class(weight, x, dim)
    if reduction == "none":
        return -reducing.sum(terms, dim)
    total = -reducing.sum(terms)
    return total if reduction == "sum" else total / (x.numel() / x.shape[dim])


def _per_class(weight: Tensor, x: Tensor, dim: int) -> Tensor:
    if weight.shape != (x.shape[dim],):
        raise ShapeError(
            f"cross_entropy: If target is class probabilities or smoothed, weight needs one entry for each of the "
            f"{x.shape[dim]} classes, got shape {list(weight.shape)}"
        )
    return weight.reshape([-1 if axis == dim else 1 for axis in range(x.ndim)])
