"""Products of matrices."""

from __future__ import annotations

from chainrule.engine.functions import linalg
from chainrule.engine.graph.node import Node
from chainrule.engine.graph.registry import Compute, operator
from chainrule.engine.nn import functional as F


@operator("MatMul", weights=(0, 1))
def matmul(node: Node) -> Compute:  # noqa: ARG001
    return linalg.matmul


@operator("Gemm", since=7, weights=(1, 2))
def gemm(node: Node) -> Compute:
    return lambda x, w, b=None: F.linear(x, w, b)
