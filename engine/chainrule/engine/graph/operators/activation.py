"""Activations."""

from __future__ import annotations

from chainrule.engine.graph.node import Node
from chainrule.engine.graph.registry import Compute, operator
from chainrule.engine.nn import functional as F


@operator("Relu")
def relu(node: Node) -> Compute:  # noqa: ARG001
    return F.relu
