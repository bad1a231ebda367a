"""Architectures that PyTorch exports are loaded, agree with PyTorch, train, and go back; or are refused by name.

Exported with a batch of 2, run with one of 3. The exporter with torch.export takes a second and more for each, so most
of its cases are left out unless `-m whole` asks for them; every network is exported by the other one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import graph, nn, optim
from chainrule.engine.dtypes import Array
from chainrule.engine.nn import functional as F
from tests.engine.graph.zoo import ZOO, build, export_dynamo, export_legacy, tensors

pytestmark = pytest.mark.torch

EXPORTERS = {"legacy": export_legacy, "dynamo": export_dynamo}
NOT_EXPORTED = {("llama", "legacy")}  # aten::rms_norm is unknown to the older exporter
PADDING_ROW = {"text_cnn": ("embed.weight", 0)}  # ONNX's Gather cannot say that a row is not learnt
ALWAYS_WITH_DYNAMO = {"resnet18", "patchwork", "vit", "gpt", "llama", "lstm_tagger", "wide_and_deep", "conv3d"}
"""Of each kind of layer that it writes in a way of its own, the smallest network."""


def cases(refused: bool) -> list[Any]:
    return [
        pytest.param(
            name,
            exporter,
            id=f"{name}-{exporter}",
            marks=[pytest.mark.whole] if exporter == "dynamo" and name not in ALWAYS_WITH_DYNAMO else [],
        )
        for exporter in EXPORTERS
        for name, architecture in ZOO.items()
        if (architecture.refused is not None) == refused and (name, exporter) not in NOT_EXPORTED
    ]


TRAINED = pytest.mark.parametrize(("name", "exporter"), cases(refused=False))


@pytest.fixture(autouse=True)
def _torch(torch: Any) -> None:
    """Skips where there is none."""


@functools.cache
def exported(name: str, exporter: str) -> tuple[Any, bytes]:
    """The torch module, which has seen a batch, and its file."""
    module, arrays = build(name), ZOO[name].draw(2)
    module(*tensors(arrays))
    return module, EXPORTERS[exporter](module, arrays)


def theirs(module: Any, arrays: list[Array]) -> list[Any]:
    y = module(*tensors(arrays))
    return list(y) if isinstance(y, tuple) else [y]


def ours(loaded: graph.GraphModule, arrays: list[Array]) -> list[cr.Tensor]:
    y = loaded(*map(cr.tensor, arrays))
    return list(y.values()) if isinstance(y, dict) else [y]


def directions(shapes: list[tuple[int, ...]]) -> list[Array]:
    """What the outputs are multiplied with for a scalar loss."""
    draws = np.random.default_rng(7)
    return [draws.standard_normal(shape).astype(np.float32) for shape in shapes]


def fresh(module: Any) -> Any:
    """A copy without gradients, whose statistics may move."""
    import copy

    copied = copy.deepcopy(module)
    copied.zero_grad(set_to_none=True)
    return copied


def apart(y: Array, expected: Array) -> float:
    """The largest difference, relative to the largest number."""
    assert y.shape == expected.shape
    return float(np.abs(y - expected).max() / max(np.abs(expected).max(), 1e-12))


@TRAINED
def test_state_dict_has_the_names_and_values_of_the_module(name: str, exporter: str) -> None:
    module, content = exported(name, exporter)
    state = graph.load(content).state_dict()
    expected = {key: value.numpy() for key, value in module.state_dict().items()}
    assert set(state) == set(expected)
    for key, value in expected.items():
        if not key.endswith("num_batches_tracked"):  # files do not have it
            np.testing.assert_array_equal(state[key].numpy(), value, err_msg=key)


@TRAINED
def test_outputs_agree_in_evaluation(name: str, exporter: str) -> None:
    module, content = exported(name, exporter)
    arrays = ZOO[name].draw(3, seed=1)
    loaded = graph.load(content).eval()
    with cr.no_grad():
        outputs = [y.numpy() for y in ours(loaded, arrays)]
    for y, expected in zip(outputs, theirs(fresh(module).eval(), arrays), strict=True):
        assert apart(y, expected.detach().numpy()) < 1e-4


@TRAINED
def test_gradients_and_statistics_agree_in_training(name: str, exporter: str) -> None:
    module, content = exported(name, exporter)
    module, loaded, arrays = fresh(module), graph.load(content).train(), ZOO[name].draw(3, seed=1)
    outputs, expected = ours(loaded, arrays), theirs(module, arrays)
    weights = directions([y.shape for y in outputs])
    sum(((y * cr.tensor(w)).sum() for y, w in zip(outputs, weights, strict=True)), cr.tensor(0.0)).backward()
    sum((y * w).sum() for y, w in zip(expected, tensors(weights), strict=True)).backward()
    mine, known = (
        {key: p.grad.numpy() for key, p in m.named_parameters(remove_duplicate=False) if p.grad is not None}
        for m in (loaded, module)
    )
    assert set(mine) == set(known)
    if name in PADDING_ROW:
        key, row = PADDING_ROW[name]
        assert not known[key][row].any()
        mine[key][row] = 0
    least = max(np.abs(g).max() for g in known.values()) * 1e-3  # some are nothing but rounding
    for key, g in known.items():
        difference = np.abs(mine[key] - g).max() / max(np.abs(g).max(), least)
        assert difference < 1e-3, f"{key}: {difference}"
    check_statistics(loaded.state_dict(), module)


def check_statistics(state: Mapping[str, cr.Tensor], module: Any) -> None:
    for key, buffer in module.named_buffers():
        if key.endswith(("running_mean", "running_var")):
            np.testing.assert_allclose(state[key].numpy(), buffer.numpy(), rtol=1e-4, atol=1e-5, err_msg=key)


@TRAINED
def test_it_trains(name: str, exporter: str) -> None:
    loaded = graph.load(exported(name, exporter)[1]).train()
    arrays = ZOO[name].draw(3, seed=1)
    targets = [cr.tensor(t) for t in directions([y.shape for y in ours(loaded, arrays)])]
    optimizer = optim.SGD(loaded.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = cr.tensor(0.0)
        for y, target in zip(ours(loaded, arrays), targets, strict=True):
            loss = loss + ((y - target) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@TRAINED
def test_weights_go_back(name: str, exporter: str) -> None:
    import torch

    module, content = exported(name, exporter)
    loaded, other = graph.load(content), build(name, seed=1)
    other.load_state_dict({key: torch.from_numpy(value.numpy().copy()) for key, value in loaded.state_dict().items()})
    arrays = ZOO[name].draw(3, seed=1)
    for y, expected in zip(theirs(other.eval(), arrays), theirs(fresh(module).eval(), arrays), strict=True):
        assert torch.equal(y, expected)


@pytest.mark.parametrize(("name", "exporter"), cases(refused=True))
def test_what_cannot_be_computed_is_refused_by_name(name: str, exporter: str) -> None:
    _, content = exported(name, exporter)
    with pytest.raises(graph.UnsupportedError) as caught:
        graph.load(content)
    assert [op for _, op, _, _ in caught.value.nodes] == [f"ai.onnx::{ZOO[name].refused}"]


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_dropout_drops_while_training_and_only_then(exporter: str) -> None:
    import torch

    module = torch.nn.Sequential(torch.nn.Linear(50, 50), torch.nn.Dropout(0.25)).train()
    x = np.random.default_rng(0).standard_normal((2, 50)).astype(np.float32)
    loaded = graph.load(EXPORTERS[exporter](module, [x]))
    with cr.no_grad(), cr.random.using(cr.Generator(0)):
        many = cr.tensor(np.repeat(x, 100, axis=0))
        whole, dropped = loaded.eval()(many).numpy(), loaded.train()(many).numpy()
    kept = dropped != 0
    assert abs(kept.mean() - 0.75) < 0.02
    np.testing.assert_allclose(dropped[kept], whole[kept] / 0.75, rtol=1e-5)
    assert (whole != 0).all()


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_statistics_are_left_to_someone_else(exporter: str) -> None:
    _, content = exported("resnet18", exporter)
    arrays, (alone, collected) = ZOO["resnet18"].draw(3, seed=1), (graph.load(content).train() for _ in range(2))
    ours(alone, arrays)
    before = {key: value.numpy().copy() for key, value in collected.named_buffers()}
    with nn.collect_batch_statistics(collected) as statistics:
        ours(collected, arrays)
    moved = {key for key in before if key.endswith(("running_mean", "running_var"))}
    assert set(statistics) == moved
    after, left = alone.state_dict(), collected.state_dict()
    for key in moved:
        np.testing.assert_array_equal(left[key].numpy(), before[key])
        expected = F.running_update(before[key], statistics[key], 0.1)
        np.testing.assert_array_equal(after[key].numpy(), expected)


@pytest.mark.parametrize(
    ("name", "exporter"),
    [
        ("vgg_bn", "legacy"),
        ("unet", "legacy"),
        ("vgg_bn", "dynamo"),
        pytest.param("unet", "dynamo", marks=pytest.mark.whole),
    ],
)
def test_an_export_for_inference_is_explained(name: str, exporter: str) -> None:
    import torch

    module, arrays = build(name).eval(), ZOO[name].draw(2)
    settings: dict[str, Any] = (
        {"optimize": True} if exporter == "dynamo" else {"training": torch.onnx.TrainingMode.EVAL}
    )
    loaded = graph.load(EXPORTERS[exporter](module, arrays, **settings)).eval()
    assert not any(key.endswith("running_mean") for key in loaded.state_dict())
    assert any("BatchNorm layers were folded into them" in warning for warning in loaded.warnings)
    with cr.no_grad():
        assert apart(ours(loaded, arrays)[0].numpy(), theirs(module, arrays)[0].detach().numpy()) < 1e-4


@TRAINED
def test_an_export_for_training_needs_no_explanation(name: str, exporter: str) -> None:
    assert graph.load(exported(name, exporter)[1]).warnings == ()


def test_enough_architectures_are_tried() -> None:
    loaded = {name for name, architecture in ZOO.items() if architecture.refused is None}
    assert len(loaded) >= 40
