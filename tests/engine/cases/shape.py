"""Rows: Operations that move elements."""

from __future__ import annotations

import numpy as np

from chainrule.engine.ops import shape
from tests.engine.cases.case import Case, normal, transposed

_index = np.array([[0, 2], [1, 1], [2, 0]])


CASES = (
    # shapes
    Case("shape.reshape", lambda m, x: x.reshape(3, -1), (normal(2, 6),)),
    Case("shape.reshape", lambda m, x: x.reshape(6), (transposed(2, 3),), note="not-contiguous"),
    Case("shape.squeeze", lambda m, x: x.squeeze(), (normal(1, 3, 1),)),
    Case("shape.unsqueeze", lambda m, x: x.unsqueeze(-1), (normal(2, 3),)),
    Case("shape.permute", lambda m, x: x.permute(2, 0, 1), (normal(2, 3, 4),)),
    Case("shape.transpose", lambda m, x: x.transpose(0, -1), (normal(2, 3, 4),)),
    Case("shape.contiguous", lambda m, x: x.contiguous(), (transposed(2, 3),)),
    Case("shape.select", lambda m, x: x[1, ..., 0], (normal(2, 3, 4),)),
    Case("shape.slice_", lambda m, x: x[:, 1:, None], (normal(2, 3),)),
    Case("shape.take", lambda m, x: x[[0, 2, 0]], (normal(3, 2),)),
    Case("shape.take", lambda m, x: x[m.tensor([True, False, True])], (normal(3, 2),), note="mask"),
    Case("shape.put", lambda m, x: shape.put(x, index=np.array([0, 2, 0]), shape=(3, 2)), (normal(3, 2),), torch=False),
    Case("shape.gather", lambda m, x: x.gather(1, m.tensor(_index)), (normal(3, 3),)),
    Case(
        "shape.scatter", lambda m, x: shape.scatter(x, dim=1, index=_index, shape=(3, 3)), (normal(3, 2),), torch=False
    ),
    Case("shape.cat", lambda m, a, b: m.cat([a, b, a], dim=1), (normal(2, 3), normal(2, 1))),
    Case("shape.cat", lambda m, a, b: m.stack([a, b], dim=-1), (normal(2, 3), normal(2, 3)), note="stack"),
    Case("shape.narrow", lambda m, x: shape.narrow(x, start=1, length=2, dim=1), (normal(2, 4),), torch=False),
    Case("shape.pad_to", lambda m, x: shape.pad_to(x, start=1, size=4, dim=0), (normal(2, 3),), torch=False),
    Case(
        "shape.overwrite",
        lambda m, x, v: shape.overwrite(x, v, index=np.array([2, 0])),
        (normal(3, 2), normal(2)),
        torch=False,
    ),
    Case("shape.copied", lambda m, x, v: x.clone().copy_(v), (normal(3, 2), normal(2))),
)
