"""Losses are scaled, gradients scaled back, and steps with gradients that overflowed are left out: as PyTorch's."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from tests.engine.functions.agreement import to_array

Scenario = Callable[[Any], Any]


def parts(m: Any, **settings: Any) -> tuple[Any, Any, Any]:
    """A parameter, its optimizer, a scaler."""
    w = m.nn.Parameter(m.ones(2))
    return w, m.optim.SGD([w], lr=0.5), m.amp.GradScaler("cpu", **{"init_scale": 8.0, **settings})


def test_a_step_is_that_of_the_gradients_without_the_scale() -> None:
    w, optimizer, scaler = parts(cr)
    loss = scaler.scale((w * cr.tensor([1.0, 2.0])).sum())
    assert loss.item() == 24
    loss.backward()
    assert w.grad.tolist() == [8, 16]
    scaler.step(optimizer)
    scaler.update()
    assert w.grad.tolist() == [1, 2]
    assert w.tolist() == [0.5, 0]


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_step_with_gradients_that_overflowed_is_left_out_and_the_scale_halved(bad: float) -> None:
    w, optimizer, scaler = parts(cr)
    scaler.scale((w * cr.tensor([1.0, bad])).sum()).backward()
    assert scaler.step(optimizer) is None
    scaler.update()
    assert w.tolist() == [1, 1]
    assert scaler.get_scale() == 4


def test_gradients_can_be_clipped_in_between() -> None:
    w, optimizer, scaler = parts(cr)
    scaler.scale((w * cr.tensor([3.0, 4.0])).sum()).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_([w], 1.0)
    scaler.step(optimizer)
    np.testing.assert_allclose(w.detach().numpy(), [0.7, 0.6], rtol=1e-5)


def test_one_that_is_not_enabled_leaves_everything_as_it_is() -> None:
    w, optimizer, scaler = parts(cr, enabled=False)
    loss = (w * 2).sum()
    assert scaler.scale(loss) is loss
    loss.backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    scaler.load_state_dict({})
    assert w.tolist() == [0, 0]
    assert not scaler.is_enabled()
    assert scaler.get_scale() == 1.0
    assert scaler.state_dict() == {}


def test_containers_of_tensors_are_scaled() -> None:
    scaler = cr.amp.GradScaler("cpu", init_scale=2.0)
    one = cr.tensor(1.0)
    first, (second, third) = scaler.scale([one, (one, one.half())])
    assert [first.item(), second.item(), third.item()] == [2, 2, 2]
    assert third.dtype == cr.float32 or third.dtype == cr.float16
    assert next(scaler.scale(each for each in [one])).item() == 2


def scaled(m: Any) -> tuple[Any, Any, Any]:
    w, optimizer, scaler = parts(m)
    scaler.scale(w.sum()).backward()
    return w, optimizer, scaler


def course(m: Any) -> Any:
    """Scales over many steps, some of which overflow."""
    w, optimizer, scaler = parts(m, growth_interval=3, growth_factor=3.0, backoff_factor=0.25)
    found = []
    for step in range(14):
        optimizer.zero_grad()
        scaler.scale((w * (float("inf") if step in (4, 9) else 0.1)).sum()).backward()
        scaler.step(optimizer)
        scaler.update(5.0 if step == 6 else None)
        found.append([*scaler.state_dict().values()])
    return found, w.detach().tolist()


def until_it_cannot_grow(m: Any) -> Any:
    w, optimizer, scaler = parts(m, init_scale=2.0**126, growth_interval=1)
    for _ in range(3):
        w.grad = m.zeros(2)
        scaler.scale(w.sum())
        scaler.step(optimizer)
        scaler.update()
    return scaler.state_dict()


def loaded(m: Any) -> Any:
    _, optimizer, scaler = scaled(m)
    scaler.step(optimizer)
    scaler.update()
    fresh = m.amp.GradScaler("cpu")
    fresh.load_state_dict(scaler.state_dict())
    started = scaled(m)[2]
    started.load_state_dict({**scaler.state_dict(), "scale": 3.0})
    again = pickle.loads(pickle.dumps(scaler))
    settings = [scaler.get_growth_factor(), scaler.get_backoff_factor(), scaler.get_growth_interval()]
    scaler.set_growth_factor(4.0)
    scaler.set_backoff_factor(0.1)
    scaler.set_growth_interval(7)
    return fresh.state_dict(), started.state_dict(), again.state_dict(), settings, scaler.state_dict()


def half_parameters(m: Any) -> Any:
    w = m.nn.Parameter(m.ones(2, dtype=m.bfloat16))
    optimizer, scaler = m.optim.SGD([w], lr=0.5), m.amp.GradScaler("cpu", init_scale=3.0)
    scaler.scale((w * 0.3).sum()).backward()
    scaler.step(optimizer)
    return w.detach().float().tolist()


def new_scale(m: Any) -> Any:
    scaler = scaled(m)[2]
    scaler.update(m.tensor(7.0))
    return scaler.get_scale()


@pytest.mark.torch
@pytest.mark.parametrize("scenario", [course, until_it_cannot_grow, loaded, half_parameters, new_scale])
def test_it_goes_as_with_pytorch(scenario: Scenario, torch: Any) -> None:
    assert scenario(cr) == scenario(torch)


def twice(method: str) -> Scenario:
    def scenario(m: Any) -> None:
        _, optimizer, scaler = scaled(m)
        getattr(scaler, method)(optimizer)
        getattr(scaler, method)(optimizer)

    return scenario


def unscaled_after_a_step(m: Any) -> None:
    _, optimizer, scaler = scaled(m)
    scaler.step(optimizer)
    scaler.unscale_(optimizer)


def without_gradients(m: Any) -> None:
    w, optimizer, scaler = parts(m)
    scaler.scale(w.sum())
    scaler.step(optimizer)


def with_half_gradients(m: Any) -> None:
    w = m.nn.Parameter(m.ones(2, dtype=m.float16))
    optimizer, scaler = m.optim.SGD([w], lr=0.5), m.amp.GradScaler("cpu")
    scaler.scale(w.sum()).backward()
    scaler.unscale_(optimizer)


def pickled_in_between(m: Any) -> None:
    _, optimizer, scaler = scaled(m)
    scaler.unscale_(optimizer)
    pickle.dumps(scaler)


@pytest.mark.torch
@pytest.mark.parametrize(
    "scenario",
    [
        lambda m: m.amp.GradScaler("cpu", growth_factor=1.0),
        lambda m: m.amp.GradScaler("cpu", backoff_factor=1.0),
        lambda m: parts(m)[2].step(parts(m)[1]),
        lambda m: parts(m)[2].unscale_(parts(m)[1]),
        lambda m: parts(m)[2].update(),
        lambda m: parts(m)[2].scale(3),
        lambda m: parts(m)[2].scale([3]),
        lambda m: scaled(m)[2].update(),
        lambda m: scaled(m)[2].update(m.ones(2)),
        lambda m: scaled(m)[2].step(None, closure=3),
        lambda m: parts(m)[2].load_state_dict({}),
        twice("unscale_"),
        twice("step"),
        unscaled_after_a_step,
        without_gradients,
        with_half_gradients,
        pickled_in_between,
    ],
)
def test_it_is_refused_in_pytorchs_words(scenario: Scenario, torch: Any) -> None:
    with pytest.raises(Exception) as theirs:
        scenario(torch)
    with pytest.raises(theirs.type) as ours:
        scenario(cr)
    assert isinstance(ours.value, cr.ChainruleError)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.torch
def test_training_in_float16_with_a_scaler_is_pytorchs(torch: Any) -> None:
    found = []
    x, t = np.random.default_rng(0).normal(size=(2, 16, 6)).astype(np.float32)
    for m in (cr, torch):
        layer = m.nn.Linear(6, 6)
        with m.no_grad():
            layer.weight.copy_(m.eye(6))
            layer.bias.zero_()
        optimizer, scaler = m.optim.SGD(layer.parameters(), lr=0.1), m.amp.GradScaler("cpu")
        for _ in range(5):
            optimizer.zero_grad()
            with m.autocast("cpu", dtype=m.float16):
                loss = m.nn.functional.mse_loss(layer(m.tensor(x)), m.tensor(t))
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        found.append((to_array(layer.weight), to_array(layer.bias), scaler.state_dict()))
    (w, b, state), (their_w, their_b, their_state) = found
    np.testing.assert_allclose(w, their_w, atol=2e-3)
    np.testing.assert_allclose(b, their_b, atol=2e-3)
    assert state == their_state


def test_the_old_names_are_the_same_for_the_cpu() -> None:
    with pytest.warns(FutureWarning, match=r"torch\.cpu\.amp\.GradScaler\(args"):
        scaler = cr.cpu.amp.GradScaler(init_scale=4.0, growth_interval=5)
    assert scaler.is_enabled()
    assert scaler.state_dict()["scale"] == 4
    assert scaler.state_dict()["growth_interval"] == 5
    with pytest.warns(FutureWarning, match=r"torch\.cpu\.amp\.autocast\(args"):
        region = cr.cpu.amp.autocast(dtype=cr.float16)
    with region:
        assert (cr.ones(2, 2) @ cr.ones(2, 2)).dtype == cr.float16
