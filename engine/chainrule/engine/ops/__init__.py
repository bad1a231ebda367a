"""Every operation with its gradient beside it."""

from chainrule.engine.ops import (
    convolution,
    elementwise,
    linalg,
    loss,
    normalization,
    op,
    pooling,
    reduction,
    shape,
    special,
)

__all__ = [
    "convolution",
    "elementwise",
    "linalg",
    "loss",
    "normalization",
    "op",
    "pooling",
    "reduction",
    "shape",
    "special",
]
