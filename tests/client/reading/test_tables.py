"""Tables: arrays by name, frames, CSV, Parquet and .npz files, read to the same examples, and refused by place."""

from __future__ import annotations

import struct
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from chainrule.client.errors import InvalidInputError
from chainrule.client.reading import ReadOptions, csv_files, open_source
from chainrule.client.reading import source as source_module

A = np.array([1.5, -2.0, 3.25, 4.0])
B = np.array([1, 2, 3, 4])
KIND = ["cat", "dog", "ape", "dog"]
COLUMNS = {"a": A, "b": B, "kind": np.array(KIND)}
INPUTS = np.stack([A, B], axis=1).astype(np.float32)


def read(source: Any, **options: Any) -> tuple[NDArray[Any], NDArray[Any], tuple[str, ...]]:
    reader = open_source(source, ReadOptions(**options))
    blocks = list(reader.blocks())
    inputs, targets = (np.concatenate([block[name] for block in blocks]) for name in ("inputs", "targets"))
    return inputs, targets, reader.class_labels


def refused(source: Any, **options: Any) -> str:
    with pytest.raises(InvalidInputError) as caught:
        read(source, **options)
    return str(caught.value)


def csv(folder: Path, text: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def as_csv(folder: Path) -> Path:
    return csv(folder, "a,b,kind\n" + "".join(f"{a},{b},{k}\n" for a, b, k in zip(A, B, KIND, strict=True)))


def as_tsv(folder: Path) -> Path:
    return csv(
        folder, "a\tb\tkind\n" + "".join(f"{a}\t{b}\t{k}\n" for a, b, k in zip(A, B, KIND, strict=True)), "t.tsv"
    )


def as_parquet(folder: Path) -> Path:
    pq.write_table(pa.table({"a": A, "b": B, "kind": KIND}), folder / "t.parquet", row_group_size=3)
    return folder / "t.parquet"


def as_npz(folder: Path) -> Path:
    np.savez_compressed(folder / "t.npz", a=A, b=B, kind=np.array(KIND))
    return folder / "t.npz"


def as_dict(folder: Path) -> dict[str, Any]:
    return dict(COLUMNS)


def as_pandas(folder: Path) -> Any:
    return pd.DataFrame({"a": A, "b": B, "kind": KIND}, index=[9, 7, 5, 3])


def as_categories(folder: Path) -> Any:
    return pd.DataFrame({"a": A, "b": B, "kind": pd.Categorical(KIND)})


def as_polars(folder: Path) -> Any:
    return pl.DataFrame({"a": A, "b": B, "kind": KIND})


@pytest.mark.parametrize("make", [as_csv, as_tsv, as_parquet, as_npz, as_dict, as_pandas, as_categories, as_polars])
def test_every_kind_of_table_gives_the_same_examples(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    inputs, targets, labels = read(make(tmp_path), target="kind")
    assert inputs.dtype == np.float32
    assert np.array_equal(inputs, INPUTS)
    assert targets.dtype == np.int64
    assert targets.tolist() == [1, 2, 0, 2]
    assert labels == ("ape", "cat", "dog")


def test_whole_numbers_of_a_text_are_class_labels_unless_they_are_to_be_predicted(tmp_path: Path) -> None:
    path = csv(tmp_path, "a,y\n1.5,0\n3,2\n")
    assert read(path)[1].dtype == np.int64
    assert read(path, regression=True)[1].dtype == np.float32
    assert read({"a": A, "y": np.array([0.0, 1.0, 2.0, 0.0])})[1].dtype == np.float32  # as the array says


def test_columns_are_chosen_and_ordered(tmp_path: Path) -> None:
    inputs, targets, labels = read(as_csv(tmp_path), target="b", columns=["a"])
    assert inputs.tolist() == [[1.5], [-2.0], [3.25], [4.0]]
    assert (targets.tolist(), labels) == ([1, 2, 3, 4], ())
    assert read({"x": A, "z": B, "y": B}, columns=["z", "x"])[0][0].tolist() == [1.0, 1.5]


def test_a_column_of_more_than_numbers_keeps_its_shape(tmp_path: Path) -> None:
    pictures = np.arange(48, dtype=np.float32).reshape(4, 3, 2, 2)
    assert read({"image": pictures, "label": B})[0].shape == (4, 3, 2, 2)
    table = pa.table({"v": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)), "y": [0, 1]})
    pq.write_table(table, tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet")[0].tolist() == [[1, 2], [3, 4]]
    assert read(pl.DataFrame({"v": [[1.0, 2.0], [3.0, 4.0]], "y": [0, 1]}))[0].tolist() == [[1, 2], [3, 4]]


def test_bytes_stay_bytes_only_if_they_are_pictures() -> None:
    columns = {"inputs": np.full((4, 3), 200, np.uint8), "targets": B}
    assert read(columns)[0].dtype == np.float32
    assert read(columns)[0].max() == 200
    assert read(columns, pictures=True)[0].dtype == np.uint8


def test_a_npz_file_gives_what_its_arrays_give(tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).normal(size=(20, 3, 4)).astype(np.float32)
    np.savez_compressed(tmp_path / "t.npz", inputs=inputs, targets=np.arange(20))
    assert np.array_equal(read(tmp_path / "t.npz")[0], inputs)
    np.savez(tmp_path / "f.npz", inputs=np.asfortranarray(inputs), targets=np.arange(20))
    assert np.array_equal(read(tmp_path / "f.npz")[0], inputs)


def test_a_large_file_is_read_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "BLOCK_BYTES", 2**16)
    monkeypatch.setattr(csv_files, "_ROWS", 256)
    rows = 40_000
    inputs = np.random.default_rng(0).normal(size=(rows, 8)).round(3)
    names = [f"c{i}" for i in range(8)]
    np.savez_compressed(tmp_path / "t.npz", inputs=inputs, targets=np.arange(rows))
    frame = pd.DataFrame(inputs, columns=names).assign(y=np.arange(rows))
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet", row_group_size=2000)
    del frame
    for name in ("t.npz", "t.csv", "t.parquet"):
        reader = open_source(tmp_path / name, ReadOptions())
        tracemalloc.start()
        seen = sum(int(block["targets"].sum()) for block in reader.blocks())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert seen == rows * (rows - 1) // 2
        assert peak < inputs.nbytes, name


# --- what is refused, and where it is --------------------------------------------------------------------------


def test_a_ragged_row_is_named(tmp_path: Path) -> None:
    path = csv(tmp_path, "a,b,y\n1,2,0\n\n3,0\n")
    assert refused(path) == f"{path}, line 4 has 2 fields, the first line has 3; give every row all of them"


def test_a_cell_that_is_no_number_is_named(tmp_path: Path) -> None:
    path = csv(tmp_path, "a,b,y\n1,2,0\n3,oops,0\n")
    assert refused(path).startswith(f"{path}, line 3, column \"b\": 'oops' is no number")


def test_a_cell_that_is_no_number_is_named_also_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_files, "_ROWS", 2)
    path = csv(tmp_path, "a,y\n1,0\n3,1\n5,2\n,1\n")
    assert refused(path) == f"{path}, line 5, column \"a\": '' is no number"
    path = csv(tmp_path, 'a,y\n1,0\n"3\n",1\n5,2\nnan,1\n')
    assert refused(path).startswith(f'{path}, line 6, column "a": nan is no finite number')


def test_targets_of_a_text_that_are_no_whole_numbers_are_named(tmp_path: Path) -> None:
    path = csv(tmp_path, "a,y\n1,0\n3,1\n5,0.5\n")
    assert refused(path).startswith(f'{path}, line 4, column "y": 0.5 is no class label')
    assert read(path, regression=True)[1].tolist() == [0.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "the first line must name the columns"),
        ("a,a,y\n1,2,3\n", "the first line must name the columns, each once"),
        ("1,2,3\n4,5,6\n", "the first line has only numbers, 1, 2, 3"),
        ("a,b\n1,2\n", "say with target which column of .* is the target; its columns are a, b"),
        ('a,y\n"1,2\n', "line 2: unexpected end of data"),
        ("y\n1\n", "has no column but the target"),
    ],
)
def test_other_malformed_files_are_refused(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(InvalidInputError, match=error):
        read(csv(tmp_path, text))


def test_a_line_without_an_end_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_files, "MAX_LINE_CHARACTERS", 1000)
    assert "line 2 has 1,000 characters or more" in refused(csv(tmp_path, "a,y\n" + "1" * 5000))


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,y\n\xff\xfe,1\n")
    assert "is not UTF-8" in refused(tmp_path / "t.csv")


def test_missing_values_are_named(tmp_path: Path) -> None:
    assert 'row 1, column "a": nan is no finite number' in refused(pd.DataFrame({"a": [1, None], "y": [0, 1]}))
    assert 'row 1, column "y"' in refused(pd.DataFrame({"a": [1, 2], "y": ["x", None]}))
    pq.write_table(pa.table({"a": [1, 2, None], "y": [0, 1, 2]}), tmp_path / "t.parquet")
    assert f'{tmp_path / "t.parquet"}, row 2, column "a" has no value' in refused(tmp_path / "t.parquet")


def test_texts_are_no_inputs(tmp_path: Path) -> None:
    assert "row 0, column \"a\": 'x' is no number" in refused(pl.DataFrame({"a": ["x", "z"], "y": [0, 1]}))


def test_lists_of_different_lengths_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"v": [[1.0, 2.0], [3.0]], "y": [0, 1]}), tmp_path / "t.parquet")
    assert 'row 1, column "v" has a list of 1 values' in refused(tmp_path / "t.parquet")


def test_columns_that_are_not_there_are_named() -> None:
    assert 'no column "z"; its columns are a, b, kind' in refused(COLUMNS, target="z")
    assert 'column "z" of the dict is not there' in refused(COLUMNS, target="kind", columns=["a", "z"])
    assert "different lengths" in refused({"a": A, "y": B[:2]})


def test_a_file_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    assert 'ends in ".xlsx"' in refused(csv(tmp_path, "", "t.xlsx"))
    assert "is not there" in refused(tmp_path / "none.csv")
    assert "a int cannot be read" in refused(7)
    assert "the frame is lazy" in refused(pl.DataFrame({"a": [1], "y": [0]}).lazy())


# --- what is hostile -------------------------------------------------------------------------------------------


def npz_of(path: Path, name: str, shape: tuple[int, ...], content: bytes, dtype: str = "<f4") -> None:
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content)


def test_a_npz_bomb_is_refused_before_it_is_unfolded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as file:
        for _ in range(300):
            file.write(bytes(2**20))
    tracemalloc.start()
    try:
        assert "unfolds to 314,572,800, more than the limit of 268,435,456" in refused(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_npz_file_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    npz_of(tmp_path / "t.npz", "x.npy", (2**40,), bytes(16))
    assert "declares an array of shape (1099511627776,) in" in refused(tmp_path / "t.npz")


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", x=np.array([{"a": 1}, None], dtype=object), y=np.arange(2))
    assert '"x.npy" holds Python objects, which are not read' in refused(tmp_path / "t.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and nothing", b"x" * 1000])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.npz").write_bytes(content)
    assert "cannot be read as a .npz file" in refused(tmp_path / "t.npz")


def test_a_parquet_bomb_is_refused_by_what_it_declares(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    chunk = pa.table({"a": np.zeros(2**22), "y": np.zeros(2**22, np.int64)})
    with pq.ParquetWriter(path, chunk.schema, compression="zstd", use_dictionary=True) as writer:
        for _ in range(5):
            writer.write_table(chunk)
    assert path.stat().st_size < 2**20
    assert "unfolds to" in refused(path)
    assert "more than the limit of 1,000" in refused(path, limit_bytes=1000)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\xff" * 100 + b"PAR1"])
def test_what_is_no_parquet_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.parquet").write_bytes(content)
    assert "cannot be read as a Parquet file" in refused(tmp_path / "t.parquet")


def test_a_damaged_parquet_page_is_refused(tmp_path: Path) -> None:
    path = as_parquet(tmp_path)
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)
    assert str(path) in refused(path, target="kind")


def test_a_missing_library_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = as_parquet(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert f"to read the Parquet file {path}, install what reads them: pip install 'chainrule[data]'" in refused(path)


@pytest.mark.parametrize("make", [as_csv, as_parquet, as_npz, as_dict, as_pandas, as_polars])
def test_numbers_to_predict_stay_numbers(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    _, targets, labels = read(make(tmp_path), target="a", columns=["b"], regression=True)
    assert (targets.dtype, labels) == (np.dtype(np.float32), ())
    assert targets.tolist() == A.tolist()
    assert "'cat' is no number" in refused(make(tmp_path), target="kind", columns=["b"], regression=True)
