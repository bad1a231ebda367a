"""How examples are packed: one blob while they are few, then chunks that are a function of the rows alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule.client import packing
from chainrule.client.errors import InvalidInputError
from chainrule.client.packing import Packer, Progress
from chainrule.client.reading import Block, ReadOptions, open_source
from chainrule.client.reading.arrays import ArrayReader
from chainrule.engine import io
from chainrule.engine.io.chunked import Manifest

INPUTS = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
TARGETS = np.arange(100)


class Blocks:
    """A reader that gives blocks of so many rows."""

    class_labels: tuple[str, ...] = ()
    num_rows: int | None = None

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def blocks(self) -> Iterator[Block]:
        for start in range(0, 100, self._rows):
            part = slice(start, start + self._rows)
            yield {"inputs": INPUTS[part], "targets": TARGETS[part]}


def packed(reader: Any, **options: Any) -> tuple[bytes, list[bytes]]:
    packer = Packer(reader, **options)
    chunks = []
    while (chunk := packer.chunk()) is not None:
        chunks.append(chunk)
        packer.sent(io.digest(chunk))
    return packer.blob(), chunks


def test_a_small_dataset_is_one_blob_as_ever() -> None:
    blob, chunks = packed(ArrayReader(INPUTS.tolist(), TARGETS))
    assert chunks == []
    assert blob == io.save({"inputs": INPUTS, "targets": TARGETS})


@pytest.mark.parametrize("rows", [1, 7, 30, 100])
def test_the_chunks_do_not_depend_on_the_blocks(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "rows_per_chunk", lambda row_bytes: 30)
    blob, chunks = packed(Blocks(rows), single_bytes=1000)
    manifest = Manifest.from_bytes(blob)
    assert [chunk.rows for chunk in manifest.chunks] == [30, 30, 30, 10]
    assert [chunk.digest for chunk in manifest.chunks] == [io.digest(chunk) for chunk in chunks]
    for name, array in (("inputs", INPUTS), ("targets", TARGETS)):
        assert np.array_equal(np.concatenate([io.load(chunk)[name] for chunk in chunks]), array)
    assert io.digest(blob) == "1da55a40f5ccd6d3791993dffd534154a2ecdbdba0c6de79dfa665b36b74b0dc"


def test_the_size_alone_decides_whether_there_are_chunks() -> None:
    size = INPUTS.nbytes + TARGETS.nbytes
    for rows in (3, 100):
        assert packed(Blocks(rows), single_bytes=size)[1] == []
        assert len(packed(Blocks(rows), single_bytes=size - 1)[1]) == 1


def test_what_is_held_does_not_grow_with_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "rows_per_chunk", lambda row_bytes: 30)
    packer = Packer(Blocks(10), single_bytes=1000)
    while packer.chunk() is not None:
        packer.sent("a" * 64)
        assert packer._held_bytes < 3000


def test_the_same_rows_have_one_digest_whatever_they_come_from(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", inputs=INPUTS, targets=TARGETS)
    (tmp_path / "t.csv").write_text(
        "a,b,c,y\n" + "".join(f"{','.join(map(repr, x.tolist()))},{y}\n" for x, y in zip(INPUTS, TARGETS, strict=True))
    )
    found = {packed(open_source(tmp_path / name, ReadOptions()))[0] for name in ("t.npz", "t.csv")}
    assert found == {packed(ArrayReader(INPUTS, TARGETS))[0]}


def test_examples_that_are_not_alike_are_refused() -> None:
    class Unlike(Blocks):
        def blocks(self) -> Iterator[Block]:
            yield {"inputs": INPUTS, "targets": TARGETS}
            yield {"inputs": INPUTS[:, :2], "targets": TARGETS}

    with pytest.raises(InvalidInputError, match=r"examples from number 100 on are inputs float32 \(2,\) and"):
        packed(Unlike(1))


def test_a_source_without_examples_is_refused() -> None:
    class Empty(Blocks):
        def blocks(self) -> Iterator[Block]:
            return iter(())

    with pytest.raises(InvalidInputError, match="holds no examples"):
        packed(Empty(1))


def test_progress_counts_all_chunks_together() -> None:
    told: list[tuple[int, int]] = []
    packer = Packer(ArrayReader(INPUTS, TARGETS), single_bytes=1000)
    progress = Progress(packer, lambda done, total: told.append((done, total)))
    assert packer.chunk() is not None
    progress(10, 500)
    progress.next()
    progress(20, 500)
    assert told == [(10, 2000), (520, 2000)]
