"""`chainrule datasets create` and `show`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from typer.testing import Result

from chainrule.client.cli.exits import ExitCode
from chainrule.client.reading import BytePairTokenizer
from chainrule.engine import io
from chainrule.v1 import dataset_pb2
from tests.client.fake_server import NOW, FakeServer

Run = Callable[..., Result]
RunJson = Callable[..., Any]


def test_a_table_becomes_a_dataset(run_json: RunJson, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,kind\n1,2,dog\n3,4,cat\n")
    made = run_json("datasets", "create", "pets", str(tmp_path / "t.csv"), "--target", "kind", "--columns", "b,a")
    found = io.load(server.blobs[made["digest"]])
    assert found["inputs"].tolist() == [[2, 1], [4, 3]]
    assert found["targets"].tolist() == [1, 0]
    assert made["class_labels"] == ["cat", "dog"]


def test_further_columns_are_named_by_options(run: Run, run_json: RunJson, server: FakeServer, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("a,b,w,kind\n1,2,0.5,dog\n3,4,1,cat\n")
    words = ("datasets", "create", "pets", str(file), "--target", "kind", "--columns", "a")
    made = run_json(*words, "--column", "w", "--column", "both=b,a")
    found = io.load(server.blobs[made["digest"]])
    assert {name: array.tolist() for name, array in found.items()} == {
        "inputs": [[1], [3]],
        "targets": [1, 0],
        "w": [0.5, 1],
        "both": [[2, 1], [4, 3]],
    }
    result = run(*words, "--column", "w=")
    assert result.exit_code == ExitCode.USAGE
    assert '--column is "w="' in result.stderr


def test_a_folder_of_pictures_becomes_a_dataset(run_json: RunJson, server: FakeServer, tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        Image.new("RGB", (6, 6)).save(tmp_path / label / "1.png")
    made = run_json("datasets", "create", "pets", str(tmp_path), "--size", "4x5", "--gray")
    assert io.load(server.blobs[made["digest"]])["inputs"].shape == (2, 1, 4, 5)


def test_a_text_becomes_a_dataset(run_json: RunJson, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"body": "abcabcabc"}\n')
    BytePairTokenizer([(97, 98)]).save(tmp_path / "pairs.json")
    words = ("datasets", "create", "text", str(tmp_path / "t.jsonl"), "--text", "body", "--length", "2")
    assert io.load(server.blobs[run_json(*words)["digest"]])["inputs"].tolist() == [
        [97, 98],
        [99, 97],
        [98, 99],
        [97, 98],
    ]
    made = run_json(*words, "--tokenizer", str(tmp_path / "pairs.json"))
    assert io.load(server.blobs[made["digest"]])["inputs"].tolist() == [[256, 99], [256, 99], [256, 99]]


def test_what_cannot_be_read_is_wrong_usage_and_named(run: Run, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,y\n1,0\noops,1\n")
    result = run("datasets", "create", "t", str(tmp_path / "t.csv"))
    assert result.exit_code == ExitCode.USAGE
    assert f"{tmp_path / 't.csv'}, line 3, column \"a\": 'oops' is no number" in result.stderr.replace("\n", "")
    result = run("datasets", "create", "t", str(tmp_path / "t.csv"), "--size", "big")
    assert result.exit_code == ExitCode.USAGE
    assert server.blobs == {}


def test_columns_statistics_and_first_rows_are_shown(run: Run, run_json: RunJson, server: FakeServer) -> None:
    content = io.save({"inputs": np.arange(24, dtype=np.float32).reshape(2, 12), "targets": np.array([1, 0])})
    server.blobs[io.digest(content)] = content
    server.datasets["datasets/d"] = dataset_pb2.Dataset(
        name="datasets/d",
        digest=io.digest(content),
        num_examples=2,
        create_time=NOW,
        columns=[
            dataset_pb2.Column(name="inputs", dtype="float32", shape=[12]),
            dataset_pb2.Column(name="targets", dtype="int64"),
        ],
        statistics=[dataset_pb2.ColumnStatistics(column="inputs", count=24, min=0, max=23, mean=11.5, std=6.922)],
        class_labels=["cat", "dog"],
    )
    shown = run("datasets", "show", "d", "--rows", "1").stdout
    for text in ("float32 (12,)", "0 to 23, mean 11.5 ± 6.922", "cat, dog", "0, 1, 2, 3, 4, 5, 6, 7, …"):
        assert text in shown
    assert "targets[0]" in shown
    assert "targets[1]" not in shown
    assert run_json("datasets", "show", "d")["statistics"][0]["mean"] == 11.5
