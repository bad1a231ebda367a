"""Functions that make tensors choose dtypes, values and words as PyTorch does, and copy or share as they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule.engine as cr
from tests.engine.functions.expressions import assert_agrees, evaluate, plain

EXPRESSIONS = [
    "m.zeros_like(x)",
    "m.ones_like(n)",
    "m.full_like(x, 3)",
    "m.full_like(n, 2.7)",
    "m.zeros_like(x, dtype=m.int8)",
    "m.ones_like(x.T).stride()",
    "m.zeros_like(m.ones(1, 2, 3, 4), memory_format=m.channels_last).stride()",
    "x.new_zeros(2, 3)",
    "n.new_ones((2,))",
    "n.new_full((2,), 7)",
    "x.new_tensor([1, 2])",
    "x.new_tensor(True)",
    "m.tensor(x)",
    "m.tensor([x[0, 0], 2])",
    "m.tensor([[1, 2], [3, 4]], dtype=m.float16)",
    "m.tensor([0.1], dtype=m.float64)",
    "m.tensor([[True], [False]])",
    "m.tensor([[[]]])",
    "m.tensor(((1, 2), [3, 4]))",
    "m.tensor([np.float32(1.5), 2])",
    "m.tensor(np.arange(3, dtype=np.int16))",
    "m.zeros(2, 3)",
    "m.zeros((2, 3), dtype=m.bool)",
    "m.ones([2])",
    "m.full((2, 2), 3.5)",
    "m.full([], 3)",
    "m.eye(3)",
    "m.eye(2, 3, dtype=m.int64)",
    "m.arange(2, 10, 3)",
    "m.arange(10, 2, -3)",
    "m.arange(0.0, 1.0, 0.25)",
    "m.arange(3, dtype=m.float16)",
    "m.linspace(-1, 1, 5)",
    "m.linspace(0, 7, 8, dtype=m.int32)",
    "m.logspace(0, 4, 5, base=2)",
    "m.tril_indices(3, 2)",
    "m.tril_indices(2, 3, -1)",
    "m.triu_indices(3, 3, 1)",
    "m.scalar_tensor(2.5)",
    "m.asarray([1.0, 2.0])",
    "m.asarray(np.ones(2, np.float32))",
    "m.empty(2, 0)",
    "m.tensor([np.float64(1.)]).dtype",
    "m.tensor(np.float64(1.)).dtype",
    "m.tensor([np.float32(1.)]).dtype",
    "m.tensor([np.int32(1.)]).dtype",
    "m.tensor([np.bool_(True)]).dtype",
    "m.tensor([np.int32(1.), 2]).dtype",
    "m.tensor([np.float16(1.), 2.]).dtype",
    "m.tensor([np.array([1.,2.])]).dtype",
    "m.tensor([m.tensor([1.,2.])])",
    "m.tensor([m.tensor(1),m.tensor(2.)])",
    "m.tensor([m.tensor(1),2.5])",
    "m.tensor([m.tensor(1.,dtype=m.float64),2.5]).dtype",
    "m.tensor([True,2]).dtype",
    "m.tensor([True,2.]).dtype",
    "m.tensor([1,[2]])",
    "m.tensor([[1],2])",
    "m.tensor([[1],[1,2]])",
    "m.tensor([[1,2],[1]])",
    "m.tensor([[[1,2],[3,4]],[[1,2],[3]]])",
    'm.tensor("abc")',
    'm.tensor(["abc"])',
    'm.tensor([["a"]])',
    "m.tensor([None])",
    "m.tensor(None)",
    "m.tensor([1,None])",
    'm.tensor([1,"a"])',
    "m.tensor({1:2})",
    "m.tensor({1,2})",
    "m.tensor(object())",
    "m.tensor([object()])",
    "m.tensor(range(3))",
    "m.tensor((1,(2)))",
    "m.tensor([[],[]]).shape",
    "m.tensor([]).dtype",
    "m.tensor([[]]).shape",
    "m.tensor([2**63])",
    "m.tensor(2**63)",
    "m.tensor(1.7,dtype=m.int64)",
    "m.tensor([1.7],dtype=m.bool)",
    "m.tensor(1,dtype=float).dtype",
    "m.tensor(1,dtype=int).dtype",
    "m.tensor(iter([1]))",
    "m.tensor([x[0,0],1.])",
    'm.tensor([float("nan"),1])',
    "m.as_tensor([1,2])",
    "m.as_tensor(np.ones(2)).dtype",
    "m.asarray(np.ones(2),dtype=m.float32).dtype",
    "m.asarray(3).dtype",
    "m.from_numpy([1])",
    "m.zeros(2.5)",
    'm.zeros("a")',
    "m.zeros([])",
    "m.zeros(()).shape",
    "m.full((2,),True).dtype",
    "m.full((2,),1).dtype",
    "m.full((2,),1.).dtype",
    "m.full(2,1)",
    "m.full((2,),m.tensor(3)).dtype",
    "m.full((2,),m.tensor([3,3])).dtype",
    "m.full((2,),1.5,dtype=m.int64)",
    "m.eye(-1)",
    "m.eye(2,-1)",
    "m.eye(2,0).shape",
    "m.arange(5,0)",
    "m.arange(0,5,0)",
    "m.arange(5,0,-1)",
    "m.arange(0,1,-1)",
    'm.arange(float("nan"))',
    "m.arange(3,dtype=m.float64)",
    "m.arange(2.5)",
    "m.arange(0,1,0.3)",
    "m.arange(3,dtype=m.bool)",
    "m.arange(True)",
    "m.arange(m.tensor(3))",
    "m.arange(m.tensor(3.))",
    "m.arange(0.5,3,dtype=m.int64)",
    "m.arange(0,2.9,0.5,dtype=m.int64)",
    "m.arange(0.9,5.5,1.6,dtype=m.int64)",
    "m.linspace(0,1,0)",
    "m.linspace(0,1,1)",
    "m.linspace(0,1,-1)",
    "m.linspace(0,10,5,dtype=m.int64)",
    "m.linspace(0,10,4,dtype=m.int64)",
    "m.linspace(-3,10,6,dtype=m.int32)",
    "m.linspace(m.tensor(0.),1,3)",
    "m.logspace(0,2,3)",
    "m.logspace(0,3,4,base=2,dtype=m.int64)",
    "m.zeros_like(x,dtype=m.int64).dtype",
    "m.zeros_like(1)",
    "x.new_zeros(2,3).dtype",
    "x.new_full((2,),3).dtype",
    "x.new_tensor([1,2]).dtype",
    "m.scalar_tensor(3)",
    "m.scalar_tensor(True)",
    "m.tril_indices(3,3)",
    "m.triu_indices(2,3,1)",
    "m.tril_indices(-1,3)",
]


@pytest.mark.torch
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_creation_and_its_errors_are_pytorchs(expression: str, torch: Any) -> None:
    assert_agrees(torch, expression)


numbers = st.booleans() | st.integers(-(2**40), 2**40) | st.floats(-1024, 1024, width=32)
nested = st.recursive(numbers, lambda part: st.lists(part, min_size=1, max_size=3), max_leaves=8)


@pytest.mark.torch
@settings(max_examples=200, deadline=None)
@given(data=nested)
def test_any_nested_data_make_pytorchs_tensor_or_its_error(torch: Any, data: Any) -> None:
    ours, theirs = evaluate(cr, f"m.tensor({data!r})"), evaluate(torch, f"m.tensor({data!r})")
    if isinstance(theirs, Exception):
        assert isinstance(ours, ValueError | TypeError)
    else:
        assert plain(ours) == plain(theirs)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.ones(2, np.uint32), "uint32 is not supported"),
        ([1j], "complex numbers are not supported"),
        (np.ones(2, np.complex64), "complex numbers are not supported"),
        (np.array(["a"]), "can't convert np.ndarray of type <U1"),
    ],
)
def test_numbers_that_are_not_supported_are_refused(data: Any, message: str) -> None:
    with pytest.raises(cr.ChainruleError, match=message):
        cr.tensor(data)


def test_tensor_copies_and_from_numpy_shares() -> None:
    array = np.zeros(2, np.float32)
    copied, shared, taken, same = cr.tensor(array), cr.from_numpy(array), cr.as_tensor(array), cr.asarray(array)
    array[0] = 1
    assert copied.tolist() == [0.0, 0.0]
    assert shared.tolist() == taken.tolist() == same.tolist() == [1.0, 0.0]
    assert cr.as_tensor(shared) is shared
    assert cr.asarray(array, copy=True).data is not array
    with pytest.raises(ValueError, match="copy=False"):
        cr.asarray(array, dtype=cr.float64, copy=False)


def test_numbers_that_do_not_fit_the_dtype_are_refused() -> None:
    with pytest.raises(RuntimeError, match="value cannot be converted to type int8_t without overflow"):
        cr.full((2,), 300, dtype=cr.int8)
    assert cr.tensor(-1, dtype=cr.uint8).item() == 255


@pytest.mark.parametrize("make", [cr.zeros, cr.ones, cr.empty])
@pytest.mark.parametrize("dtype", [cr.float16, cr.bfloat16, cr.float64, cr.int8, cr.bool])
def test_filled_tensors_have_any_dtype(make: Any, dtype: Any) -> None:
    x = make(2, 3, dtype=dtype)
    assert (x.shape, x.dtype) == ((2, 3), dtype)


def test_gradients_are_asked_for_at_once() -> None:
    made = [cr.zeros(2, requires_grad=True), cr.tensor([1.0], requires_grad=True), cr.rand(2, requires_grad=True)]
    made += [cr.arange(2.0, requires_grad=True), cr.ones_like(made[0], requires_grad=True)]
    assert all(x.requires_grad and x.is_leaf for x in made)
    with pytest.raises(RuntimeError, match="nly Tensors of floating point"):
        cr.zeros(2, dtype=cr.int64, requires_grad=True)


@pytest.mark.torch
@settings(max_examples=100, deadline=None)
@given(start=st.floats(-50, 50), end=st.floats(-50, 50), steps=st.integers(0, 9))
def test_ranges_agree_with_pytorch(torch: Any, start: float, end: float, steps: int) -> None:
    for dtype in ("float32", "float64"):
        ours = cr.linspace(start, end, steps, dtype=getattr(cr, dtype))
        theirs = torch.linspace(start, end, steps, dtype=getattr(torch, dtype))
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6, atol=1e-5, strict=True)
    step = (end - start) / 7
    if step:
        ours, theirs = cr.arange(start, end, step), torch.arange(start, end, step)
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6, atol=1e-5, strict=True)
