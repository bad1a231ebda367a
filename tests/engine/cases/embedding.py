"""Rows: Tables that are looked up by an index."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.engine.ops import embedding
from tests.engine.cases.case import Case, normal

_index = np.array([[1, 3, 1], [0, 3, 3]])
_offsets = np.array([0, 2, 2, 5])


def _embedding(m: Any, w: Any, **settings: Any) -> Any:
    return m.nn.functional.embedding(m.tensor(_index), w, **settings)


def _bag(m: Any, w: Any, **settings: Any) -> Any:
    return m.nn.functional.embedding_bag(m.tensor(_index.reshape(-1)), w, m.tensor(_offsets), **settings)


CASES = (
    Case("embedding.embedding", _embedding, (normal(5, 2),)),
    Case(
        "embedding.add_rows",
        lambda m, x: embedding.add_rows(x, index=_index, scale=np.array([[1, 2, 3], [4, 5, 6]]), rows=5),
        (normal(2, 3, 2),),
        torch=False,
    ),
    Case(
        "embedding.rows_of",
        lambda m, w: embedding.rows_of(w, index=_index, scale=np.array([[1, 2, 3], [4, 5, 6]])),
        (normal(5, 2),),
        torch=False,
    ),
    Case("embedding.sum_bags", lambda m, w: _bag(m, w, mode="sum"), (normal(5, 2),)),
    Case("embedding.sum_bags", lambda m, w: _bag(m, w, mode="mean", padding_idx=1), (normal(5, 2),), note="mean"),
    Case(
        "embedding.repeat_rows",
        lambda m, x: embedding.repeat_rows(x, starts=_offsets, rows=7),
        (normal(4, 2),),
        torch=False,
    ),
)
