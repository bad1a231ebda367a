"""Networks of Keras, as tf2onnx writes them, give what Keras gave, train, and have weights that Keras has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import graph, optim
from chainrule.engine.dtypes import Array

HERE = Path(__file__).parent / "keras"  # make.py says how the files came to be
LEARNT = {
    "mlp": 4,
    "convnet": 8,
    "folded": 4,
    "separable": 11,
    "conv1d": 4,
    "lstm_tagger": 6,
    "bidirectional": 5,
    "gru_unrolled": 6,
    "functional": 8,
    "attention": 12,
    "gelu_tanh": 4,
}
"""How many arrays of weights each has; of recurrent layers, directions are one, and both biases of a cell are one."""
VALUES = np.load(HERE / "values.npz")


def content(name: str) -> bytes:
    return (HERE / f"{name}.onnx").read_bytes()


def inputs(name: str) -> dict[str, Array]:
    keys = [key for key in VALUES.files if key.startswith(f"{name}.x")]
    return {key.removeprefix(f"{name}."): VALUES[key] for key in keys}


def outputs(module: graph.GraphModule, name: str) -> cr.Tensor:
    y = module(**{key: cr.tensor(x) for key, x in inputs(name).items()})
    assert isinstance(y, cr.Tensor)
    return y


@pytest.mark.parametrize("name", LEARNT)
def test_it_gives_what_keras_gives(name: str) -> None:
    architecture, weights = graph.split(content(name))
    apart = graph.load(architecture)
    apart.load_state_dict(weights)
    for module in (graph.load(content(name)), apart):
        np.testing.assert_allclose(outputs(module.eval(), name).numpy(force=True), VALUES[f"{name}.y"], atol=1e-5)


@pytest.mark.parametrize("name", LEARNT)
def test_it_trains_its_weights_and_nothing_else(name: str) -> None:
    """No epsilon, exponent, scale of scores or state that a recurrence begins with is learnt."""
    module = graph.load(content(name)).train()
    assert len(list(module.parameters())) == LEARNT[name]
    assert all(p.ndim for p in module.parameters())
    optimizer, losses = optim.SGD(module.parameters(), lr=0.005), []
    for _ in range(6):
        optimizer.zero_grad()
        loss = ((outputs(module, name) - 0.3) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.grad is not None and p.grad.abs().sum().item() > 0 for p in module.parameters())


@pytest.mark.parametrize("name", ["convnet", "folded", "separable"])
def test_a_normalisation_that_does_not_move_is_said(name: str) -> None:
    (warning,) = graph.load(content(name)).warnings
    assert "BatchNormalization is a scale and a shift in this file" in warning
    assert "/batch_normalization" in warning


@pytest.mark.parametrize(("name", "operator"), [("gru", "Loop"), ("gelu", "Erfc")])
def test_what_is_not_taken_is_named(name: str, operator: str) -> None:
    with pytest.raises(graph.UnsupportedError, match=f"ai.onnx::{operator}") as caught:
        graph.load(content(name))
    assert len(caught.value.nodes) == 1
