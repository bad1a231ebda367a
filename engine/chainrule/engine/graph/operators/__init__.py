"""The operators of ONNX, each entered in the table of `registry` when its module is imported."""

from chainrule.engine.graph.operators import (
    activation,
    arithmetic,
    attention,
    chainrule_domain,
    classic,
    convolution,
    indexing,
    linear,
    losses,
    normalization,
    pooling,
    recurrent,
    reduction,
    resampling,
    shapes,
)

__all__ = [
    "activation",
    "arithmetic",
    "attention",
    "chainrule_domain",
    "classic",
    "convolution",
    "indexing",
    "linear",
    "losses",
    "normalization",
    "pooling",
    "recurrent",
    "reduction",
    "resampling",
    "shapes",
]
