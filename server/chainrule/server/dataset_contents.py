"""What a dataset holds, found out from its examples, some at a time: shapes, classes and statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chainrule.engine.io.chunked import Column, Manifest
from chainrule.server.errors import InvalidRequestError
from chainrule.server.records import ColumnStatistics
from chainrule.server.training.examples import Examples
from chainrule.server.training.state import Array

MAX_COUNTED_CLASSES = 1000
"""Most classes whose examples are counted one by one."""
_BLOCK_NUMBERS = 2**20
"""How many numbers are looked at together."""


@dataclass(frozen=True)
class Contents:
    """What a dataset holds."""

    num_examples: int
    num_classes: int
    num_tokens: int
    columns: tuple[Column, ...]
    """Of the inputs, then of the targets."""
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

    def add(self, examples: Examples, *, times: int = 1) -> None:
        """Look at some more, which the dataset has so many times. Raises InvalidRequestError if their types or shapes
        are others than those before."""
        arrays = (examples.inputs, examples.targets)
        columns = tuple(
            Column(name, array.dtype.name, array.shape[1:])
            for name, array in zip(("inputs", "targets"), arrays, strict=True)
        )
        if not self._tallies:
            self._columns = columns
            self._tallies = tuple(_Tally(counts_classes=c.name == "targets" and c.dtype == "int64") for c in columns)
        elif columns != self._columns:
            raise InvalidRequestError.of(
                "dataset.digest", f"has chunks of different columns: {self._columns}, then {columns}"
            )
        self._num_examples += times * len(examples)
        for tally, array in zip(self._tallies, arrays, strict=True):
            tally.add(array, times)

    def contents(self, *, size_bytes: int, chunks: Sequence[str] = ()) -> Contents:
        """What was found."""
        inputs, targets = self._tallies
        return Contents(
            num_examples=self._num_examples,
            num_classes=max(0, int(targets.greatest) + 1) if targets.counts_classes else 0,
            num_tokens=int(inputs.greatest) + 1 if self._columns[0].dtype == "int64" else 0,
            columns=self._columns,
            statistics=tuple(t.found(c.name) for t, c in zip(self._tallies, self._columns, strict=True)),
            size_bytes=size_bytes,
            chunks=tuple(chunks),
        )


def check_chunks(manifest: Manifest) -> None:
    """Raises InvalidRequestError unless a manifest has the columns of a dataset."""
    if [column.name for column in manifest.columns] != ["inputs", "targets"]:
        names = ", ".join(column.name for column in manifest.columns)
        raise InvalidRequestError.of(
            "dataset.digest", f'has a manifest with the columns {names[:200]}; a dataset has "inputs" and "targets"'
        )


class _Tally:
    """Statistics of numbers that come in blocks: those of each block are joined with those before.

    Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """

    def __init__(self, *, counts_classes: bool) -> None:
        self.counts_classes = counts_classes
        self.least, self.greatest = math.inf, -math.inf
        self._count, self._mean, self._squares = 0, 0.0, 0.0
        self._classes = np.zeros(0, np.int64)

    def add(self, array: Array, times: int) -> None:
        numbers = array.reshape(-1)
        for start in range(0, numbers.size, _BLOCK_NUMBERS):
            self._add(numbers[start : start + _BLOCK_NUMBERS], times)

    def _add(self, block: Array, times: int) -> None:
        self.least, self.greatest = min(self.least, block.min().item()), max(self.greatest, block.max().item())
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
        )
