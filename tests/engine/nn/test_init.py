"""Parameters begin with PyTorch's distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.nn import init


@pytest.mark.parametrize(
    ("layer", "fan_in"), [(nn.Linear(64, 400), 64), (nn.Conv2d(8, 400, 3), 72), (nn.Conv2d(8, 400, 3, groups=4), 18)]
)
def test_weights_and_biases_are_uniform_within_one_over_root_fan_in(layer: nn.Linear | nn.Conv2d, fan_in: int) -> None:
    bound = 1 / math.sqrt(fan_in)
    assert layer.bias is not None
    for parameter in (layer.weight, layer.bias):
        values = parameter.detach().numpy()
        assert np.abs(values).max() <= bound
        assert np.abs(values).max() > 0.9 * bound
    weight = layer.weight.detach().numpy()
    assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_kaiming_and_xavier_have_their_spreads() -> None:
    w, g = cr.empty(300, 200), cr.Generator(0)
    assert init.kaiming_normal_(w, nonlinearity="relu", generator=g).numpy().std() == pytest.approx(0.1, rel=0.02)
    std = init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu", generator=g).numpy().std()
    assert std == pytest.approx(math.sqrt(2 / 300), rel=0.02)
    init.kaiming_uniform_(w, nonlinearity="relu", generator=g)
    assert abs(w.numpy()).max() == pytest.approx(math.sqrt(6 / 200), rel=0.01)
    init.xavier_uniform_(w, generator=g)
    assert abs(w.numpy()).max() == pytest.approx(math.sqrt(6 / 500), rel=0.01)


def test_filling_writes_in_place_without_recording() -> None:
    p = nn.Parameter(cr.empty(3))
    for fill, value in ((init.zeros_, 0.0), (init.ones_, 1.0)):
        assert fill(p) is p
        assert p.tolist() == [value] * 3
    init.constant_(p, 0.5)
    init.uniform_(p, 2, 3, cr.Generator(0))
    assert all(2 <= value < 3 for value in p.tolist())
    assert p.is_leaf
    assert p.requires_grad


def test_a_new_process_begins_with_the_same_weights() -> None:
    cr.manual_seed(7)
    a = nn.Linear(3, 2).weight.tolist()
    cr.manual_seed(7)
    assert nn.Linear(3, 2).weight.tolist() == a


def test_wrong_use_is_explained() -> None:
    with pytest.raises(cr.ShapeError, match="fewer than 2 dimensions"):
        init.kaiming_uniform_(cr.empty(3))
    with pytest.raises(cr.ConfigError, match="choose fan_in or fan_out"):
        init.kaiming_uniform_(cr.empty(3, 3), mode="fan")
    with pytest.raises(cr.ConfigError, match="choose one of leaky_relu"):
        init.calculate_gain("gelu")
