"""Losses that are a part of the graph."""

from __future__ import annotations

from typing import Any

from chainrule.engine.graph.node import Node
from chainrule.engine.graph.registry import Compute, operator
from chainrule.engine.nn import functional as F
from chainrule.engine.tensor import Tensor

_REDUCTIONS = ("none", "mean", "sum")


@operator("SoftmaxCrossEntropyLoss", since=12)
def softmax_cross_entropy_loss(node: Node) -> Compute:
    """−log softmax(x)[target] of scores (N, C, ...), reduced, and as second output log softmax(x)."""
    reduction, ignored = node.one_of("reduction", _REDUCTIONS, "mean"), node.int("ignore_index", -100)
    both = any(node.outputs[1:])

    def compute(x: Tensor, target: Tensor, weight: Tensor | None = None) -> Any:
        loss = F.cross_entropy(x, target.to(int), weight, ignore_index=ignored, reduction=reduction)
        return (loss, F.log_softmax(x, 1)) if both else loss

    return compute


@operator("NegativeLogLikelihoodLoss", since=12)
def negative_log_likelihood_loss(node: Node) -> Compute:
    """−x[target] of logarithms of probabilities (N, C, ...), reduced."""
    reduction, ignored = node.one_of("reduction", _REDUCTIONS, "mean"), node.int("ignore_index", -100)

    def compute(x: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        return F.nll_loss(x, target.to(int), weight, ignore_index=ignored, reduction=reduction)

    return compute
