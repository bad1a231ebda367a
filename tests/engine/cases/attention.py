"""Rows: attention, and its softmax."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.engine.ops.attention import masked_softmax
from tests.engine.cases.case import Case, normal

_mask = np.array([[True, False, True, True], [False, False, False, False], [True, True, True, False]])


def _attention(m: Any, q: Any, k: Any, v: Any) -> Any:
    return m.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def _masked(m: Any, q: Any, k: Any, v: Any) -> Any:
    mask = m.tensor(_mask[:, None, None, :], dtype=m.bool)  # the keys of each example
    return m.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.7)


def _biased(m: Any, q: Any, k: Any, v: Any) -> Any:
    bias = m.tensor(np.linspace(-1, 1, 12).reshape(3, 4), dtype=q.dtype)
    return m.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def _of_heads(m: Any, x: Any) -> Any:
    q, k, v = x.reshape(2, 3, 3, 2, 4).permute(2, 0, 3, 1, 4)
    return m.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)


def _plain(m: Any, q: Any, k: Any, v: Any) -> Any:
    return m.nn.functional.scaled_dot_product_attention(q, k, v)


def _learned(m: Any, q: Any, k: Any, v: Any, bias: Any) -> Any:
    return m.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)


_q, _k, _v = normal(3, 2, 3, 5), normal(3, 2, 4, 5), normal(3, 2, 4, 2)

CASES = (
    Case("attention.masked_softmax", lambda m, x: masked_softmax(x, mask=_mask), (normal(2, 3, 4),), torch=False),
    Case("attention.masked_softmax", lambda m, x: masked_softmax(x), (normal(3, 4),), torch=False, note="no mask"),
    Case("attention.masked_softmax", _learned, (_q, _k, _v, normal(3, 4)), note="a mask with a gradient"),
    Case("attention.attend", _attention, (normal(2, 3, 4), normal(2, 3, 4), normal(2, 3, 2)), note="causal"),
    Case("attention.attend", _attention, (normal(2, 5, 4), normal(2, 3, 4), normal(2, 3, 4)), note="more queries"),
    Case("attention.attend", _masked, (_q, _k, _v), note="bools, and an example without keys"),
    Case("attention.attend", _biased, (_q, _k, _v), note="floats"),
    Case("attention.attend", _of_heads, (normal(2, 3, 24),), note="heads"),
    Case("attention.attend", _plain, (normal(0, 3, 4), normal(0, 3, 4), normal(0, 3, 2)), note="empty"),
)
