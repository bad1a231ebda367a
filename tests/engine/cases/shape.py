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
    Case("shape.stack", lambda m, a, b: m.stack([a, b, a], dim=-1), (normal(2, 3), normal(2, 3))),
    Case("shape.stack", lambda m, a: m.stack([a], dim=1), (normal(2, 3),), note="alone"),
    Case("shape.cat", lambda m, a, b: m.hstack([a, b]), (normal(2, 3), normal(2, 1)), note="hstack"),
    Case("shape.split", lambda m, x: x.split(2, 1)[1], (normal(2, 5),)),
    Case("shape.split", lambda m, x: x.split([1, 3], 0)[1], (normal(4, 2),), note="sizes"),
    Case(
        "shape.split",
        lambda m, x: m.cat([part * (i + 1) for i, part in enumerate(x.chunk(3))]),
        (normal(5, 2),),
        note="chunk",
    ),
    Case("shape.unbind", lambda m, x: x.unbind(1)[2], (normal(2, 3),)),
    Case("shape.narrow", lambda m, x: x.narrow(-1, -3, 2), (normal(2, 4),), note="negative"),
    Case("shape.narrow", lambda m, x: x.tensor_split((1, 3), 1)[1], (normal(2, 4),), note="tensor_split"),
    Case("shape.flip", lambda m, x: x.flip(0, -1), (normal(2, 3, 2),)),
    Case("shape.flip", lambda m, x: x.rot90(3, (0, 2)), (normal(2, 3, 2),), note="rot90"),
    Case("shape.roll", lambda m, x: x.roll((1, -1), (0, 1)), (normal(3, 4),)),
    Case("shape.roll", lambda m, x: x.roll(4), (normal(3, 4),), note="flat"),
    Case("shape.repeat", lambda m, x: x.repeat(2, 1, 3), (normal(2, 2),)),
    Case("shape.repeat", lambda m, x: x.tile(2), (normal(2, 2),), note="tile"),
    Case("shape.tril", lambda m, x: x.tril(-1), (normal(2, 3, 4),)),
    Case("shape.triu", lambda m, x: x.triu(1), (normal(3, 4),)),
    Case("shape.diagonal", lambda m, x: x.diagonal(1, -1, 0), (normal(3, 2, 4),)),
    Case("shape.diagonal", lambda m, x: x.diag(-1), (normal(3, 4),), note="diag"),
    Case("shape.on_diagonal", lambda m, x: m.diag_embed(x, -1, 0, 2), (normal(2, 3),)),
    Case("shape.on_diagonal", lambda m, x: m.diag(x, 2), (normal(3),), note="diag"),
    Case("shape.unfold", lambda m, x: x.unfold(1, 3, 2), (normal(2, 8),)),
    Case(
        "shape.fold",
        lambda m, x: shape.fold(x, shape=(2, 7), dim=1, step=2),
        (normal(2, 3, 3),),
        torch=False,
    ),
    # one index for each slice, one for each element
    Case("shape.index_select", lambda m, x: x.index_select(1, m.tensor([2, 0, 2])), (normal(2, 3),)),
    Case(
        "shape.index_select", lambda m, x: x.repeat_interleave(m.tensor([2, 0, 1]), 1), (normal(2, 3),), note="repeat"
    ),
    Case(
        "shape.index_add",
        lambda m, x, v: x.index_add(0, m.tensor([1, 1, 0]), v, alpha=2),
        (normal(2, 3), normal(3, 3)),
    ),
    Case("shape.index_copy", lambda m, x, v: x.index_copy(1, m.tensor([2, 0]), v), (normal(2, 3), normal(2, 2))),
    Case("shape.index_fill", lambda m, x, v: x.index_fill(1, m.tensor([2, 0]), v), (normal(2, 3), normal())),
    Case(
        "shape.put_add",
        lambda m, x, v: x.index_put((m.tensor([1, 1]), m.tensor([0, 0])), v, accumulate=True),
        (normal(2, 3), normal(2)),
    ),
    Case("shape.overwrite", lambda m, x, v: x.index_put((m.tensor([1, 0]),), v), (normal(3, 2), normal(2)), note="put"),
    Case(
        "shape.scatter_add",
        lambda m, x, v: x.scatter_add(1, m.tensor([[0, 0], [2, 1]]), v),
        (normal(2, 3), normal(2, 2)),
    ),
    Case(
        "shape.scatter_over",
        lambda m, x, v: x.scatter(0, m.tensor([[0, 2], [1, 0]]), v),
        (normal(3, 2), normal(2, 2)),
    ),
    Case(
        "shape.scatter_add",
        lambda m, x, v: x.scatter_reduce(1, m.tensor([[0, 0], [2, 1]]), v, "mean"),
        (normal(2, 3), normal(2, 2)),
        note="mean",
    ),
    Case("shape.gather", lambda m, x: x.gather(0, m.tensor([[2, 0]])), (normal(3, 3),), note="smaller"),
    Case("shape.take", lambda m, x: x.take(m.tensor([[5, 0], [-1, 5]])), (normal(2, 3),), note="flat"),
    Case(
        "shape.masked_fill",
        lambda m, x, v: x.masked_fill(m.tensor([True, False, True]), v),
        (normal(2, 3), normal()),
    ),
    Case("shape.take", lambda m, x: x.masked_select(m.tensor([True, False, True])), (normal(2, 3),), note="masked"),
    Case(
        "shape.overwrite",
        lambda m, x, v: x.masked_scatter(m.tensor([True, False, True]), v),
        (normal(2, 3), normal(2, 3)),
        note="masked_scatter",
    ),
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
