"""Attention is one operation: it computes what its parts do, copies no heads, and goes back as often as wanted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.nn import functional as F
from tests.engine.kernels.agreement import agree, draws, gradient_of


def heads(n: int = 2, t: int = 5, h: int = 3, d: int = 4) -> cr.Tensor:
    """(3, N, heads, T, d), cut out of features (N, T, 3·heads·d)."""
    features = cr.Tensor(draws((n, t, 3 * h * d)), requires_grad=True)
    return features.reshape(n, t, 3, h, d).permute(2, 0, 3, 1, 4)


def test_heads_are_joined_to_features_without_a_copy() -> None:
    q, k, v = heads()
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    joined = y.transpose(1, 2).reshape(2, 5, 12)
    assert np.shares_memory(joined.detach().numpy(), y.detach().numpy())


@pytest.mark.parametrize("dtype", [cr.float32, cr.float64, cr.float16, cr.bfloat16])
def test_one_operation_is_the_composition_of_its_parts(dtype: Any) -> None:
    values = [draws((2, 3, 6, 4), seed=seed) for seed in range(4)]
    mask = np.tri(6, dtype=bool)
    results = []
    for composed in (False, True):
        q, k, v, g = (cr.tensor(value, dtype=cr.float32).to(dtype) for value in values)
        for x in (q, k, v):
            x.requires_grad_()
        if composed:
            scores = (q.float() @ k.float().mT) * 0.5
            weights = scores.masked_fill(cr.tensor(~mask), -math.inf).softmax(-1)
            y = (weights @ v.float()).to(dtype)
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y.backward(g)
        results.append([y.detach().numpy(), *(gradient_of(x) for x in (q, k, v))])
    tolerance = {cr.float64: 1e-6, cr.float32: 1e-5, cr.float16: 4e-3, cr.bfloat16: 4e-2}[dtype]
    for mine, expected in zip(*results, strict=True):
        assert mine.dtype == dtype
        agree(mine, expected, tolerance)


def test_attention_can_go_back_again_and_to_one_input_alone() -> None:
    gradients = []
    for times, inputs in ((1, "qkv"), (2, "qkv"), (1, "q"), (1, "k"), (1, "v")):
        q, k, v = (cr.Tensor(draws((2, 4, 3), seed=seed), requires_grad=name in inputs)
                   for seed, name in enumerate("qkv"))  # fmt: skip
        y = F.scaled_dot_product_attention(q, k, v)
        g = cr.ones_like(y)
        for _ in range(times):
            y.backward(g, retain_graph=True)
        gradients.append({name: gradient_of(x) for name, x in zip("qkv", (q, k, v), strict=True) if name in inputs})
    once, twice, *alone = gradients
    for name, gradient in once.items():
        np.testing.assert_allclose(twice[name], 2 * gradient, rtol=1e-6)
    for name, one in zip("qkv", alone, strict=True):
        np.testing.assert_array_equal(one[name], once[name])


def test_what_a_mask_hides_has_no_part_in_the_result() -> None:
    q, k, v = (draws((1, 4, 3), seed=seed) for seed in range(3))
    k[0, 3], v[0, 2] = np.nan, 7
    keys = np.array([True, True, True, False])
    y = F.scaled_dot_product_attention(cr.Tensor(q), cr.Tensor(k), cr.Tensor(v), cr.Tensor(keys))
    without = F.scaled_dot_product_attention(cr.Tensor(q), cr.Tensor(k[:, :3]), cr.Tensor(v[:, :3]))
    np.testing.assert_allclose(y.numpy(), without.numpy(), rtol=1e-5)
    none = F.scaled_dot_product_attention(cr.Tensor(q), cr.Tensor(k), cr.Tensor(v), cr.zeros(4, dtype=cr.bool))
    assert not none.numpy().any()
