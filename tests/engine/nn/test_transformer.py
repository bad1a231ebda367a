"""The transformer's layers are PyTorch's: outputs, gradients, names, reprs, with masks and either order of norms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.nn import functional as F
from tests.engine.nn.test_attention import tensor_like
from tests.engine.nn.test_recurrent import compare, twins

SETTINGS: list[dict[str, Any]] = [
    {},
    {"norm_first": True, "batch_first": True},
    {"activation": "gelu", "bias": False},
    {"layer_norm_eps": 0.1, "norm_first": True, "activation": "gelu"},
]
PADDING = np.array([[False, False, False, True], [False, False, True, True], [False] * 4])
CAUSAL = ~np.tri(4, dtype=bool)


def inputs(batch_first: bool, *lengths: int) -> list[Any]:
    draws = np.random.default_rng(0)
    return [draws.standard_normal((3, t, 4) if batch_first else (t, 3, 4)) for t in lengths]


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_encoder_layer_is_pytorchs(settings: dict[str, Any], masked: bool, dtype: str, torch: Any) -> None:
    ours, theirs = twins(torch, "TransformerEncoderLayer", dtype, 4, 2, 8, dropout=0.0, **settings)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())

    def call(layer: Any, x: Any) -> Any:
        if not masked:
            return layer(x)
        mask, padding = (tensor_like(layer, array, dtype) for array in (CAUSAL, PADDING))
        return layer(x, src_mask=mask, src_key_padding_mask=padding)

    compare(torch, ours, theirs, inputs(settings.get("batch_first", False), 4), call, dtype)


@pytest.mark.torch
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_decoder_layer_is_pytorchs(settings: dict[str, Any], torch: Any) -> None:
    ours, theirs = twins(torch, "TransformerDecoderLayer", "float64", 4, 2, 8, dropout=0.0, **settings)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())

    def call(layer: Any, target: Any, memory: Any) -> Any:
        mask, padding = (tensor_like(layer, array, "float64") for array in (CAUSAL, PADDING))
        return layer(target, memory, tgt_mask=mask, memory_key_padding_mask=padding)

    compare(torch, ours, theirs, inputs(settings.get("batch_first", False), 4, 4), call, "float64")


@pytest.mark.torch
def test_stacks_are_pytorchs(torch: Any) -> None:
    def encoder(m: Any) -> Any:
        return m.TransformerEncoder(m.TransformerEncoderLayer(4, 2, 8, 0.0), 2, m.LayerNorm(4))

    def decoder(m: Any) -> Any:
        return m.TransformerDecoder(m.TransformerDecoderLayer(4, 2, 8, 0.0), 2, m.LayerNorm(4))

    for make, lengths in ((encoder, (4,)), (decoder, (4, 3))):
        torch.manual_seed(0)
        ours, theirs = make(nn).double(), make(torch.nn).double()
        assert repr(ours) == repr(theirs)
        ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})

        def call(module: Any, *xs: Any) -> Any:
            return module(*xs, tensor_like(module, CAUSAL, "float64")) if len(xs) == 1 else module(*xs)

        compare(torch, ours, theirs, inputs(False, *lengths), call, "float64")


def test_layers_of_a_stack_begin_equal_and_are_learnt_apart() -> None:
    stack = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), num_layers=2)
    first, second = stack.layers
    assert all(cr.equal(p, q) for p, q in zip(first.parameters(), second.parameters(), strict=True))
    assert len(list(stack.parameters())) == 2 * len(list(first.parameters()))


def test_an_activation_may_be_any_function() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, activation=F.tanh)
    x = cr.rand(4, 3, 4)
    before = layer(x)
    layer.activation = F.relu
    assert not cr.allclose(before, layer(x))
    with pytest.raises(cr.ConfigError, match="activation should be relu/gelu, not swish"):
        nn.TransformerEncoderLayer(4, 2, activation="swish")


def test_dropout_is_for_training() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.5)
    x = cr.rand(4, 3, 4)
    assert not cr.equal(layer(x), layer(x))
    layer.eval()
    assert cr.equal(layer(x), layer(x))
