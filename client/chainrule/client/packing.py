"""Blocks of examples as the blobs that are sent: one for a small dataset, chunks and a manifest for a large one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.client.errors import InvalidInputError
from chainrule.client.examples import in_order
from chainrule.client.reading.source import Block, Reader
from chainrule.engine import io
from chainrule.engine.io.chunked import Chunk, Column, Manifest, rows_per_chunk

SINGLE_BYTES = 64 * 1024**2
"""Most bytes of examples that are one blob; more are chunks. It decides the digest of a dataset, and stays as it is."""


class Packer:
    """Takes blocks from a reader as they are needed, and never holds more than SINGLE_BYTES and a block.

    Call `chunk` until it gives None, and tell `sent` the digest of each; then `blob` is that of the dataset. Which rows
    make up which chunk depends on nothing but the rows.
    """

    def __init__(self, reader: Reader, *, single_bytes: int | None = None) -> None:
        self._reader = reader
        self._blocks: Iterator[Block] = iter(reader.blocks())
        self._single_bytes = SINGLE_BYTES if single_bytes is None else single_bytes
        self._held: list[Block] = []
        self._held_bytes = 0
        self._held_rows = 0
        self._columns: tuple[Column, ...] = ()
        self._chunks: list[Chunk] = []
        self._rows_sent = 0
        self._is_over = False

    @property
    def class_labels(self) -> tuple[str, ...]:
        """Names of the classes, as the reader has found them."""
        return self._reader.class_labels

    @property
    def total_bytes(self) -> int:
        """About how much there is to send in all; 0: that is not known."""
        rows, row_bytes = self._reader.num_rows, sum(column.row_bytes for column in self._columns)
        return 0 if rows is None else rows * row_bytes

    def chunk(self) -> bytes | None:
        """The next chunk; None: there is none. Raises InvalidInputError."""
        while not self._is_over and self._held_bytes <= (0 if self._chunks else self._single_bytes):
            self._take()
        rows = rows_per_chunk(sum(column.row_bytes for column in self._columns))
        while not self._is_over and self._held_rows < rows:
            self._take()
        if self._held_rows == 0 or (not self._chunks and self._held_bytes <= self._single_bytes):
            return None
        rows = min(rows, self._held_rows)
        content = io.save(self._cut(rows))
        self._rows_sent = rows
        return content

    @property
    def has_chunks(self) -> bool:
        """Whether the dataset is made of chunks."""
        return bool(self._chunks)

    def sent(self, digest: str) -> None:
        """The chunk given last has this digest, and has arrived."""
        self._chunks.append(Chunk(digest, self._rows_sent))

    def blob(self) -> bytes:
        """The dataset's own blob, once there are no more chunks. Raises InvalidInputError if there are no examples."""
        if self._chunks:
            return Manifest(self._columns, tuple(self._chunks)).to_bytes()
        if not self._held:
            raise InvalidInputError("the source holds no examples; give at least one")
        return io.save(_joined(self._held))

    def _take(self) -> None:
        """Read one more block, if there is one."""
        block = next(self._blocks, None)
        if block is None:
            self._is_over = True
            return
        columns = tuple(Column(name, block[name].dtype.name, block[name].shape[1:]) for name in in_order(block))
        if not self._held and not self._chunks:
            self._columns = columns
        elif columns != self._columns:
            raise InvalidInputError(
                f"examples from number {self._rows_in_chunks + self._held_rows} on are {_described(columns)}, those "
                f"before are {_described(self._columns)}; all must be alike"
            )
        self._held.append(block)
        self._held_bytes += sum(array.nbytes for array in block.values())
        lengths = {column.name: len(block[column.name]) if block[column.name].ndim else 1 for column in columns}
        self._held_rows += next(iter(lengths.values()))
        if len(set(lengths.values())) > 1 and self._held_bytes > self._single_bytes:  # of less, the server tells
            listed = " and ".join(f"{length} {name}" for name, length in lengths.items())
            raise InvalidInputError(f"there are {listed}; give each example all of them")

    @property
    def _rows_in_chunks(self) -> int:
        return sum(chunk.rows for chunk in self._chunks)

    def _cut(self, rows: int) -> Mapping[str, NDArray[Any]]:
        """The first rows of what is held, which is then the rest."""
        taken: list[Block] = []
        left = rows
        while left:
            block = self._held.pop(0)
            size = len(next(iter(block.values())))
            if size > left:
                self._held.insert(0, {name: array[left:] for name, array in block.items()})
                block = {name: array[:left] for name, array in block.items()}
            taken.append(block)
            left -= min(size, left)
        found = _joined(taken)
        self._held_rows -= rows
        self._held_bytes -= sum(array.nbytes for array in found.values())
        return found


class Progress:
    """Tells of the bytes of all uploads of a dataset together.

    Args:
        transferred: told of the bytes sent so far and, as far as that is known, in all; None: nobody is.
    """

    def __init__(self, packer: Packer, transferred: Callable[[int, int], None] | None) -> None:
        self._packer = packer
        self._transferred = transferred
        self._before = 0
        self._size = 0

    def __call__(self, done: int, total: int) -> None:
        """An upload has come so far."""
        self._size = total
        if self._transferred is not None:
            self._transferred(self._before + done, max(self._before + total, self._packer.total_bytes))

    def next(self) -> None:
        """The upload is over; another follows."""
        self._before += self._size


def _joined(blocks: list[Block]) -> Mapping[str, NDArray[Any]]:
    if len(blocks) == 1:
        return blocks[0]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _described(columns: tuple[Column, ...]) -> str:
    return " and ".join(f"{column.name} {column.dtype} {column.shape}" for column in columns)
