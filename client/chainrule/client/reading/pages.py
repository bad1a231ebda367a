"""The pages of a Parquet file, told by their headers: whether they hold what the file's metadata say.

pyarrow makes room for a page of the size that its header states, which small metadata do not bound. Headers are read
here without what they stand before. Source: https://github.com/apache/parquet-format, Thrift's compact protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO

MAX_HEADER_BYTES = 2**20
"""Largest header of a page, its statistics included."""
_LEAST_ENTRY_BYTES = 4
"""What an entry of a dictionary takes at least: an int32, or the length of a text."""
_DELTA_BYTE_ARRAY = 7
_DATA, _DICTIONARY, _DATA_2 = 0, 2, 3
_HEADERS = {_DATA: (5, 1, 2), _DICTIONARY: (7, 1, 2), _DATA_2: (8, 1, 4)}
"""Of each kind of page the field of its own header, and in it those of how many values, and how they are written."""


@dataclass(frozen=True, slots=True)
class Page:
    """What the header of a page says."""

    kind: int
    unfolded_bytes: int
    stored_bytes: int
    num_values: int
    encoding: int


def check_chunk(file: BinaryIO, chunk: Any) -> None:
    """Compare the pages of a column chunk with its metadata.

    Args:
        file: the Parquet file.
        chunk: pyarrow's metadata of one column in one row group.

    Raises:
        ValueError: they hold more than these say, or are written so that their size says nothing of what they hold.
    """
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    end, unfolded, values = start + chunk.total_compressed_size, 0, 0
    while start < end and values < chunk.num_values:
        page, length = _page_at(file, start)
        start += length + page.stored_bytes
        unfolded += page.unfolded_bytes
        if unfolded > chunk.total_uncompressed_size:
            raise ValueError(
                f"its pages unfold to {unfolded:,} bytes or more, its metadata say {chunk.total_uncompressed_size:,}"
            )
        if page.kind == _DICTIONARY:
            if not chunk.has_dictionary_page:
                raise ValueError("it has a dictionary, of which its metadata say nothing")
            if page.num_values * _LEAST_ENTRY_BYTES > page.unfolded_bytes:
                raise ValueError(
                    f"a dictionary of {page.unfolded_bytes:,} bytes says it has {page.num_values:,} entries"
                )
            continue
        values += page.num_values
        if values > chunk.num_values:
            raise ValueError(f"its pages have {values:,} values or more, its metadata say {chunk.num_values:,}")
        if page.encoding == _DELTA_BYTE_ARRAY:
            raise ValueError("it is encoded as DELTA_BYTE_ARRAY, which may unfold to any size; write it as PLAIN")


def _page_at(file: BinaryIO, start: int) -> tuple[Page, int]:
    """The header at a place, and its length."""
    size = 256
    while True:
        file.seek(start)
        content = file.read(size)
        reader = _Compact(content)
        try:
            fields = reader.struct()
            break
        except IndexError:
            if len(content) < size or size >= MAX_HEADER_BYTES:
                raise ValueError(f"the header of a page at byte {start:,} does not end") from None
            size *= 8
    kind = fields.get(1)
    own, count, encoding = _HEADERS.get(kind, (0, 0, 0)) if isinstance(kind, int) else (0, 0, 0)
    inner = fields.get(own)
    numbers = [fields.get(2), fields.get(3)]
    numbers += [inner.get(count), inner.get(encoding)] if isinstance(inner, dict) else [0, 0]
    if not all(isinstance(number, int) and 0 <= number < 2**31 for number in (kind, *numbers)):
        raise ValueError(f"the header of a page at byte {start:,} makes no sense")
    return Page(kind, *numbers), reader.position  # type: ignore[arg-type]


class _Compact:
    """Reads Thrift's compact protocol. Raises IndexError where the content ends too early, ValueError if it is none."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.position = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Fields by number: integers, truth values, and structs; what others hold is left out."""
        fields: dict[int, Any] = {}
        number = 0
        while header := self.byte():
            number = number + (header >> 4) if header >> 4 else self.integer()
            fields[number] = self.value(header & 15, depth)
        return fields

    def value(self, kind: int, depth: int) -> Any:
        """The value of a field of a kind."""
        match kind:
            case 1 | 2:
                return kind == 1
            case 3:
                return self.byte()
            case 4 | 5 | 6:
                return self.integer()
            case 7:
                self.position += 8
            case 8:
                length = self.varint()
                self.position += length
            case 12 if depth < 4:
                return self.struct(depth + 1)
            case _:
                raise ValueError("the header of a page is none")
        return None

    def byte(self) -> int:
        """One byte."""
        self.position += 1
        return self.content[self.position - 1]

    def varint(self) -> int:
        """A number of any length."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("the header of a page is none")

    def integer(self) -> int:
        """A number that may be negative: 0, -1, 1, -2, …"""
        value = self.varint()
        return (value >> 1) ^ -(value & 1)
