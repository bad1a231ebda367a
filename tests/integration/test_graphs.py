"""A network of the engine, as a graph, is trained to the weights that it is trained to as a family."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import pytest
from typer.testing import CliRunner

from chainrule.client import Client
from chainrule.client.cli.app import app
from chainrule.engine import from_numpy, graph, io, no_grad
from chainrule.v1 import model_pb2, model_pb2_grpc
from tests import graphs
from tests.integration.conftest import Images, ServerProcess, network


def test_a_family_and_its_graph_give_the_same_digest(client: Client, images: Images, tmp_path: Path) -> None:
    x, y = images
    module = network(dropout=0.25)
    data = client.datasets.create("graph-data", inputs=x, targets=y)
    family = client.models.create("as-family", module)
    content = graph.export(module, x[:2])
    (tmp_path / "m.onnx").write_bytes(content)
    as_graph = client.models.create("as-graph", tmp_path / "m.onnx")
    assert as_graph.weights_digest == family.weights_digest
    jobs = [
        client.jobs.create(
            model=model, dataset=data, epochs=2, batch_size=50, shards=4, workers=workers,
            optimizer={"lr": 0.05, "momentum": 0.9},
        )
        for model, workers in ((family, 1), (as_graph, 2), (as_graph, 3))
    ]  # fmt: skip
    for job in jobs:
        job.wait(timeout_s=120)
    assert jobs[0].weights_digest == jobs[1].weights_digest == jobs[2].weights_digest
    trained = jobs[1].module().eval()
    same = jobs[0].module().eval()
    with no_grad():
        np.testing.assert_allclose(
            trained(from_numpy(x[:4])).numpy(), same(from_numpy(x[:4])).numpy(), rtol=1e-5, atol=1e-6
        )
    for job, name in zip(jobs, ("family.onnx", "graph.onnx"), strict=False):
        job.save(tmp_path / name)
        read = {key: value.numpy() for key, value in graph.load((tmp_path / name).read_bytes()).state_dict().items()}
        assert read.keys() == job.weights().keys()
        np.testing.assert_array_equal(read["fc.weight"], job.weights()["fc.weight"])


def test_the_server_refuses_what_it_cannot_train_by_the_names_of_its_nodes(
    server: ServerProcess, client: Client
) -> None:
    with pytest.raises(graph.UnsupportedError):  # the SDK looks itself
        client.models.create("refused", graphs.unsupported())
    _, weights = graph.split(graphs.small_onnx())
    model = model_pb2.Model(
        graph=model_pb2.Graph(digest=client.blobs.upload(graphs.unsupported())),
        weights_digest=client.blobs.upload(io.save(weights)),
    )
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError, match="clean up") as caught:
        model_pb2_grpc.ModelServiceStub(channel).CreateModel(
            model_pb2.CreateModelRequest(model_id="refused", model=model)
        )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_network_that_was_exported_for_inference_is_taken_with_a_warning(
    server: ServerProcess, client: Client, tmp_path: Path
) -> None:
    """The service says it of the stored model, and the SDK and the command line show it, now and later."""
    file = tmp_path / "folded.onnx"
    file.write_bytes(graphs.folded())
    with pytest.warns(
        UserWarning, match=r"models/folded: 1 convolutions \(\"/conv/Conv\"\) have weights that no module"
    ):
        made = client.models.create("folded", file)
    [warning] = made.warnings
    assert "BatchNorm layers were folded into them when it was exported for inference" in warning
    assert client.models.get("folded").warnings == (warning,)
    arguments = {"created": ("create", "folded-again", "--onnx", str(file)), "shown": ("show", "folded")}
    for said in arguments.values():
        result = CliRunner().invoke(app, ["models", *said, "--address", server.address])
        assert result.exit_code == 0, result.output
        assert f"note: {warning}" in result.stderr
