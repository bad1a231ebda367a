"""Products of matrices."""

from __future__ import annotations

import chainrule.engine as cr
from chainrule.engine.graph.node import Node
from chainrule.engine.graph.operators.sizes import of_einsum, of_matmul
from chainrule.engine.graph.registry import Bounded, bounded, operator
from chainrule.engine.nn import functional as F
from chainrule.engine.tensor import Tensor


@operator("MatMul", weights=(0, 1))
def matmul(node: Node) -> Bounded:  # noqa: ARG001
    return bounded(lambda a, b: cr.matmul(a, b), of_matmul)


@operator("Gemm", since=7, weights=(1, 2))
def gemm(node: Node) -> Bounded:
    """α · A′ · B′ + β · C"""
    alpha, beta = node.float("alpha", 1.0), node.float("beta", 1.0)
    turn_a, turn_b = bool(node.int("transA", 0)), bool(node.int("transB", 0))

    def compute(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a = a.t() if turn_a else a
        w = b if turn_b else b.t()  # (out, in)
        if alpha == 1 and (c is None or (beta == 1 and c.shape == w.shape[:1])):
            return F.linear(a, w, c)
        y = alpha * F.linear(a, w) if alpha != 1 else F.linear(a, w)
        return y if c is None else y + (beta * c if beta != 1 else c)

    def elements(a: Tensor, b: Tensor, c: Tensor | None = None) -> int:  # noqa: ARG001
        return a.shape[-1 if turn_a else 0] * b.shape[0 if turn_b else -1]

    return bounded(compute, elements)


@operator("Einsum", since=12)
def einsum(node: Node) -> Bounded:
    equation = node.string("equation")
    return bounded(lambda *x: cr.einsum(equation, *x), lambda *x: of_einsum(equation, [one.shape for one in x]))
