"""A module of PyTorch is sent as it is, stays as it is, and takes back what it was trained to."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.client import Client, InvalidInputError, torch_modules
from chainrule.engine import graph, io
from tests.client.fake_server import FakeServer
from tests.client.test_networks import finished_job, with_version

if importlib.util.find_spec("torch") is None:
    pytest.skip("PyTorch is not installed", allow_module_level=True)
import torch

pytestmark = pytest.mark.torch
FEATURES = 6


class Network(torch.nn.Module):  # type: ignore[misc]
    """BatchNorm, a layer with two names, one that is not used, and buffers of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(FEATURES, 8)
        self.norm = torch.nn.BatchNorm1d(8)
        self.last = torch.nn.Linear(8, 3)
        self.same = self.last
        self.unused = torch.nn.Linear(2, 2)
        self.register_buffer("shift", torch.full((8,), 0.25))
        self.register_buffer("order", torch.arange(3))

    def forward(self, x: Any) -> Any:
        return self.same(torch.relu(self.norm(self.first(x)) + self.shift))


@pytest.fixture
def module() -> Any:
    torch.manual_seed(0)
    return Network()


def test_it_is_sent_with_its_weights_under_their_names(server: FakeServer, client: Client, module: Any) -> None:
    model = client.models.create("net", module, example=np.zeros((4, FEATURES), np.float32))
    assert model.weights_digest is not None
    sent = io.load(server.blobs[model.weights_digest])
    state = module.state_dict()
    for name, array in sent.items():
        np.testing.assert_array_equal(array, state[name].numpy(), strict=True)
    assert state.keys() - sent.keys() == {"same.weight", "same.bias", "unused.weight", "unused.bias", "order"}
    assert model.graph_digest is not None
    loaded = graph.load(server.blobs[model.graph_digest])
    assert {name for name, _ in loaded.named_parameters()} == {
        name for name, _ in module.named_parameters() if not name.startswith("unused")
    }
    assert "shift" in dict(loaded.named_buffers())


@pytest.mark.parametrize("training", [True, False])
def test_it_stays_as_it_is_and_so_does_what_is_drawn_next(
    server: FakeServer, client: Client, module: Any, training: bool
) -> None:
    module.train(training)
    module.norm.eval()
    before, drawn = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    client.models.create("net", module, example=torch.zeros(1, FEATURES))
    assert (module.training, module.norm.training) == (training, False)
    assert torch.equal(torch.get_rng_state(), drawn)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_same_module_gives_the_same_model(client: Client, module: Any) -> None:
    first = client.models.create("net", module, example=torch.zeros(3, FEATURES))
    assert client.models.create("net", copy.deepcopy(module), example=np.ones((7, FEATURES))) == first


def test_its_trained_weights_are_loaded_back_strictly(
    server: FakeServer, client: Client, module: Any, tmp_path: Path
) -> None:
    model = with_version(server, client.models.create("net", module, example=torch.zeros(2, FEATURES)))
    assert model.weights_digest is not None
    sent = io.load(server.blobs[model.weights_digest])
    trained = {name: array + array.dtype.type(1) for name, array in sent.items()}
    job = finished_job(server, client, model, trained)
    other = Network()
    other.load_state_dict(job.state_dict("torch"))
    for name, tensor in other.state_dict().items():
        before = module.state_dict()[name]
        known = {"same.weight": "last.weight", "same.bias": "last.bias"}.get(name, name)
        assert tensor.dtype == before.dtype
        assert torch.equal(tensor, before + 1 if known in trained else before), name
    for given in (model, job):
        given.save(tmp_path / "net.pth")
        other.load_state_dict(torch.load(tmp_path / "net.pth", weights_only=True))


def test_a_state_dict_of_tensors_is_taken_in_place_of_its_weights(
    server: FakeServer, client: Client, module: Any
) -> None:
    other = Network()
    model = client.models.create("net", module, example=torch.zeros(2, FEATURES), weights=other.state_dict())
    assert model.weights_digest is not None
    sent = io.load(server.blobs[model.weights_digest])
    np.testing.assert_array_equal(sent["first.weight"], other.first.weight.detach().numpy())
    with pytest.raises(InvalidInputError, match=r"weights lacks \['first.bias'"):
        client.models.create("net", module, example=torch.zeros(2, FEATURES), weights={"first.weight": np.zeros(1)})


def test_bfloat16_tensors_keep_their_bits(server: FakeServer, client: Client) -> None:
    weights = {"w": torch.linspace(-1, 1, 7).bfloat16()}
    model = with_version(server, client.models.create("m", "mlp", weights=weights))
    assert torch.equal(model.state_dict("torch")["w"], weights["w"])


class Blurred(torch.nn.Module):  # type: ignore[misc]
    """Convolves with kernels that are not learnt: one is in the state_dict, the other is not."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Conv2d(1, 4, 3)
        self.last = torch.nn.Linear(4, 3)
        self.register_buffer("kept", torch.full((4, 1, 1, 1), 0.5))
        self.register_buffer("kernel", torch.full((4, 1, 3, 3), 1 / 9), persistent=False)

    def forward(self, x: Any) -> Any:
        y = torch.conv2d(torch.conv2d(self.mix(x), self.kernel, groups=4), self.kept, groups=4)
        return self.last(torch.flatten(torch.nn.functional.adaptive_avg_pool2d(y, 1), 1))


def test_what_a_module_does_not_learn_is_not_learnt(server: FakeServer, client: Client) -> None:
    module = Blurred()
    model = with_version(server, client.models.create("net", module, example=torch.zeros(2, 1, 8, 8)))
    ours = model.module()
    assert {name for name, _ in ours.named_parameters()} == {name for name, _ in module.named_parameters()}
    assert model.state_dict().keys() == module.state_dict().keys()
    module.load_state_dict(model.state_dict("torch"))
    x = torch.randn(2, 1, 8, 8)
    found = ours.eval()(cr.from_numpy(x.numpy())).detach().numpy()
    np.testing.assert_allclose(found, module(x).detach().numpy(), rtol=1e-5, atol=1e-6)


class Fails(torch.nn.Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        raise RuntimeError("only on Sundays")


class Nested(torch.nn.Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        return x, (x, x)


class Several(torch.nn.Module):  # type: ignore[misc]
    """Two inputs, one of them with a default, and as many outputs."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.last = torch.nn.Linear(FEATURES, 3), torch.nn.Linear(FEATURES, 1)

    def forward(self, x: Any, scale: Any = None, mask: Any = None) -> Any:
        y = x * mask
        found = self.first(y), self.last(y if scale is None else y * scale)
        return {"kind": found[0], "price": found[1]} if self.kind == "dict" else found


class Echo(torch.nn.Module):  # type: ignore[misc]
    """What it gives is called as what it takes."""

    def forward(self, x: Any) -> Any:
        return {"y": x * 2, "x": x + 1}


class OfOutput(torch.nn.Linear):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(5, 2)

    def forward(self, output: Any) -> Any:
        return super().forward(output)


def test_an_input_keeps_its_name_whatever_it_is(server: FakeServer, client: Client) -> None:
    """PyTorch's exporter renames an input that is called as an output."""
    model = client.models.create("net", OfOutput(), example=torch.zeros(2, 5))
    assert model.graph_digest is not None
    loaded = graph.load(server.blobs[model.graph_digest])
    assert ([spec.name for spec in loaded.inputs], [spec.name for spec in loaded.outputs]) == (["output"], ["output_0"])


class Scaled(torch.nn.Module):  # type: ignore[misc]
    """A parameter has the name of an argument."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(5))

    def forward(self, scale: Any) -> Any:
        return {"y": scale * self.scale}


def test_parameters_keep_their_names_whatever_the_inputs_are_called(server: FakeServer, client: Client) -> None:
    model = client.models.create("net", Scaled(), example=torch.zeros(2, 5))
    assert model.graph_digest is not None
    loaded = graph.load(server.blobs[model.graph_digest])
    assert ([name for name, _ in loaded.named_parameters()], loaded.inputs[0].name) == (["scale"], "input_0")
    with pytest.raises(InvalidInputError, match='example has "scale", which is a parameter or buffer of Scaled, too'):
        client.models.create("net", Scaled(), example={"scale": torch.zeros(2, 5)})


@pytest.mark.parametrize("exporter", ["_by_tracing", "_by_dynamo"])
@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_several_inputs_and_outputs_have_names(
    server: FakeServer, client: Client, kind: str, exporter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if exporter == "_by_dynamo":
        pytest.importorskip("onnxscript")
        monkeypatch.setattr(torch_modules, "_by_tracing", torch_modules._by_dynamo)
    module = Several(kind)
    x, mask = torch.randn(4, FEATURES), torch.randint(0, 2, (4, FEATURES))
    model = with_version(server, client.models.create("net", module, example={"mask": mask, "x": x}))
    ours = model.module().eval()
    assert {spec.name for spec in ours.inputs} == {"x", "mask"}
    found = ours(x=cr.from_numpy(x.numpy()), mask=cr.from_numpy(mask.numpy()))
    assert list(found) == (["kind", "price"] if kind == "dict" else ["output_0", "output_1"])
    wanted = module(x, mask=mask)
    for ours_, theirs in zip(found.values(), wanted.values() if kind == "dict" else wanted, strict=True):
        np.testing.assert_allclose(ours_.detach().numpy(), theirs.detach().numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(InvalidInputError, match=r'example has "y", but Several\.forward takes x, scale, mask'):
        client.models.create("net", module, example={"y": x})


@pytest.mark.parametrize(
    ("module_type", "example", "said"),
    [
        (Network, None, "Network is exported by running it once: give example=, a batch of inputs"),
        (
            Network,
            np.zeros((4, 5), np.float32),
            r"Network does not take the example \(float32 \(2, 5\)\): RuntimeError: .*; give a batch that it takes",
        ),
        (Network, np.float32(1), r"example has shape \(\); it must be a batch"),
        (Network, np.zeros((0, FEATURES)), r"example has shape \(0, 6\); it must be a batch"),
        (Fails, np.zeros((4, 5), np.float32), "RuntimeError: only on Sundays"),
        (Echo, np.zeros((4, 5), np.float32), 'Echo gives "x", which is what it calls an input, too'),
        (
            Nested,
            np.zeros((4, 5), np.float32),
            "Nested gives a tuple, with tuple as output_1; a model gives a tensor, or",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused_with_why(
    server: FakeServer, client: Client, module_type: Any, example: Any, said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        client.models.create("net", module_type(), example=example)
    assert server.requests("CreateModel") == []


class Coloured(torch.nn.Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        raise RuntimeError("it is so. \x1b[96mThis is step 3/3\x1b[0m of many")


def test_what_pytorch_writes_in_colour_is_not_repeated(client: Client) -> None:
    with pytest.raises(InvalidInputError, match=r"RuntimeError: it is so\.; give a batch"):
        client.models.create("net", Coloured(), example=np.zeros((4, 5), np.float32))


def test_the_newer_exporter_is_asked_where_the_tracing_one_fails(
    server: FakeServer, client: Client, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")

    def fails(*_: object) -> bytes:
        raise RuntimeError("not today")

    monkeypatch.setattr(torch_modules, "_by_tracing", fails)
    model = with_version(server, client.models.create("net", module, example=torch.zeros(2, FEATURES)))
    Network().load_state_dict(model.state_dict("torch"))
    assert model.weights_digest is not None
    assert {"norm.num_batches_tracked", "shift"} <= io.load(server.blobs[model.weights_digest]).keys()
    monkeypatch.setattr(torch_modules, "_by_dynamo", fails)
    with pytest.raises(InvalidInputError, match=r"does not take Network: .*not today; .*not today; write what"):
        client.models.create("net", module, example=torch.zeros(2, FEATURES))
