"""Shapes, joining and rearranging: values, views and words are PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule.engine as cr
from tests.engine.functions.expressions import assert_agrees

EXPRESSIONS = [
    "x.reshape(3, -1)",
    "x.view(6)",
    "x.T.reshape(6)",
    "x.reshape_as(x.T)",
    "x.view_as(m.ones(3, 2))",
    "b.flatten(1)",
    "b.flatten(0, 1)",
    "s.flatten()",
    "x.unflatten(-1, (3, 1))",
    "x.ravel()",
    "x[None, :, None].squeeze()",
    "x[None, :, None].squeeze(0)",
    "x[None, :, None].squeeze((0, 2))",
    "x.unsqueeze(-1)",
    "b.permute(2, 0, 1)",
    "b.permute((2, -3, 1))",
    "x.transpose(0, -1)",
    "x.t()",
    "x.mT",
    "v.t()",
    "x.swapaxes(0, 1)",
    "x.swapdims(0, 1)",
    "b.movedim(0, -1)",
    "b.movedim((0, 1), (2, 0))",
    "m.moveaxis(b, 2, 0)",
    "v.expand(2, 3)",
    "v.expand(2, -1)",
    "v.expand_as(x)",
    "m.broadcast_to(v, (2, 3))",
    "m.broadcast_tensors(x, m.ones(1))",
    "m.cat([x, x], 1)",
    "m.cat([x, n])",
    "m.concat([x, x])",
    "m.stack([v, v], -1)",
    "m.hstack([x, x])",
    "m.hstack([v, v])",
    "m.vstack([v, v])",
    "m.dstack([v, v])",
    "m.column_stack([v, v])",
    "x.split(2, 1)",
    "x.split([1, 2], 1)",
    "x.chunk(2, 1)",
    "v.chunk(5)",
    "x.tensor_split(2, 1)",
    "x.tensor_split((1,), 1)",
    "x.unbind(1)",
    "x.narrow(1, -2, 2)",
    "x.select(1, -1)",
    "x.flip(0)",
    "x.flip((0, 1))",
    "x.fliplr()",
    "x.flipud()",
    "x.roll(-1)",
    "x.roll((1, 2), (0, 1))",
    "x.rot90()",
    "x.rot90(2)",
    "x.rot90(-1, (1, 0))",
    "x.repeat(2, 1)",
    "x.repeat(2, 1, 2)",
    "x.tile((2,))",
    "x.repeat_interleave(2)",
    "x.repeat_interleave(2, 1)",
    "m.repeat_interleave(m.tensor([2, 0, 1]))",
    "x.tril()",
    "x.triu(1)",
    "x.tril(-1)",
    "x.diagonal()",
    "x.diagonal(-1)",
    "v.diag()",
    "v.diag(1)",
    "x.diag(1)",
    "m.diag_embed(x)",
    "m.diag_embed(x, 1, 0, -1)",
    "m.meshgrid(v, v, indexing='xy')",
    "m.meshgrid(v, m.arange(2), indexing='ij')",
    "x.unfold(1, 2, 1)",
    "m.atleast_1d(s)",
    "m.atleast_2d(s, v)",
    "m.atleast_3d(v, x)",
    "x.hsplit([1])",
    "x.vsplit(2)",
    "x.stride()",
    "x.stride(0)",
    "x.size(-1)",
    "x.T.is_contiguous()",
    "m.broadcast_shapes((2, 1), (3,))",
    "m.zeros(0, 3).chunk(2)",
    "m.zeros(2, 0).flatten()",
    "s.transpose(0, -1)",
    "s.squeeze(0)",
    "s.flip(0)",
    "m.zeros(0).split(0)",
    "x.T.view(6)",
    "x.reshape(4)",
    "x.reshape(-2,3)",
    "x.reshape(-1,0)",
    "m.zeros(0,3).reshape(-1,0)",
    "x.flatten(1,0)",
    "x.unflatten(1,(2,2))",
    "x.unflatten(1,(-1,1)).shape",
    "x.squeeze(5)",
    "x.squeeze((0,0))",
    "x.unsqueeze(5)",
    "x.permute(0)",
    "x.permute(0,0)",
    "x.permute(0,5)",
    "m.zeros(1,2,3).t()",
    "x.expand(3,3)",
    "x.expand(3)",
    "x.expand(-1,2,3)",
    "m.ones(3).expand(-1,3)",
    "x.broadcast_to((4,4))",
    "m.broadcast_tensors(x,m.ones(2))",
    "m.cat([])",
    "m.cat([x,m.ones(1,1)])",
    "m.cat([x,m.ones(1)])",
    "m.cat([x,m.ones(0)]).shape",
    "m.cat([m.tensor(1.)])",
    "m.cat([x,1])",
    "m.cat(x)",
    "m.stack([])",
    "m.stack([x,m.ones(1)])",
    "x.split(0)",
    "x.split(-1)",
    "x.split([1,1],1)",
    "x.split([1,-1],1)",
    "m.tensor(1.).split(1)",
    "x.chunk(0)",
    "x.chunk(5,1)",
    "x.tensor_split(0)",
    "x.tensor_split((1,5),1)",
    "m.tensor(1.).unbind()",
    "x.narrow(1,2,2)",
    "x.narrow(1,0,-1)",
    "x.narrow(1,-5,1)",
    "x.narrow(1,3,0).shape",
    "x.select(1,3)",
    "m.tensor(1.).select(0,0)",
    "x.flip(0,0)",
    "x.flip(5)",
    "m.ones(3).fliplr()",
    "m.tensor(1.).flipud()",
    "x.roll((1,2),0)",
    "x.roll(1)",
    "x.rot90(1,(0,0))",
    "x.rot90(1,(0,))",
    "m.ones(3).rot90()",
    "x.rot90(1,(0,5))",
    "x.repeat(2)",
    "x.repeat(-1,2)",
    "x.tile(2).shape",
    "x.repeat_interleave(m.tensor([1,2]),0).shape",
    "x.repeat_interleave(m.tensor([1,2,3]),0).shape",
    "x.repeat_interleave(-1)",
    "x.repeat_interleave(m.tensor([1.,2]),0)",
    "m.ones(3).tril()",
    "x.diagonal(0,0,0)",
    "x.diagonal(5)",
    "m.ones(3).diagonal()",
    "m.ones(2,2,2).diag()",
    "m.ones(2,2,2).trace()",
    "m.ones(2,3).movedim((0,1),(0,))",
    "m.ones(2,3).movedim((0,0),(0,1))",
    "m.ones(2,3).movedim((0,1),(0,0))",
    "m.meshgrid(v,v)",
    'm.meshgrid(v,x,indexing="ij")',
    'm.meshgrid(v,indexing="zz")',
    "x.size(5)",
    "x.stride(5)",
    "x.is_contiguous(memory_format=m.channels_last)",
    "x.contiguous(memory_format=m.channels_last)",
    "x.clone(memory_format=m.channels_last)",
    "m.ones(3).unfold(0,4,1)",
    "m.ones(3).unfold(0,2,0)",
    "x.hsplit(2)",
    "m.hstack([m.tensor(1.),m.tensor(2.)])",
]


@pytest.mark.torch
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_shapes_and_their_errors_are_pytorchs(expression: str, torch: Any) -> None:
    assert_agrees(torch, expression)


VIEWS: dict[str, Any] = {
    "reshape": lambda x: x.reshape(3, 2),
    "view": lambda x: x.view(-1),
    "flatten": lambda x: x.flatten(),
    "unflatten": lambda x: x.unflatten(1, (3, 1)),
    "squeeze": lambda x: x.squeeze(),
    "unsqueeze": lambda x: x.unsqueeze(0),
    "permute": lambda x: x.permute(1, 0),
    "transpose": lambda x: x.transpose(0, 1),
    "movedim": lambda x: x.movedim(0, 1),
    "T": lambda x: x.T,
    "mT": lambda x: x.mT,
    "expand": lambda x: x.expand(4, 2, 3),
    "narrow": lambda x: x.narrow(1, 0, 2),
    "select": lambda x: x.select(0, 1),
    "split": lambda x: x.split(1)[1],
    "chunk": lambda x: x.chunk(2)[1],
    "unbind": lambda x: x.unbind()[1],
    "tensor_split": lambda x: x.tensor_split(2)[1],
    "diagonal": lambda x: x.diagonal(),
    "unfold": lambda x: x.unfold(1, 2, 1),
    "index": lambda x: x[0, 1:],
}
COPIES: dict[str, Any] = {
    "flip": lambda x: x.flip(0),
    "roll": lambda x: x.roll(1),
    "repeat": lambda x: x.repeat(1, 1),
    "tril": lambda x: x.tril(),
    "diag": lambda x: x.diag(),
    "cat": lambda x: cr.cat([x]),
    "index": lambda x: x[[0, 1]],
}


@pytest.mark.torch
@pytest.mark.parametrize("name", VIEWS)
def test_views_share_memory_and_what_is_written_to_them_is_differentiated_as_in_pytorch(name: str, torch: Any) -> None:
    x = cr.zeros(2, 3)
    assert np.shares_memory(VIEWS[name](x).data, x.data)
    gradients = []
    for m in (cr, torch):
        leaf = m.arange(6.0).reshape(2, 3).requires_grad_()
        base = leaf * 2
        view = VIEWS[name](base)
        if name in ("split", "chunk", "unbind"):
            with pytest.raises(RuntimeError, match="returns multiple views"):
                view.mul_(3)
        elif name not in ("expand", "unfold"):  # elements of these share memory
            view.mul_(3)
        (base * m.arange(1.0, 7.0).reshape(2, 3)).sum().backward()
        gradients.append(leaf.grad.tolist())
    assert gradients[0] == gradients[1]


@pytest.mark.parametrize("name", COPIES)
def test_copies_share_nothing(name: str) -> None:
    x = cr.zeros(2, 3)
    assert not np.shares_memory(COPIES[name](x).data, x.data)


def test_memory_is_not_seen_as_another_dtype() -> None:
    with pytest.raises(cr.UnsupportedError, match=r"view\(int32\): .* use to\(dtype\)"):
        cr.ones(2).view(cr.int32)


def test_lengths_that_are_no_integers_are_refused() -> None:
    with pytest.raises(TypeError, match="must be tuple of ints, not float"):
        cr.ones(4).reshape(2.0, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [cr.float16, cr.bfloat16, cr.int8, cr.bool])
def test_elements_of_every_dtype_move_as_they_are(dtype: Any) -> None:
    x = cr.arange(6).reshape(2, 3).to(dtype)
    moved = [x.flip(0, 1).flip(0, 1), x.roll(2).roll(-2), cr.cat(x.split(1)), cr.stack(x.unbind(1), 1), x.repeat(1, 1)]
    moved += [x.tril() + x.triu(1), x[[1, 0]][[1, 0]], x.gather(0, cr.tensor([[0, 0, 0], [1, 1, 1]]))]
    for y in moved:
        assert y.dtype == dtype
        assert cr.equal(y, x)


# ---- Chains ----

STEPS: dict[str, Any] = {
    "permute": lambda x, k: x.permute(*np.roll(range(x.ndim), k).tolist()),
    "flatten": lambda x, k: x.flatten(min(k, x.ndim - 1)),
    "unsqueeze": lambda x, k: x.unsqueeze(k % (x.ndim + 1)),
    "squeeze": lambda x, k: x.squeeze(k % x.ndim) if x.ndim > 1 else x,
    "flip": lambda x, k: x.flip(k % x.ndim),
    "roll": lambda x, k: x.roll(k, k % x.ndim),
    "select": lambda x, k: x.select(k % x.ndim, -1) if x.ndim > 1 else x,
    "narrow": lambda x, k: x.narrow(k % x.ndim, 0, (x.shape[k % x.ndim] + 1) // 2),
    "chunk": lambda x, k: x.chunk(2, k % x.ndim)[-1],
    "reshape": lambda x, k: x.reshape(-1, x.shape[k % x.ndim]),
    "expand": lambda x, k: x.unsqueeze(0).expand(2, *[-1] * x.ndim),
    "repeat": lambda x, k: x.repeat_interleave(2, k % x.ndim),
    "transpose": lambda x, k: x.transpose(0, k % x.ndim),
    "index": lambda x, k: x[..., [0, -1]],
    "unfold": lambda x, k: x.unfold(k % x.ndim, 1, 1),
    "double": lambda x, k: x * (k + 2),
}


@pytest.mark.torch
@settings(max_examples=150, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    steps=st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 3)), min_size=1, max_size=5),
)
def test_chains_of_moves_have_pytorchs_values_and_gradients(
    torch: Any, shape: list[int], steps: list[tuple[str, int]]
) -> None:
    array = np.arange(float(np.prod(shape))).reshape(shape)
    results = []
    for m in (cr, torch):
        x = m.tensor(array, requires_grad=True)
        y = x
        for name, k in steps:
            y = STEPS[name](y, k)
        (y * m.arange(float(np.prod(y.shape)), dtype=m.float64).reshape(tuple(y.shape))).sum().backward()
        results.append((tuple(y.shape), y.tolist(), x.grad.tolist()))
    assert results[0] == results[1]


def test_images_that_lie_channels_last_are_viewed_as_a_copy_that_can_not_be_written_to() -> None:
    x = cr.rand(2, 3, 4, 4, requires_grad=True)
    y = cr.nn.functional.max_pool2d(x, 2)
    rows = y.view(2, -1)
    assert rows.tolist() == y.reshape(2, -1).tolist()
    (rows * rows).sum().backward()
    assert x.grad is not None
    assert x.grad.numpy().any()
    with pytest.raises(RuntimeError, match=r"read-only. Please clone\(\)"):
        rows.add_(1)
    rows.clone().add_(1)


@pytest.mark.torch
@pytest.mark.parametrize(
    "expression",
    [
        "x.diff()",
        "m.diff(x, dim=0)",
        "m.diff(n, n=2)",
        "m.diff(x, 0)",
        "m.diff(x, 5)",
        "m.diff(mask)",
        "m.diff(v, prepend=v[:1], append=v)",
        "m.diff(s)",
        "m.diff(x, -1)",
        "m.diff(x, dim=4)",
        "x.fill_diagonal_(9)",
        "n.T.contiguous().fill_diagonal_(7)",
        "m.eye(3).fill_diagonal_(0.0, wrap=True)",
        "v.fill_diagonal_(1)",
    ],
)
def test_differences_and_diagonals_are_pytorchs(torch: Any, expression: str) -> None:
    assert_agrees(torch, expression)


def test_gradients_flow_past_a_filled_diagonal_and_through_differences() -> None:
    x = cr.ones(2, 2, requires_grad=True)
    (x * 1).fill_diagonal_(5).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 1], [1, 0]]
    y = cr.ones(2, 2, requires_grad=True)
    y.diff(dim=0).sum().backward()
    assert y.grad is not None
    assert y.grad.tolist() == [[-1, -1], [1, 1]]
    with pytest.raises(cr.UnsupportedError, match=r"fill_diagonal_\(\) takes matrices"):
        cr.zeros(2, 2, 2).fill_diagonal_(1)
