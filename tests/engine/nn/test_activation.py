"""Activations are PyTorch's: values, gradients, nodes, special values, layers, in-place use and errors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.nn import functional as F
from chainrule.engine.ops.special import erf
from tests.engine.nn.compared import close, draws, layouts, same
from tests.engine.nn.twins import same_error

Call = Callable[..., Any]

FUNCTIONS: dict[str, Call] = {
    "relu": lambda f, x: f.relu(x),
    "relu6": lambda f, x: f.relu6(4 * x),
    "leaky_relu": lambda f, x: f.leaky_relu(x),
    "leaky_relu-slope": lambda f, x: f.leaky_relu(x, negative_slope=0.3),
    "elu": lambda f, x: f.elu(x, alpha=1.3),
    "celu": lambda f, x: f.celu(x, alpha=0.5),
    "selu": lambda f, x: f.selu(x),
    "gelu": lambda f, x: f.gelu(x),
    "gelu-tanh": lambda f, x: f.gelu(x, approximate="tanh"),
    "silu": lambda f, x: f.silu(x),
    "mish": lambda f, x: f.mish(x),
    "softplus": lambda f, x: f.softplus(x),
    "softplus-beta": lambda f, x: f.softplus(3 * x, beta=0.5, threshold=1),
    "softsign": lambda f, x: f.softsign(x),
    "softshrink": lambda f, x: f.softshrink(x, 0.3),
    "hardshrink": lambda f, x: f.hardshrink(x),
    "tanhshrink": lambda f, x: f.tanhshrink(x),
    "hardtanh": lambda f, x: f.hardtanh(x, -0.5, 0.9),
    "hardsigmoid": lambda f, x: f.hardsigmoid(3 * x),
    "hardswish": lambda f, x: f.hardswish(3 * x),
    "logsigmoid": lambda f, x: f.logsigmoid(x),
    "sigmoid": lambda f, x: f.sigmoid(x),
    "tanh": lambda f, x: f.tanh(x),
    "threshold": lambda f, x: f.threshold(x, 0.1, -3.0),
    "rrelu-eval": lambda f, x: f.rrelu(x),
}
by_function = pytest.mark.parametrize("name", FUNCTIONS)


@pytest.mark.torch
@by_function
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 4), (2, 3, 4)], ids=str)
def test_function_is_pytorchs(name: str, dtype: str, shape: tuple[int, ...], torch: Any) -> None:
    precision = "float32" if name == "hardsigmoid" else dtype  # PyTorch's 1/6 in its gradient is of float32
    for array in layouts(draws(shape, dtype=dtype)[0]).values():
        same(torch, lambda m, x: FUNCTIONS[name](m.nn.functional, x), [array], precision=precision)


@pytest.mark.torch
@by_function
def test_special_values_are_pytorchs(name: str, torch: Any) -> None:
    at = np.array([-np.inf, -1e4, -100, -6, -3, -1, -0.5, 0, 0.5, 0.9, 1, 3, 6, 100, 1e4, np.inf, np.nan], np.float32)
    if name == "gelu":  # PyTorch says that gelu of infinity is nan
        at = at[at < np.inf]
    with np.errstate(all="ignore"):
        close(FUNCTIONS[name](F, cr.tensor(at)), FUNCTIONS[name](torch.nn.functional, torch.tensor(at)))


@pytest.mark.torch
@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"relu6", "hardsigmoid", "hardswish", "softplus-beta"}))
def test_gradients_at_corners_are_pytorchs(name: str, torch: Any) -> None:
    at = np.array([-1e3, -6, -3, -1, -0.5, -0.3, 0, 0.1, 0.3, 0.5, 0.9, 1, 3, 6, 1e3], np.float32)
    same(torch, lambda m, x: FUNCTIONS[name](m.nn.functional, x), [at])


@pytest.mark.torch
@pytest.mark.parametrize("name", ["relu6", "hardsigmoid", "hardswish"])
def test_gradients_at_the_ends_of_a_line_are_pytorchs(name: str, torch: Any) -> None:
    at = np.array([-6, -3, -2, 0, 2, 3, 6, 7], np.float32)
    same(torch, lambda m, x: getattr(m.nn.functional, name)(x), [at])


@pytest.mark.parametrize(
    "name",
    ["relu", "relu6", "leaky_relu", "elu", "celu", "selu", "silu", "mish", "hardtanh", "hardsigmoid", "hardswish"],
)
def test_inplace_writes_the_result_into_the_input_and_keeps_the_gradient(name: str) -> None:
    array = draws((3, 4))[0] * 2
    results = []
    for inplace in (False, True):
        x = cr.tensor(array, requires_grad=True)
        h = x * 1
        y = getattr(F, name)(h, inplace=inplace)
        assert (y is h) == inplace
        (y * cr.tensor(array)).sum().backward()
        assert x.grad is not None
        results.append((y.detach().numpy().copy(), x.grad.numpy()))
    for plain, written in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, written)
    with pytest.raises(cr.AutogradError, match="leaf Variable that requires grad"):
        getattr(F, name)(cr.tensor(array, requires_grad=True), inplace=True)


# ---- Along a dimension ----


@pytest.mark.torch
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin"])
@pytest.mark.parametrize(
    ("shape", "dim"), [((), 0), ((), -1), ((4,), 0), ((3, 4), 0), ((2, 3, 4), -2), ((0, 3), 1), ((3, 0), 1)], ids=str
)
def test_softmax_is_pytorchs(name: str, shape: tuple[int, ...], dim: int, torch: Any) -> None:
    for array in layouts(draws(shape)[0]).values():
        same(torch, lambda m, x: getattr(m.nn.functional, name)(x, dim), [array])
        same(torch, lambda m, x: getattr(m.nn.functional, name)(x, dim, dtype=m.float64), [array])


@pytest.mark.torch
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin"])
def test_softmax_without_a_dimension_warns_and_takes_pytorchs(name: str, torch: Any) -> None:
    for shape in [(4,), (3, 4), (2, 3, 4), (2, 3, 2, 2)]:
        (array,) = draws(shape)
        with pytest.warns(UserWarning, match=f"Implicit dimension choice for {name}") as ours:
            y = getattr(F, name)(cr.tensor(array))
        with warnings.catch_warnings(record=True) as theirs:
            warnings.simplefilter("always")
            expected = getattr(torch.nn.functional, name)(torch.tensor(array))
        close(y, expected)
        assert str(ours[0].message) == str(theirs[0].message)
        assert ours[0].filename == __file__


@pytest.mark.torch
@pytest.mark.parametrize(("shape", "dim"), [((4,), 0), ((3, 4), -1), ((4, 3), 0), ((0, 4), 1)], ids=str)
def test_glu_is_pytorchs(shape: tuple[int, ...], dim: int, torch: Any) -> None:
    same(torch, lambda m, x: m.nn.functional.glu(x, dim), draws(shape))


@pytest.mark.torch
@pytest.mark.parametrize(
    ("shape", "weights"), [((), 1), ((5,), 1), ((3, 4), 1), ((3, 4), 4), ((2, 3, 4), 3), ((0, 3), 3)], ids=str
)
def test_prelu_is_pytorchs(shape: tuple[int, ...], weights: int, torch: Any) -> None:
    same(torch, lambda m, x, w: m.nn.functional.prelu(x, w), draws(shape, (weights,)))


# ---- Lengths and likeness ----


@pytest.mark.torch
@pytest.mark.parametrize("p", [1, 2, 3, 2.5, math.inf])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_normalize_is_pytorchs(p: float, dim: int, torch: Any) -> None:
    same(torch, lambda m, x: m.nn.functional.normalize(x, p=p, dim=dim), draws((3, 4, 2)))


@pytest.mark.torch
def test_normalizing_zero_gives_zero_and_a_finite_gradient(torch: Any) -> None:
    same(torch, lambda m, x: m.nn.functional.normalize(x), [np.array([[0, 0], [3, 4]], np.float32)])


@pytest.mark.torch
@pytest.mark.parametrize(("a", "b", "dim"), [((3, 4), (3, 4), 1), ((3, 4), (4,), -1), ((2, 1, 4), (3, 4), 2)], ids=str)
def test_cosine_similarity_is_pytorchs(a: tuple[int, ...], b: tuple[int, ...], dim: int, torch: Any) -> None:
    same(torch, lambda m, x, y: m.nn.functional.cosine_similarity(x, y, dim), draws(a, b))
    same(torch, lambda m, x, y: m.nn.CosineSimilarity(dim, eps=0.1)(x, y), draws(a, b))


@pytest.mark.torch
@pytest.mark.parametrize("p", [1, 2, 3.5, math.inf])
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)], ids=str)
def test_pairwise_distance_is_pytorchs(p: float, shape: tuple[int, ...], torch: Any) -> None:
    call = lambda m, x, y: m.nn.functional.pairwise_distance(x, y, p, keepdim=True)
    same(torch, call, draws(shape, shape[-2:]), node=False)
    same(torch, lambda m, x, y: m.nn.PairwiseDistance(p)(x, y), draws(shape, shape), node=False)


# ---- Draws ----


def test_gumbel_softmax_samples_by_the_probabilities() -> None:
    logits = cr.tensor([0.1, 0.6, 0.3]).log().expand(20000, 3)
    with cr.random.using(cr.Generator(3)):
        hard = F.gumbel_softmax(logits, hard=True)
    np.testing.assert_allclose(hard.numpy().mean(0), [0.1, 0.6, 0.3], atol=0.02)
    np.testing.assert_allclose(hard.numpy().sum(1), 1, rtol=1e-6)


def test_the_hard_choice_has_the_gradient_of_the_soft_one() -> None:
    gradients = []
    for hard in (False, True):
        x = cr.tensor(draws((4, 3))[0], requires_grad=True)
        with cr.random.using(cr.Generator(3)):
            (F.gumbel_softmax(x, tau=0.7, hard=hard, dim=0) * cr.arange(3.0)).sum().backward()
        assert x.grad is not None
        gradients.append(x.grad.numpy())
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-6)


def test_rrelu_draws_its_slopes_while_training() -> None:
    x = cr.full((1000,), -1.0)
    with cr.random.using(cr.Generator(3)):
        y = F.rrelu(x, 0.2, 0.4, training=True).numpy()
    assert ((y >= -0.4) & (y <= -0.2)).all()
    assert abs(y.mean() + 0.3) < 0.01
    assert len(set(y.tolist())) > 900


# ---- erf ----


def test_erf_is_exact_to_the_last_digits() -> None:
    x = np.concatenate([np.linspace(-7, 7, 20001), np.logspace(-300, 0, 2001)])
    expected = np.array([math.erf(value) for value in x])
    away = expected != 0
    error = np.abs(erf(x) - expected)[away] / np.abs(expected[away])
    assert error.max() < 1e-15
    single = x.astype(np.float32)
    rounded = np.array([math.erf(value) for value in single]).astype(np.float32)
    assert (np.abs(erf(single) - rounded) <= np.spacing(np.abs(rounded))).all()


def test_erf_of_special_values() -> None:
    y = erf(np.array([0.0, -0.0, np.inf, -np.inf, np.nan]))
    assert y.tolist()[:4] == [0, 0, 1, -1]
    assert math.copysign(1, y[1]) == -1
    assert math.isnan(y[4])


# ---- Layers ----

LAYERS: list[Call] = [
    lambda m: m.ReLU(),
    lambda m: m.ReLU(inplace=True),
    lambda m: m.ReLU6(),
    lambda m: m.ReLU6(inplace=True),
    lambda m: m.LeakyReLU(),
    lambda m: m.LeakyReLU(0.2, inplace=True),
    lambda m: m.RReLU().eval(),
    lambda m: m.RReLU(0.2, 0.3, True).eval(),
    lambda m: m.PReLU(),
    lambda m: m.PReLU(4, init=0.1),
    lambda m: m.ELU(),
    lambda m: m.ELU(0.5, True),
    lambda m: m.CELU(),
    lambda m: m.CELU(0.5, True),
    lambda m: m.SELU(),
    lambda m: m.SELU(True),
    lambda m: m.GELU(),
    lambda m: m.GELU("tanh"),
    lambda m: m.SiLU(),
    lambda m: m.SiLU(True),
    lambda m: m.Mish(),
    lambda m: m.Mish(True),
    lambda m: m.Softplus(),
    lambda m: m.Softplus(2, 1),
    lambda m: m.Softsign(),
    lambda m: m.Softshrink(),
    lambda m: m.Hardshrink(0.3),
    lambda m: m.Tanhshrink(),
    lambda m: m.Hardtanh(),
    lambda m: m.Hardtanh(-2, 0.5, inplace=True),
    lambda m: m.Hardsigmoid(),
    lambda m: m.Hardsigmoid(inplace=True),
    lambda m: m.Hardswish(),
    lambda m: m.Hardswish(True),
    lambda m: m.LogSigmoid(),
    lambda m: m.Sigmoid(),
    lambda m: m.Tanh(),
    lambda m: m.Threshold(0.1, 20),
    lambda m: m.Threshold(0.1, 20, True),
    lambda m: m.GLU(),
    lambda m: m.GLU(1),
    lambda m: m.Softmax(1),
    lambda m: m.LogSoftmax(dim=0),
    lambda m: m.Softmin(-1),
    lambda m: m.Softmax2d(),
]


@pytest.mark.torch
@pytest.mark.parametrize("make", LAYERS, ids=lambda make: repr(make(nn)))
def test_layer_is_pytorchs(make: Call, torch: Any) -> None:
    assert repr(make(nn)) == repr(make(torch.nn))
    same(torch, lambda m, x: make(m.nn)(x * 1), draws((3, 4, 2, 2)), node=False)


@pytest.mark.parametrize("name", ["min_value", "max_value"])
def test_the_older_names_of_hardtanh_warn(name: str) -> None:
    with pytest.warns(FutureWarning, match=f"keyword argument `{name}` is deprecated"):
        layer = nn.Hardtanh(min_value=0.25) if name == "min_value" else nn.Hardtanh(max_value=0.25)
    assert 0.25 in (layer.min_val, layer.max_val)


# ---- Wrong use ----


@pytest.mark.torch
@pytest.mark.parametrize(
    "scenario",
    [
        lambda m: m.nn.functional.hardtanh(m.ones(2), 1, 0),
        lambda m: m.nn.functional.softmax(m.ones(2, 3), 5),
        lambda m: m.nn.functional.glu(m.ones(3, 3)),
        lambda m: m.nn.functional.glu(m.ones(())),
        lambda m: m.nn.functional.gelu(m.ones(3), approximate="erf"),
        lambda m: m.nn.functional.celu(m.ones(3), 0),
        lambda m: m.nn.functional.prelu(m.ones(2, 3), m.ones(2)),
        lambda m: m.nn.functional.prelu(m.ones(2, 3), m.ones(1, 1)),
        lambda m: m.nn.functional.rrelu(m.ones(3), 0.5, 0.1),
        lambda m: m.nn.functional.normalize(m.ones(2, 3).long()),
        lambda m: m.nn.Hardtanh(1, 0),
        lambda m: m.nn.Softmax2d()(m.ones(2, 3)),
    ],
)
def test_wrong_use_is_refused_as_by_pytorch(scenario: Call, torch: Any) -> None:
    same_error(torch, scenario)


@pytest.mark.torch
@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"relu", "relu6", "hardtanh", "threshold"}))
def test_integers_are_taken_or_refused_as_by_pytorch(name: str, torch: Any) -> None:
    if name in ("softsign", "tanhshrink", "sigmoid", "tanh"):
        close(FUNCTIONS[name](F, cr.arange(3)), FUNCTIONS[name](torch.nn.functional, torch.arange(3)))
        return
    refusal = pytest.raises(NotImplementedError, match="not implemented for 'Long'")
    with refusal:
        FUNCTIONS[name](torch.nn.functional, torch.arange(3))
    with refusal as caught:
        FUNCTIONS[name](F, cr.arange(3))
    assert isinstance(caught.value, cr.DTypeError)


def test_wrong_settings_are_explained() -> None:
    with pytest.raises(cr.ConfigError, match=r"lambd=-1: lambda must be in range \[0, inf\), but found -1"):
        F.softshrink(cr.ones(2), -1)
    with pytest.raises(cr.DTypeError, match="Type promoting not supported"):
        F.prelu(cr.ones(2), cr.ones(1).double())
