"""`chainrule models`, `datasets`, `weights` and `cluster`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from typer.testing import Result

from chainrule.client.cli.exits import ExitCode
from chainrule.client.cli.output import size
from chainrule.engine import graph, io, models
from chainrule.v1 import job_pb2, model_pb2
from tests import graphs
from tests.client.fake_server import NOW, Failure, FakeServer, log_entry

Run = Callable[..., Result]
RunJson = Callable[..., Any]
INPUTS = np.arange(16, dtype=np.float32).reshape(4, 1, 2, 2)
TARGETS = np.array([0, 1, 2, 1])
WEIGHTS = {"bias": np.arange(3, dtype=np.float32)}


# Models


def test_a_model_is_made_from_a_family(run_json: RunJson) -> None:
    made = run_json("models", "create", "digits", "--family", "small_cnn", "--config", '{"num_classes": 3}')
    assert (made["name"], made["family"], made["config"]) == ("models/digits", "small_cnn", {"num_classes": 3})
    assert (made["weights_digest"], made["init_seed"]) == (None, 0)


def spec(name: str, *shape: model_pb2.Dimension) -> model_pb2.TensorSpec:
    return model_pb2.TensorSpec(name=name, dtype="float32", shape=shape)


def test_a_model_is_made_of_an_onnx_file_shown_and_saved(
    run: Run, run_json: RunJson, server: FakeServer, tmp_path: Path
) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(graphs.small_onnx())
    made = run_json("models", "create", "g", "--onnx", str(file), "--class-label", "cat", "--class-label", "dog")
    assert (made["family"], made["class_labels"]) == ("", ["cat", "dog"])
    assert {made["graph_digest"], made["weights_digest"]} == server.blobs.keys()
    server.models["models/g"].MergeFrom(
        model_pb2.Model(
            inputs=[spec("x", model_pb2.Dimension(name="batch"), model_pb2.Dimension(value=8))],
            outputs=[spec("y", model_pb2.Dimension(name=""), model_pb2.Dimension(value=10))],
            warnings=["it is odd"],
        )
    )
    name = "models/g/versions/1"
    server.versions[name] = model_pb2.ModelVersion(name=name, weights_digest=made["weights_digest"], create_time=NOW)
    shown = run("models", "show", "g")
    text = " ".join(shown.stdout.split())
    assert f"graph sha256 {made['graph_digest']}" in text
    assert "inputs x: float32 (batch, 8) outputs y: float32 (?, 10)" in text
    assert "classes cat, dog" in text
    assert "note: it is odd" in shown.stderr
    assert run_json("models", "show", "g")["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 8]}]
    assert run("models", "ls").stdout.splitlines()[1].split()[:2] == ["models/g", "graph"]
    for saved in ("out.onnx", "out.pth", "out.safetensors"):
        run_json("models", "save", "g", str(tmp_path / saved))
    assert io.digest((tmp_path / "out.safetensors").read_bytes()) == made["weights_digest"]
    refused = run("models", "save", "g", str(tmp_path / "out.txt"))
    assert refused.exit_code == ExitCode.USAGE
    assert "let it end with .onnx, .safetensors or .pth" in refused.stderr


def test_a_model_is_made_of_a_python_file_and_shown(
    run: Run, run_json: RunJson, server: FakeServer, tmp_path: Path
) -> None:
    file = tmp_path / "net.py"
    file.write_text("from chainrule.engine import nn\ndef make(size): return nn.Linear(size, 3)\n")
    words = ("models", "create", "c", "--code", str(file))
    made = run_json(*words, "--factory", "make", "--config", "size=2", "--init-seed", "5")
    assert (made["code_digest"], made["factory"], made["config"]) == (io.digest(file.read_bytes()), "make", {"size": 2})
    text = " ".join(run("models", "show", "c").stdout.split())
    assert f'code sha256 {made["code_digest"]} factory make of net.py config {{"size": 2}}' in text
    assert run("models", "ls").stdout.splitlines()[1].split()[:3] == ["models/c", "code", made["code_digest"][:12]]
    for wrong, said in (
        (
            ("models", "create", "d", "--family", "mlp", "--factory", "make"),
            "it is in the file of --code; leave it out",
        ),
        ((*words, "--family", "mlp"), "one of them says what the network is; give one"),
        (words, 'net.py has no "build" at its top level'),
    ):
        refused = run(*wrong)
        assert refused.exit_code != 0
        assert said in " ".join(refused.stderr.replace("│", " ").split())


def test_a_model_of_a_family_is_saved_with_the_shape_of_an_input(
    run: Run, run_json: RunJson, server: FakeServer, tmp_path: Path
) -> None:
    weights = tmp_path / "w.safetensors"
    io.save_file(models.mlp(in_features=8, hidden=(4,), num_classes=3).state_dict(), weights)
    config = '{"in_features": 8, "hidden": [4], "num_classes": 3}'
    made = run_json("models", "create", "f", "--family", "mlp", "--config", config, "--weights", str(weights))
    name = "models/f/versions/1"
    server.versions[name] = model_pb2.ModelVersion(name=name, weights_digest=made["weights_digest"], create_time=NOW)
    file = tmp_path / "f.onnx"
    for shape in ("8,x", "", "-1"):
        assert run("models", "save", "f", str(file), f"--input-shape={shape}").exit_code == ExitCode.USAGE
    refused = run("models", "save", "f", str(file))
    assert (refused.exit_code, "--input-shape" in refused.stderr) == (ExitCode.USAGE, True)
    run_json("models", "save", "f", str(file), "--input-shape", "8")
    [x] = graph.load(file.read_bytes()).inputs
    assert x.shape is not None
    assert x.shape[1:] == (8,)


def test_one_option_says_what_the_network_is(run: Run, server: FakeServer, tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(graphs.small_onnx())
    for words in ((), ("--family", "mlp", "--onnx", str(file)), ("--onnx", str(file), "--config", "a=1")):
        assert run("models", "create", "g", *words).exit_code == ExitCode.USAGE
    assert server.calls == []


def test_a_model_may_start_from_a_file_of_weights(run_json: RunJson, server: FakeServer, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(io.save(WEIGHTS))
    made = run_json("models", "create", "digits", "--family", "mlp", "--weights", str(file))
    assert made["weights_digest"] == io.digest(file.read_bytes())
    assert made["weights_digest"] in server.blobs


@pytest.mark.parametrize("content", [b"", b"no safetensors"])
def test_a_damaged_file_of_weights_is_wrong_usage_and_named(
    run: Run, server: FakeServer, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(content)
    result = run("models", "create", "digits", "--family", "mlp", "--weights", str(file))
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr.startswith(f"error: {file}: neither safetensors nor a file of torch.save: ")
    assert server.calls == []


def test_what_others_have_written_does_not_steer_the_terminal(run: Run, run_json: RunJson, server: FakeServer) -> None:
    run("models", "create", "digits", "--family", "mlp", "--description", "a\x1b]0;b\x07", "--label", "k=\x1b[2J")
    for words in (("models", "ls"), ("models", "update", "digits", "--description", "\x1b[1m")):
        shown = run(*words).stdout
        assert "k=\N{REPLACEMENT CHARACTER}[2J" in shown
        assert "\x1b" not in shown
    assert run_json("models", "ls")[0]["labels"] == {"k": "\x1b[2J"}
    queued = job_pb2.Job.STATE_QUEUED
    change = job_pb2.StateChange(state=queued, time=NOW, reason="wait\x1b[5m")
    server.put_job(name="jobs/1", state=queued, history=[change])
    server.logs = [log_entry(1, "a\x1b[31m\nline")]
    assert "a\N{REPLACEMENT CHARACTER}[31m\nline" in run("jobs", "logs", "1").stdout
    assert "wait\N{REPLACEMENT CHARACTER}[5m" in run("jobs", "status", "1").stdout
    refused = Failure(code=grpc.StatusCode.INVALID_ARGUMENT, message="no\x1b[0m", violations={"name": "x\x1b[1m"})
    server.fail("GetJob", refused)
    assert "\x1b" not in run("jobs", "status", "1").stderr


def test_weights_may_lack_what_is_named(run: Run, run_json: RunJson, server: FakeServer, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(io.save(WEIGHTS))
    words = ("models", "create", "digits", "--family", "mlp", "--allow-missing", "fc.*", "--allow-missing", "head.*")
    run_json(*words, "--weights", str(file), "--init-seed", "7")
    [request] = server.requests("CreateModel")
    assert (list(request.allow_missing), request.model.init_seed) == (["fc.*", "head.*"], 7)
    without = run(*words)
    assert without.exit_code == ExitCode.USAGE
    assert "give --weights, or leave it out" in " ".join(without.stderr.replace("│", "").split())
    assert len(server.requests("CreateModel")) == 1


def test_a_configuration_may_be_given_key_by_key(run_json: RunJson) -> None:
    words = ("num_classes=10", "rate=0.5", "bias=true", "hidden=[32, 16]", "activation=relu", "note=a=b", '{"x": 1}')
    options = [word for text in words for word in ("--config", text)]
    assert run_json("models", "create", "digits", "--family", "mlp", *options)["config"] == {
        **{"num_classes": 10, "rate": 0.5, "bias": True, "hidden": [32, 16]},
        **{"activation": "relu", "note": "a=b", "x": 1},
    }


@pytest.mark.parametrize("config", ["{", "[1]", "3", "", "=3", "num_classes", '"a=b"'])
def test_a_configuration_that_is_none_is_wrong_usage_and_shows_the_form(
    run: Run, server: FakeServer, config: str
) -> None:
    result = run("models", "create", "digits", "--family", "mlp", "--config", config)
    assert result.exit_code == ExitCode.USAGE
    assert "num_classes=10" in result.stderr
    assert server.calls == []


def test_a_setting_that_is_given_twice_is_wrong_usage(run: Run) -> None:
    result = run("models", "create", "digits", "--family", "mlp", "--config", "a=1", "--config", '{"a": 2}')
    assert result.exit_code == ExitCode.USAGE
    assert '"a" is given twice' in result.stderr


def test_the_help_shows_both_forms_of_a_configuration(run: Run) -> None:
    text = " ".join(run("models", "create", "--help").stdout.replace("│", "").split())
    assert "num_classes=10, as often as needed" in text
    assert '{"num_classes": 10}' in text


def test_a_seed_beyond_64_bits_is_wrong_usage(run: Run) -> None:
    result = run("models", "create", "digits", "--family", "mlp", "--init-seed", "99999999999999999999999")
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr.startswith("error: init_seed is 99999999999999999999999; it must be a whole number from 0")


def test_models_and_families_are_listed(run: Run, run_json: RunJson) -> None:
    run("models", "create", "digits", "--family", "small_cnn")
    assert [model["name"] for model in run_json("models", "ls")] == ["models/digits"]
    assert run("models", "ls").stdout.splitlines()[1].split()[:2] == ["models/digits", "small_cnn"]
    assert run_json("models", "families") == [
        {"name": "small_cnn", "description": "Two blocks.", "config": {"num_classes": 10}}
    ]
    assert "small_cnn" in run("models", "families").stdout


# Datasets


@pytest.mark.parametrize("names", [("inputs", "targets"), ("x", "y")])
def test_a_dataset_is_pushed_from_a_npz_file(
    run_json: RunJson, server: FakeServer, tmp_path: Path, names: tuple[str, str]
) -> None:
    np.savez(tmp_path / "d.npz", allow_pickle=False, **{names[0]: INPUTS, names[1]: TARGETS})
    made = run_json("datasets", "push", "digits", str(tmp_path / "d.npz"))
    assert made["name"] == "datasets/digits"
    sent = io.load(server.blobs[made["digest"]])
    np.testing.assert_array_equal(sent["inputs"], INPUTS)
    np.testing.assert_array_equal(sent["targets"], TARGETS)


def test_tokens_are_pushed_as_whole_numbers(run_json: RunJson, server: FakeServer, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([[1, 2], [3, 4]]), y=np.array([[2, 3], [4, 5]]))
    made = run_json("datasets", "push", "text", str(tmp_path / "d.npz"), "--tokens")
    sent = io.load(server.blobs[made["digest"]])
    assert sent["inputs"].dtype == np.int64
    assert sent["inputs"].tolist() == [[1, 2], [3, 4]]


def test_datasets_are_listed(run: Run, run_json: RunJson, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=INPUTS, y=TARGETS)
    assert run("datasets", "push", "digits", str(tmp_path / "d.npz")).exit_code == 0
    assert [dataset["input_shape"] for dataset in run_json("datasets", "ls")] == [[1, 2, 2]]
    assert run("datasets", "ls").stdout.splitlines()[1].split()[:2] == ["datasets/digits", "4"]


def write_pickled(file: Path) -> None:
    np.savez(file, x=np.array([{"a": 1}], dtype=object), y=TARGETS)


def write_other_names(file: Path) -> None:
    np.savez(file, images=INPUTS, labels=TARGETS)


def write_single_array(file: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, INPUTS)


def write_rubbish(file: Path) -> None:
    file.write_bytes(b"this is no archive")


def write_broken_archive(file: Path) -> None:
    file.write_bytes(b"PK\x03\x04 and then nothing")


def write_nothing(file: Path) -> None:
    file.touch()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_pickled, "cannot be read as a .npz file: Object arrays cannot be loaded"),
        (write_other_names, "has the arrays images, labels; a dataset needs inputs and targets (or x and y)"),
        (write_single_array, "holds one array; a dataset is a .npz file with inputs and targets"),
        (write_rubbish, "is not a .npz file; write one with numpy.savez(file, inputs=..., targets=...)"),
        (write_broken_archive, "cannot be read as a .npz file"),
        (write_nothing, "is not a .npz file"),
    ],
)
def test_a_file_that_is_no_dataset_is_wrong_usage_and_nothing_is_sent(
    run: Run, server: FakeServer, tmp_path: Path, write: Callable[[Path], None], message: str
) -> None:
    file = tmp_path / "d.npz"
    write(file)
    result = run("datasets", "push", "digits", str(file))
    assert result.exit_code == ExitCode.USAGE
    assert f"error: {file} {message}" in result.stderr
    assert server.calls == []


def test_targets_with_fractions_are_numbers_to_predict(run: Run, server: FakeServer, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=INPUTS, y=TARGETS + 0.5)
    assert run("datasets", "push", "digits", str(tmp_path / "d.npz")).exit_code == 0
    [content] = server.blobs.values()
    assert io.load(content)["targets"].tolist() == (TARGETS + 0.5).astype(np.float32).tolist()


# Weights


def test_the_weights_of_a_job_are_written_with_their_digest(
    run_json: RunJson, server: FakeServer, tmp_path: Path
) -> None:
    content = io.save(WEIGHTS)
    server.blobs[io.digest(content)] = content
    server.put_job(name="jobs/1", state=job_pb2.Job.STATE_SUCCEEDED, weights_digest=io.digest(content))
    file = tmp_path / "w.safetensors"
    assert run_json("weights", "get", "jobs/1", "-o", str(file)) == {
        "file": str(file),
        "size_bytes": len(content),
        "weights_digest": io.digest(content),
    }
    assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


def test_weights_are_not_written_before_the_job_has_succeeded(run: Run, server: FakeServer, tmp_path: Path) -> None:
    server.put_job(name="jobs/1", state=job_pb2.Job.STATE_RUNNING)
    result = run("weights", "get", "1", "-o", str(tmp_path / "w.safetensors"))
    assert result.exit_code == ExitCode.SERVICE
    assert "jobs/1 is RUNNING; only a SUCCEEDED job has weights" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_said(run: Run, server: FakeServer, tmp_path: Path) -> None:
    content = io.save(WEIGHTS)
    server.blobs[io.digest(content)] = content
    server.put_job(name="jobs/1", state=job_pb2.Job.STATE_SUCCEEDED, weights_digest=io.digest(content))
    file = tmp_path / "nowhere" / "w.safetensors"
    result = run("weights", "get", "1", "-o", str(file))
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr == f"error: cannot write {file}: No such file or directory\n"


# Cluster


def test_the_cluster_is_the_server_and_its_nodes(run: Run, run_json: RunJson, server: FakeServer) -> None:
    shown = run_json("cluster")
    assert shown["address"] == server.address
    assert (shown["server"]["version"], shown["server"]["ray_address"]) == ("0.1.0", "127.0.0.1:6379")
    assert shown["nodes"] == [{"id": "a1", "address": "127.0.0.1", "cpus": 2.0, "memory_bytes": 4 * 1024**3}]
    assert "a1  127.0.0.1  2 CPUs  4 GiB" in run("cluster").stdout


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (3 * 1024**3, "3 GiB"), (5 * 1024**4, "5 TiB")]
)
def test_sizes_are_in_binary_units(num_bytes: int, text: str) -> None:
    assert size(num_bytes) == text
