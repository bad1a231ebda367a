"""Data that lies in several files: a manifest, which says what columns there are and which chunks hold the rows.

A chunk is a safetensors file with a tensor for each column, all of the same first dimension. The manifest is JSON whose
bytes are a function of its content; its SHA-256 stands for the data.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from chainrule.engine.errors import FormatError

MANIFEST_FORMAT = "chainrule.dataset/1"
CHUNK_BYTES = 16 * 1024**2
"""How many bytes of rows a chunk has at most, if not a single row has more."""
MAX_CHUNKS = 65_536
MAX_MANIFEST_BYTES = 16 * 1024**2
MAX_HEADER_BYTES = 1024**2
"""Longest header of a chunk."""
COLUMN_DTYPES = ("float32", "int64", "uint8")

_DIGEST = re.compile(r"[0-9a-f]{64}")
_FORMATS = {"F32": "float32", "I64": "int64", "U8": "uint8"}


@dataclass(frozen=True)
class Column:
    """What a column holds for each row."""

    name: str
    dtype: str
    """One of COLUMN_DTYPES."""
    shape: tuple[int, ...] = ()
    """Of one row's value; (): a number."""

    @property
    def row_bytes(self) -> int:
        """Size of one row's value."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Chunk:
    """Some consecutive rows, in a file of their own."""

    digest: str
    """SHA-256 of the file."""
    rows: int
    """How many, at least one."""


@dataclass(frozen=True)
class Manifest:
    """Columns, and the chunks in the order of their rows."""

    columns: tuple[Column, ...]
    chunks: tuple[Chunk, ...]

    @cached_property
    def num_rows(self) -> int:
        return sum(chunk.rows for chunk in self.chunks)

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        return sum(column.row_bytes for column in self.columns)

    def to_bytes(self) -> bytes:
        """The manifest's blob."""
        content = {
            "format": MANIFEST_FORMAT,
            "columns": [{"name": c.name, "dtype": c.dtype, "shape": list(c.shape)} for c in self.columns],
            "rows": self.num_rows,
            "chunks": [{"digest": chunk.digest, "rows": chunk.rows} for chunk in self.chunks],
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """Raises FormatError saying what is wrong with it."""
        if len(content) > MAX_MANIFEST_BYTES:
            raise FormatError(f"a manifest of {len(content):,} bytes; at most {MAX_MANIFEST_BYTES:,} are read")
        try:
            values: Any = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"a manifest that is not JSON: {error}") from error
        found = values.get("format") if isinstance(values, dict) else None
        if found != MANIFEST_FORMAT:
            raise FormatError(f'a manifest of format {str(found)[:80]!r}; this version reads "{MANIFEST_FORMAT}"')
        columns = tuple(_column(index, value) for index, value in enumerate(_list(values, "columns", 64)))
        names = [column.name for column in columns]
        if len(set(names)) < len(names):
            raise FormatError(f"a manifest with two columns of one name: {names}")
        chunks = tuple(_chunk(index, value) for index, value in enumerate(_list(values, "chunks", MAX_CHUNKS)))
        manifest = cls(columns, chunks)
        if values.get("rows") != manifest.num_rows:
            raise FormatError(
                f"a manifest of {str(values.get('rows'))[:40]} rows whose chunks have {manifest.num_rows}"
            )
        return manifest


def is_manifest(head: bytes) -> bool:
    """Whether a blob that begins so (8 bytes are enough) is a manifest and not safetensors, which begin with a length
    of 8 bytes that is never so long."""
    return head[:1] == b"{" and b"\0" not in head[:8]


def rows_per_chunk(row_bytes: int) -> int:
    """How many rows a chunk has, but for the last: a function of the size of a row, so that the same rows always give
    the same chunks."""
    return max(1, CHUNK_BYTES // max(1, row_bytes))


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a safetensors file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Of its first byte in the file."""


def header_bytes(start: bytes) -> int:
    """Where the tensors of a safetensors file begin that begins with these 8 bytes.

    Raises:
        FormatError: the header would be longer than MAX_HEADER_BYTES.
    """
    length = int.from_bytes(start[:8], "little")
    if len(start) < 8 or length > MAX_HEADER_BYTES:
        raise FormatError(f"not a chunk of a dataset: its header would have {length} bytes")
    return 8 + length


def places(head: bytes) -> Mapping[str, Place]:
    """Where the tensors of a safetensors file lie, of which these are the first `header_bytes` bytes.

    Raises:
        FormatError: the header is malformed.
    """
    try:
        header = json.loads(head[8:])
        return {
            name: Place(
                _FORMATS[entry["dtype"]], tuple(map(int, entry["shape"])), len(head) + int(entry["data_offsets"][0])
            )
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise FormatError(f"not a chunk of a dataset: {error!r}") from error


def _list(values: Mapping[str, Any], key: str, most: int) -> list[Any]:
    found = values.get(key)
    if not isinstance(found, list) or not 1 <= len(found) <= most:
        raise FormatError(f"a manifest without {key}, or with more than {most:,}")
    return found


def _column(index: int, value: Any) -> Column:
    try:
        column = Column(value["name"], value["dtype"], tuple(value["shape"]))
    except (KeyError, TypeError) as error:
        raise FormatError(f"columns[{index}] of the manifest has no name, dtype and shape: {error!r}") from error
    sizes = all(type(n) is int and 0 < n < 2**31 for n in column.shape) and len(column.shape) <= 16
    if not isinstance(column.name, str) or column.dtype not in COLUMN_DTYPES or not sizes:
        raise FormatError(
            f"columns[{index}] of the manifest is {str(value)[:200]}; a column has a name, a dtype of "
            f"{', '.join(COLUMN_DTYPES)}, and a shape of numbers above 0"
        )
    if column.row_bytes > 2**31:
        raise FormatError(f"columns[{index}] of the manifest has rows of {column.row_bytes:,} bytes; at most 2 GiB")
    return column


def _chunk(index: int, value: Any) -> Chunk:
    digest, rows = (value.get("digest"), value.get("rows")) if isinstance(value, dict) else (None, None)
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest) or type(rows) is not int or not 0 < rows < 2**40:
        raise FormatError(
            f"chunks[{index}] of the manifest is {str(value)[:200]}; a chunk has a digest, 64 hexadecimal digits, and "
            "its number of rows, at least 1"
        )
    return Chunk(digest, rows)
