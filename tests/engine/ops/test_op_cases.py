"""Every operation against central differences and against PyTorch, by the rows of `op_cases`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.autograd import gradcheck, gradgradcheck
from chainrule.engine.autograd.graph import OpNode
from chainrule.engine.dtypes import Array
from tests.engine.cases.case import Case
from tests.engine.op_cases import CASES, declared

OPS = declared()
differentiable = [case for case in CASES if OPS[case.op].is_differentiable]
by_differentiable_id = pytest.mark.parametrize("case", differentiable, ids=lambda case: case.id)


def leaf(array: Array) -> cr.Tensor:
    return cr.Tensor(array.copy(order="K"), requires_grad=array.dtype.kind == "f")


def test_every_operation_has_a_row() -> None:
    assert {case.op for case in CASES} == set(OPS)


def test_rows_have_names_of_their_own() -> None:
    assert len({case.id for case in CASES}) == len(CASES)


@by_differentiable_id
def test_row_exercises_its_operation(case: Case) -> None:
    pending, found = [case.call(cr, *[leaf(x) for x in case.arrays("float32")]).grad_fn], set()
    while pending:
        node = pending.pop()
        if isinstance(node, OpNode):
            found.add(id(node.op))
            pending.extend(node.edges)
    assert id(OPS[case.op]) in found


@by_differentiable_id
def test_gradient_agrees_with_central_differences(case: Case) -> None:
    assert gradcheck(lambda *xs: case.call(cr, *xs), [leaf(x) for x in case.arrays()])


@by_differentiable_id
def test_gradient_of_the_gradient_agrees_with_central_differences(case: Case) -> None:
    assert gradgradcheck(lambda *xs: case.call(cr, *xs), [leaf(x) for x in case.arrays()])


@by_differentiable_id
def test_recorded_gradients_equal_those_on_arrays(case: Case) -> None:
    gradients = []
    for create_graph in (False, True):
        xs = [leaf(x) for x in case.arrays()]
        y = case.call(cr, *xs)
        weight = cr.Tensor(np.random.default_rng(1).standard_normal(y.shape))
        y.backward(weight, create_graph=create_graph)
        gradients.append([x.grad.detach().numpy() for x in xs if x.grad is not None])
    for g, recorded in zip(*gradients, strict=True):
        np.testing.assert_allclose(g, recorded, rtol=1e-9, atol=1e-12)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", [case for case in CASES if case.torch], ids=lambda case: case.id)
def test_value_and_gradient_are_those_of_pytorch(case: Case, dtype: str, torch: Any) -> None:
    ours = [leaf(x) for x in case.arrays(dtype)]
    theirs = [torch.tensor(x).requires_grad_(x.dtype.kind == "f") for x in case.arrays(dtype)]
    y, expected = case.call(cr, *ours), case.call(torch, *theirs)
    rtol, atol = (1e-5, 1e-5) if dtype == "float32" else (1e-10, 1e-12)

    assert str(y.dtype) == str(expected.dtype).removeprefix("torch.")
    np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), rtol=rtol, atol=atol, strict=True)
    assert y.requires_grad == expected.requires_grad
    if not expected.requires_grad:
        return
    weight = np.random.default_rng(1).standard_normal(tuple(expected.shape)).astype(y.dtype)
    y.backward(cr.Tensor(weight))
    expected.backward(torch.tensor(weight))
    for x, t in zip(ours, theirs, strict=True):
        if t.grad is not None:
            assert x.grad is not None
            np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=rtol, atol=atol, strict=True)
