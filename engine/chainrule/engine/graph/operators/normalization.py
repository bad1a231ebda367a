"""Normalisation."""

from __future__ import annotations

from chainrule.engine.graph.errors import Refused
from chainrule.engine.graph.node import Node
from chainrule.engine.graph.program import Run
from chainrule.engine.graph.registry import Compute, operator
from chainrule.engine.tensor import Tensor


@operator("BatchNormalization", since=7, stateful=True)
def batch_normalization(node: Node) -> Compute:
    """By a module that keeps the statistics; `roles` finds them, and has put its path among the attributes."""
    if node.int("spatial", 1) != 1:
        raise Refused("spatial=0 has statistics for every position; use one for every channel")
    if any(node.outputs[1:]):
        raise Refused("the statistics that it gives are used by the graph; only its first output can be")
    if not node.has("path"):
        raise Refused("its running mean and variance are not initialisers; they have to be, to be learnt from batches")
    path = node.string("path")

    def compute(run: Run, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        y: Tensor = run.module(path)(x)
        if scale is None or shift is None:
            return y
        around = (1, -1, *(1,) * (x.ndim - 2))
        return y * scale.reshape(around) + shift.reshape(around)

    return compute
