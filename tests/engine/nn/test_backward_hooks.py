"""Backward hooks see, and may replace, the gradients that PyTorch's do."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from tests.engine.nn.twins import both, same_error


def _listed(gradients: Any) -> list[Any]:
    return [None if g is None else g.tolist() for g in gradients]


def _logged(module: Any) -> list[Any]:
    log: list[Any] = []
    module.register_full_backward_pre_hook(lambda owner, out: log.append(("before", _listed(out))))
    module.register_full_backward_hook(lambda owner, inp, out: log.append(("after", _listed(inp), _listed(out))))
    return log


def _several(m: Any) -> Any:
    class Several(m.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any, y: Any, unused: Any = None) -> Any:
            return x * y, x + 1, "text"

    return Several()


def _x(m: Any) -> Any:
    return m.tensor([1.0, 2.0], requires_grad=True)


def _run(m: Any, use: Callable[[Any, Any, Any], Any]) -> Any:
    module, x = _several(m), _x(m)
    log = _logged(module)
    use(m, module, x).sum().backward()
    return log, x.grad.tolist()


USES: list[Callable[[Any, Any, Any], Any]] = [
    lambda m, module, x: module(x, m.tensor([3.0, 4.0]))[0],
    lambda m, module, x: module(x, m.tensor([3.0, 4.0]))[1],
    lambda m, module, x: sum(module(x * 2, x * x)[:2]),
    lambda m, module, x: sum(module(x, x)[:2]),
    lambda m, module, x: module(x, m.tensor(2), x * 3)[0],
    lambda m, module, x: module(x, 2.0, m.tensor([1]))[0],
    lambda m, module, x: x * module(x.detach(), m.tensor([1.0, 1.0]))[0],
    lambda m, module, x: module(*module(x, m.tensor([3.0, 4.0]))[:2])[0],
]


@pytest.mark.torch
@pytest.mark.parametrize("number", range(len(USES)))
def test_hooks_see_pytorchs_gradients(torch: Any, number: int) -> None:
    mine, theirs = both(torch, lambda m: _run(m, USES[number]))
    assert mine == theirs


def _replacing(m: Any) -> Any:
    module, x = m.nn.Identity(), _x(m)
    module.register_full_backward_hook(lambda owner, inp, out: (inp[0] * 10 + out[0],))
    module.register_full_backward_hook(lambda owner, inp, out: (inp[0] + 5,), prepend=True)
    module.register_full_backward_pre_hook(lambda owner, out: (out[0] + 1,))
    module.register_full_backward_pre_hook(lambda owner, out: (out[0] * 3,), prepend=True)
    module(x).sum().backward()
    return x.grad.tolist()


@pytest.mark.torch
def test_hooks_replace_gradients_in_pytorchs_order(torch: Any) -> None:
    mine, theirs = both(torch, _replacing)
    assert mine == theirs


def test_a_watched_model_learns_what_an_unwatched_one_does() -> None:
    x: Any = cr.rand(4, 3, requires_grad=True)
    net: Any = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    net(x).square().sum().backward()
    expected = [p.grad.tolist() for p in (x, *net.parameters())]
    net.zero_grad()
    x.grad = None
    logs = [_logged(module) for module in net.modules()]
    net(x).square().sum().backward()
    assert [p.grad.tolist() for p in (x, *net.parameters())] == expected
    assert all(len(log) == 2 for log in logs)


@pytest.mark.torch
def test_gradients_of_gradients_pass_through_hooks(torch: Any) -> None:
    def twice(m: Any) -> Any:
        module, x = m.nn.Sigmoid(), m.tensor([0.5, -1.0], dtype=m.float64, requires_grad=True)
        module.register_full_backward_hook(lambda owner, inp, out: (inp[0] * 2,))
        (g,) = m.autograd.grad(module(x).sum(), x, create_graph=True)
        g.square().sum().backward()
        return x.grad.tolist()

    mine, theirs = both(torch, twice)
    assert mine == pytest.approx(theirs, rel=1e-14)


def _without_inputs(m: Any, result: Any = None) -> Any:
    layer = m.nn.Linear(2, 1)
    log = _logged(layer)
    layer.register_full_backward_hook(lambda owner, inp, out: result)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        layer(m.ones(1, 2)).sum().backward()
    return log, layer.weight.grad.tolist(), [str(warning.message).partition(" See")[0] for warning in caught]


@pytest.mark.torch
def test_without_gradients_of_inputs_hooks_see_those_of_outputs_and_a_warning(torch: Any) -> None:
    mine, theirs = both(torch, _without_inputs)
    assert mine == theirs


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_a_wrong_number_of_gradients_is_refused_in_pytorchs_words(torch: Any, kind: str) -> None:
    def wrong(m: Any) -> None:
        module = m.nn.Identity()
        getattr(module, kind)(lambda owner, *gradients: (None, None, None))
        module(_x(m)).sum().backward()

    same_error(torch, wrong)
    same_error(torch, lambda m: _without_inputs(m, (m.ones(1),)))


def test_an_output_that_cannot_be_watched_warns() -> None:
    class Dict(nn.Module):
        def forward(self, x: cr.Tensor) -> dict[str, cr.Tensor]:
            return {"y": x}

    module = Dict()
    module.register_full_backward_hook(lambda *given: None)
    with pytest.warns(UserWarning, match="module output should be a Tensor or a tuple of Tensors but received"):
        module(cr.ones(1, requires_grad=True))


def test_nothing_is_watched_where_nothing_is_recorded_or_after_removal() -> None:
    layer = nn.Identity()
    handle = layer.register_full_backward_hook(lambda *given: None)
    x = cr.ones(1, requires_grad=True)
    with cr.no_grad():
        assert layer(x) is x
    watched = layer(x)
    assert watched.grad_fn.name() == "BackwardHookFunctionBackward"
    handle.remove()
    assert layer(x) is x
