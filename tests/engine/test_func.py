"""Modules called with other parameters than their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.func import functional_call


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(2, 2, bias=False)
        self.b = nn.Linear(2, 2, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x: cr.Tensor) -> cr.Tensor:
        y: cr.Tensor = self.b(self.a(x))
        return y


def test_gradients_flow_through_a_step_of_an_inner_loop() -> None:
    layer = nn.Linear(2, 1, bias=False)
    own = layer.weight
    x = cr.tensor([[1.0, 2.0]])
    (g,) = cr.autograd.grad(layer(x).square().sum(), own, create_graph=True)
    assert g is not None
    functional_call(layer, {"weight": own - 0.1 * g}, (x,)).sum().backward()
    # y = x·(w − 0.2 x (x·w)) = x·w (1 − 0.2 x·x), so dy/dw = x (1 − 0.2·5)
    assert own.grad is not None
    assert np.allclose(own.grad.data, 0, atol=1e-6)
    assert layer.weight is own


def test_what_the_module_has_is_put_back_even_if_the_call_fails() -> None:
    norm = nn.BatchNorm1d(2)
    mean = norm.running_mean
    other = {"running_mean": cr.ones(2), "weight": cr.zeros(2)}
    assert functional_call(norm, other, cr.ones(3, 2)).tolist() == [[0, 0]] * 3
    with pytest.raises(cr.ShapeError):
        functional_call(norm, other, cr.ones(3, 5))
    assert norm.running_mean is mean
    assert norm.weight is not None
    assert norm.weight.tolist() == [1, 1]


def test_a_parameter_with_two_names_is_replaced_under_both() -> None:
    module, x = Tied(), cr.ones(1, 2)
    twice = 2 * cr.eye(2)
    assert functional_call(module, {"a.weight": twice}, x).tolist() == [[4, 4]]
    once = functional_call(module, {"a.weight": twice}, x, tie_weights=False)
    assert cr.equal(once, module.a(2 * x))
    with pytest.raises(cr.ArgumentError, match=r"'a\.weight' and 'b\.weight' are one parameter"):
        functional_call(module, {"a.weight": twice, "b.weight": cr.eye(2)}, x)


def test_names_that_do_not_fit_are_refused() -> None:
    layer = nn.Linear(2, 1)
    with pytest.raises(cr.StateDictError, match=r"Unexpected key\(s\): w"):
        functional_call(layer, {"w": cr.ones(1, 2)}, cr.ones(1, 2))
    with pytest.raises(cr.StateDictError, match=r"Missing key\(s\): bias"):
        functional_call(layer, {"weight": cr.ones(1, 2)}, cr.ones(1, 2), strict=True)
    with pytest.raises(cr.ArgumentError, match="'bias' is given twice"):
        functional_call(layer, [{"bias": cr.ones(1)}, {"bias": cr.zeros(1)}], cr.ones(1, 2))


@pytest.mark.torch
@pytest.mark.parametrize("strict", [False, True])
def test_results_are_pytorchs(torch: Any, strict: bool) -> None:
    results = []
    for m in (cr, torch):
        net = m.nn.Sequential(m.nn.Linear(2, 3), m.nn.BatchNorm1d(3), m.nn.Dropout(0.0))
        state = {
            name: m.tensor(np.arange(p.numel(), dtype=np.float32).reshape(tuple(p.shape)) + 1)
            for name, p in net.named_parameters()
        }
        func = cr.func if m is cr else torch.func
        buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
        y = func.functional_call(net, (state, buffers), (m.tensor([[1.0, 2.0], [3.0, -1.0]]),), strict=strict)
        results.append([y.detach().numpy(), buffers["1.running_mean"].numpy(), net[1].running_mean.numpy()])
    for ours, theirs in zip(*results, strict=True):
        assert np.allclose(ours, theirs, atol=1e-6)
