"""`chainrule predict`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from typer.testing import Result

from chainrule.client import Client
from chainrule.client.cli.exits import ExitCode
from chainrule.engine import models
from chainrule.v1 import dataset_pb2, model_pb2
from tests.client.fake_server import Failure, FakeServer

Run = Callable[..., Result]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two examples."""
    np.save(tmp_path / "x.npy", np.asarray([[1.0, 2.0], [3.0, -5.0]]))
    return tmp_path / "x.npy"


def test_the_most_likely_class_of_each_example_is_printed(run: Run, file: Path) -> None:
    result = run("predict", "digits", str(file))
    assert result.exit_code == 0, result.output
    header, first, second = result.stdout.splitlines()
    assert header.split() == ["example", "class", "label", "probability"]
    assert first.split() == ["0", "0", "up", "0.9975"]
    assert second.split() == ["1", "1", "down", "0.9820"]
    assert result.stderr.strip() == "models/digits/versions/3"


def test_programs_get_json(run_json: Callable[..., Any], file: Path) -> None:
    found = run_json("predict", "digits/versions/2", str(file), "--top", "2")
    assert found["version"] == "models/digits/versions/2"
    assert found["outputs"] == [{"name": "output", "dtype": "float32", "shape": [2, 2]}]
    assert [[ranked["label"] for ranked in best] for best in found["classes"]] == [["up", "down"], ["down", "up"]]
    assert set(found["classes"][0][0]) == {"index", "label", "probability"}


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_outputs_are_written(run: Run, file: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"y{suffix}"
    assert run("predict", "digits", str(file), "--out", str(out)).exit_code == 0
    loaded = np.load(out)
    np.testing.assert_array_equal(loaded if suffix == ".npy" else loaded["output"], [[3, -3], [-2, 2]])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npy", out.name]


def test_an_image_is_made_what_the_network_takes(run: Run, server: FakeServer, client: Client, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    client.models.create("digits", models.small_cnn(in_channels=1, image_size=8))
    image.new("RGB", (20, 10), "white").save(tmp_path / "x.png")
    version = server.versions["models/digits/versions/1"] = model_pb2.ModelVersion(name="models/digits/versions/1")
    assert run("predict", "digits", str(tmp_path / "x.png")).exit_code == 0
    [request] = server.requests("Predict")
    assert list(request.inputs[0].shape) == [1, 1, 8, 8]
    assert set(np.frombuffer(request.inputs[0].data, np.float32)) == {1.0}

    # Of a version that a job has made it is what the job's images were, which the server prepares.
    version.dataset, version.dataset_digest = "datasets/pictures", "d"
    server.datasets["datasets/pictures"] = dataset_pb2.Dataset(
        name="datasets/pictures", digest="d", input_shape=[3, 6, 4]
    )
    assert run("predict", "digits", str(tmp_path / "x.png")).exit_code == 0
    assert run("predict", "digits", str(tmp_path / "x.png"), "--prepared").exit_code == 0
    of_dataset, prepared = server.requests("Predict")[1:]
    assert (list(of_dataset.inputs[0].shape), of_dataset.prepared) == ([1, 3, 6, 4], False)
    assert (list(prepared.inputs[0].shape), prepared.prepared) == ([1, 1, 8, 8], True)


def test_tokens_are_sent_as_they_are(run: Run, server: FakeServer, file: Path) -> None:
    assert run("predict", "gpt", str(file), "--tokens", "--alone", "--batch-size", "1").exit_code == 0
    [request] = server.requests("Predict")
    assert (request.inputs[0].dtype, request.alone, list(request.inputs[0].shape)) == ("int64", True, [1, 2])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["predict", "digits", "nowhere.npy"], ExitCode.USAGE, "does not exist"),
        (["predict", "digits", "x.npy", "--out", "y.csv"], ExitCode.USAGE, "ends in neither .npy nor .npz"),
        (["predict", "digits", "x.csv"], ExitCode.USAGE, "x.csv is no .npy or .npz file"),
    ],
)
def test_what_cannot_be_is_wrong_usage(
    run: Run, file: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: ExitCode, said: str
) -> None:
    monkeypatch.chdir(file.parent)
    file.with_suffix(".csv").write_text("1,2\n")
    result = run(*words)
    assert result.exit_code == code
    assert said in " ".join(result.stderr.replace("│", " ").split())


def test_what_the_server_refuses_ends_the_command(run: Run, server: FakeServer, file: Path) -> None:
    server.fail("Predict", Failure(code=grpc.StatusCode.NOT_FOUND, message="there is no models/x"))
    result = run("predict", "x", str(file))
    assert result.exit_code == ExitCode.SERVICE
    assert "there is no models/x" in result.stderr
