"""Hooks of tensors and nodes, and gradients that are kept."""

from __future__ import annotations

from typing import Any

import pytest

import chainrule.engine as cr


def leaf(*values: float) -> cr.Tensor:
    return cr.tensor(values, requires_grad=True)


def test_a_hook_sees_the_gradient_and_may_replace_it() -> None:
    x = leaf(1.0, 2.0)
    seen: list[Any] = []
    y = x * 3
    y.register_hook(lambda g: seen.append(g.tolist()))
    y.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: g + 1)
    y.sum().backward()
    assert seen == [[1.0, 1.0]]
    assert x.grad is not None
    assert x.grad.tolist() == [31.0, 31.0]


def test_a_hook_of_a_leaf_sees_the_whole_gradient_once() -> None:
    x = leaf(1.0)
    seen: list[Any] = []
    handle = x.register_hook(lambda g: seen.append(g.item()))
    (x * 2 + x * 3).backward()
    assert seen == [5.0]
    (g,) = cr.autograd.grad(x * 4, x)
    assert g is not None
    assert seen == [5.0, 4.0]
    handle.remove()
    (x * 2).backward()
    assert seen == [5.0, 4.0]


def test_hooks_that_misbehave_are_refused() -> None:
    x = leaf(1.0)
    with pytest.raises(RuntimeError, match="doesn't require gradient"):
        cr.ones(1).register_hook(lambda g: g)
    handle = x.register_hook(lambda g: cr.ones(3))
    with pytest.raises(RuntimeError, match=r"has changed the size of value: \[3\], not \[1\]"):
        (x * 1).backward()
    handle.remove()
    x.register_hook(lambda g: 3.0)
    with pytest.raises(RuntimeError, match=r"expected Variable, but hook .* returned .float"):
        (x * 1).backward()


def test_hooks_of_nodes_see_what_goes_in_and_out() -> None:
    x, w = leaf(2.0), leaf(5.0)
    y = x * w
    node = y.grad_fn
    assert node is not None
    seen: list[Any] = []
    node.register_prehook(lambda gs: (gs[0] * 2,))
    node.register_hook(lambda inputs, outputs: seen.append(([g.item() for g in inputs], [g.item() for g in outputs])))
    handle = node.register_hook(lambda inputs, outputs: (inputs[0] * 100, inputs[1]))
    y.backward(retain_graph=True)
    assert seen == [([10.0, 4.0], [2.0])]
    assert x.grad is not None
    assert w.grad is not None
    assert (x.grad.item(), w.grad.item()) == (1000.0, 4.0)
    handle.remove()
    y.backward()
    assert x.grad.item() == 1010.0


def test_the_gradient_of_what_is_no_leaf_is_kept_on_request() -> None:
    x = leaf(1.0, 2.0)
    y = x * 3
    y.retain_grad()
    y.retain_grad()
    (y * y).sum().backward()
    assert y.retains_grad
    assert y.grad is not None
    assert y.grad.tolist() == [6.0, 12.0]
    assert not x.retains_grad
    with pytest.raises(RuntimeError, match="requires_grad=False"):
        cr.ones(1).retain_grad()


def test_post_accumulate_hooks_run_when_the_gradient_is_there() -> None:
    x = leaf(1.0)
    seen: list[Any] = []
    x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.item()))
    (x * 2).backward()
    (x * 3).backward()
    assert seen == [2.0, 5.0]
    with pytest.raises(RuntimeError, match="non-leaf"):
        (x * 2).register_post_accumulate_grad_hook(lambda t: None)


def test_an_optimizer_can_step_as_soon_as_a_gradient_is_final() -> None:
    x = leaf(1.0)

    def step(t: cr.Tensor) -> None:
        assert t.grad is not None
        with cr.no_grad():
            t -= 0.5 * t.grad
        t.grad = None

    x.register_post_accumulate_grad_hook(step)
    for _ in range(3):
        (x * x).backward()
    assert x.item() == 0.0
    assert x.grad is None


def test_hooks_are_recorded_under_create_graph() -> None:
    x = leaf(3.0)
    y = x * x
    y.register_hook(lambda g: g * x)
    (g,) = cr.autograd.grad(y, x, create_graph=True)  # 2x · x
    assert g is not None
    (gg,) = cr.autograd.grad(g, x)
    assert gg is not None
    assert (g.item(), gg.item()) == (18.0, 12.0)


def test_what_a_hook_computes_is_not_recorded_otherwise() -> None:
    x = leaf(3.0)
    modes: list[bool] = []
    x.register_hook(lambda g: modes.append(cr.is_grad_enabled()))
    (x * 1).backward()
    (x * 1).backward(create_graph=True)
    assert modes == [False, True]


@pytest.mark.torch
def test_hooks_agree_with_pytorch(torch: Any) -> None:
    def run(m: Any) -> list[Any]:
        seen: list[Any] = []
        x = m.tensor([1.0, -2.0], requires_grad=True)
        y = x * 2
        y.retain_grad()
        y.register_hook(lambda g: g * 3)
        y.mul_(x)
        y.register_hook(lambda g: seen.append(g.tolist()))
        z = y[0] * 5
        z.register_hook(lambda g: -g)
        (z + y.sum()).backward()
        return [x.grad.tolist(), y.grad.tolist(), seen]

    assert run(cr) == run(torch)


def test_what_hooks_keep_does_not_change_with_the_next_backward() -> None:
    x = leaf(1.0)
    kept: list[Any] = []
    x.register_hook(kept.append)
    y = x * 2
    assert y.grad_fn is not None
    y.grad_fn.register_hook(lambda inputs, outputs: kept.append(inputs[0]))
    y.backward(retain_graph=True)
    y.backward()
    assert [g.tolist() for g in kept] == [[2.0]] * 4
    assert x.grad is not None
    assert x.grad.tolist() == [4.0]
