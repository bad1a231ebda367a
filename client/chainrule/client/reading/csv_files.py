"""Files of comma- or tab-separated values."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np

from chainrule.client.errors import InvalidInputError
from chainrule.client.reading.tables import Columns, is_number

MAX_LINE_CHARACTERS = 16 * 1024**2
"""Longest line that is read."""
_ROWS = 4096


class CsvTable:
    """A CSV file in UTF-8 whose first line names the columns. Columns of numbers are numbers, others are texts.

    Raises:
        InvalidInputError: there is no such line, or two columns have one name.
    """

    num_rows: int | None = None
    is_typed = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self.where = str(path)
        with self._rows() as rows:
            self.names = next((row for _, row in rows), [])
        if not self.names or len(set(self.names)) < len(self.names):
            raise InvalidInputError(f"{path}: the first line must name the columns, each once; it has {self.names!r}")
        if all(is_number(name) for name in self.names):
            raise InvalidInputError(
                f"{path}: the first line has only numbers, {', '.join(self.names[:5])}; put a line before it that "
                "names the columns"
            )
        self._lines: list[int] = []  # of the rows of the last block
        self._first = 0
        self._are_texts: dict[str, bool] = {}

    def row(self, number: int) -> str:
        """See Table. Rows of the block that was read last are known by their lines."""
        at = number - self._first
        return f"line {self._lines[at]}" if 0 <= at < len(self._lines) else f"row {number}"

    def read(self, names: Sequence[str]) -> Iterator[Columns]:
        """See Table."""
        places = [self.names.index(name) for name in names]
        self._first, self._lines = 0, []
        with self._rows() as rows:
            next(rows)
            while block := list(itertools.islice(rows, _ROWS)):
                self._first += len(self._lines)
                self._lines = [line for line, _ in block]
                for line, row in block:
                    if len(row) != len(self.names):
                        raise InvalidInputError(
                            f"{self._path}, line {line} has {len(row)} fields, the first line has {len(self.names)}; "
                            "give every row all of them"
                        )
                texts = [np.array([row[place] for _, row in block], dtype=object) for place in places]
                yield {name: self._typed(name, column) for name, column in zip(names, texts, strict=True)}

    def _typed(
        self, name: str, texts: np.ndarray[tuple[int], np.dtype[np.object_]]
    ) -> np.ndarray[tuple[int], np.dtype[np.generic]]:
        """Numbers, where all are; the first block decides whether a column is texts."""
        if self._are_texts.get(name):
            return texts
        try:
            numbers = texts.astype(np.float64)
        except ValueError:
            if name in self._are_texts:
                row = next(row for row, text in enumerate(texts.tolist()) if not is_number(text))
                raise InvalidInputError(
                    f'{self._path}, line {self._lines[row]}, column "{name}": {texts[row][:40]!r} is no number'
                ) from None
            self._are_texts[name] = True
            return texts
        self._are_texts[name] = False
        return numbers

    @contextmanager
    def _rows(self) -> Iterator[Iterator[tuple[int, list[str]]]]:
        """The rows, each with the number of its last line, from 1; empty lines are left out."""
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(_lines(file, self._path), delimiter=_delimiter(self._path), strict=True)
                yield ((reader.line_num, row) for row in reader if row)
        except csv.Error as error:
            raise InvalidInputError(f"{self._path}, line {reader.line_num}: {error}") from error
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"{self._path} is not UTF-8: {error}") from error
        except OSError as error:
            raise InvalidInputError(f"{self._path} cannot be read: {error}") from error


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_LINE_CHARACTERS):
        number += 1
        if len(line) == MAX_LINE_CHARACTERS:
            raise InvalidInputError(f"{path}, line {number} has {MAX_LINE_CHARACTERS:,} characters or more; is it CSV?")
        yield line


def _delimiter(path: Path) -> str:
    return "\t" if path.suffix.lower() in (".tsv", ".tab") else ","
