"""Normalisation of batches and of instances, and how another process may keep its running statistics."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from chainrule.engine.creation import ones, tensor, zeros
from chainrule.engine.dtypes import Array
from chainrule.engine.errors import ConfigError
from chainrule.engine.nn import functional as F
from chainrule.engine.nn import init
from chainrule.engine.nn.functional.checks import SizeError
from chainrule.engine.nn.layers.activation import ReLU
from chainrule.engine.nn.layers.factory import parameter_dtype
from chainrule.engine.nn.module import Module
from chainrule.engine.nn.parameter import Parameter
from chainrule.engine.tensor import Tensor


class _Normalised(Module):
    """A weight and a bias for each of `num_features` channels, and running statistics."""

    _version = 2  # as in PyTorch, since num_batches_tracked
    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        device: object,
        dtype: npt.DTypeLike | None,
        bias: bool,
    ) -> None:
        super().__init__()
        if num_features < 1:
            raise ConfigError("num_features", num_features, "must be at least 1")
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        kind = parameter_dtype(device, dtype)
        self.register_parameter("weight", Parameter(ones(num_features, dtype=kind)) if affine else None)
        self.register_parameter("bias", Parameter(zeros(num_features, dtype=kind)) if affine and bias else None)
        self.register_buffer("running_mean", zeros(num_features, dtype=kind) if track_running_stats else None)
        self.register_buffer("running_var", ones(num_features, dtype=kind) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", tensor(0) if track_running_stats else None)

    def reset_running_stats(self) -> None:
        """Forgets the statistics so far: mean 0, variance 1."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Forgets the statistics so far, and sets every weight to 1 and every bias to 0."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_Normalised):
    """y = w · (x − μ) / √(σ² + ε) + b, for each channel of x (N, num_features, ...).

    While training, μ and σ² are the batch's mean and (biased) variance, and

        running_mean ← (1 − momentum) · running_mean + momentum · μ
        running_var  ← (1 − momentum) · running_var + momentum · σ² · n / (n − 1)

    Otherwise they are the running statistics. With momentum None these are the mean over all batches so far.
    Source: Ioffe and Szegedy, Batch Normalization, https://arxiv.org/abs/1502.03167

    Raises:
        SizeError: x has another number of dimensions, or one value per channel is all there is to train on.
        ShapeError: x has another number of channels.
        ConfigError: there are no features.
    """

    dimensions: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: object = None,
        dtype: npt.DTypeLike | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: Tensor) -> Tensor:
        return self.normalised(input)

    def normalised(self, input: Tensor, *, rectify: bool = False) -> Tensor:
        """The forward; with `rectify`, the relu of it at once."""
        if input.ndim not in self.dimensions:
            raise SizeError(f"expected {_either(self.dimensions)} input (got {input.ndim}D input)")
        y, statistics = F.batch_norm_with_statistics(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or (self.running_mean is None and self.running_var is None),
            self.eps,
            rectify=rectify,
        )
        if self.training and self.track_running_stats and self.running_mean is not None:
            mean, variance = (batch.astype(self.running_mean.dtype, copy=False) for batch in statistics)
            if self.running_var is not None and not _collect(self, mean, variance):
                self._track(self.running_mean, self.running_var, mean, variance)
        return y

    def _track(self, running_mean: Tensor, running_var: Tensor, mean: Array, variance: Array) -> None:
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        factor = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        running_mean.copy_(F.running_update(running_mean.data, mean, factor))
        running_var.copy_(F.running_update(running_var.data, variance, factor))


class BatchNorm1d(_BatchNorm):
    """Normalises each channel of (N, num_features) or (N, num_features, L), by the batch or running statistics."""

    dimensions = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Normalises each channel of (N, num_features, H, W), by the batch or running statistics."""

    dimensions: ClassVar[tuple[int, ...]] = (4,)

    def _fused(self, following: Module, *args: Any) -> Any:
        """With ReLU."""
        return self.normalised(*args, rectify=True) if type(self) is BatchNorm2d and type(following) is ReLU else None

    def scale_and_shift(self) -> tuple[Array, Array] | None:
        """Scale and shift, if they are the same for every batch: w / √(σ² + ε) and b − μ · w / √(σ² + ε)."""
        if self.training or self.running_mean is None or self.running_var is None:
            return None
        scale = 1 / np.sqrt(self.running_var.data + self.running_var.dtype.type(self.eps))
        if self.weight is not None:
            scale *= self.weight.data
        shift = -self.running_mean.data * scale
        return scale, shift if self.bias is None else shift + self.bias.data


class BatchNorm3d(_BatchNorm):
    """Normalises each channel of (N, num_features, D, H, W), by the batch or running statistics."""

    dimensions = (5,)


class _InstanceNorm(_Normalised):
    """y = w · (x − μ) / √(σ² + ε) + b, for each channel of each example of x (N, num_features, ...).

    μ and σ² are the example's own; with `track_running_stats` and not training, running statistics, which while
    training move towards the mean of the examples' by `momentum`.
    Source: Ulyanov, Vedaldi and Lempitsky, https://arxiv.org/abs/1607.08022

    Raises:
        SizeError: x has another number of dimensions or, with weights, of channels.
        ConfigError: there are no features.
    """

    dimensions: ClassVar[int]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: object = None,
        dtype: npt.DTypeLike | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: Tensor) -> Tensor:
        alone = self.dimensions - 1
        if input.ndim not in (alone, self.dimensions):
            raise SizeError(f"expected {_either((alone, self.dimensions))} input (got {input.ndim}D input)")
        axis = input.ndim - alone
        if input.shape[axis] != self.num_features:
            if self.affine:
                raise SizeError(
                    f"expected input's size at dim={axis} to match num_features ({self.num_features}), but got: "
                    f"{input.shape[axis]}."
                )
            warnings.warn(
                f"input's size at dim={axis} does not match num_features. You can silence this warning by not passing "
                "in num_features, which is not used because affine=False",
                stacklevel=2,
            )
        return self._normalise(input) if axis else self._normalise(input.unsqueeze(0)).squeeze(0)

    def _normalise(self, input: Tensor) -> Tensor:
        return F.instance_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            self.momentum if self.momentum is not None else 0.0,
            self.eps,
        )


class InstanceNorm1d(_InstanceNorm):
    """Normalises each channel of each example of (N, num_features, L); see its base."""

    dimensions = 3


class InstanceNorm2d(_InstanceNorm):
    """Normalises each channel of each example of (N, num_features, H, W); see its base."""

    dimensions = 4


class InstanceNorm3d(_InstanceNorm):
    """Normalises each channel of each example of (N, num_features, D, H, W); see its base."""

    dimensions = 5


def _either(dimensions: tuple[int, ...]) -> str:
    return " or ".join(f"{n}D" for n in dimensions)


# ---- Statistics for someone else to keep ----


class _Collector:
    def __init__(self, model: Module) -> None:
        self.paths = {id(module): path for path, module in model.named_modules()}
        self.statistics: dict[str, Array] = {}


class _Collectors(threading.local):
    def __init__(self) -> None:
        self.stack: list[_Collector] = []


_collectors = _Collectors()


@contextmanager
def collect_batch_statistics(model: Module) -> Iterator[dict[str, Array]]:
    """Training forwards of `model` inside, in this thread, fill the dict and leave the model's buffers alone.

    The dict maps `<path>.running_mean` to the batch's mean and `<path>.running_var` to its unbiased variance, in the
    dtype of the buffers; a second forward overwrites the first. `functional.running_update` of a buffer with them
    gives, bit for bit, what the forward would have made of the buffer.
    """
    collector = _Collector(model)
    _collectors.stack.append(collector)
    try:
        yield collector.statistics
    finally:
        _collectors.stack.remove(collector)


def _collect(layer: _BatchNorm, mean: Array, variance: Array) -> bool:
    """Whether someone collects the layer's statistics, who then has them."""
    for collector in reversed(_collectors.stack):
        path = collector.paths.get(id(layer))
        if path is not None:
            prefix = f"{path}." if path else ""
            collector.statistics[f"{prefix}running_mean"] = mean
            collector.statistics[f"{prefix}running_var"] = variance
            return True
    return False
