"""Losses."""

from __future__ import annotations

import numpy as np

from chainrule.engine.errors import ShapeError, UnsupportedError
from chainrule.engine.ops import loss
from chainrule.engine.tensor import Tensor


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """−x[target] of log-probabilities (N, C), (C) or (N, C, d₁, ...), for targets (N), () or (N, d₁, ...).

    Raises:
        TargetError: a target is no class; targets equal to `ignore_index` do not count.
        ShapeError: not one target for each example.
        DTypeError: the targets are no integers.
        UnsupportedError: class weights.
    """
    if weight is not None:
        raise UnsupportedError("class weights are not supported by this version")
    loss.check_reduction(reduction)
    if input.ndim == 0 or (input.ndim > 1 and input.shape[:1] != target.shape[:1]):
        raise ShapeError(
            f"Expected input batch_size ({input.shape[0] if input.ndim else 0}) to match target batch_size "
            f"({target.shape[0] if target.ndim else 0})."
        )
    if input.ndim == 1:
        rows = input.unsqueeze(0)
    elif input.ndim == 2:
        rows = input
    else:
        rows = input.permute(0, *range(2, input.ndim), 1).reshape(-1, input.shape[1])
    if target.shape != input.shape[:1] * (input.ndim > 1) + input.shape[2:]:
        raise ShapeError(f"nll_loss: target of shape {list(target.shape)} does not fit input {list(input.shape)}")
    classes, counts = loss.check_targets(target.data.reshape(-1), len(rows), rows.shape[1], ignore_index)
    y = loss.nll_loss(rows, target=classes, weight=counts.astype(input.dtype), reduction=reduction)
    return y.reshape(target.shape) if reduction == "none" else y


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """−log softmax(x)[target]; shapes and errors as `nll_loss`."""
    if label_smoothing:
        raise UnsupportedError("label_smoothing is not supported by this version")
    log_probabilities = loss.log_softmax(input, dim=min(1, input.ndim - 1))
    return nll_loss(log_probabilities, target, weight, ignore_index=ignore_index, reduction=reduction)


def mse_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """(x − t)², averaged or summed unless `reduction` is none."""
    loss.check_reduction(reduction)
    if input.shape != target.shape:
        try:
            shape = np.broadcast_shapes(input.shape, target.shape)
        except ValueError:
            raise ShapeError(
                f"mse_loss: shapes {list(input.shape)} and {list(target.shape)} do not broadcast"
            ) from None
        input, target = input.expand(shape), target.expand(shape)
    if input.dtype != target.dtype:
        input, target = input + 0 * target, target + 0 * input
    return loss.mse_loss(input, target, reduction=reduction)
