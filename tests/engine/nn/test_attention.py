"""Attention is PyTorch's: the function with every kind of mask, and the layer with its projections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.dtypes import Array
from chainrule.engine.nn import functional as F
from tests.engine.nn.test_recurrent import compare, flat, twins
from tests.engine.nn.twins import same_error

draws = np.random.default_rng(3)
SEEN = draws.random((4, 6)) < 0.6
SEEN[:, 0] = True
HIDDEN_ROW = SEEN.copy()
HIDDEN_ROW[2] = False

# Shapes of query, key and value, the mask, other settings.
CALLS: list[tuple[tuple[tuple[int, ...], ...], Array | None, dict[str, Any]]] = [
    (((2, 3, 4, 8), (2, 3, 6, 8), (2, 3, 6, 5)), None, {}),
    (((4, 8), (6, 8), (6, 5)), None, {"scale": 0.3}),
    (((3, 4, 8), (3, 6, 8), (3, 6, 8)), None, {"is_causal": True}),
    (((3, 6, 8), (3, 4, 8), (3, 4, 8)), None, {"is_causal": True}),
    (((2, 3, 4, 8), (2, 3, 6, 8), (2, 3, 6, 5)), SEEN, {}),
    (((2, 3, 4, 8), (2, 3, 6, 8), (2, 3, 6, 5)), HIDDEN_ROW, {}),
    (((2, 3, 4, 8), (2, 3, 6, 8), (2, 3, 6, 5)), draws.random((2, 1, 1, 6)) < 0.7, {}),
    (((2, 3, 4, 8), (2, 3, 6, 8), (2, 3, 6, 5)), draws.standard_normal((3, 4, 6)), {}),
    (((2, 3, 4, 8), (2, 3, 6, 8), (2, 3, 6, 5)), np.where(HIDDEN_ROW, 0.0, -np.inf), {}),
    (((2, 6, 4, 8), (2, 2, 6, 8), (2, 2, 6, 8)), None, {"enable_gqa": True}),
]


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shapes", "mask", "settings"), CALLS, ids=lambda value: str(value)[:40].replace("\n", " "))
def test_function_is_pytorchs(
    shapes: Any, mask: Array | None, settings: dict[str, Any], dtype: str, torch: Any
) -> None:
    class Attention:
        def __init__(self, m: Any, tensor: Callable[[Any], Any]) -> None:
            self.function = m.nn.functional.scaled_dot_product_attention
            self.mask = None if mask is None else tensor(mask if mask.dtype == bool else mask.astype(dtype))

        def parameters(self) -> list[Any]:
            return []

    def call(attention: Attention, *qkv: Any) -> Any:
        return attention.function(*qkv, attn_mask=attention.mask, **settings)

    arrays = [np.random.default_rng(number).standard_normal(shape) for number, shape in enumerate(shapes)]
    compare(torch, Attention(cr, cr.tensor), Attention(torch, torch.tensor), arrays, call, dtype)


@pytest.mark.torch
def test_a_mask_may_be_learnt(torch: Any) -> None:
    q, mask = np.random.default_rng(0).standard_normal((2, 3, 4)), np.random.default_rng(1).standard_normal((3, 3))
    gradients = []
    for m in (cr, torch):
        bias = m.tensor(mask, requires_grad=True)
        F_ = m.nn.functional
        (F_.scaled_dot_product_attention(m.tensor(q), m.tensor(q), m.tensor(q), attn_mask=bias) ** 2).sum().backward()
        gradients.append(bias.grad.numpy())
    found, expected = gradients
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_a_query_that_may_see_nothing_gets_zeros_and_gives_no_gradient() -> None:
    q, k, v = (cr.tensor(draws.standard_normal((4, 3)), requires_grad=True) for _ in range(3))
    mask = np.tri(4, dtype=bool)
    mask[1] = False
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=cr.tensor(mask))
    assert y[1].tolist() == [0.0, 0.0, 0.0]
    y.sum().backward()
    assert q.grad is not None
    assert q.grad[1].tolist() == [0.0, 0.0, 0.0]
    assert np.isfinite(q.grad.numpy()).all()


def test_causal_attention_does_not_look_ahead() -> None:
    q, k, v = (draws.standard_normal((5, 3)) for _ in range(3))
    before = F.scaled_dot_product_attention(cr.tensor(q), cr.tensor(k), cr.tensor(v), is_causal=True)
    k[3:], v[3:] = 0, 0
    after = F.scaled_dot_product_attention(cr.tensor(q), cr.tensor(k), cr.tensor(v), is_causal=True)
    np.testing.assert_array_equal(before[:3].numpy(), after[:3].numpy())
    assert not np.allclose(before[3:].numpy(), after[3:].numpy())


def test_dropout_keeps_the_mean_and_drops_weights() -> None:
    q, k, v = cr.zeros(1, 4), cr.zeros(1000, 4), cr.ones(1000, 1)
    found = [F.scaled_dot_product_attention(q, k, v, dropout_p=0.5).item() for _ in range(20)]
    assert len(set(found)) > 1
    assert np.mean(found) == pytest.approx(1.0, abs=0.05)


def test_wrong_operands_are_explained() -> None:
    x = cr.ones(2, 3, 4)
    wrong: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: F.scaled_dot_product_attention(cr.ones(3), x, x), cr.ShapeError, "at least 2 dimensional"),
        (lambda: F.scaled_dot_product_attention(x.double(), x, x), cr.DTypeError, "to have the same dtype"),
        (
            lambda: F.scaled_dot_product_attention(x.long(), x.long(), x.long()),
            cr.DTypeError,
            "scalar type Float but found Long",
        ),
        (lambda: F.scaled_dot_product_attention(x, cr.ones(2, 3, 5), x), cr.ShapeError, r"key \(..., S, E\)"),
        (
            lambda: F.scaled_dot_product_attention(x, x, x, attn_mask=cr.ones(3, 3), is_causal=True),
            cr.ShapeError,
            "should not be set when is_causal=True",
        ),
        (
            lambda: F.scaled_dot_product_attention(x, x, x, attn_mask=cr.ones(3, 3).long()),
            cr.DTypeError,
            "attn_mask dtype to be bool or float",
        ),
        (lambda: F.scaled_dot_product_attention(x, x, x, attn_mask=cr.ones(4, 3)), cr.ShapeError, "not broadcast"),
        (
            lambda: F.scaled_dot_product_attention(cr.ones(3, 3, 4), x, x, enable_gqa=True),
            cr.ShapeError,
            "must divide the number of heads in query",
        ),
        (lambda: F.scaled_dot_product_attention(x, x, x, dropout_p=1.5), cr.ConfigError, "between 0 and 1"),
    ]
    for call, error, message in wrong:
        with pytest.raises(error, match=message):
            call()


# ---- With projections ----

LAYERS: list[dict[str, Any]] = [
    {},
    {"bias": False, "batch_first": True},
    {"kdim": 3, "vdim": 5},
    {"add_bias_kv": True, "add_zero_attn": True},
    {"add_bias_kv": True, "kdim": 3, "batch_first": True},
    {"add_zero_attn": True},
]


def tensor_like(layer: Any, array: Array, dtype: str) -> Any:
    """The array as a tensor of the library that the layer is of."""
    make = cr.tensor if isinstance(layer, nn.Module) else pytest.importorskip("torch").tensor
    return make(array if array.dtype == bool else array.astype(dtype))


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("masked", ["", "attn", "padding", "both", "heads", "floats"])
@pytest.mark.parametrize("settings", LAYERS, ids=str)
def test_layer_is_pytorchs(settings: dict[str, Any], masked: str, need_weights: bool, dtype: str, torch: Any) -> None:
    ours, theirs = twins(torch, "MultiheadAttention", dtype, 4, 2, **settings)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    n, length, keys = 3, 4, 5
    random = np.random.default_rng(0)
    sizes = [(length, 4), (keys, settings.get("kdim", 4)), (keys, settings.get("vdim", 4))]
    batch_first = settings.get("batch_first", False)
    arrays = [random.standard_normal((n, t, e) if batch_first else (t, n, e)) for t, e in sizes]
    hidden = random.random((length, keys)) < 0.3
    hidden[:, 0] = False
    padding = np.arange(keys) >= np.array([[5], [3], [1]])
    kinds: dict[str, dict[str, Array]] = {
        "": {},
        "attn": {"attn_mask": hidden},
        "padding": {"key_padding_mask": padding},
        "both": {"attn_mask": hidden, "key_padding_mask": padding},
        "heads": {"attn_mask": np.stack([hidden & (i % 2 == 0) for i in range(n * 2)])},
        "floats": {"attn_mask": random.standard_normal((length, keys))},
    }
    masks = kinds[masked]

    def call(layer: Any, *qkv: Any) -> Any:
        made = {name: tensor_like(layer, mask, dtype) for name, mask in masks.items()}
        y, weights = layer(*qkv, need_weights=need_weights, average_attn_weights=masked != "heads", **made)
        assert (weights is not None) == need_weights
        return (y, weights) if need_weights else y

    compare(torch, ours, theirs, arrays, call, dtype)


@pytest.mark.torch
@pytest.mark.parametrize("batch_first", [False, True])
def test_self_attention_with_and_without_a_batch(batch_first: bool, torch: Any) -> None:
    ours, theirs = twins(torch, "MultiheadAttention", "float64", 4, 2, batch_first=batch_first)
    for shape in ((3, 5, 4), (5, 4)):
        for layer in (ours, theirs):
            layer.zero_grad()
        x = np.random.default_rng(0).standard_normal(shape)
        compare(torch, ours, theirs, [x], lambda m, x: m(x, x, x), "float64")
    padding = np.array([False, True, False, False, True])
    with cr.no_grad():
        found = flat(ours(*[cr.tensor(x)] * 3, key_padding_mask=cr.tensor(padding)))
    expected = flat(theirs(*[torch.tensor(x)] * 3, key_padding_mask=torch.tensor(padding)))
    for y, t in zip(found, expected, strict=True):
        np.testing.assert_allclose(y.numpy(), t.detach().numpy(), rtol=1e-9, strict=True)


def test_parameters_begin_as_glorot_and_bengio_say() -> None:
    layer = nn.MultiheadAttention(32, 4)
    assert layer.in_proj_weight is not None
    weight = np.abs(layer.in_proj_weight.detach().numpy())
    bound = np.sqrt(6 / (32 + 96))
    assert 0.99 * bound < weight.max() <= bound
    assert layer.in_proj_bias is not None
    assert layer.out_proj.bias is not None
    assert not layer.in_proj_bias.detach().numpy().any()
    assert not layer.out_proj.bias.detach().numpy().any()


def test_dropout_of_attention_is_for_training() -> None:
    layer = nn.MultiheadAttention(4, 2, dropout=0.5)
    x = cr.tensor(draws.standard_normal((8, 1, 4)).astype(np.float32))
    assert not cr.equal(layer(x, x, x)[0], layer(x, x, x)[0])
    layer.eval()
    assert cr.equal(layer(x, x, x)[0], layer(x, x, x)[0])


@pytest.mark.torch
@pytest.mark.parametrize(
    "scenario",
    [
        lambda m: m.nn.MultiheadAttention(4, 2)(m.ones(4), m.ones(4), m.ones(4)),
        lambda m: m.nn.MultiheadAttention(4, 2)(m.ones(2, 3, 4), m.ones(2, 4), m.ones(2, 4)),
        lambda m: m.nn.MultiheadAttention(4, 2)(m.ones(3, 4), m.ones(2, 3, 4), m.ones(3, 4)),
        lambda m: m.nn.MultiheadAttention(4, 2)(*[m.ones(3, 4)] * 3, key_padding_mask=m.ones(1, 3)),
        lambda m: m.nn.MultiheadAttention(4, 2)(*[m.ones(3, 4)] * 3, is_causal=True),
        lambda m: m.nn.MultiheadAttention(4, 2)(m.ones(3, 2, 5), m.ones(3, 2, 4), m.ones(3, 2, 4)),
        lambda m: m.nn.MultiheadAttention(4, 2)(*[m.ones(3, 2, 4)] * 3, attn_mask=m.ones(2, 3)),
    ],
)
def test_wrong_use_is_refused_as_by_pytorch(scenario: Callable[[Any], Any], torch: Any) -> None:
    same_error(torch, scenario)


def test_wrong_use_is_explained() -> None:
    layer, x = nn.MultiheadAttention(4, 2), cr.ones(3, 2, 4)
    wrong: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: nn.MultiheadAttention(5, 2), cr.ConfigError, "embed_dim must be divisible by num_heads"),
        (lambda: layer(cr.ones(3, 2, 5), x, x), cr.ShapeError, "expecting embedding dimension of 4, but got 5"),
        (lambda: layer(x, cr.ones(3, 2, 5), x), cr.ShapeError, "keys of 4 and values of 4 features"),
        (lambda: layer(x, cr.ones(3, 1, 4), cr.ones(3, 1, 4)), cr.ShapeError, "2 queries and 1 keys"),
        (lambda: layer(x, x, x, attn_mask=cr.ones(2, 3)), cr.ShapeError, r"2D attn_mask is \(2, 3\), but should be"),
        (lambda: layer(x, x, x, attn_mask=cr.ones(2, 3, 3)), cr.ShapeError, "3D attn_mask"),
        (lambda: layer(x, x, x, attn_mask=cr.ones(3)), cr.ShapeError, "dimension 1 is not supported"),
        (lambda: layer(x, x, x, key_padding_mask=cr.ones(3, 2)), cr.ShapeError, r"key_padding_mask shape of \(2, 3\)"),
        (lambda: layer(x, x, x, attn_mask=cr.ones(3, 3).long()), cr.DTypeError, "only bool and floating types"),
    ]
    for call, error, message in wrong:
        with pytest.raises(error, match=message):
            call()
