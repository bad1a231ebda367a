"""What the heavy operations call; `CHAINRULE_KERNELS` chooses who answers."""

from chainrule.engine.kernels.select import (
    KernelInfo,
    avg_pool2d,
    avg_unpool,
    batch_moments,
    conv2d,
    conv2d_input,
    conv2d_weight,
    info,
    max_pool2d,
    pick,
    unpool,
)

__all__ = [
    "KernelInfo",
    "avg_pool2d",
    "avg_unpool",
    "batch_moments",
    "conv2d",
    "conv2d_input",
    "conv2d_weight",
    "info",
    "max_pool2d",
    "pick",
    "unpool",
]
