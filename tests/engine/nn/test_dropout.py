"""Dropout drops as often as asked, keeps the mean, is keyed by the generator, and does nothing when not training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.nn import functional as F
from tests.engine.nn.compared import close, draws
from tests.engine.nn.twins import same_error

FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "dropout": (F.dropout, (40, 50)),
    "dropout1d": (F.dropout1d, (40, 50, 3)),
    "dropout2d": (F.dropout2d, (40, 50, 3, 2)),
    "dropout3d": (F.dropout3d, (40, 50, 3, 1, 2)),
    "alpha_dropout": (F.alpha_dropout, (40, 50)),
    "feature_alpha_dropout": (F.feature_alpha_dropout, (40, 50, 2)),
}
by_function = pytest.mark.parametrize("name", FUNCTIONS)
LAYERS = ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout"]


def drawn(call: Callable[..., Any], *args: Any, seed: int = 7, **kwargs: Any) -> Any:
    with cr.random.using(cr.Generator(seed)):
        return call(*args, **kwargs)


@pytest.mark.parametrize("name", ["dropout", "dropout1d", "dropout2d", "dropout3d"])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_elements_or_channels_are_zero_with_probability_p_and_others_are_scaled(name: str, p: float) -> None:
    call, shape = FUNCTIONS[name]
    y = drawn(call, cr.ones(*shape), p).numpy()
    zero = y == 0
    np.testing.assert_allclose(y[~zero], 1 / (1 - p), rtol=1e-6)
    channels = zero.reshape(40, 50, -1)
    assert abs(channels[..., 0].mean() - p) < 0.04
    assert (channels == channels[..., :1]).all()


@pytest.mark.parametrize("name", ["alpha_dropout", "feature_alpha_dropout"])
def test_alpha_dropout_keeps_mean_and_variance(name: str) -> None:
    x = cr.randn(100, 500, generator=cr.Generator(0))
    y = drawn(FUNCTIONS[name][0], x, 0.3, training=True).numpy()
    assert abs(y.mean()) < 0.02
    assert abs(y.var() - 1) < 0.03


@by_function
def test_the_generator_decides_what_is_dropped(name: str) -> None:
    call, shape = FUNCTIONS[name]
    x = cr.ones(*shape)
    first, again, other = (drawn(call, x, 0.5, training=True, seed=seed) for seed in (1, 1, 2))
    assert cr.equal(first, again)
    assert not cr.equal(first, other)
    with cr.random.using(cr.Generator(1)):
        call(x, 0.5, training=True)
        assert not cr.equal(call(x, 0.5, training=True), first)


@by_function
@pytest.mark.parametrize("settings", [{"p": 0.0, "training": True}, {"p": 0.5, "training": False}])
def test_without_anything_to_drop_the_input_itself_comes_back(name: str, settings: dict[str, Any]) -> None:
    call, shape = FUNCTIONS[name]
    generator = cr.Generator(1)
    x = cr.ones(*shape)
    with cr.random.using(generator):
        assert call(x, **settings) is x
    assert generator.get_state() == cr.Generator(1).get_state()


@pytest.mark.torch
@by_function
def test_with_probability_1_everything_is_what_pytorch_makes_it(name: str, torch: Any) -> None:
    call, shape = FUNCTIONS[name]
    array = draws(shape)[0]
    x, t = cr.tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
    y, expected = call(x, 1.0, training=True), getattr(torch.nn.functional, name)(t, 1.0, training=True)
    close(y, expected)
    y.sum().backward()
    expected.sum().backward()
    close(x.grad, t.grad)


@by_function
def test_the_gradient_passes_where_the_value_does(name: str) -> None:
    call, shape = FUNCTIONS[name]
    x = cr.tensor(draws(shape)[0], requires_grad=True)
    y = drawn(call, x, 0.4, training=True)
    y.sum().backward()
    step = 1.0
    moved = drawn(call, cr.tensor(draws(shape)[0] + step), 0.4, training=True)
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), moved.numpy() - y.detach().numpy(), atol=1e-5)


@by_function
def test_inplace_writes_into_the_input(name: str) -> None:
    call, shape = FUNCTIONS[name]
    array = draws(shape)[0]
    x = cr.tensor(array)
    expected = drawn(call, cr.tensor(array), 0.5, training=True)
    assert drawn(call, x, 0.5, training=True, inplace=True) is x
    assert cr.equal(x, expected)


def test_dropout_keeps_the_dtype() -> None:
    for dtype in (cr.float64, cr.float16, cr.bfloat16):
        assert drawn(F.dropout, cr.ones(4, dtype=dtype)).dtype == dtype


def test_nothing_can_be_dropped_from_an_empty_tensor() -> None:
    x = cr.ones(0, 3)
    assert F.dropout(x) is x


@pytest.mark.torch
@pytest.mark.parametrize("name", LAYERS)
def test_layer_prints_as_pytorchs_and_drops_while_training_only(name: str, torch: Any) -> None:
    for settings in ({}, {"p": 0.2}, {"p": 0.3, "inplace": True}):
        assert repr(getattr(nn, name)(**settings)) == repr(getattr(torch.nn, name)(**settings))
    layer = getattr(nn, name)(0.5)
    shape = {"Dropout2d": (8, 9, 2, 2), "Dropout3d": (8, 9, 2, 1, 2)}.get(name, (8, 9, 2))
    x = cr.ones(*shape)
    assert not cr.equal(drawn(layer, x), x)
    assert layer.eval()(x) is x


@pytest.mark.torch
@pytest.mark.parametrize(
    "scenario",
    [
        lambda m: m.nn.functional.dropout(m.ones(3), 1.5),
        lambda m: m.nn.functional.dropout(m.ones(3), -0.5),
        lambda m: m.nn.functional.dropout(m.ones(3).long()),
        lambda m: m.nn.functional.dropout1d(m.ones(3)),
        lambda m: m.nn.Dropout(2),
        lambda m: m.nn.AlphaDropout(-1),
    ],
)
def test_wrong_use_is_refused_as_by_pytorch(scenario: Callable[[Any], Any], torch: Any) -> None:
    same_error(torch, scenario)


def test_unusual_dimensions_warn() -> None:
    with pytest.warns(UserWarning, match="Received a 3D input to dropout2d"):
        F.dropout2d(cr.ones(2, 3, 4))
    with pytest.warns(UserWarning, match="Received a 2-D input to dropout2d"):
        F.dropout2d(cr.ones(2, 3))
    with pytest.warns(UserWarning, match="Received a 3-D input to dropout3d"):
        F.dropout3d(cr.ones(2, 3, 4))
    with pytest.raises(cr.ShapeError, match="at least 2 dimensions"):
        F.feature_alpha_dropout(cr.ones(3), training=True)
