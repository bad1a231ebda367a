"""Functions of each element."""

from __future__ import annotations

from chainrule.engine.graph.node import Node
from chainrule.engine.graph.registry import Compute, operator


@operator("Add", since=7)
def add(node: Node) -> Compute:  # noqa: ARG001
    return lambda a, b: a + b
