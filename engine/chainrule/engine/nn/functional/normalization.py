"""Normalisation."""

from __future__ import annotations

from chainrule.engine import kernels
from chainrule.engine.dtypes import Array
from chainrule.engine.errors import ConfigError, ShapeError
from chainrule.engine.ops import normalization
from chainrule.engine.tensor import Tensor


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """y = w · (x − μ) / √(σ² + ε) + b, for each channel of x (N, C, H, W).

    While training, μ and σ² are those of the batch, and the running statistics move towards them by `momentum`;
    otherwise they are the running statistics.

    Raises:
        ShapeError: x is not 4D, or one value per channel is all there is to train on.
        ConfigError: not training, and no running statistics.
    """
    y, statistics = batch_norm_with_statistics(input, running_mean, running_var, weight, bias, training, eps)
    for buffer, batch in zip((running_mean, running_var), statistics, strict=False):
        if buffer is not None:
            buffer.copy_(running_update(buffer.data, batch, momentum))
    return y


def batch_norm_with_statistics(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    eps: float,
) -> tuple[Tensor, tuple[Array, ...]]:
    """`batch_norm` that leaves the running statistics alone, and while training gives those of the batch.

    Returns:
        y, and while training the batch's mean and unbiased variance, each (C) in x's dtype, else nothing.
    """
    if input.ndim != 4:
        raise ShapeError(f"expected 4D input (got {input.ndim}D input)")
    if not training:
        if running_mean is None or running_var is None:
            raise ConfigError("training", training, "batch_norm needs running statistics when it is not training")
        y = normalization.batch_norm_fixed(
            input, weight, bias, mean=running_mean.data, variance=running_var.data, eps=eps
        )
        return y, ()
    n = input.data.size // max(input.shape[1], 1)
    if n <= 1:
        raise ShapeError(f"Expected more than 1 value per channel when training, got input size {list(input.shape)}")
    mean, variance = kernels.batch_moments(input.data)
    y = normalization.batch_norm(input, weight, bias, mean=mean, variance=variance, eps=eps)
    return y, (mean.astype(input.dtype), (variance * (n / (n - 1))).astype(input.dtype))


def running_update(running: Array, batch: Array, factor: float) -> Array:
    """running' = (1 − factor) · running + factor · batch, a function of its arguments only."""
    return (1 - factor) * running + factor * batch
