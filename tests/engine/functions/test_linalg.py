"""Products: values, gradients and words are PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule.engine as cr
from tests.engine.functions.expressions import assert_agrees

EXPRESSIONS = [
    "v.float() @ v.float()",
    "x @ x.T",
    "x @ v.float()",
    "v.float() @ x.T",
    "b @ x.T",
    "x @ b.mT",
    "b @ b.mT",
    "b[0] @ b.mT",
    "v @ v",
    "n @ n.T",
    "n.to(m.int8) @ n.T.to(m.int8)",
    "m.mm(x, x.T)",
    "m.mv(x, v.float())",
    "m.dot(v, v)",
    "m.vdot(v, v)",
    "m.bmm(b, b.mT)",
    "m.addmm(m.ones(2), x, x.T, beta=2, alpha=3)",
    "m.addmm(m.full((2,), float('nan')), x, x.T, beta=0)",
    "m.addmv(m.ones(2), x, v.float(), alpha=2)",
    "m.addbmm(m.ones(2, 2), b, b.mT)",
    "m.baddbmm(m.ones(2), b, b.mT, beta=3)",
    "m.addr(m.ones(3), m.ones(2), v.float(), alpha=2)",
    "m.outer(v, v)",
    "m.ger(v, v)",
    "m.inner(v, v)",
    "m.inner(x, v.float())",
    "m.inner(s, x)",
    "m.tensordot(x, x)",
    "m.tensordot(x, x, dims=0)",
    "m.tensordot(b, x, dims=([2, 1], [1, 0]))",
    "m.tensordot(b, x, dims=1) if False else m.tensordot(b, x.T, dims=1)",
    "m.kron(x, m.tensor([1.0, 10.0]))",
    "m.kron(m.eye(2), x)",
    "m.cross(x, x.flip(1))",
    "m.cross(x, x + 1, dim=1)",
    "m.cross(v, v.flip(0))",
    "x.trace()",
    "n.trace()",
    "m.zeros(0, 3) @ m.zeros(3, 0)",
    "m.zeros(3, 0) @ m.zeros(0, 2)",
    "m.einsum('ij->ji', x)",
    "m.einsum('ii', m.ones(3, 3))",
    "m.einsum('ii->i', x @ x.T)",
    "m.einsum('ij,j', x, v.float())",
    "m.einsum('i,j->ij', v, v)",
    "m.einsum('i,i->', v, v)",
    "m.einsum('bij,bkj->bik', b, b)",
    "m.einsum('...ij,...kj->...ik', b, x)",
    "m.einsum('ij,kj', x, x)",
    "m.einsum(x, [0, 1], x, [2, 1], [0, 2])",
    "m.einsum(b, [..., 0], [0, ...])",
    "m.einsum('ij,jk,kl->il', x, x.T, x)",
    "m.einsum(' i j -> j i ', x)",
    "m.einsum('ij,ij->', [x, x])",
    "m.einsum('iji->j', m.ones(2, 3, 2))",
    "m.einsum('ij,ij->ij', x, m.ones(1, 3))",
    "m.einsum('ij,kj->ik', x, m.ones(2, 1))",
    "m.mm(x,x)",
    "m.mm(x,v)",
    "m.mm(x,x.double().T)",
    "m.mm(x,x.T.long())",
    "x@m.ones(2)",
    "m.mv(x,m.ones(2))",
    "m.mv(x,x)",
    "m.mv(x,m.ones(3).double())",
    "m.dot(m.ones(2),m.ones(3))",
    "m.dot(x,x)",
    "m.dot(m.ones(3),m.ones(3).double())",
    "m.vdot(m.ones(3),m.ones(2))",
    "m.bmm(x,x)",
    "m.bmm(b,b)",
    "m.bmm(b,m.ones(3,3,3))",
    "m.bmm(b,m.ones(2,3,2).double())",
    "b@m.ones(3,3,2)",
    "b@m.ones(2,3,2).double()",
    "b@m.ones(2,2,2)",
    "b@m.ones(4)",
    "m.ones(2)@b",
    "m.ones(2)@m.ones(3,2)",
    "x@m.tensor(1.)",
    "x@x.double().T",
    "m.ones(3)@m.ones(2)",
    "m.ones(2,2)@m.ones(3,2,2).double()",
    "m.ones(2,2,dtype=m.bool)@m.ones(2,2,dtype=m.bool)",
    "m.addmm(m.ones(2,2),x,x)",
    "m.addmm(m.ones(2,5),x,x.T)",
    "m.addmm(m.ones(2,2).double(),x,x.T)",
    "m.addmv(m.ones(5),x,m.ones(3))",
    "m.baddbmm(m.ones(1),b,b.mT).shape",
    "m.outer(x,x)",
    "m.inner(m.ones(2,3),m.ones(4))",
    "m.inner(m.ones(2,3),m.ones(4,3)).shape",
    "m.tensordot(x,x,1)",
    "m.tensordot(x,x,dims=([0,1],[0,1]))",
    "m.tensordot(x,x,dims=3)",
    "m.tensordot(x,x,dims=-1)",
    'm.einsum("ij,jk",x,x.T)',
    'm.einsum("ij,jk->ik",x)',
    'm.einsum("ij->ijk",x)',
    'm.einsum("ij,jk->ik",x,x)',
    'm.einsum("ii",x)',
    'm.einsum("ij->ii",x)',
    'm.einsum("ijk",x)',
    'm.einsum("i",x)',
    'm.einsum("v.j",x)',
    'm.einsum("i1",x)',
    'm.einsum("...",x)',
    'm.einsum("ij->v...",x)',
    'm.einsum("Ba,ba",x,x)',
    "m.cross(x,x)",
    "m.cross(m.ones(3),m.ones(2,3)).shape",
    "m.cross(m.ones(2,3),m.ones(2,3),dim=0)",
    "m.kron(x,x).shape",
]


@pytest.mark.torch
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_products_and_their_errors_are_pytorchs(expression: str, torch: Any) -> None:
    assert_agrees(torch, expression)


@pytest.mark.torch
@settings(max_examples=60, deadline=None)
@given(a=st.integers(1, 4), b=st.integers(1, 4), batch=st.lists(st.integers(1, 3), max_size=2), seed=st.integers(0, 9))
def test_matmul_of_any_ranks_agrees_with_pytorch(torch: Any, a: int, b: int, batch: list[int], seed: int) -> None:
    draws = np.random.default_rng(seed)
    left = [*batch[: max(a - 2, 0)], 2, 3][-a:]
    right = [*batch[: max(b - 2, 0)], 3, 4][-b:] if b > 1 else [3]
    arrays = [draws.standard_normal(shape) for shape in (left, right)]
    if len(left) > 2 and len(right) > 2:
        arrays[1] = arrays[1][(0,) * (len(right) - 2)]  # which always broadcasts
    results = []
    for m in (cr, torch):
        x, w = (m.tensor(array, requires_grad=True) for array in arrays)
        y = x @ w
        (y * y).sum().backward()
        results.append([part.detach().numpy() for part in (y, x.grad, w.grad)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12, strict=True)


@st.composite
def equations(draw: st.DrawFn) -> tuple[str, list[tuple[int, ...]]]:
    """An equation of one to three operands, and their shapes."""
    letters = "abcd"
    sizes = dict(zip(letters, draw(st.lists(st.integers(1, 3), min_size=4, max_size=4)), strict=True))
    terms = draw(st.lists(st.text(letters, min_size=0, max_size=3), min_size=1, max_size=3))
    shapes = [tuple(sizes[letter] for letter in term) for term in terms]
    used = sorted(set("".join(terms)))
    if draw(st.booleans()):
        return ",".join(terms), shapes
    output = draw(st.permutations(used).map("".join))
    return ",".join(terms) + "->" + output[: draw(st.integers(0, len(used)))], shapes


@pytest.mark.torch
@settings(max_examples=150, deadline=None)
@given(case=equations())
def test_any_einsum_agrees_with_pytorch(torch: Any, case: tuple[str, list[tuple[int, ...]]]) -> None:
    equation, shapes = case
    draws = np.random.default_rng(0)
    arrays = [np.asarray(draws.standard_normal(shape)) for shape in shapes]
    results = []
    for m in (cr, torch):
        xs = [m.tensor(array, requires_grad=True) for array in arrays]
        y = m.einsum(equation, *xs)
        (y * y).sum().backward()
        results.append([y.detach().numpy(), *(x.grad.numpy() for x in xs)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10, strict=True)


@pytest.mark.parametrize("dtype", [cr.float16, cr.bfloat16])
def test_products_of_half_precision_are_rounded_once(dtype: Any) -> None:
    a, b = cr.rand(5, 70).to(dtype), cr.rand(70, 3).to(dtype)
    assert cr.equal(a @ b, (a.float() @ b.float()).to(dtype))


def test_products_of_truths_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="not implemented for 'Bool'"):
        cr.ones(2, 2, dtype=cr.bool) @ cr.ones(2, 2, dtype=cr.bool)
