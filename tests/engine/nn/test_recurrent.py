"""Recurrent layers are PyTorch's: outputs, states, gradients, names, reprs, errors; and their gradients are right."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.autograd import gradcheck, gradgradcheck
from chainrule.engine.nn.functional.recurrent import recurrence
from tests.engine.nn.twins import same_error

TOLERANCE: dict[str, dict[str, Any]] = {
    "float32": {"rtol": 1e-4, "atol": 1e-5},
    "float64": {"rtol": 1e-9, "atol": 1e-12},
}
MODES = ["RNN_TANH", "RNN_RELU", "LSTM", "GRU"]

LAYERS: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("RNN", {}, (5, 2, 3)),
    ("RNN", {"nonlinearity": "relu", "num_layers": 2, "batch_first": True}, (2, 5, 3)),
    ("LSTM", {}, (5, 2, 3)),
    ("LSTM", {"num_layers": 2, "bidirectional": True}, (5, 2, 3)),
    ("LSTM", {"batch_first": True, "bias": False}, (2, 5, 3)),
    ("LSTM", {"bidirectional": True, "batch_first": True}, (4, 3)),
    ("GRU", {}, (5, 2, 3)),
    ("GRU", {"num_layers": 3, "bidirectional": True}, (3, 2, 3)),
    ("GRU", {"bias": False}, (1, 1, 3)),
]


def flat(result: Any) -> list[Any]:
    """The tensors of nested tuples."""
    return [x for part in result for x in flat(part)] if isinstance(result, tuple) else [result]


def twins(torch: Any, name: str, dtype: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """A layer of ours with the weights of PyTorch's, both in `dtype`."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(*args, **kwargs).to(getattr(torch, dtype))
    ours = getattr(nn, name)(*args, **kwargs).to(getattr(cr, dtype))
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    return ours, theirs


def compare(torch: Any, ours: Any, theirs: Any, arrays: list[Any], call: Callable[..., Any], dtype: str) -> None:
    """Outputs and all gradients of both, for a loss that weighs every output."""
    xs = [cr.tensor(array.astype(dtype), requires_grad=True) for array in arrays]
    ts = [torch.tensor(array.astype(dtype), requires_grad=True) for array in arrays]
    found, expected = flat(call(ours, *xs)), flat(call(theirs, *ts))
    draws = np.random.default_rng(1)
    weights = [draws.standard_normal(tuple(y.shape)).astype(dtype) for y in expected]
    for y, t in zip(found, expected, strict=True):
        np.testing.assert_allclose(y.detach().numpy(), t.detach().numpy(), **TOLERANCE[dtype], strict=True)
    sum((y * cr.tensor(w)).sum() for y, w in zip(found, weights, strict=True)).backward()
    sum((t * torch.tensor(w)).sum() for t, w in zip(expected, weights, strict=True)).backward()
    pairs = zip([*xs, *ours.parameters()], [*ts, *theirs.parameters()], strict=True)
    for x, t in pairs:
        np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), **TOLERANCE[dtype], strict=True)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "settings", "shape"), LAYERS, ids=str)
def test_layer_is_pytorchs(name: str, settings: dict[str, Any], shape: tuple[int, ...], dtype: str, torch: Any) -> None:
    ours, theirs = twins(torch, name, dtype, 3, 4, **settings)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [[w.shape for w in each] for each in ours.all_weights] == [
        [tuple(w.shape) for w in each] for each in theirs.all_weights
    ]
    draws = np.random.default_rng(0)
    x = draws.standard_normal(shape)
    compare(torch, ours, theirs, [x], lambda m, x: m(x), dtype)
    batch = () if len(shape) == 2 else (2,) if shape[0] != 1 else (1,)
    state = (settings.get("num_layers", 1) * (2 if settings.get("bidirectional") else 1), *batch, 4)
    states = [draws.standard_normal(state) for _ in range(2 if name == "LSTM" else 1)]
    for module in (ours, theirs):
        module.zero_grad()
    compare(torch, ours, theirs, [x, *states], lambda m, x, *s: m(x, s if name == "LSTM" else s[0]), dtype)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(2, 3), (3,)], ids=["batch", "single"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("RNNCell", {}),
        ("RNNCell", {"nonlinearity": "relu"}),
        ("LSTMCell", {}),
        ("LSTMCell", {"bias": False}),
        ("GRUCell", {}),
    ],
    ids=str,
)
def test_cell_is_pytorchs(name: str, settings: dict[str, Any], shape: tuple[int, ...], dtype: str, torch: Any) -> None:
    ours, theirs = twins(torch, name, dtype, 3, 4, **settings)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    draws = np.random.default_rng(0)
    x = draws.standard_normal(shape)
    states = [draws.standard_normal((*shape[:-1], 4)) for _ in range(2 if name == "LSTMCell" else 1)]
    compare(torch, ours, theirs, [x, *states], lambda m, x, *s: m(x, s if name == "LSTMCell" else s[0]), dtype)
    with cr.no_grad():
        found, expected = flat(ours(cr.tensor(x.astype(dtype)))), flat(theirs(torch.tensor(x.astype(dtype))))
    for y, t in zip(found, expected, strict=True):
        np.testing.assert_allclose(y.numpy(), t.detach().numpy(), **TOLERANCE[dtype], strict=True)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("mode", MODES)
def test_gradients_agree_with_central_differences_once_and_twice(mode: str, reverse: bool) -> None:
    draws = np.random.default_rng(0)
    gates, states = {"LSTM": 4, "GRU": 3}.get(mode, 1) * 2, 2 if mode == "LSTM" else 1
    shapes = [(2, 1, 2)] + [(1, 2)] * states + [(gates, 2), (gates, 2), (gates,), (gates,)]
    inputs = [cr.tensor(draws.standard_normal(shape) + 0.1, requires_grad=True) for shape in shapes]

    def run(x: cr.Tensor, *rest: cr.Tensor) -> tuple[cr.Tensor, ...]:
        w_x, w_h, b_x, b_h = rest[states:]
        y, last = recurrence(mode, x, rest[:states], (w_x, w_h, b_x, b_h), reverse=reverse)
        return y, *last

    assert gradcheck(run, inputs)
    assert gradgradcheck(run, inputs)


@pytest.mark.parametrize("mode", MODES)
def test_recorded_gradients_equal_those_on_arrays(mode: str) -> None:
    name = mode.partition("_")[0]
    layer = getattr(nn, name)(3, 4, **({"nonlinearity": "relu"} if mode == "RNN_RELU" else {})).double()
    x = cr.tensor(np.random.default_rng(0).standard_normal((4, 2, 3)))
    gradients = []
    for create_graph in (False, True):
        layer.zero_grad()
        (layer(x)[0] ** 2).sum().backward(create_graph=create_graph)
        gradients.append([p.grad.detach().numpy() for p in layer.parameters()])
    for g, recorded in zip(*gradients, strict=True):
        np.testing.assert_allclose(g, recorded, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_half_precision_is_computed_in_float32_and_rounded(name: str, dtype: str) -> None:
    layer = getattr(nn, name)(3, 4)
    low = getattr(nn, name)(3, 4)
    low.load_state_dict(layer.state_dict())
    low.to(getattr(cr, dtype))
    x = cr.tensor(np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32))
    y, exact = low(x.to(getattr(cr, dtype)))[0], layer(x)[0]
    assert str(y.dtype) == dtype
    np.testing.assert_allclose(y.detach().float().numpy(), exact.detach().numpy(), atol=0.05)
    y.sum().backward()
    assert {p.grad.dtype for p in low.parameters()} == {y.dtype}


def test_parameters_begin_within_their_bound() -> None:
    layer = nn.LSTM(10, 16, num_layers=2)
    values = np.concatenate([p.detach().numpy().ravel() for p in layer.parameters()])
    assert np.abs(values).max() <= 1 / math.sqrt(16)
    assert np.abs(values).max() > 0.99 / math.sqrt(16)
    assert abs(values.mean()) < 0.01


def test_dropout_between_layers_only_while_training() -> None:
    layer = nn.GRU(3, 64, num_layers=2, dropout=0.5)
    x = cr.ones(4, 2, 3)
    a, b = layer(x)[0], layer(x)[0]
    assert not cr.equal(a, b)
    layer.eval()
    assert cr.equal(layer(x)[0], layer(x)[0])
    with pytest.warns(UserWarning, match="expects num_layers greater than 1, but got dropout=0.5 and num_layers=1"):
        nn.GRU(3, 4, dropout=0.5)


def test_one_backward_does_not_spoil_the_next() -> None:
    layer: Any = nn.LSTM(3, 4)
    y, (h, c) = layer(cr.ones(3, 2, 3))
    (y.sum() + h.sum() + c.sum()).backward(retain_graph=True)
    first = [p.grad.numpy().copy() for p in layer.parameters()]
    layer.zero_grad()
    (y.sum() + h.sum() + c.sum()).backward()
    for g, p in zip(first, layer.parameters(), strict=True):
        np.testing.assert_array_equal(g, p.grad.numpy())


def test_a_cell_with_an_unknown_nonlinearity_is_refused() -> None:
    with pytest.raises(cr.ConfigError, match="Unknown nonlinearity 'sigmoid'"):
        nn.RNNCell(3, 4, nonlinearity="sigmoid")


def test_projections_are_not_supported() -> None:
    with pytest.raises(cr.UnsupportedError, match="proj_size=2"):
        nn.LSTM(3, 4, proj_size=2)


@pytest.mark.torch
@pytest.mark.parametrize(
    "scenario",
    [
        lambda m: m.nn.LSTM(3, 4, dropout=1.5),
        lambda m: m.nn.LSTM(3, 4, dropout=True),
        lambda m: m.nn.LSTM(3.0, 4),
        lambda m: m.nn.GRU(3, 0),
        lambda m: m.nn.GRU(0, 3),
        lambda m: m.nn.GRU(3, 4, num_layers=0),
        lambda m: m.nn.RNN(3, 4, nonlinearity="sigmoid"),
        lambda m: m.nn.RNN(3, 4)(m.ones(3)),
        lambda m: m.nn.LSTM(3, 4)(m.ones(3)),
        lambda m: m.nn.GRU(3, 4)(m.ones(1, 1, 1, 3)),
        lambda m: m.nn.LSTM(3, 4)(m.ones(2, 2, 5)),
        lambda m: m.nn.LSTM(3, 4)(m.ones(2, 2, 3), (m.ones(1, 2, 5), m.ones(1, 2, 4))),
        lambda m: m.nn.LSTM(3, 4)(m.ones(2, 2, 3), (m.ones(1, 2, 4), m.ones(1, 3, 4))),
        lambda m: m.nn.LSTM(3, 4)(m.ones(2, 2, 3), (m.ones(2, 4), m.ones(2, 4))),
        lambda m: m.nn.LSTM(3, 4)(m.ones(2, 3), (m.ones(1, 1, 4), m.ones(1, 1, 4))),
        lambda m: m.nn.GRU(3, 4)(m.ones(2, 2, 3), m.ones(2, 4)),
        lambda m: m.nn.RNN(3, 4)(m.ones(2, 3), m.ones(1, 1, 4)),
        lambda m: m.nn.GRU(3, 4)(m.ones(2, 2, 3), m.ones(2, 2, 4)),
        lambda m: m.nn.GRU(3, 4)(m.ones(0, 2, 3)),
        lambda m: m.nn.LSTMCell(3, 4)(m.ones(2, 2, 3)),
        lambda m: m.nn.LSTMCell(3, 4)(m.ones(2, 3), (m.ones(1, 2, 4), m.ones(2, 4))),
        lambda m: m.nn.GRUCell(3, 4)(m.ones(2, 3), m.ones(1, 2, 4)),
        lambda m: m.nn.GRUCell(3, 4)(m.ones(2, 5)),
        lambda m: m.nn.LSTM(3, 4).double()(m.ones(2, 2, 3)),
    ],
)
def test_wrong_use_is_refused_as_by_pytorch(scenario: Callable[[Any], Any], torch: Any) -> None:
    same_error(torch, scenario)
