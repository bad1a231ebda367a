"""Rows: the softmax of attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.engine.ops.attention import masked_softmax
from tests.engine.cases.case import Case, normal

_mask = np.array([[True, False, True, True], [False, False, False, False], [True, True, True, False]])


def _attention(m: Any, q: Any, k: Any, v: Any) -> Any:
    return m.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


CASES = (
    Case("attention.masked_softmax", lambda m, x: masked_softmax(x, mask=_mask), (normal(2, 3, 4),), torch=False),
    Case("attention.masked_softmax", lambda m, x: masked_softmax(x), (normal(3, 4),), torch=False, note="no mask"),
    Case("attention.masked_softmax", _attention, (normal(2, 3, 4), normal(2, 3, 4), normal(2, 3, 2)), note="causal"),
)
