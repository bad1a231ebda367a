"""Batch normalisation, and how another process may keep its running statistics."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from chainrule.engine.creation import ones, tensor, zeros
from chainrule.engine.dtypes import Array
from chainrule.engine.errors import ConfigError, ShapeError
from chainrule.engine.nn import functional as F
from chainrule.engine.nn.module import Module
from chainrule.engine.nn.parameter import Parameter
from chainrule.engine.tensor import Tensor


class BatchNorm2d(Module):
    """y = w · (x − μ) / √(σ² + ε) + b, for each channel of x (N, num_features, H, W).

    While training, μ and σ² are the batch's mean and (biased) variance, and

        running_mean ← (1 − momentum) · running_mean + momentum · μ
        running_var  ← (1 − momentum) · running_var + momentum · σ² · n / (n − 1)

    Otherwise they are the running statistics. With momentum None these are the mean over all batches so far.
    Source: Ioffe and Szegedy, Batch Normalization, https://arxiv.org/abs/1502.03167
    """

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_features < 1:
            raise ConfigError("num_features", num_features, "must be at least 1")
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.register_parameter("weight", Parameter(ones(num_features)) if affine else None)
        self.register_parameter("bias", Parameter(zeros(num_features)) if affine and bias else None)
        self.register_buffer("running_mean", zeros(num_features) if track_running_stats else None)
        self.register_buffer("running_var", ones(num_features) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", tensor(0) if track_running_stats else None)

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim == 4 and input.shape[1] != self.num_features:
            raise ShapeError(f"BatchNorm2d({self.num_features}) was given {input.shape[1]} channels")
        y, statistics = F.batch_norm_with_statistics(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            self.eps,
        )
        if self.training and self.running_mean is not None and self.running_var is not None:
            mean, variance = (batch.astype(self.running_mean.dtype, copy=False) for batch in statistics)
            if not _collect(self, mean, variance):
                self._track(self.running_mean, self.running_var, mean, variance)
        return y

    def _track(self, running_mean: Tensor, running_var: Tensor, mean: Array, variance: Array) -> None:
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        factor = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        running_mean.copy_(F.running_update(running_mean.data, mean, factor))
        running_var.copy_(F.running_update(running_var.data, variance, factor))

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


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


def _collect(layer: BatchNorm2d, mean: Array, variance: Array) -> bool:
    """Whether someone collects the layer's statistics, who then has them."""
    for collector in reversed(_collectors.stack):
        path = collector.paths.get(id(layer))
        if path is not None:
            prefix = f"{path}." if path else ""
            collector.statistics[f"{prefix}running_mean"] = mean
            collector.statistics[f"{prefix}running_var"] = variance
            return True
    return False
