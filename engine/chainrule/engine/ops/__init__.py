"""Every operation with its gradient beside it."""

from chainrule.engine.ops import (
    attention,
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
    "attention",
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
