"""Indices, gathering, scattering and masks: values, gradients and words are PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule.engine as cr
from tests.engine.functions.expressions import assert_agrees

EXPRESSIONS = [
    "x[0]",
    "x[-1, -1]",
    "x[:, 1]",
    "x[..., 0]",
    "x[None]",
    "x[0:1, ::2]",
    "x[[1, 0]]",
    "x[m.tensor(1)]",
    "x[mask.new_tensor([True, False])]",
    "x[:, mask]",
    "x[x > 2]",
    "x[m.tensor([[0, 1], [1, 0]])]",
    "b[..., [0, 2], None]",
    "b[[0, 1], :, [0, 2]]",
    "b[:, [0, 1], [0, 2]]",
    "b[m.tensor([True, False]), 1]",
    "assigned(x, (slice(None), 0), 9)",
    "assigned(x, ([0, 1], [1, 1]), 9)",
    "assigned(x, (0, [0, 2]), m.tensor([7.0, 8.0]))",
    "assigned(x, (slice(None), [0, 2]), m.tensor([[7.0], [8.0]]))",
    "assigned(x, None, 5)",
    "x.gather(1, n % 3)",
    "x.take_along_dim(n % 3, 1)",
    "m.take_along_dim(x, m.tensor([[1], [0]]), 1)",
    "x.scatter(0, n[:1] % 2, x + 10)",
    "x.scatter(1, n[:, :2] % 3, 5.0)",
    "x.scatter(1, n[:, :2] % 3, value=5.0)",
    "x.scatter_add(1, n % 2, x)",
    "x.scatter_reduce(1, n % 2, x, 'sum')",
    "x.scatter_reduce(1, n % 2, x, 'mean', include_self=False)",
    "x.index_select(1, m.tensor([2, 0]))",
    "x.index_add(1, m.tensor([0, 0]), x[:, :2], alpha=2)",
    "x.index_copy(1, m.tensor([2, 0]), x[:, :2] * 9)",
    "x.index_fill(1, m.tensor([2]), 9)",
    "x.index_put((m.tensor([0, 1]), m.tensor([2, 2])), m.tensor([8.0, 9.0]))",
    "x.masked_fill(x > 2, 0)",
    "x.masked_fill(x > 2, float('-inf'))",
    "x.masked_select(mask)",
    "x.masked_scatter(x > 2, x * 10)",
    "x.nonzero()",
    "x.nonzero(as_tuple=True)",
    "m.argwhere(x > 2)",
    "m.searchsorted(m.tensor([1, 3, 5]), n)",
    "m.searchsorted(x, x + 0.5, side='right')",
    "m.bucketize(x, m.tensor([1.0, 3.0]), right=True, out_int32=True)",
    "x.clone().scatter_(1, n % 3, 0.0)",
    "x.clone().scatter_add_(1, n % 2, x)",
    "x.clone().index_add_(0, m.tensor([1]), x[:1])",
    "x.clone().index_copy_(0, m.tensor([1]), x[:1])",
    "x.clone().index_fill_(1, m.tensor([1]), 7)",
    "x.clone().index_put_((m.tensor([0, 0]),), m.tensor(1.0), accumulate=True)",
    "x.clone().masked_fill_(x > 1, 2)",
    "x.clone().masked_scatter_(x > 1, -x)",
    "x.clone().tril_()",
    "x.clone().triu_(1)",
    "s.gather(0, m.tensor(0))",
    "s.index_select(0, m.tensor([0, 0]))",
    "s.index_add(0, m.tensor([0]), m.ones(1))",
    "s.masked_select(m.tensor(True))",
    "s.scatter(0, m.tensor(0), 2.0)",
    "x[2]",
    "x[0,3]",
    "x[0,0,0]",
    "x[::-1]",
    "x[[0,5]]",
    "x[[0,1],[0,1,2]]",
    "x[1.0]",
    "x[m.tensor([1.])]",
    "x[m.tensor([True])]",
    "x[m.tensor([[True,False]])]",
    "x[:, m.tensor([True])]",
    "m.tensor(1.)[0]",
    "m.tensor(1.)[...]",
    "m.tensor(1.)[None]",
    "x[[[0,1],[1,0]]].shape",
    "x[([0,1],[1,0])].shape",
    "x[[True,False]].shape",
    "x[True].shape",
    "x[False].shape",
    "x[:,True].shape",
    "x[0,:,[1]].shape",
    "m.ones(2,3,4)[0,:,[1,2]].shape",
    "m.ones(2,3,4)[m.tensor(0),:,[1,2]].shape",
    "m.ones(2,3,4)[[0],:,[1,2]].shape",
    "m.ones(2,3,4)[[0],None,[1,2]].shape",
    "m.ones(2,3,4)[:,[0],None,[1,2]].shape",
    "x[...,...].shape",
    "x[v.to(m.int32)[:2]].shape",
    "x[v.to(m.int16)[:2]].shape",
    "x[v.to(m.int8)[:2]].shape",
    "x[np.array([0,1])].shape",
    "x[np.int64(1)].shape",
    "x[range(2)].shape",
    "x[[0,slice(None)]].shape",
    "x[[slice(None),0]].shape",
    "x[[None,0]].shape",
    "x[1.5:]",
    'x["a":]',
    "x[m.tensor(1):].shape",
    "x[[]].shape",
    "x[()].shape",
    "x[{}]",
    "x[object()]",
    "x[:,[0,1],None].shape",
    "assigned(x, 0,m.ones(2))",
    "assigned(x, [0],m.ones(2))",
    "assigned(x, [0],m.ones(3).double())",
    "assigned(x, 0,m.ones(3).double())",
    "assigned(n, [0],1.5)",
    "assigned(n, 0,1.5)",
    "assigned(n, [0],m.tensor(1.5))",
    "assigned(x, 0,m.ones(1,1,3))",
    "assigned(x, [0],m.ones(1,1,1,3))",
    "assigned(x, slice(None),[1,2,3])",
    'assigned(x, 0,"a")',
    "assigned(x, m.tensor([True,False]),2)",
    "assigned(x, m.tensor([[True,False,True],[False,True,False]]),m.tensor([1.,2.,3.]))",
    "assigned(x, m.tensor([[True,False,True],[False,True,False]]),m.tensor([1.,2.]))",
    "assigned(x, 5,1)",
    "assigned(x, slice(None,None,-1),1)",
    "assigned(x, True,7)",
    "assigned(x, (Ellipsis,None),m.ones(1))",
    "assigned(x, [0],None)",
    "x.gather(1,m.tensor([[0,5]]))",
    "x.gather(1,m.tensor([[0,-1]]))",
    "x.gather(1,m.tensor([0]))",
    "x.gather(1,m.tensor([[0],[1],[2]]))",
    "x.gather(0,m.tensor([[0,1,0,1]]))",
    "x.gather(0,m.tensor([[0.]]))",
    "x.gather(1,m.tensor([[0,1]],dtype=m.int32))",
    "x.gather(5,m.tensor([[0]]))",
    "m.tensor(1.).gather(0,m.tensor([0]))",
    "x.scatter(1,m.tensor([[0,5]]),1.)",
    "x.scatter(1,m.tensor([[0,1]]),m.ones(1,1))",
    "x.scatter(1,m.tensor([[0,1]]),m.ones(1,2).double())",
    "x.scatter(1,m.tensor([0]),m.ones(1,2))",
    "x.scatter(1,m.tensor([[0],[1],[2]]),m.ones(3,2))",
    'x.scatter(1,m.tensor([[0,0]]),2.,reduce="add")',
    'x.scatter(1,m.tensor([[0,0]]),2.,reduce="bad")',
    "x.scatter_add(1,m.tensor([[0,0]]),m.ones(1,1))",
    "x.scatter_add(1,m.tensor([[0,0]]),m.ones(1,2).double())",
    'x.scatter_reduce(1,m.tensor([[0,0]]),m.ones(1,2),reduce="bad")',
    "x.index_select(0,m.tensor([2]))",
    "x.index_select(0,m.tensor([-1]))",
    "x.index_select(0,m.tensor([[1]]))",
    "x.index_select(0,m.tensor(1)).shape",
    "x.index_select(0,m.tensor([1.]))",
    "x.index_select(0,[1])",
    "x.index_add(0,m.tensor([2]),m.ones(1,3))",
    "x.index_add(0,m.tensor([0]),m.ones(2,3))",
    "x.index_add(0,m.tensor([0,1]),m.ones(2,2))",
    "x.index_add(0,m.tensor([0,-1]),m.ones(2,3))",
    "x.index_add(0,m.tensor([0,1]),m.ones(2,3).double())",
    "x.index_add(0,m.tensor([[0,1]]),m.ones(2,3))",
    "x.index_copy(0,m.tensor([0]),m.ones(2,3))",
    "x.index_copy(0,m.tensor([5]),m.ones(1,3))",
    "x.index_copy(0,m.tensor([0,1]),m.ones(2,2))",
    "x.index_copy(0,m.tensor([0,1]),m.ones(2,3).double())",
    "x.index_copy(0,m.tensor([0,1],dtype=m.int32),m.ones(2,3))",
    "x.index_fill(0,m.tensor([5]),1.)",
    "x.index_fill(0,m.tensor([-1]),1.)",
    "x.index_fill(0,m.tensor([1.]),1.)",
    "x.index_fill(0,m.tensor([1]),m.ones(2))",
    "v.index_fill(0,m.tensor([1]),1.5)",
    "x.index_put((m.tensor([0]),),m.ones(3).double())",
    "x.index_put((m.tensor([0]),),1.)",
    "x.index_put((m.tensor([0,0]),),m.tensor(1.),accumulate=True)",
    "x.index_put((None,m.tensor([0,0])),m.tensor(1.))",
    "x.index_put(m.tensor([0]),m.tensor(1.))",
    "x.masked_fill(v>0,1.)",
    "x.masked_fill(v,1.)",
    "x.masked_fill(m.ones(2,dtype=m.bool),1.)",
    "x.masked_fill(v>0,m.ones(2))",
    "v.masked_fill(v>0,1.5)",
    "v.masked_fill(v>0,m.tensor(1.5))",
    "v.masked_fill(m.ones(2,3,dtype=m.bool),1).shape",
    "x.masked_fill_(m.ones(2,2,3,dtype=m.bool),1)",
    "x.masked_fill(v>0,m.tensor(1.5,dtype=m.float64)).dtype",
    "x.masked_select(v>0)",
    "x.masked_select(v)",
    "x.masked_scatter(v>0,m.ones(1))",
    "x.masked_scatter(v>0,m.ones(9).double())",
    "x.take(m.tensor([5,-1]))",
    "x.take(m.tensor([6]))",
    "x.take(m.tensor([1.]))",
    "m.take_along_dim(x,m.tensor([[0]]),1)",
    "m.take_along_dim(x,m.tensor([0,4]))",
    "m.nonzero(m.tensor(1.))",
    "m.nonzero(m.tensor(1.),as_tuple=True)",
    "m.argwhere(m.tensor(1.))",
    "m.searchsorted(m.tensor([1.,2,3]),2.)",
    "m.searchsorted(m.tensor([1.,2,3]),m.tensor([2.]),right=True)",
    "m.searchsorted(m.tensor([1.,2,3]),m.tensor([2]))",
    "m.bucketize(m.tensor([2.]),m.tensor([1.,2,3]))",
]


@pytest.mark.torch
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_indexing_and_its_errors_are_pytorchs(expression: str, torch: Any) -> None:
    assert_agrees(torch, expression)


def test_an_integer_is_a_part_of_the_view_not_of_the_arrays() -> None:
    x = cr.arange(24).reshape(2, 3, 4)
    assert x[0, :, [1, 2]].shape == (3, 2)  # (2, 3) in numpy
    assert x[cr.tensor(0), :, [1, 2]].tolist() == x[0][:, [1, 2]].tolist()


def test_a_mask_of_uint8_warns_and_is_a_mask() -> None:
    with pytest.warns(UserWarning, match="indexing with dtype uint8 is now deprecated"):
        assert cr.arange(2)[cr.tensor([1, 0], dtype=cr.uint8)].tolist() == [0]


def test_what_is_indexed_twice_receives_twice() -> None:
    x = cr.zeros(3, requires_grad=True)
    (x[[0, 0, 2]] * cr.tensor([1.0, 2.0, 4.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, 0.0, 4.0]


def test_an_index_that_changes_later_changes_no_gradient() -> None:
    x, index = cr.arange(3.0).requires_grad_(), cr.tensor([0, 1])
    y, z = x[index].sum(), x.gather(0, index).sum()
    index.zero_()
    (y + z).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 2.0, 0.0]


def test_a_number_outside_of_the_dtype_is_no_index() -> None:
    with pytest.raises(IndexError, match="tensors used as indices must be long, int, byte or bool tensors"):
        cr.ones(3)[np.array([0.5, 1.0])]
    with pytest.raises(TypeError, match=r"can't assign a list to a torch\.FloatTensor"):
        cr.ones(3)[0] = [1, 2, 3]  # type: ignore[arg-type]


@pytest.mark.parametrize("reduce", ["prod", "amax", "amin"])
def test_reductions_that_are_not_there_say_so(reduce: str) -> None:
    with pytest.raises(cr.UnsupportedError, match=f"reduce='{reduce}'"):
        cr.ones(2).scatter_reduce(0, cr.tensor([0]), cr.ones(1), reduce)


# ---- Any index of any tensor ----


@st.composite
def indexed(draw: st.DrawFn) -> tuple[list[int], list[Any]]:
    """A shape, and an index into it: integers, slices, None, `...`, lists, masks, arrays."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    parts: list[Any] = []
    axis = 0
    broadcast = draw(st.sampled_from([(), (1,), (2,), (3, 1), (2, 2)]))
    while axis < len(shape) and draw(st.integers(0, 5)):
        n = shape[axis]
        kind = draw(st.sampled_from(["int", "slice", "none", "array", "mask", "list", "dots", "matrix"]))
        if kind == "none":
            parts.append(None)
            continue
        if kind == "dots":
            if ... not in [part for part in parts if not isinstance(part, np.ndarray)]:
                parts.append(...)
                axis = len(shape)
            continue
        if kind == "int":
            parts.append(draw(st.integers(-n, n - 1)))
        elif kind == "slice":
            bounds = st.none() | st.integers(-n - 1, n + 1)
            parts.append(slice(draw(bounds), draw(bounds), draw(st.none() | st.integers(1, 3))))
        elif kind == "mask":
            mask = np.zeros(n, bool)
            mask[draw(st.integers(0, n - 1))] = True
            parts.append(mask)
        elif kind == "matrix" and axis + 1 < len(shape):
            mask = np.zeros(shape[axis : axis + 2], bool)
            mask[draw(st.integers(0, n - 1)), draw(st.integers(0, shape[axis + 1] - 1))] = True
            parts.append(mask)
            axis += 1
        else:
            size = int(np.prod(broadcast))
            numbers = draw(st.lists(st.integers(-n, n - 1), min_size=size, max_size=size))
            parts.append(np.array(numbers, np.int64).reshape(broadcast))
        axis += 1
    return shape, parts


def as_index(m: Any, parts: list[Any]) -> Any:
    index = [m.tensor(part) if isinstance(part, np.ndarray) else part for part in parts]
    return index[0] if len(index) == 1 else tuple(index)


@pytest.mark.torch
@settings(max_examples=200, deadline=None)
@given(case=indexed())
def test_any_index_selects_and_differentiates_as_in_pytorch(torch: Any, case: tuple[list[int], list[Any]]) -> None:
    shape, parts = case
    array = np.arange(float(np.prod(shape))).reshape(shape)
    results = []
    for m in (cr, torch):
        x = m.tensor(array, requires_grad=True)
        y = x[as_index(m, parts)]
        weight = m.arange(1.0, y.numel() + 1, dtype=m.float64).reshape(tuple(y.shape))
        (y * weight).sum().backward()
        results.append((tuple(y.shape), y.tolist(), x.grad.tolist()))
    assert results[0] == results[1]


@pytest.mark.torch
@settings(max_examples=200, deadline=None)
@given(case=indexed(), lead=st.integers(0, 1), whole=st.booleans())
def test_any_index_is_assigned_to_as_in_pytorch(
    torch: Any, case: tuple[list[int], list[Any]], lead: int, whole: bool
) -> None:
    shape, parts = case
    array = np.arange(float(np.prod(shape))).reshape(shape)
    results = []
    for m in (cr, torch):
        leaf = m.tensor(array, requires_grad=True)
        x = leaf * 1
        index = as_index(m, [_without_repeats(part) for part in parts])
        size = tuple(x[index].shape) if whole else ()
        v = m.full((1,) * lead + size, 0.5, dtype=m.float64).requires_grad_()
        x[index] = v * 3
        (x * m.arange(1.0, x.numel() + 1, dtype=m.float64).reshape(shape)).sum().backward()
        results.append((x.tolist(), leaf.grad.tolist(), v.grad.tolist()))
    assert results[0] == results[1]


def _without_repeats(part: Any) -> Any:
    """An array of one number: which of several that name one place is assigned last is not defined."""
    return part.ravel()[:1] if isinstance(part, np.ndarray) and part.dtype != bool else part


@pytest.mark.torch
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_gather_and_scatter_add_agree_with_pytorch(torch: Any, data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    sizes = [data.draw(st.integers(1, 5 if axis == dim % len(shape) else n)) for axis, n in enumerate(shape)]
    count = int(np.prod(sizes))
    numbers = data.draw(st.lists(st.integers(0, shape[dim] - 1), min_size=count, max_size=count))
    index = np.array(numbers, np.int64).reshape(sizes)
    array = np.arange(float(np.prod(shape))).reshape(shape)
    results = []
    for m in (cr, torch):
        x = m.tensor(array, requires_grad=True)
        y = x.gather(dim, m.tensor(index))
        z = x.scatter_add(dim, m.tensor(index), y * 2)
        (z * z).sum().backward()
        results.append((y.tolist(), z.tolist(), x.grad.tolist()))
    assert results[0] == results[1]
