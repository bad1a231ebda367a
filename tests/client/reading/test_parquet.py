"""Parquet files, whoever wrote them, are read; those that hold more than they say are refused before they are."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chainrule.client.errors import InvalidInputError
from chainrule.client.reading import parquet
from chainrule.client.reading.pages import _Compact
from chainrule.client.reading.parquet import ParquetTable

ROWS = 3000
TABLE = pa.table(
    {
        "number": np.arange(ROWS) % 7 / 2,
        "count": np.arange(ROWS, dtype=np.int32),
        "truth": np.arange(ROWS) % 3 == 0,
        "list": pa.array(np.arange(2 * ROWS).reshape(ROWS, 2).tolist(), pa.list_(pa.float32())),
        "list.of": np.arange(ROWS)[::-1],
        "kind": np.array(["ant", "bee", "cat"])[np.arange(ROWS) % 3],
    }
)


def values(path: Path, *names: str) -> dict[str, Any]:
    """Columns, put together."""
    pieces = list(ParquetTable(path).read(names or TABLE.column_names))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def refused(path: Path, *names: str) -> str:
    with pytest.raises(InvalidInputError) as caught:
        values(path, *names)
    return str(caught.value)


def with_polars(path: Path) -> None:
    pl.from_arrow(TABLE).write_parquet(path, row_group_size=700)  # type: ignore[union-attr]


def with_pyarrow(**settings: Any) -> Callable[[Path], None]:
    return lambda path: pq.write_table(TABLE, path, **settings)


WRITERS: dict[str, Callable[[Path], None]] = {
    "as it is written by default": with_pyarrow(),
    "not compressed": with_pyarrow(compression="none"),
    "zstd": with_pyarrow(compression="zstd", row_group_size=500),
    "gzip": with_pyarrow(compression="gzip"),
    "newer pages": with_pyarrow(data_page_version="2.0", compression="zstd"),
    "small pages": with_pyarrow(data_page_size=64, write_batch_size=16, dictionary_pagesize_limit=64),
    "no dictionaries": with_pyarrow(use_dictionary=False),
    "other encodings": with_pyarrow(
        use_dictionary=False, column_encoding={"count": "DELTA_BINARY_PACKED", "kind": "DELTA_LENGTH_BYTE_ARRAY"}
    ),
    "an index and checksums": with_pyarrow(write_page_index=True, write_page_checksum=True),
    "no statistics": with_pyarrow(write_statistics=False),
    "no schema of Arrow's": with_pyarrow(store_schema=False),
    "polars": with_polars,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_whoever_wrote_it_it_is_read(writer: str, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    WRITERS[writer](path)
    found = values(path)
    for name in TABLE.column_names:
        assert found[name].tolist() == TABLE.column(name).to_pylist(), name


def test_texts_that_are_categories_are_read(tmp_path: Path) -> None:
    kind = TABLE.column("kind").dictionary_encode()
    pq.write_table(pa.table({"kind": kind, "y": kind}), tmp_path / "t.parquet", row_group_size=400)
    assert values(tmp_path / "t.parquet", "y")["y"].tolist() == TABLE.column("kind").to_pylist()


# ---- What is hostile ----


def page_with(content: bytes, *, field: int, number: int) -> bytes:
    """The first page's header with another number in a field: 2 is how many bytes it unfolds to."""
    reader = _Compact(content)
    reader.position, at = 4, 0
    while at != field:
        at += reader.byte() >> 4
        place = reader.position
        reader.integer()
    new, size = bytearray(), reader.position - place
    value = number << 1
    for i in range(size):
        new.append(value & 127 | (128 if i < size - 1 else 0))
        value >>= 7
    assert not value
    return content[:place] + bytes(new) + content[place + size :]


def test_a_page_that_unfolds_to_more_than_metadata_say_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": np.zeros(2**15)}), path, use_dictionary=False, compression="zstd")
    assert path.stat().st_size < 2**12
    path.write_bytes(page_with(path.read_bytes(), field=2, number=2**20 - 1))
    message = refused(path, "a")
    assert 'row group 0, column "a": its pages unfold to 1,048,575 bytes or more, its metadata say 262,' in message


def test_a_dictionary_of_more_entries_than_it_has_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": np.arange(3000) % 100}), path, compression="none")
    content = path.read_bytes()
    header = content.index(b"\x4c\x15\xc8\x01\x15")  # the dictionary's own: 100 entries, how they are written
    path.write_bytes(content[: header + 2] + b"\xfe\x7f" + content[header + 4 :])
    assert "a dictionary of 800 bytes says it has 8,191 entries" in refused(path, "a")


@pytest.mark.parametrize("at", [4, 5, 8])
def test_a_header_that_makes_no_sense_is_refused(at: int, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": np.arange(3000)}), path)
    content = bytearray(path.read_bytes())
    content[at : at + 3] = b"\xff\xff\xff"
    path.write_bytes(content)
    assert str(path) in refused(path, "a")


def test_a_text_that_stands_in_every_row_is_there_once(tmp_path: Path) -> None:
    """64 GiB, were each row to have its own."""
    path, pool = tmp_path / "t.parquet", pa.default_memory_pool()
    text = pa.DictionaryArray.from_arrays(np.zeros(2**16, np.int32), ["x" * 2**20])
    pq.write_table(pa.table({"kind": text}), path, store_schema=False)
    assert path.stat().st_size < 2**18
    before = pool.bytes_allocated()
    tracemalloc.start()
    try:
        for piece in ParquetTable(path).read(["kind"]):
            assert {len(each) for each in piece["kind"]} == {2**20}
            assert pool.bytes_allocated() - before < 2**24
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_texts_that_are_made_of_the_ones_before_are_refused(tmp_path: Path) -> None:
    encoding = {"kind": "DELTA_BYTE_ARRAY"}
    pq.write_table(TABLE.select(["kind"]), tmp_path / "t.parquet", use_dictionary=False, column_encoding=encoding)
    assert "encoded as DELTA_BYTE_ARRAY, which may unfold to any size" in refused(tmp_path / "t.parquet", "kind")


def test_lists_of_texts_are_refused_before_they_are_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"v": [["a"], ["b"]]}), tmp_path / "t.parquet")
    assert 'column "v" is list<element: string>; columns of numbers' in refused(tmp_path / "t.parquet", "v")


def test_many_values_in_lists_of_few_rows_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"v": [np.zeros(2**16)]}), tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").stat().st_size < 2**12
    monkeypatch.setattr(parquet, "MAX_GROUP_BYTES", 2**20 - 2**5)
    assert "row group 0 has 65,535 values in lists, 16 bytes each" in refused(tmp_path / "t.parquet", "v")
