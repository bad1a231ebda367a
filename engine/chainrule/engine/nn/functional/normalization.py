"""Normalisation: of batches, instances, layers, groups, and by neighbouring channels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from chainrule.engine import kernels
from chainrule.engine.dtypes import Array, float32, is_low_precision, type_name
from chainrule.engine.errors import ConfigError, DimensionError, DTypeError, ShapeError
from chainrule.engine.nn.functional.checks import SettingError, SizeError, require_floating
from chainrule.engine.ops import normalization, shape
from chainrule.engine.tensor import Tensor
from chainrule.engine.watching import watched

__all__ = [
    "batch_norm",
    "batch_norm_with_statistics",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "local_response_norm",
    "rms_norm",
    "running_update",
]

# ---- Over the batch ----


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
    """y = w · (x − μ) / √(σ² + ε) + b, for each channel of x (N, C, ...).

    While training, μ and σ² are those of the batch, and the running statistics move towards them by `momentum`;
    otherwise they are the running statistics.

    Raises:
        SizeError: one value per channel is all there is to train on.
        DimensionError: x has no channels.
        ShapeError: a weight or statistic is not one for each channel.
        DTypeError: they are not of x's dtype, nor of float32 where x is of half precision.
        SettingError: not training, and no running statistics.
        ConfigError: ε is negative, or 0 while training.
    """
    y, statistics = batch_norm_with_statistics(input, running_mean, running_var, weight, bias, training, eps)
    for buffer, batch in zip((running_mean, running_var), statistics, strict=False):
        if buffer is not None:
            buffer.copy_(running_update(buffer.data, batch, momentum))
    return y


@watched
def batch_norm_with_statistics(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    eps: float,
    *,
    rectify: bool = False,
) -> tuple[Tensor, tuple[Array, ...]]:
    """`batch_norm` that leaves the running statistics alone, and while training gives those of the batch.

    Args:
        rectify: whether `relu` follows; while training the two are computed at once.

    Returns:
        y, and while training the batch's mean and unbiased variance, each (C) in the running mean's dtype
        or else x's; otherwise nothing.
    """
    require_floating("batch_norm", input)
    if input.ndim < 2:
        raise DimensionError(
            f"batch_norm: expected at least 2 dimensions, (N, C, ...), got input of shape {list(input.shape)}"
        )
    if training:
        _check_batch(input, eps)
    elif eps < 0:
        raise ConfigError("eps", eps, f"batch_norm eps must be non-negative, but got {eps}")
    named = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, value in named.items():
        if value is not None and value.numel() != input.shape[1]:
            raise ShapeError(f"{name} should contain {input.shape[1]} elements not {value.numel()}")
    _check_types(input, weight, bias, running_mean, running_var)
    if not training:
        if running_mean is None or running_var is None:
            missing = "running_mean" if running_mean is None else "running_var"
            raise SettingError("training", training, f"{missing} must be defined in evaluation mode")
        y = normalization.batch_norm_fixed(
            input, weight, bias, mean=running_mean.data, variance=running_var.data, eps=eps
        )
        return (y.relu_() if rectify else y), ()
    n = input.data.size // max(input.shape[1], 1)
    images = normalization.as_images(input.data)
    w, b = (None if v is None else v.data for v in (weight, bias))
    if rectify:
        y, mean, variance, mask = kernels.batch_norm_relu(images, w, b, eps)
        operation, batch = normalization.batch_norm_relu, normalization.Batch(mean, variance, eps, mask)
    else:
        y, mean, variance = kernels.batch_norm(images, w, b, eps)
        operation, batch = normalization.batch_norm, normalization.Batch(mean, variance, eps)
    found = [(y.reshape(input.shape), batch)]
    del y, batch  # the operation empties the list
    result = operation(input, weight, bias, found=found)
    unbiased = variance * (n / (n - 1)) if n else variance
    dtype = input.dtype if running_mean is None else running_mean.dtype
    return result, (mean.astype(dtype), unbiased.astype(dtype))


def _check_batch(input: Tensor, eps: float) -> None:
    if input.shape[0] * math.prod(input.shape[2:]) == 1:
        raise SizeError(f"Expected more than 1 value per channel when training, got input size {list(input.shape)}")
    if eps <= 0:
        raise ConfigError("eps", eps, f"batch_norm eps must be positive during training, but got {eps}")


def _check_types(input: Tensor, *parameters: Tensor | None) -> None:
    """Raises DTypeError unless all parameters are of x's dtype, or of float32 where x is of half precision."""
    found = [value.dtype for value in parameters if value is not None]
    if not found or found.count(input.dtype) == len(found):
        return
    if found[0] == input.dtype:
        other = next(dtype for dtype in found if dtype != input.dtype)
        raise DTypeError(f"expected scalar type {type_name(input.dtype)} but found {type_name(other)}")
    if found.count(float32) != len(found):
        raise DTypeError("mixed dtype (CPU): expect parameter to have scalar type of Float")
    if not is_low_precision(input.dtype):
        raise DTypeError("mixed dtype (CPU): all inputs must share same datatype.")


def running_update(running: Array, batch: Array, factor: float) -> Array:
    """running' = (1 − factor) · running + factor · batch, a function of its arguments only."""
    return (1 - factor) * running + factor * batch


# ---- Over each example ----


@watched
def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`batch_norm` of every example of x (N, C, ...) on its own, by its statistics or by the running ones.

    The running statistics move towards the mean of the examples' statistics.

    Raises:
        SizeError: one value per channel of an example is all there is.
        SettingError: neither statistics.
    """
    n, channels, *rest = input.shape if input.ndim > 1 else (*input.shape, 1)
    if use_input_stats and math.prod(rest) == 1:
        raise SizeError(f"Expected more than 1 spatial element when training, got input size {input.shape}")
    if not use_input_stats and (running_mean is None or running_var is None):
        raise SettingError(
            "use_input_stats", use_input_stats, "Expected running_mean and running_var to be defined when "
            "use_input_stats is false"
        )  # fmt: skip
    if not n:
        return input * 1
    joined = input.reshape(1, n * channels, *rest)
    mean, variance, w, b = (_repeated(value, n) for value in (running_mean, running_var, weight, bias))
    y, statistics = batch_norm_with_statistics(joined, mean, variance, w, b, use_input_stats, eps)
    for buffer, batch in zip((running_mean, running_var), statistics, strict=False):
        if buffer is not None:
            buffer.copy_(running_update(buffer.data, batch.reshape(n, channels).mean(0), momentum))
    return y.reshape(input.shape)


def _repeated(value: Tensor | None, n: int) -> Tensor | None:
    return None if value is None else value.expand(n, *value.shape).reshape(-1)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """y = w · (x − μ) / √(σ² + ε) + b, over the last dimensions of x, which are `normalized_shape`.

    Raises:
        ShapeError: x does not end in this shape, or w and b are not of it.
        DTypeError: w and b are not of x's dtype, nor of float32 where x is of half precision.
    """
    require_floating("LayerNormKernelImpl", input)
    ndim = len(_checked_shape(input, normalized_shape, {"weight": weight, "bias": bias}))
    _check_types(input, weight, bias)
    return normalization.layer_norm(input, weight, bias, ndim=ndim, eps=eps)


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """y = w · x / √(mean x² + ε), over the last dimensions of x, which are `normalized_shape`.

    ε is by default the distance from 1 to the next number of x's dtype (of float32 for half precision).

    Raises:
        ShapeError: x does not end in this shape, or w is not of it.
    """
    require_floating("rms_norm", input)
    ndim = len(_checked_shape(input, normalized_shape, {"weight": weight}))
    if eps is None:
        eps = float(np.finfo(np.float32 if is_low_precision(input.dtype) else input.dtype).eps)
    return normalization.rms_norm(input, weight, ndim=ndim, eps=eps)


def _checked_shape(
    input: Tensor, normalized_shape: Sequence[int], parameters: dict[str, Tensor | None]
) -> tuple[int, ...]:
    expected = tuple(normalized_shape)
    if not expected:
        raise ShapeError(
            "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one element, but got "
            "normalized_shape = []"
        )
    for name, value in parameters.items():
        if value is not None and value.shape != expected:
            raise ShapeError(
                f"Expected {name} to be of same shape as normalized_shape, but got {name} of shape "
                f"{list(value.shape)} and normalized_shape = {list(expected)}"
            )
    if input.shape[-len(expected) :] != expected:
        raise ShapeError(
            f"Given normalized_shape={list(expected)}, expected input with shape [*, {', '.join(map(str, expected))}], "
            f"but got input of size{list(input.shape)}"
        )
    return expected


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """y = w · (x − μ) / √(σ² + ε) + b for each channel of x (N, C, ...), over each of `num_groups` groups of channels.

    Raises:
        ShapeError: the channels do not make so many groups, or w and b are not one for each channel.
        SizeError: one value is all there is.
        DTypeError: w and b are not of x's dtype, nor of float32 where x is of half precision.
    """
    require_floating("GroupNormKernelImpl", input)
    if input.ndim < 2:
        raise ShapeError(f"Expected at least 2 dimensions for input tensor but received {input.ndim}")
    n, channels, *rest = input.shape
    if num_groups < 1 or channels % num_groups:
        raise ShapeError(
            "Expected number of channels in input to be divisible by num_groups, but got input of shape "
            f"{list(input.shape)} and num_groups={num_groups}"
        )
    if math.prod([n * channels // num_groups, *rest]) == 1:
        raise SizeError(
            "Expected more than 1 value per channel when training, got input size "
            f"{[n * channels // num_groups, num_groups, *rest]}"
        )
    for name, value in {"weight": weight, "bias": bias}.items():
        if value is not None and value.shape != (channels,):
            raise ShapeError(
                f"Expected {name} to be a vector of size equal to the number of channels in input, but got {name} of "
                f"shape {list(value.shape)} and input of shape {list(input.shape)}"
            )
    _check_types(input, weight, bias)
    return normalization.group_norm(input, weight, bias, groups=num_groups, eps=eps)


# ---- By neighbouring channels ----


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + α · mean x²)^β for x (N, C, L, ...), the mean over `size` channels around each, zeros beyond the last.

    Source: Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional neural networks (2012)

    Raises:
        SizeError: fewer than three dimensions.
    """
    if input.ndim < 3:
        raise SizeError(f"Expected 3D or higher dimensionality input (got {input.ndim} dimensions)")
    if not input.numel():
        return input
    n, channels, *rest = input.shape
    margins = [Tensor(np.zeros((n, width, *rest), input.dtype)) for width in (size // 2, (size - 1) // 2)]
    padded = shape.cat(margins[0], input * input, margins[1], dim=1)
    total = padded[:, :channels]
    for shift in range(1, size):
        total = total + padded[:, shift : shift + channels]
    return input / (total / size * alpha + k) ** beta
