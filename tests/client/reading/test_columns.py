"""Columns besides inputs and targets: of arrays, and of tables by the names of their columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from chainrule.client import packing
from chainrule.client.errors import InvalidInputError
from chainrule.client.packing import Packer
from chainrule.client.reading import Block, ReadOptions, csv_files, open_reader, open_source
from chainrule.engine import io
from chainrule.engine.io.chunked import Column, Manifest

COLUMNS: dict[str, Any] = {
    "a": [1.5, -2.0, 3.25, 4.0],
    "b": [1, 2, 3, 4],
    "weight": [0.5, 1, 0, 2],
    "kind": ["cat", "dog", "ape", "dog"],
    "mood": ["low", "high", "low", "low"],
    "price": [10.0, 20.0, 30.5, 40.0],
}
ASKED = {"weights": "weight", "moods": "mood", "corner": ["b", "a"], "count": "b"}


def as_csv(folder: Path) -> Path:
    pl.DataFrame(COLUMNS, strict=False).write_csv(folder / "t.csv")
    return folder / "t.csv"


def as_parquet(folder: Path) -> Path:
    pl.DataFrame(COLUMNS, strict=False).write_parquet(folder / "t.parquet")
    return folder / "t.parquet"


def as_dict(folder: Path) -> dict[str, Any]:
    return {name: np.array(values) for name, values in COLUMNS.items()}


def as_pandas(folder: Path) -> Any:
    return pd.DataFrame(COLUMNS)


def read(source: Any, **options: Any) -> Block:
    blocks = list(open_source(source, ReadOptions(**options)).blocks())
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def refused(source: Any, **options: Any) -> str:
    with pytest.raises(InvalidInputError) as caught:
        read(source, **options)
    return str(caught.value)


@pytest.mark.parametrize("make", [as_csv, as_parquet, as_dict, as_pandas])
def test_columns_of_a_table_are_named_numbered_and_put_side_by_side(
    tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_files, "_ROWS", 3)
    found = read(make(tmp_path), target="kind", further=ASKED)
    assert list(found) == ["inputs", "targets", "corner", "count", "moods", "weights"]
    assert found["inputs"].tolist() == [[10.0], [20.0], [30.5], [40.0]]  # the only one that is left
    assert found["targets"].tolist() == [1, 2, 0, 2]
    assert (found["weights"].dtype.name, found["weights"].tolist()) == ("float32", [0.5, 1, 0, 2])
    assert (found["count"].dtype.name, found["count"].tolist()) == ("int64", [1, 2, 3, 4])
    assert found["corner"].tolist() == [[1, 1.5], [2, -2], [3, 3.25], [4, 4]]
    assert found["moods"].tolist() == [1, 0, 1, 1]  # high, low


def test_the_usual_columns_may_be_named_among_them(tmp_path: Path) -> None:
    named = {"inputs": ["b", "a"], "targets": "kind", "weights": "weight"}
    found = read(as_csv(tmp_path), further=named)
    as_ever = read(as_csv(tmp_path), target="kind", columns=["b", "a"])
    assert all(np.array_equal(found[name], as_ever[name]) for name in as_ever)
    assert open_source(as_dict(tmp_path), ReadOptions(further=named)).class_labels == ()  # before it is read
    found = read({"x": np.ones(3), "y": np.arange(3)}, further={"x": "x", "labels": "y"})
    assert list(found) == ["labels", "x"]


def test_what_is_wrong_with_a_column_is_told_by_its_name(tmp_path: Path) -> None:
    path = as_csv(tmp_path)
    assert 'has no column "w"; its columns are a, b' in refused(path, target="kind", further={"w": "w"})
    assert 'columns["w"] is a ndarray; of a table, give the name' in refused(path, further={"w": np.ones(4)})
    assert 'target and columns["targets"] are the same' in refused(path, target="b", further={"targets": "b"})
    path.write_text("a,w,y\n1,1,0\n1,x,1\n")
    assert "line 3, column \"w\": 'x' is no number, as others are" in refused(path, further={"w": "w"})
    (tmp_path / "t.txt").write_text("a text")
    assert 'cannot be asked for the columns "w"' in refused(tmp_path / "t.txt", further={"w": "w"})


def test_arrays_are_columns_of_their_names() -> None:
    further = {"z": np.arange(3, dtype=np.uint8), "w": [0.5, 1.0, 0.0]}
    for inputs, source in ((np.ones((3, 2)), None), (None, (np.ones((3, 2)), np.arange(3)))):
        targets = None if source else np.arange(3)
        [block] = open_reader(source, inputs, targets, ReadOptions(further=further)).blocks()
        assert list(block) == ["inputs", "targets", "w", "z"]
        assert [array.dtype.name for array in block.values()] == ["float32", "int64", "float32", "int64"]
    [block] = open_reader(None, None, None, ReadOptions(further=further, pictures=True)).blocks()
    assert [(name, array.dtype.name) for name, array in block.items()] == [("w", "float32"), ("z", "uint8")]
    with pytest.raises(InvalidInputError, match='columns has "inputs", which is given as inputs, too'):
        open_reader(None, np.ones(3), None, ReadOptions(further={"inputs": np.ones(3)}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1], [2, 3]], r"^w make no array: .*; give rows of one length$"),
        (np.array(["a", "b"]), "^w have dtype <U1; a column of arrays holds numbers: texts become classes in a table"),
    ],
)
def test_what_makes_no_column_is_told_by_its_name(values: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        list(open_reader(None, np.ones(2), None, ReadOptions(further={"w": values})).blocks())


@pytest.mark.parametrize("options", [{"columns": ["x"], "further": {"w": "w"}}, {"columns": ["x"], "target": "w"}])
def test_a_number_that_is_missing_is_what_is_told(options: dict[str, Any]) -> None:
    columns = {"x": [1.0, 2.0], "w": [1.0, None], "label": [0, 1]}
    assert refused(columns, **options) == (
        'the dict, row 1, column "w": None is no number; drop the column, or choose others with columns'
    )


def test_rows_of_different_lengths_are_no_column_of_a_dict() -> None:
    assert refused({"x": [[1], [2, 3]], "y": [0, 1]}).startswith("x make no array: ")


@pytest.mark.parametrize("single_bytes", [0, 10**6])
def test_they_are_packed_as_inputs_and_targets_are(single_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "rows_per_chunk", lambda row_bytes: 2)
    columns: dict[str, Any] = {
        "inputs": np.ones((5, 3), np.float32),
        "b": np.arange(5),
        "a": np.arange(5, dtype=np.float32),
    }
    packer = Packer(open_reader(None, None, None, ReadOptions(further=columns)), single_bytes=single_bytes)
    chunks = []
    while (chunk := packer.chunk()) is not None:
        chunks.append(io.load(chunk))
        packer.sent(io.digest(chunk))
    if single_bytes:
        assert packer.blob() == io.save(columns)
        return
    manifest = Manifest.from_bytes(packer.blob())
    assert manifest.columns == (Column("inputs", "float32", (3,)), Column("a", "float32"), Column("b", "int64"))
    assert [chunk.rows for chunk in manifest.chunks] == [2, 2, 1]
    for name, array in columns.items():
        assert np.array_equal(np.concatenate([chunk[name] for chunk in chunks]), array)
