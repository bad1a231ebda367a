"""Jacobians, Hessians and products with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.autograd import functional
from chainrule.engine.autograd.functional import hessian, hvp, jacobian, jvp, vhp, vjp


def arrays(value: Any) -> Any:
    return tuple(arrays(part) for part in value) if isinstance(value, tuple) else value.detach().numpy()


def check(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, tuple):
        assert len(ours) == len(theirs)
        for x, y in zip(ours, theirs, strict=True):
            check(x, y)
    else:
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


FUNCTIONS: dict[str, Any] = {
    "one-to-one": (lambda m: lambda x: m.tanh(x) * x, 1),
    "one-to-matrix": (lambda m: lambda x: x.reshape(-1, 1) * m.exp(x), 1),
    "two-to-one": (lambda m: lambda x, y: m.exp(x) * y, 2),
    "two-to-two": (lambda m: lambda x, y: (x * y, (x * x).sum()), 2),
    "independent": (lambda m: lambda x, y: x * 2, 2),
}
SCALARS: dict[str, Any] = {
    "cubic": (lambda m: lambda x: (x * x * x).sum(), 1),
    "mixed": (lambda m: lambda x, y: (m.tanh(x) * y * y).sum(), 2),
    "independent": (lambda m: lambda x, y: (x * x).sum(), 2),
}


def inputs(m: Any, count: int, seed: int) -> Any:
    draws = np.random.default_rng(seed)
    made = tuple(m.from_numpy(draws.standard_normal(3)) for _ in range(count))
    return made if count > 1 else made[0]


def like(m: Any, outputs: Any) -> Any:
    draws = np.random.default_rng(9)
    if isinstance(outputs, tuple):
        return tuple(m.from_numpy(np.asarray(draws.standard_normal(tuple(y.shape)))) for y in outputs)
    return m.from_numpy(np.asarray(draws.standard_normal(tuple(outputs.shape))))


def call(name: str, m: Any, make: Any, count: int) -> Any:
    functions = functional if m is cr else m.autograd.functional
    f, xs = make(m), inputs(m, count, 1)
    if name in ("jacobian", "hessian"):
        return getattr(functions, name)(f, xs)
    v = inputs(m, count, 2) if name != "vjp" else like(m, f(*xs) if isinstance(xs, tuple) else f(xs))
    return getattr(functions, name)(f, xs, v)


@pytest.mark.torch
@pytest.mark.parametrize("case", FUNCTIONS)
@pytest.mark.parametrize("name", ["jacobian", "vjp", "jvp"])
def test_first_derivatives_are_those_of_pytorch(name: str, case: str, torch: Any) -> None:
    make, count = FUNCTIONS[case]
    check(arrays(call(name, cr, make, count)), arrays(call(name, torch, make, count)))


@pytest.mark.torch
@pytest.mark.parametrize("case", SCALARS)
@pytest.mark.parametrize("name", ["hessian", "hvp", "vhp"])
def test_second_derivatives_are_those_of_pytorch(name: str, case: str, torch: Any) -> None:
    make, count = SCALARS[case]
    check(arrays(call(name, cr, make, count)), arrays(call(name, torch, make, count)))


def test_a_quadratic_form() -> None:
    a = cr.tensor([[2.0, 1.0], [1.0, 4.0]], dtype=cr.float64)
    x = cr.tensor([1.0, -1.0], dtype=cr.float64)
    f = lambda x: 0.5 * (x @ (a @ x))
    np.testing.assert_allclose(hessian(f, x).numpy(), a.numpy())
    np.testing.assert_allclose(jacobian(lambda x: a @ x, x).numpy(), a.numpy())
    value, product = hvp(f, x, cr.tensor([1.0, 0.0], dtype=cr.float64))
    assert value.item() == 2.0
    assert isinstance(product, cr.Tensor)
    assert product.tolist() == [2.0, 1.0]
    _, slope = vjp(f, x)
    assert isinstance(slope, cr.Tensor)
    assert slope.tolist() == [1.0, -3.0]
    assert jvp(f, x, cr.tensor([1.0, 1.0], dtype=cr.float64))[1].item() == -2.0  # type: ignore[union-attr]
    assert not slope.requires_grad


def test_results_lead_back_under_create_graph() -> None:
    x = cr.tensor([1.0, 2.0], requires_grad=True)
    jacobian(lambda x: x * x * x, x, create_graph=True).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [6.0, 12.0]


def test_what_does_not_fit_is_refused() -> None:
    x = cr.ones(2)
    with pytest.raises(RuntimeError, match="does not require gradients"):
        jacobian(lambda x: x.detach(), x, strict=True)
    with pytest.raises(RuntimeError, match="independent of input 1"):
        jacobian(lambda x, y: x * 2, (x, x), strict=True)
    with pytest.raises(RuntimeError, match=r"should be \[2\] but got \[3\]"):
        vjp(lambda x: x * 2, x, cr.ones(3))
    with pytest.raises(RuntimeError, match="can only be None"):
        jvp(lambda x: x * 2, x)
    with pytest.raises(RuntimeError, match="single element"):
        vhp(lambda x: x * 2, x, x)
    with pytest.raises(TypeError, match="must be either a Tensor or a tuple"):
        jacobian(lambda x: x, 3.0)  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="vmap"):
        jacobian(lambda x: x, x, vectorize=True)
    with pytest.raises(NotImplementedError, match="forward-mode"):
        hessian(lambda x: x.sum(), x, outer_jacobian_strategy="forward-mode")  # type: ignore[arg-type]


MISTAKES: dict[str, Callable[[Any, Any], Any]] = {
    "a number as input": lambda m, f: f.vjp(lambda x: x, 3.0),
    "a number among inputs": lambda m, f: f.hvp(lambda x, y: x, (m.ones(2), 1)),
    "a number as output": lambda m, f: f.jacobian(lambda x: 3.0, m.ones(2)),
    "no v for several elements": lambda m, f: f.vjp(lambda x: x * 2, m.ones(2)),
    "no v for several inputs": lambda m, f: f.vhp(lambda x, y: x.sum(), (m.ones(2), m.ones(2))),
    "several v": lambda m, f: f.vjp(lambda x: x * 2, m.ones(2), (m.ones(2), m.ones(2))),
    "too few v": lambda m, f: f.jvp(lambda x, y: x * y, (m.ones(2), m.ones(2)), m.ones(2)),
    "several outputs": lambda m, f: f.hessian(lambda x: (x.sum(), x), m.ones(2)),
    "several elements": lambda m, f: f.hvp(lambda x: x, m.ones(2), m.ones(2)),
    "a detached output": lambda m, f: f.hessian(lambda x: x.detach(), m.ones(2), strict=True),
    "an unused input": lambda m, f: f.vjp(lambda x, y: x.sum(), (m.ones(2), m.ones(2)), strict=True),
    "an unused input of one output": lambda m, f: f.jacobian(
        lambda x, y: (x * y, x), (m.ones(2), m.ones(2)), strict=True
    ),
    "a linear function": lambda m, f: f.hessian(lambda x: x.sum(), m.ones(2), strict=True),
    "a constant slope": lambda m, f: f.vjp(lambda x: x.sum(), m.ones(2), create_graph=True, strict=True),
    "a constant curvature": lambda m, f: f.vhp(
        lambda x: (x * x).sum(), m.ones(2), m.ones(2), create_graph=True, strict=True
    ),
}


@pytest.mark.torch
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_raise_what_they_raise_in_pytorch(mistake: str, torch: Any) -> None:
    with pytest.raises((RuntimeError, TypeError)) as expected:
        MISTAKES[mistake](torch, torch.autograd.functional)
    builtin: Any = RuntimeError if isinstance(expected.value, RuntimeError) else TypeError
    with pytest.raises(builtin) as raised:
        MISTAKES[mistake](cr, cr.autograd.functional)
    assert str(raised.value) == str(expected.value)


@pytest.mark.torch
def test_jacobians_of_jacobians_are_those_of_pytorch(torch: Any) -> None:
    found = []
    for m in (cr, torch):
        a = m.tensor([1.0, 2.0], dtype=m.float64, requires_grad=True)
        b = m.tensor(3.0, dtype=m.float64)
        f = lambda x, y: (x * x * y, (x.sum() * y) ** 3)
        first = lambda x, y, m=m, f=f: m.autograd.functional.jacobian(f, (x, y), create_graph=True)
        second = m.autograd.functional.jacobian(lambda x, y, first=first: first(x, y)[1][0], (a, b), create_graph=True)
        second[0].sum().backward()
        found.append((second[0].tolist(), second[1].tolist(), a.grad.tolist(), b.requires_grad))
    assert found[0] == found[1]
