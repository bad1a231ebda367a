"""Whatever stands for a network is sent as a family or as a graph, and comes back as a module or a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.client import Client, FailedPrecondition, InvalidInputError, Model
from chainrule.engine import graph, io, models, nn
from chainrule.v1 import dataset_pb2, job_pb2, model_pb2
from tests import graphs
from tests.client.fake_server import NOW, FakeServer

X = np.random.default_rng(3).normal(size=(4, graphs.FEATURES)).astype(np.float32)


def with_version(server: FakeServer, model: Model) -> Model:
    """Gives the fake server's model the version that a server makes it with."""
    name = f"{model.name}/versions/1"
    server.versions[name] = model_pb2.ModelVersion(
        name=name, weights_digest=model.weights_digest or "", create_time=NOW
    )
    return model


def finished_job(server: FakeServer, client: Client, model: Model, weights: dict[str, np.ndarray]) -> Any:
    content = io.save(weights)
    server.blobs[io.digest(content)] = content
    server.put_job(
        name="jobs/1", state=job_pb2.Job.STATE_SUCCEEDED, weights_digest=io.digest(content), model=model.name
    )
    return client.jobs.get("jobs/1")


def outputs(module: nn.Module) -> np.ndarray:
    module.eval()
    with cr.no_grad():
        found = module(cr.from_numpy(X))
    assert isinstance(found, cr.Tensor)
    return found.numpy()


# Sent


@pytest.mark.parametrize("how", ["path", "text", "bytes"])
def test_an_onnx_file_is_sent_as_its_graph_and_its_weights(
    server: FakeServer, client: Client, tmp_path: Path, how: str
) -> None:
    content = graphs.small_onnx()
    file = tmp_path / "m.onnx"
    file.write_bytes(content)
    model = client.models.create("g", {"path": file, "text": str(file), "bytes": content}[how])
    assert (model.family, model.config) == ("", {})
    assert model.graph_digest is not None
    assert model.weights_digest is not None
    architecture, weights = graph.split(content)
    assert server.blobs[model.graph_digest] == architecture
    sent = io.load(server.blobs[model.weights_digest])
    assert sent.keys() == graph.load(content).state_dict().keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(sent[name], array, strict=True)


def test_a_graph_module_is_sent_as_its_graph(server: FakeServer, client: Client) -> None:
    module = graph.load(graphs.small_onnx())
    assert client.models.create("a", module).graph_digest == client.models.create("b", graphs.small_onnx()).graph_digest


def test_weights_may_be_others_than_those_of_the_file(server: FakeServer, client: Client, tmp_path: Path) -> None:
    other = {name: t.numpy() for name, t in graph.load(graphs.small_onnx(seed=1)).state_dict().items()}
    file = tmp_path / "w.pth"
    io.save_pth_file(other, file)
    for name, weights in (("a", other), ("b", file), ("c", str(file))):
        model = client.models.create(name, graphs.small_onnx(), weights=weights)
        assert model.weights_digest == io.digest(io.save(other))


def test_a_family_may_be_given_by_its_name(server: FakeServer, client: Client) -> None:
    model = client.models.create("digits", "small_cnn", config={"width": 4}, init_seed=3, class_labels=["a", "b"])
    assert (model.family, model.config, model.weights_digest, model.init_seed) == ("small_cnn", {"width": 4}, None, 3)
    assert (model.graph_digest, model.class_labels) == (None, ("a", "b"))


@pytest.mark.parametrize(
    ("network", "more", "said"),
    [
        (3, {}, "a int is no network; give a module of chainrule.engine or of PyTorch"),
        (nn.Linear, {}, "Linear is a class; give a network that is made of it: Linear(…)"),
        ("no/such/file.onnx", {}, "cannot read no/such/file.onnx: no such file"),
        (b"", {"config": {}}, "config goes with the name of a family"),
        (nn.Linear(2, 3), {}, "Linear is exported by running it once: give example="),
        ("mlp", {"weights": [1, 2]}, "weights is a list; it must be a state_dict"),
        ("mlp", {"weights": {"w": "x"}}, "weights has a str as 'w'; it must be an array or a tensor"),
        ("mlp", {"weights": {3: np.zeros(1)}}, "weights has the name 3; names must be texts"),
        ("mlp", {"weights": "no-such-file.pth"}, "cannot read no-such-file.pth: no such file"),
        ("mlp", {"class_labels": "abc"}, "class_labels is 'abc'; it must be a list"),
    ],
)
def test_what_is_no_network_is_refused_here(
    server: FakeServer, client: Client, network: Any, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        client.models.create("m", network, **more)
    assert said in str(caught.value)
    assert server.requests("CreateModel") == []


def test_a_file_that_is_no_onnx_is_named(server: FakeServer, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "photo.onnx"
    file.write_bytes(b"PNG" * 9)
    with pytest.raises(graph.GraphError) as caught:
        client.models.create("m", file)
    assert str(caught.value).startswith(f"{file}: these bytes are no ONNX model: ")


def test_nodes_that_cannot_be_trained_are_all_named_here(server: FakeServer, client: Client) -> None:
    with pytest.raises(graph.UnsupportedError) as caught:
        client.models.create("m", graphs.unsupported())
    assert [name for name, *_ in caught.value.nodes] == ["clean up", "count words"]
    assert server.calls == [call for call in server.calls if call[0] == "GetServerInfo"]


# Back


def test_a_model_of_a_graph_comes_back_as_a_module_and_as_files(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    module = graph.load(graphs.small_onnx())
    model = with_version(server, client.models.create("g", graphs.small_onnx()))
    np.testing.assert_array_equal(outputs(model.module()), outputs(module))
    assert model.state_dict().keys() == module.state_dict().keys()
    for name in ("m.safetensors", "m.pth"):
        model.save(tmp_path / name)
        loaded = io.load_weights(tmp_path / name)
        assert io.digest(io.save(loaded)) == model.weights_digest
    model.save(tmp_path / "m.onnx")
    np.testing.assert_array_equal(outputs(graph.load((tmp_path / "m.onnx").read_bytes())), outputs(module))


def test_a_saved_onnx_file_is_for_inference(server: FakeServer, client: Client, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = with_version(server, client.models.create("g", graphs.small_onnx()))
    model.save(tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert [x.name for x in session.get_inputs()] == ["x"]
    [alone] = session.run(None, {"x": X[:1]})
    [together] = session.run(None, {"x": X})
    np.testing.assert_allclose(alone, together[:1], rtol=1e-5, atol=1e-6)  # no statistics of the batch
    np.testing.assert_allclose(together, outputs(graph.load(graphs.small_onnx())), rtol=1e-5, atol=1e-5)


def test_what_a_job_has_made_comes_back_likewise(server: FakeServer, client: Client, tmp_path: Path) -> None:
    trained = graph.load(graphs.small_onnx(seed=9))
    model = client.models.create("g", graphs.small_onnx())
    job = finished_job(server, client, model, {name: t.numpy() for name, t in trained.state_dict().items()})
    np.testing.assert_array_equal(outputs(job.module()), outputs(trained))
    np.testing.assert_array_equal(job.state_dict()["fc2.weight"], job.weights()["fc2.weight"])
    job.save(tmp_path / "m.onnx")
    np.testing.assert_array_equal(outputs(graph.load((tmp_path / "m.onnx").read_bytes())), outputs(trained))


def test_a_model_of_a_family_comes_back_likewise(server: FakeServer, client: Client, tmp_path: Path) -> None:
    module = models.mlp(in_features=graphs.FEATURES, hidden=(4,), num_classes=3)
    model = with_version(server, client.models.create("f", module))
    np.testing.assert_array_equal(outputs(model.module()), outputs(module))
    model.save(tmp_path / "m.pth")
    assert io.digest(io.save(io.load_weights(tmp_path / "m.pth"))) == model.weights_digest
    with pytest.raises(InvalidInputError, match="MLP is exported by running it once: give example="):
        model.save(tmp_path / "m.onnx")


def test_a_family_is_written_with_examples_of_the_column_that_it_took(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    module = models.mlp(in_features=graphs.FEATURES, hidden=(4,), num_classes=3)
    model = with_version(server, client.models.create("f", module))
    weights = {name: t.numpy() for name, t in module.state_dict().items()}
    finished_job(server, client, model, weights)
    server.jobs["jobs/1"].dataset = "datasets/d"
    server.jobs["jobs/1"].config.inputs["inputs"] = "pixels"
    columns = [dataset_pb2.Column(name="pixels", dtype="float32", shape=[graphs.FEATURES])]
    server.datasets["datasets/d"] = dataset_pb2.Dataset(name="datasets/d", columns=columns)
    client.jobs.get("jobs/1").save(tmp_path / "m.onnx")
    np.testing.assert_allclose(outputs(graph.load((tmp_path / "m.onnx").read_bytes())), outputs(module), rtol=1e-5)


@pytest.mark.parametrize("name", ["m", "m.txt", "m.h5"])
def test_a_file_says_its_format_by_its_name(server: FakeServer, client: Client, tmp_path: Path, name: str) -> None:
    model = client.models.create("g", graphs.small_onnx())
    with pytest.raises(InvalidInputError, match=r"let it end with \.onnx, \.safetensors or \.pth"):
        model.save(tmp_path / name)


def test_a_framework_that_is_none_is_refused(server: FakeServer, client: Client) -> None:
    model = with_version(server, client.models.create("g", graphs.small_onnx()))
    with pytest.raises(InvalidInputError, match="framework is 'jax'; it must be one of: numpy, torch"):
        model.state_dict("jax")


def test_a_job_that_has_not_succeeded_has_no_module(server: FakeServer, client: Client, tmp_path: Path) -> None:
    model = client.models.create("g", graphs.small_onnx())
    server.put_job(name="jobs/1", state=job_pb2.Job.STATE_RUNNING, model=model.name)
    job = client.jobs.get("jobs/1")
    for read in (job.module, job.state_dict, lambda: job.save(tmp_path / "m.pth")):
        with pytest.raises(FailedPrecondition, match="only a SUCCEEDED job has weights"):
            read()


# Code

NET = """
from chainrule.engine import nn


class Net(nn.Module):
    def __init__(self, hidden, deep):
        super().__init__()
        self.first = nn.Linear({features}, hidden)
        self.norm = nn.BatchNorm1d(hidden, momentum=None)
        self.last = nn.Linear(hidden, 3, bias=deep["bias"])

    def forward(self, x):
        h = self.norm(self.first(x))
        while h.abs().mean().item() > 1:  # as no graph can say
            h = h * 0.5
        return self.last(h)


def build(hidden=4, deep=None):
    assert isinstance(hidden, int)
    return Net(hidden, deep or {{"bias": True}})
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    file = tmp_path / "net.py"
    file.write_text(NET.format(features=graphs.FEATURES))
    return file


@pytest.mark.parametrize("kind", [str, Path])
def test_a_python_file_is_sent_with_the_weights_that_it_makes(
    server: FakeServer, client: Client, net: Path, kind: Any
) -> None:
    config = {"hidden": 5.0, "deep": {"bias": False}}
    made = [client.models.create(f"m{seed}", kind(net), config=config, init_seed=seed) for seed in (1, 1, 2)]
    assert made[0].weights_digest == made[1].weights_digest != made[2].weights_digest
    model = made[0]
    assert (model.code_digest, model.factory, model.file_name) == (io.digest(net.read_bytes()), "build", "net.py")
    assert (model.family, model.config, model.graph_digest) == ("", {"hidden": 5, "deep": {"bias": False}}, None)
    assert model.architecture == f"code {model.code_digest} build {model.config}"
    assert server.blobs[model.code_digest or ""] == net.read_bytes()
    [request, *_] = server.requests("CreateModel")
    code = request.model.code
    assert list(code.parameters) == ["first.weight", "first.bias", "norm.weight", "norm.bias", "last.weight"]
    assert [(of.path, of.HasField("momentum")) for of in code.batch_norms] == [("norm", False)]
    weights = io.load(server.blobs[model.weights_digest or ""])
    assert weights["first.weight"].shape == (5, graphs.FEATURES)


def test_code_begins_with_other_weights_if_these_fit(server: FakeServer, client: Client, net: Path) -> None:
    first = client.models.create("a", net, init_seed=1)
    weights = io.load(server.blobs[first.weights_digest or ""])
    assert client.models.create("b", net, weights=weights).weights_digest == first.weights_digest
    with pytest.raises(InvalidInputError, match=r"weights do not fit the network of .*net.py: "):
        client.models.create("c", net, weights={"x": np.zeros(1)})


@pytest.mark.parametrize(
    ("text", "more", "said"),
    [
        (None, {}, "cannot read .*net.py: no such file"),
        ("def build(:", {}, "net.py is no Python 3"),
        ("def make(): pass", {}, 'has no "build" at its top level, .* it defines make'),
        ("def build(): pass", {"factory": "make"}, 'has no "make" at its top level'),
        ("def build():\n    return missing", {}, r"net.py, line 2: NameError: name 'missing' is not defined"),
        ("def build(): return 3", {}, "gives a int; it must give"),
        ("def build(): pass", {"config": {"a": object()}}, "not made of JSON values"),
        ("def build(): pass", {"init_seed": -1}, "init_seed is -1"),
    ],
)
def test_a_file_that_makes_no_network_is_refused_here(
    server: FakeServer, client: Client, net: Path, text: str | None, more: dict[str, Any], said: str
) -> None:
    net.unlink() if text is None else net.write_text(text)
    with pytest.raises(InvalidInputError, match=said):
        client.models.create("m", net, **more)
    assert server.requests("CreateModel") == []


def test_a_factory_without_a_python_file_is_refused(client: Client) -> None:
    with pytest.raises(InvalidInputError, match=r"factory goes with a Python file, as net\.py; leave it out"):
        client.models.create("m", "mlp", factory="build")


def test_what_a_server_has_is_run_only_as_a_file_of_this_machine(
    server: FakeServer, client: Client, net: Path, tmp_path: Path
) -> None:
    model = with_version(server, client.models.create("m", net, init_seed=3))
    job = finished_job(server, client, model, io.load(server.blobs[model.weights_digest or ""]))
    for of in (model, job):
        with pytest.raises(InvalidInputError, match=r'not run here unless you say so; .*module\(code="net.py"\)'):
            of.module()
        assert outputs(of.module(code=net)).shape == (4, 3)
    assert model.source() == net.read_text()
    other = tmp_path / "other.py"
    other.write_text(net.read_text() + "\nraise SystemExit('it was run')")
    with pytest.raises(InvalidInputError, match=f"but the model was created with a file that has {model.code_digest}"):
        job.module(code=other)
    assert model.state_dict().keys() == model.module(code=str(net)).state_dict().keys()
    model.save(tmp_path / "m.safetensors")
    assert io.digest((tmp_path / "m.safetensors").read_bytes()) == model.weights_digest
    with pytest.raises(InvalidInputError, match=r"is Python code, which is not run to be written as \.onnx"):
        model.save(tmp_path / "m.onnx")


def test_a_server_does_not_choose_what_is_called_but_among_what_the_file_defines(
    server: FakeServer, client: Client, net: Path
) -> None:
    net.write_text(f"from os import putenv\n{net.read_text()}")
    made = with_version(server, client.models.create("m", net))
    hostile = replace(made, factory="putenv", config={"name": "A", "value": "B"})
    with pytest.raises(InvalidInputError, match='has no function or class of its own called "putenv"'):
        hostile.module(code=net)


def test_a_model_that_is_no_code_has_no_source(server: FakeServer, client: Client, net: Path) -> None:
    model = with_version(server, client.models.create("m", "mlp", weights={"w": np.zeros(1)}))
    with pytest.raises(InvalidInputError, match=r"models/m is no Python code, but mlp \{\}"):
        model.source()
    with pytest.raises(InvalidInputError, match=r"models/m is no Python code, but mlp \{\}; leave code out"):
        model.module(code=net)
