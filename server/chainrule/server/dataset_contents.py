"""What a dataset holds, found out from its examples, some at a time: shapes, classes and statistics."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from chainrule.engine.io.chunked import Column
from chainrule.server.errors import InvalidRequestError, echo
from chainrule.server.records import ColumnStatistics
from chainrule.server.training.examples import INPUTS, TARGETS, Examples
from chainrule.server.training.state import Array

MAX_COUNTED_CLASSES = 1000
"""Most classes whose examples are counted one by one."""
MAX_COLUMNS = 64
MAX_COLUMN_LENGTH = 128
"""Longest name of a column, in characters."""
_BLOCK_NUMBERS = 2**20
"""How many numbers are looked at together."""


@dataclass(frozen=True)
class Contents:
    """What a dataset holds."""

    num_examples: int
    num_classes: int
    num_tokens: int
    columns: tuple[Column, ...]
    """Of the inputs, then of the targets, then the others by name."""
    statistics: tuple[ColumnStatistics, ...]
    size_bytes: int
    chunks: tuple[str, ...] = ()
    """Digests of the chunks, in order; none: the examples are in the blob itself."""


class Survey:
    """Looks at examples, which come in several lots of equal types and shapes."""

    def __init__(self) -> None:
        self._num_examples = 0
        self._columns: tuple[Column, ...] = ()
        self._tallies: tuple[_Tally, ...] = ()

    def add(self, examples: Examples, *, times: int = 1, first_row: int = 0) -> None:
        """Look at some more, which the dataset has so many times, first from row number `first_row` on. Raises
        InvalidRequestError if their types or shapes are others than those before."""
        arrays = {name: examples.columns[name] for name in in_order(examples.columns)}
        columns = tuple(Column(name, array.dtype.name, array.shape[1:]) for name, array in arrays.items())
        if not self._tallies:
            self._columns = columns
            self._tallies = tuple(_Tally(counts_classes=c.name != INPUTS and c.dtype == "int64") for c in columns)
        elif columns != self._columns:
            raise InvalidRequestError.of(
                "dataset.digest", f"has chunks of different columns: {self._columns}, then {columns}"
            )
        self._num_examples += times * len(examples)
        for tally, array in zip(self._tallies, arrays.values(), strict=True):
            tally.add(array, times, first_row)

    def contents(self, *, size_bytes: int, chunks: Sequence[str] = ()) -> Contents:
        """What was found."""
        return Contents(
            num_examples=self._num_examples,
            num_classes=self._numbers(TARGETS),
            num_tokens=self._numbers(INPUTS),
            columns=self._columns,
            statistics=tuple(t.found(c.name) for t, c in zip(self._tallies, self._columns, strict=True)),
            size_bytes=size_bytes,
            chunks=tuple(chunks),
        )

    def _numbers(self, name: str) -> int:
        """How many labels or tokens there are; 0: there is no such column of whole numbers."""
        found = (t for t, c in zip(self._tallies, self._columns, strict=True) if (c.name, c.dtype) == (name, "int64"))
        return next((max(0, int(tally.greatest) + 1) for tally in found), 0)


def in_order(names: Collection[str]) -> list[str]:
    """The columns of a dataset in their order: inputs, targets, and then the others by name."""
    return [*(name for name in (INPUTS, TARGETS) if name in names), *sorted(set(names) - {INPUTS, TARGETS})]


def check_names(names: Sequence[str]) -> None:
    """Raises InvalidRequestError unless columns can be called so."""
    if len(names) > MAX_COLUMNS:
        raise InvalidRequestError.of(
            "dataset.digest",
            f'has {len(names):,} columns, {echo(sorted(names))}; a dataset has "inputs" and "targets", and at most '
            f"{MAX_COLUMNS} columns in all",
        )
    for name in names:
        if not 1 <= len(name) <= MAX_COLUMN_LENGTH or not name.isprintable():
            raise InvalidRequestError.of(
                "dataset.digest",
                f"has a column called {echo(name)}; use 1 to {MAX_COLUMN_LENGTH} characters that can be printed",
            )


class _Tally:
    """Statistics of numbers that come in blocks: those of each block are joined with those before.

    Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """

    def __init__(self, *, counts_classes: bool) -> None:
        self.counts_classes = counts_classes
        self.least, self.greatest = math.inf, -math.inf
        self._least_row = 0
        self._count, self._mean, self._squares = 0, 0.0, 0.0
        self._classes = np.zeros(0, np.int64)

    def add(self, array: Array, times: int, first_row: int) -> None:
        numbers, of_row = array.reshape(-1), array[0].size
        for start in range(0, numbers.size, _BLOCK_NUMBERS):
            block = numbers[start : start + _BLOCK_NUMBERS]
            if (least := block.min().item()) < self.least:
                self.least = least
                self._least_row = first_row + (start + int(block.argmin())) // of_row
            self._add(block, times)

    def _add(self, block: Array, times: int) -> None:
        self.greatest = max(self.greatest, block.max().item())
        values = block.astype(np.float64)
        mean = float(values.mean())
        values -= mean
        size = times * block.size
        count = self._count + size
        between = mean - self._mean
        self._squares += times * float(np.dot(values, values)) + between * between * self._count * size / count
        self._mean += between * size / count
        self._count = count
        if self.counts_classes and self.greatest < MAX_COUNTED_CLASSES:
            labels = block[block >= 0]  # below are those without one
            counts = times * np.bincount(labels, minlength=len(self._classes))
            counts[: len(self._classes)] += self._classes
            self._classes = counts

    def found(self, column: str) -> ColumnStatistics:
        counted = self.counts_classes and self.greatest < MAX_COUNTED_CLASSES
        return ColumnStatistics(
            column=column,
            count=self._count,
            min=float(self.least),
            max=float(self.greatest),
            mean=self._mean,
            std=math.sqrt(self._squares / self._count),
            class_counts=tuple(map(int, self._classes)) if counted else (),
            min_row=self._least_row,
        )
