"""Every operation with its gradient beside it."""

from chainrule.engine.ops import (
    convolution,
    division,
    elementwise,
    linalg,
    loss,
    normalization,
    op,
    ordering,
    padding,
    pooling,
    reduction,
    scan,
    shape,
    special,
)

__all__ = [
    "convolution",
    "division",
    "elementwise",
    "linalg",
    "loss",
    "normalization",
    "op",
    "ordering",
    "padding",
    "pooling",
    "reduction",
    "scan",
    "shape",
    "special",
]
