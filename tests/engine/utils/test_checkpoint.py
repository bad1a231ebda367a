"""Checkpointing: less memory, the same gradients."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.utils.checkpoint import checkpoint, checkpoint_sequential


def block() -> nn.Sequential:
    cr.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6), nn.Sigmoid())


def gradients(model: nn.Module, run: Any, x: cr.Tensor) -> list[Any]:
    for parameter in model.parameters():
        parameter.grad = None
    x.grad = None
    (run(x) ** 2).sum().backward()
    return [None if p.grad is None else p.grad.numpy().copy() for p in [*model.parameters(), x]]


def test_gradients_have_the_bits_of_the_plain_computation() -> None:
    model, x = block(), cr.linspace(-1, 1, 12).reshape(2, 6).requires_grad_()
    plain = gradients(model, model, x)
    again = gradients(model, lambda x: checkpoint(model, x), x)
    for g, h in zip(plain, again, strict=True):
        np.testing.assert_array_equal(g, h)


def test_it_works_with_grad_and_for_second_derivatives() -> None:
    w = cr.tensor([1.5], dtype=cr.float64, requires_grad=True)

    def f(x: cr.Tensor) -> cr.Tensor:
        return cr.tanh(x * w) * x

    def checkpointed(x: cr.Tensor) -> Any:
        return checkpoint(f, x)

    found = []
    for run in (f, checkpointed):
        x = cr.tensor([0.3, -0.7], dtype=cr.float64, requires_grad=True)
        assert cr.autograd.gradcheck(run, (x,))
        assert cr.autograd.gradgradcheck(run, (x,))
        (g,) = cr.autograd.grad(run(x).sum(), w, create_graph=True)
        assert g is not None
        (h,) = cr.autograd.grad(g, w)
        assert h is not None
        found.append(h.item())
    assert found[0] == found[1] != 0


def test_inputs_that_need_no_gradient_do_not_stop_that_of_the_parameters() -> None:
    model, x = block(), cr.ones(1, 6)
    checkpoint(model, x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_nothing_is_held_until_backward() -> None:
    kept: list[weakref.ref[cr.Tensor]] = []

    def f(x: cr.Tensor) -> cr.Tensor:
        hidden = x.exp()
        kept.append(weakref.ref(hidden))
        return (hidden * hidden).sum()

    x = cr.ones(4, requires_grad=True)
    y = checkpoint(f, x)
    gc.collect()
    assert kept[0]() is None
    y.backward()
    assert len(kept) == 2
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.exp(2), rtol=1e-6)


def test_random_draws_are_repeated() -> None:
    def noisy(x: cr.Tensor) -> cr.Tensor:
        return (x * (cr.rand(5) > 0.5).float()).sum()

    cr.manual_seed(3)
    x = cr.ones(5, requires_grad=True)
    y = checkpoint(noisy, x)
    after = cr.rand(1).item()
    y.backward()
    next_draw = cr.rand(1).item()
    cr.manual_seed(3)
    mask = (cr.rand(5) > 0.5).float()
    assert x.grad is not None
    assert x.grad.tolist() == mask.tolist()
    assert [cr.rand(1).item(), cr.rand(1).item()] == [after, next_draw]


def test_nested_checkpoints_and_a_second_backward() -> None:
    x = cr.tensor([0.5, 1.0], requires_grad=True)

    def inner(x: cr.Tensor) -> Any:
        return checkpoint(cr.tanh, x * 2)

    y = checkpoint(lambda x: (inner(x) * x).sum(), x)
    y.backward(retain_graph=True)
    y.backward()
    plain = x.detach().requires_grad_()
    (cr.tanh(plain * 2) * plain).sum().backward()
    assert x.grad is not None
    assert plain.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), 2 * plain.grad.numpy(), rtol=1e-6)
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_a_function_that_computes_something_else_the_second_time_is_refused() -> None:
    calls: list[int] = []

    def fickle(x: cr.Tensor) -> cr.Tensor:
        calls.append(1)
        return x.exp() if len(calls) == 1 else x.exp().exp()

    with pytest.raises(RuntimeError, match="it has to compute the same each time"):
        checkpoint(fickle, cr.ones(1, requires_grad=True)).backward()


def test_an_input_that_was_written_to_is_refused() -> None:
    a = cr.ones(1, requires_grad=True)
    x = a * 1
    y = checkpoint(cr.exp, x)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_modules_in_segments() -> None:
    model, x = block(), cr.ones(1, 6, requires_grad=True)
    plain = gradients(model, model, x)
    for segments in (1, 2, 3, 4):
        again = gradients(model, lambda x, n=segments: checkpoint_sequential(model, n, x), x)
        for g, h in zip(plain, again, strict=True):
            np.testing.assert_array_equal(g, h)
    with pytest.raises(ValueError, match="segments=5"):
        checkpoint_sequential(model, 5, x)


def test_what_is_not_supported_says_so() -> None:
    with pytest.raises(NotImplementedError, match="use_reentrant"):
        checkpoint(cr.exp, cr.ones(1), use_reentrant=True)


def test_without_recording_it_is_just_a_call() -> None:
    with cr.no_grad():
        assert checkpoint(cr.exp, cr.zeros(1, requires_grad=True)).item() == 1.0


def test_the_second_call_computes_in_the_precision_of_the_first() -> None:
    model, x = block(), cr.linspace(-1, 1, 12).reshape(2, 6).requires_grad_()

    def lowered(run: Any) -> Any:
        def call(x: cr.Tensor) -> Any:
            with cr.autocast("cpu"):
                model(x)  # its parameters are converted already
                return run(x)

        return call

    plain = gradients(model, lowered(model), x)
    again = gradients(model, lowered(lambda x: checkpoint(model, x)), x)
    for g, h in zip(plain, again, strict=True):
        np.testing.assert_array_equal(g, h)
    wide = gradients(model, model, x)
    with cr.autocast("cpu"):
        with cr.autocast("cpu", enabled=False):
            y = checkpoint(model, x)
        for leaf in [*model.parameters(), x]:
            leaf.grad = None
        (y**2).sum().backward()
    for g, leaf in zip(wide, [*model.parameters(), x], strict=True):
        assert leaf.grad is not None
        np.testing.assert_array_equal(g, leaf.grad.numpy())
