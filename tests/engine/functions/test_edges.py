"""Where a formula is easily wrong: its gradient at an edge, the dtype it leaves, the form in which it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from tests.engine.functions.agreement import INTEGERS, difference
from tests.engine.functions.expressions import assert_agrees

nan = float("nan")

GRADIENTS: dict[str, tuple[Callable[..., Any], list[list[float]]]] = {
    "div by what has no square": (lambda m, a, b: a / b, [[1e-20, 3e-21, 0.0], [1e-25, -2e-25, 1e-30]]),
    "atan2 at the origin": (lambda m, a, b: m.atan2(a, b), [[0.0, 1.0, 0.0, -1.0], [0.0, 0.0, -1.0, 1.0]]),
    "atan2 far out": (lambda m, a, b: m.atan2(a, b), [[1e-25, 3.0], [1e-25, 4.0]]),
    "xlogy of a number": (lambda m, x: m.xlogy(x, 0.5), [[0.0, -1.0, 2.0]]),
    "gather of nothing": (lambda m, x: x[:0].gather(0, m.tensor([], dtype=m.int64)), [[1.0, 2.0]]),
    "take_along_dim of nothing": (
        lambda m, x: x.reshape(2, 2)[:0].take_along_dim(m.zeros(0, 3, dtype=m.int64), 1),
        [[1.0, 2.0, 3.0, 4.0]],
    ),
    "relu of nan": (lambda m, x: m.relu(x), [[nan, -1.0, 0.0, 2.0]]),
    "index_fill twice": (
        lambda m, x, v: m.index_fill(x, 0, m.tensor([0, 2, 0]), v.sum()),
        [[1.0, 2.0, 3.0], [5.0]],
    ),
    "take_along_dim from the end": (
        lambda m, x: m.take_along_dim(x.reshape(2, 2), m.tensor([[-1, 0], [1, -2]]), 1),
        [[1.0, 2.0, 3.0, 4.0]],
    ),
}

EXPRESSIONS = [
    # Named like the parameters of PyTorch.
    "m.flip(x, dims=(0,))",
    "x.flip(dims=[0, 1])",
    "m.permute(x, dims=(1, 0))",
    "x.permute(dims=(1, 0))",
    "m.reshape(x, shape=(3, 2))",
    "x.view(size=(3, 2))",
    "b[:1].expand(size=(4, 2, 3))",
    "x.repeat(repeats=(2, 1))",
    "x.tile(dims=(2, 2))",
    "m.tile(x, dims=(2,))",
    "m.zeros(size=(2, 3))",
    "m.ones(size=(2, 3))",
    "m.empty(size=(2, 3)).shape",
    "m.rand(size=(2, 3)).shape",
    "m.randn(size=(2, 3)).shape",
    "x.new_zeros(size=(2,))",
    "x.new_ones(size=(2,))",
    "m.heaviside(x, values=m.tensor(1.0))",
    "m.arange(end=4)",
    "m.scalar_tensor(2, requires_grad=True).requires_grad",
    "m.randperm(3, dtype=m.float32, requires_grad=True).requires_grad",
    "m.searchsorted(m.tensor([3, 1, 2]), m.tensor([2, 3]), sorter=m.tensor([1, 2, 0]))",
    # Nothing named is everything.
    "m.sum(x, [])",
    "m.mean(x, [])",
    # Numbers in one dimension.
    "s.unfold(0, 1, 1)",
    "s.unfold(0, 0, 1)",
    # Whole numbers.
    "m.linspace(4.3, 0, 9, dtype=m.int64)",
    "m.arange(0.0, -8.000001, -4.0, dtype=m.int8)",
    "m.arange(0.0, -8.000001, -4.0, dtype=m.int64)",
    "m.take_along_dim(x, m.tensor([[-1], [-3]]), 1)",
    "n[:0] // 0",
    "n[:0] % m.tensor([0, 0, 0])",
    "(n > 1).index_add(0, m.tensor([0, 0, 1]), m.ones(3, 3, dtype=m.bool))",
    # Errors are of PyTorch's types.
    "s.flip(1)",
    "s.flip(0)",
    "s.softmax(3)",
    "m.zeros(0, 3).softmax(-4)",
    "m.zeros(0, 3).log_softmax(2)",
    "m.nn.functional.softmax(s, 1)",
    "s.take_along_dim(m.tensor(0), 0)",
    "s.unfold(0, 0, 0)",
    "x.masked_fill(x > 2, 1).to(m.int8).masked_fill(x > 2, 300)",
    "n.masked_fill(x > 2, float('nan'))",
    "n.to(m.uint8).index_fill(0, m.tensor([0]), 256)",
    "x.div(2, rounding_mode='up')",
    "m.where(n > 2, n.to(m.int8), 300)",
    "n.to(m.int8).clamp(max=300)",
    "n.to(m.int8) ** 300",
    "m.nn.functional.pad(n.to(m.int8), (1, 1), value=300)",
    "x.to(m.float16).masked_fill(x > 2, 1e6)",
    "x.to(m.float16).masked_fill(x > 2, float('inf'))",
    "m.full((2,), 1e6, dtype=m.float16)",
    "m.nn.functional.hardtanh(n.to(m.uint8))",
    "m.nn.functional.hardtanh(n > 1)",
    "m.nn.functional.cosine_similarity(n, n)",
    "m.isclose(x, x, rtol=-0.5)",
    "int(x)",
    "float(x)",
]


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_at_an_edge_is_that_of_pytorch(name: str, dtype: str, torch: Any) -> None:
    call, values = GRADIENTS[name]
    ours = [cr.tensor(v, dtype=dtype, requires_grad=True) for v in values]
    theirs = [torch.tensor(v, dtype=getattr(torch, dtype), requires_grad=True) for v in values]
    y, expected = call(cr, *ours), call(torch, *theirs)
    y.backward(cr.arange(1.0, y.numel() + 1, dtype=dtype).reshape(y.shape))
    expected.backward(torch.arange(1.0, y.numel() + 1, dtype=getattr(torch, dtype)).reshape(y.shape))
    for x, t in zip(ours, theirs, strict=True):
        assert x.grad is not None
        if name == "atan2 far out":  # what PyTorch squares is nothing in float32
            t.grad[0] = torch.tensor(x.grad.numpy()[0])
        np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=1e-6, strict=True)


def test_gradient_of_atan2_neither_overflows_nor_vanishes() -> None:
    a, b = (cr.tensor([1e-25, 3e30], requires_grad=True) for _ in range(2))
    cr.atan2(a, b).sum().backward()
    assert a.grad is not None
    np.testing.assert_allclose(a.grad.numpy(), [0.5e25, 0.5 / 3e30], rtol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("name", ["relu", "relu6", "hardtanh", "hardshrink", "softshrink", "elu", "silu"])
def test_activations_pass_nan_as_pytorch_does_where_it_is_vectorised(name: str, torch: Any) -> None:
    values = np.tile([nan, -1.0, 2.0, 0.3], 16)
    x, t = cr.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    getattr(cr.nn.functional, name)(x).sum().backward()
    getattr(torch.nn.functional, name)(t).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=1e-12)


@pytest.mark.torch
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expression_agrees_with_pytorch(expression: str, torch: Any) -> None:
    assert_agrees(torch, expression)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_small_integers_stay_what_pytorch_makes_of_them(dtype: Any, torch: Any) -> None:
    x = np.array([[1, 2, 3], [0, 4, 1], [2, 2, 0]]).astype(dtype)
    one = x[:1, :1, None]
    for call in (
        lambda m, x, _: m.trace(x),
        lambda m, x, _: m.einsum("ij->i", x),
        lambda m, x, _: m.einsum("ij,ij->", x, x),
        lambda m, x, _: m.sum(x, 0, dtype=x.dtype),
        lambda m, x, _: m.prod(x, 0, dtype=x.dtype),
        lambda m, x, one: m.tensordot(one, x[:2, :2, None], dims=([0, 1], [2, 0])),
        lambda m, x, _: m.nn.functional.bilinear(x, x, x[:, :, None].expand(3, 3, 3)),
    ):
        assert difference(torch, call, x, one) is None


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_quotient_of_half_precision_is_rounded_before_it_is_truncated(dtype: str, torch: Any) -> None:
    draws = np.random.default_rng(0)
    a = cr.tensor(draws.uniform(-200, 200, 500)).to(dtype).numpy()
    b = cr.tensor(draws.uniform(0.5, 2, 500)).to(dtype).numpy()
    assert difference(torch, lambda m, a, b: m.div(a, b, rounding_mode="trunc"), a, b) is None
    assert difference(torch, lambda m, a, _: m.div(a, 3.3, rounding_mode="trunc"), a, b) is None
    assert difference(torch, lambda m, a, _: m.div(200, a, rounding_mode="trunc"), a, b) is None


@pytest.mark.parametrize(
    "call",
    [
        lambda n: cr.lerp(n, n, 0.3),
        lambda n: cr.linspace(n, 3, 4),
        lambda n: cr.einsum([n], "ij->"),
        lambda n: cr.max(n, (0, 1)),  # type: ignore[call-overload]
        lambda n: cr.logspace(0, n, 4),
    ],
)
def test_what_pytorch_refuses_is_refused_by_name(call: Callable[[Any], Any]) -> None:
    with pytest.raises(cr.ChainruleError):
        call(cr.ones(2, 2, dtype=cr.int64))
