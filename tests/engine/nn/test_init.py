"""Parameters begin with PyTorch's distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.nn import init
from chainrule.engine.nn.normal_quantile import normal_quantile
from tests.engine.nn.twins import same_error


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


# ---- The others ----

WEIGHTS = [(300, 200), (64, 32, 3, 3), (20, 30, 5)]


@pytest.mark.torch
@pytest.mark.parametrize("shape", WEIGHTS)
def test_fans_are_pytorchs(torch: Any, shape: tuple[int, ...]) -> None:
    expected = torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(*shape))
    assert init.fans(cr.empty(*shape)) == expected


@pytest.mark.torch
@pytest.mark.parametrize("shape", WEIGHTS)
@pytest.mark.parametrize(
    "fill",
    [
        lambda m, w: m.xavier_uniform_(w, gain=2.0),
        lambda m, w: m.kaiming_uniform_(w, a=0.3),
        lambda m, w: m.kaiming_uniform_(w, mode="fan_out", nonlinearity="tanh"),
        lambda m, w: m.uniform_(w, -3.0, 1.0),
    ],
)
def test_bounds_are_pytorchs(torch: Any, fill: Callable[[Any, Any], Any], shape: tuple[int, ...]) -> None:
    cr.manual_seed(0)
    torch.manual_seed(0)
    mine = fill(init, cr.empty(*shape)).numpy()
    theirs = fill(torch.nn.init, torch.empty(*shape)).numpy()
    width = float(theirs.max() - theirs.min())
    assert mine.max() == pytest.approx(theirs.max(), abs=0.01 * width)
    assert mine.min() == pytest.approx(theirs.min(), abs=0.01 * width)
    assert mine.std() == pytest.approx(width / math.sqrt(12), rel=0.05)


@pytest.mark.torch
@pytest.mark.parametrize("shape", WEIGHTS)
@pytest.mark.parametrize(
    "fill",
    [
        lambda m, w: m.xavier_normal_(w, gain=0.5),
        lambda m, w: m.kaiming_normal_(w, a=0.3),
        lambda m, w: m.kaiming_normal_(w, mode="fan_out", nonlinearity="selu"),
        lambda m, w: m.normal_(w, 1.0, 0.2),
        lambda m, w: m.trunc_normal_(w, 1.0, 2.0, -1.0, 2.0),
        lambda m, w: m.trunc_normal_(w, std=0.02),
    ],
)
def test_moments_are_pytorchs(torch: Any, fill: Callable[[Any, Any], Any], shape: tuple[int, ...]) -> None:
    cr.manual_seed(0)
    torch.manual_seed(0)
    mine = fill(init, cr.empty(*shape)).numpy()
    theirs = fill(torch.nn.init, torch.empty(*shape)).numpy()
    assert mine.std() == pytest.approx(theirs.std(), rel=0.05)
    assert mine.mean() == pytest.approx(theirs.mean(), abs=0.05 * float(theirs.std()))


@pytest.mark.parametrize(("mean", "std", "a", "b"), [(0, 1, -2, 2), (1, 2, -1, 2), (0, 1, 1, math.inf), (5, 1, -1, 4)])
def test_a_truncated_normal_has_its_quantiles(mean: float, std: float, a: float, b: float) -> None:
    x = init.trunc_normal_(cr.empty(20000, dtype=cr.float64), mean, std, a, b, cr.Generator(3)).numpy()
    assert x.min() >= a
    assert x.max() <= b
    normal = NormalDist(mean, std)
    low, high = normal.cdf(a), 1.0 if math.isinf(b) else normal.cdf(b)
    for share in (0.1, 0.5, 0.9):
        assert np.quantile(x, share) == pytest.approx(normal.inv_cdf(low + share * (high - low)), abs=0.05)


def test_a_truncated_normal_far_from_its_mean_warns() -> None:
    with pytest.warns(UserWarning, match=r"mean is more than 2 std from \[a, b\]"):
        x = init.trunc_normal_(cr.empty(10), 0.0, 1.0, 3.0, 4.0)
    assert all(3 <= value <= 4 for value in x.tolist())


def test_the_normal_quantile_is_right_to_15_digits() -> None:
    p = np.concatenate([np.linspace(1e-9, 1 - 1e-9, 501), [1e-300, 1e-20, 0.075, 0.925, 1 - 1e-16]])
    expected = [NormalDist().inv_cdf(float(share)) for share in p]
    np.testing.assert_allclose(normal_quantile(p), expected, rtol=1e-15, atol=1e-15)
    assert normal_quantile(np.array([0.0, 0.5, 1.0])).tolist() == [-math.inf, 0.0, math.inf]


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (4, 3, 2), (6, 6)])
def test_orthogonal_weights_are_orthonormal_times_the_gain(shape: tuple[int, ...]) -> None:
    w = init.orthogonal_(cr.empty(*shape, dtype=cr.float64), gain=2.0).numpy().reshape(shape[0], -1)
    gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-12)


def test_orthogonal_weights_are_evenly_distributed() -> None:
    g = cr.Generator(0)
    signs = [np.sign(init.orthogonal_(cr.empty(2, 2), generator=g).numpy()[0, 0]) for _ in range(200)]
    assert 70 <= sum(sign > 0 for sign in signs) <= 130


def test_sparse_weights_are_0_in_a_share_of_each_column() -> None:
    w = init.sparse_(cr.empty(1000, 7), 0.3, std=0.1, generator=cr.Generator(1)).numpy()
    assert ((w == 0).sum(axis=0) == 300).all()
    assert w[w != 0].std() == pytest.approx(0.1, rel=0.05)
    assert len({tuple(column) for column in (w == 0).T}) == 7


@pytest.mark.torch
@pytest.mark.parametrize(("shape", "groups"), [((4, 2, 3), 1), ((4, 2, 3, 2), 2), ((6, 4, 3, 3, 1), 3), ((2, 5, 2), 1)])
def test_dirac_is_pytorchs(torch: Any, shape: tuple[int, ...], groups: int) -> None:
    mine = init.dirac_(cr.empty(*shape), groups).numpy()
    assert np.array_equal(mine, torch.nn.init.dirac_(torch.empty(*shape), groups).numpy())


@pytest.mark.torch
@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2)])
def test_eye_is_pytorchs(torch: Any, shape: tuple[int, ...]) -> None:
    assert np.array_equal(init.eye_(cr.empty(*shape)).numpy(), torch.nn.init.eye_(torch.empty(*shape)).numpy())


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "param"),
    [
        *[(name, None) for name in ("linear", "conv2d", "conv_transpose3d", "sigmoid", "tanh", "relu", "selu")],
        *[("leaky_relu", param) for param in (None, 0.2, 1)],
    ],
)
def test_gains_are_pytorchs(torch: Any, name: str, param: float | None) -> None:
    assert init.calculate_gain(name, param) == torch.nn.init.calculate_gain(name, param)


def test_the_same_generator_draws_the_same_and_no_other_is_touched() -> None:
    fills: list[Callable[[Any, cr.Generator], Any]] = [
        lambda w, g: init.uniform_(w, generator=g),
        lambda w, g: init.normal_(w, generator=g),
        lambda w, g: init.trunc_normal_(w, generator=g),
        lambda w, g: init.xavier_uniform_(w, generator=g),
        lambda w, g: init.xavier_normal_(w, generator=g),
        lambda w, g: init.kaiming_uniform_(w, generator=g),
        lambda w, g: init.kaiming_normal_(w, generator=g),
        lambda w, g: init.orthogonal_(w, generator=g),
        lambda w, g: init.sparse_(w, 0.5, generator=g),
    ]
    before = cr.random.default_generator.get_state()
    for fill in fills:
        a, b = (fill(cr.empty(4, 3), cr.Generator(5)).tolist() for _ in range(2))
        assert a == b
        assert a != fill(cr.empty(4, 3), cr.Generator(6)).tolist()
    assert cr.random.default_generator.get_state() == before


def test_nothing_is_drawn_for_no_elements() -> None:
    for fill in (init.kaiming_uniform_, init.kaiming_normal_):
        with pytest.warns(UserWarning, match="Initializing zero-element tensors is a no-op"):
            assert fill(cr.empty(0, 3)).shape == (0, 3)
    assert init.orthogonal_(cr.empty(0, 3)).shape == (0, 3)


REFUSED: list[Callable[[Any], Any]] = [
    lambda m: m.nn.init.xavier_uniform_(m.empty(3)),
    lambda m: m.nn.init.kaiming_normal_(m.empty(3)),
    lambda m: m.nn.init.eye_(m.empty(3)),
    lambda m: m.nn.init.sparse_(m.empty(3), 0.5),
    lambda m: m.nn.init.dirac_(m.empty(3, 3)),
    lambda m: m.nn.init.dirac_(m.empty(3, 3, 3), 2),
    lambda m: m.nn.init.orthogonal_(m.empty(3)),
    lambda m: m.nn.init.calculate_gain("leaky_relu", "steep"),
]


@pytest.mark.torch
@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_wrong_use_is_refused_in_pytorchs_words(torch: Any, number: int) -> None:
    same_error(torch, REFUSED[number])


def test_wrong_use_is_explained() -> None:
    with pytest.raises(cr.ShapeError, match="fewer than 2 dimensions"):
        init.kaiming_uniform_(cr.empty(3))
    with pytest.raises(cr.ConfigError, match="choose fan_in or fan_out"):
        init.kaiming_uniform_(cr.empty(3, 3), mode="fan")
    with pytest.raises(cr.ConfigError, match="choose one of leaky_relu"):
        init.calculate_gain("gelu")


@pytest.mark.parametrize("name", ["zeros_", "eye_", "normal_", "xavier_uniform_", "kaiming_normal_", "orthogonal_"])
def test_the_array_of_a_parameter_can_be_filled(name: str) -> None:
    fill = getattr(nn.init, name)
    layer, expected = nn.Linear(3, 4), cr.ones(4, 3)
    cr.manual_seed(1)
    fill(expected)
    cr.manual_seed(1)
    assert fill(layer.weight.data) is layer.weight.data
    assert np.array_equal(layer.weight.data, expected.data)
