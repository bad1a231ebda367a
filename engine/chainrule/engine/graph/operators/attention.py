"""Attention, as one operator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chainrule.engine.dtypes import bool_
from chainrule.engine.graph.errors import Refused
from chainrule.engine.graph.node import Node
from chainrule.engine.graph.registry import Bounded, bounded, operator
from chainrule.engine.nn import functional as F
from chainrule.engine.tensor import Tensor


@operator("Attention", since=23)
def attention(node: Node) -> Bounded:
    """softmax(scale · q·kᵀ + mask) · v for q (N, H, L, E) or, with the numbers of heads given, (N, L, H · E).

    Raises:
        Refused: past keys and values, further outputs, `softcap`.
    """
    causal, scale = bool(node.int("is_causal", 0)), node.float("scale", 0.0) or None
    heads = node.int("q_num_heads", 0), node.int("kv_num_heads", 0)
    if any(node.inputs[4:]) or any(node.outputs[1:]):
        raise Refused("past keys and values, or outputs other than the first")
    if node.float("softcap", 0.0):
        raise Refused("softcap")

    def compute(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Any:
        flat = q.ndim == 3
        if flat:
            if min(heads) < 1:
                raise node.error("inputs of three dimensions, and no q_num_heads and kv_num_heads")
            q, k, v = (_split(x, n) for x, n in ((q, heads[0]), (k, heads[1]), (v, heads[1])))
        if causal and mask is not None:
            mask = _both(mask, q.shape[-2], k.shape[-2])
        y = F.scaled_dot_product_attention(
            q, k, v, mask, is_causal=causal and mask is None, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        return y.transpose(1, 2).flatten(2) if flat else y

    def elements(q: Tensor, k: Tensor, v: Tensor, *_: Tensor | None) -> int:
        n, count = (heads[0], q.shape[0]) if q.ndim == 3 else (1, math.prod(q.shape[:2]))
        outputs = count * n * q.shape[-2] * v.shape[-1]
        return max(count * n * q.shape[-2] * k.shape[-2], outputs, q.shape[0] * n * math.prod(k.shape[-2:]))

    return bounded(compute, elements)


def _split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, x.shape[-1] // heads)).transpose(1, 2)


def _both(mask: Tensor, queries: int, keys: int) -> Tensor:
    """The mask, where a query may look back."""
    back = np.tril(np.ones((queries, keys), bool))
    if mask.dtype == bool_:
        return mask & Tensor(back)
    return mask + Tensor(np.where(back, 0.0, -np.inf).astype(mask.dtype))
