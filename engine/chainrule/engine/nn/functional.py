"""The layers as functions of their inputs and weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.engine import kernels
from chainrule.engine.dtypes import Array
from chainrule.engine.errors import ConfigError, DTypeError, ShapeError, UnsupportedError
from chainrule.engine.kernels.geometry import ConvGeometry, Pair, PoolGeometry, output_size
from chainrule.engine.ops import convolution, elementwise, linalg, loss, normalization, op, pooling
from chainrule.engine.tensor import Tensor

IntOrPair = int | Sequence[int]

# ---- Activations ----


def relu(input: Tensor) -> Tensor:
    """max(x, 0)"""
    return elementwise.relu(input)


def tanh(input: Tensor) -> Tensor:
    return elementwise.tanh(input)


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + e⁻ˣ)"""
    return elementwise.sigmoid(input)


def softmax(input: Tensor, dim: int) -> Tensor:
    """eˣ / Σ eˣ along `dim`."""
    return loss.softmax(input, dim=dim)


def log_softmax(input: Tensor, dim: int) -> Tensor:
    """x − log Σ eˣ along `dim`."""
    return loss.log_softmax(input, dim=dim)


# ---- Linear and convolution ----


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x·wᵀ + b, for x (..., I), w (O, I) and b (O).

    Raises:
        ShapeError: the last dimension of x is not I.
    """
    if input.ndim == 0 or weight.ndim != 2 or input.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear: input of shape {list(input.shape)} does not fit weight of shape {list(weight.shape)}; "
            f"the last dimension of the input has to be {weight.shape[-1]}"
        )
    _check_same_dtype("linear", input, weight, bias)
    return linalg.linear(input, weight, bias)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: IntOrPair | str = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
) -> Tensor:
    """The cross-correlation of images (N, C, H, W), or of one (C, H, W), with weight (O, C / groups, KH, KW).

    Raises:
        ShapeError: the shapes do not fit, or the image is smaller than the window.
        ConfigError: a setting is out of range.
    """
    if input.ndim == 3:
        return conv2d(input.unsqueeze(0), weight, bias, stride, padding, dilation, groups).squeeze(0)
    if input.ndim != 4 or weight.ndim != 4:
        raise ShapeError(
            f"Expected 3D (unbatched) or 4D (batched) input to conv2d, but got input of size: {list(input.shape)}"
        )
    stride, dilation = pair("stride", stride, minimum=1), pair("dilation", dilation, minimum=1)
    window = weight.shape[2], weight.shape[3]
    geometry = ConvGeometry(stride, conv_padding(padding, window, stride, dilation), dilation, groups)
    if groups < 1 or input.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise ShapeError(
            f"Given groups={groups}, weight of size {list(weight.shape)}, expected input{list(input.shape)} to have "
            f"{weight.shape[1] * groups} channels, but got {input.shape[1]} channels instead"
        )
    _check_window("conv2d", input.shape, window, geometry.stride, geometry.padding, geometry.dilation)
    _check_same_dtype("conv2d", input, weight, bias)
    return convolution.conv2d(input, weight, bias, geometry=geometry)


def conv_padding(padding: IntOrPair | str, window: Pair, stride: Pair, dilation: Pair) -> Pair:
    """The padding meant by a number, a pair, "valid" (none) or "same" (the output as large as the input).

    Raises:
        ConfigError: another word, or "same" with a stride.
        UnsupportedError: "same" with a window of even extent, which pads one side more.
    """
    if not isinstance(padding, str):
        return pair("padding", padding, minimum=0)
    if padding == "valid":
        return 0, 0
    if padding != "same":
        raise ConfigError("padding", padding, "choose a number, a pair, 'same' or 'valid'")
    if stride != (1, 1):
        raise ConfigError("padding", padding, "padding='same' is not supported for strided convolutions")
    total = [dilation[i] * (window[i] - 1) for i in (0, 1)]
    if total[0] % 2 or total[1] % 2:
        raise UnsupportedError(
            f"padding='same' with kernel size {window} and dilation {dilation} pads one side more than the other, "
            "which this version does not do; use an odd kernel size"
        )
    return total[0] // 2, total[1] // 2


# ---- Pooling ----


def max_pool2d(
    input: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """The largest element of each window of images (N, C, H, W), or of one (C, H, W).

    Raises:
        ShapeError: the image is smaller than the window.
        ConfigError: a setting is out of range.
        UnsupportedError: `ceil_mode` or `return_indices`.
    """
    if ceil_mode or return_indices:
        raise UnsupportedError("max_pool2d: ceil_mode and return_indices are not supported by this version")
    geometry = _pool_geometry(kernel_size, stride, padding, dilation)
    return _pooled("max_pool2d", pooling.max_pool2d, input, geometry)


def avg_pool2d(
    input: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The average of each window of images (N, C, H, W), or of one (C, H, W).

    Raises:
        ShapeError: the image is smaller than the window.
        ConfigError: a setting is out of range.
        UnsupportedError: `ceil_mode` or `divisor_override`.
    """
    if ceil_mode or divisor_override is not None:
        raise UnsupportedError("avg_pool2d: ceil_mode and divisor_override are not supported by this version")
    geometry = _pool_geometry(kernel_size, stride, padding, 1)._replace(count_include_pad=count_include_pad)
    return _pooled("avg_pool2d", pooling.avg_pool2d, input, geometry)


def _pool_geometry(
    kernel_size: IntOrPair, stride: IntOrPair | None, padding: IntOrPair, dilation: IntOrPair
) -> PoolGeometry:
    window = pair("kernel_size", kernel_size, minimum=1)
    margin = pair("padding", padding, minimum=0)
    if margin[0] > window[0] // 2 or margin[1] > window[1] // 2:
        raise ConfigError("padding", padding, f"pad should be at most half of effective kernel size, which is {window}")
    step = window if stride is None else pair("stride", stride, minimum=1)
    return PoolGeometry(window, step, margin, pair("dilation", dilation, minimum=1))


def _pooled(name: str, pool: op.Op, input: Tensor, geometry: PoolGeometry) -> Tensor:
    if input.ndim == 3:
        return _pooled(name, pool, input.unsqueeze(0), geometry).squeeze(0)
    if input.ndim != 4:
        raise ShapeError(f"{name}: expected 3D or 4D input, got shape {list(input.shape)}")
    _check_window(name, input.shape, geometry.kernel, geometry.stride, geometry.padding, geometry.dilation)
    return pool(input, geometry=geometry)


# ---- Batch normalisation ----


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


# ---- Losses ----


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


# ---- Checks ----


def pair(name: str, value: IntOrPair, *, minimum: int) -> Pair:
    """(n, n) of n, and a pair of itself.

    Raises:
        ConfigError: another length, or a number below the minimum.
    """
    numbers: tuple[Any, ...] = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(numbers) != 2 or not all(isinstance(n, int | np.integer) and n >= minimum for n in numbers):
        raise ConfigError(name, value, f"expected an integer of at least {minimum}, or a pair of them")
    return int(numbers[0]), int(numbers[1])


def _check_window(name: str, shape: Sequence[int], window: Pair, stride: Pair, padding: Pair, dilation: Pair) -> None:
    sizes = [output_size(shape[2 + i], window[i], stride[i], padding[i], dilation[i]) for i in (0, 1)]
    if min(sizes) < 1:
        raise ShapeError(
            f"{name}: kernel size {window} with dilation {dilation} can't be greater than the input "
            f"{tuple(shape[2:])} with padding {padding}"
        )


def _check_same_dtype(name: str, input: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    for what, other in (("weight", weight), ("bias", bias)):
        if other is not None and other.dtype != input.dtype:
            raise DTypeError(
                f"{name}: input is {input.dtype} and {what} {other.dtype}; convert one of them with .to(dtype)"
            )
