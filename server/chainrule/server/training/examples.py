"""What a job is trained on, read by the numbers of examples: datasets in memory, and parts of datasets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from chainrule.engine import data
from chainrule.server.training.errors import DatasetError
from chainrule.server.training.state import Array, Arrays

Fetch = Callable[[str], bytes]
"""Fetches a blob from the service's machine by its SHA-256."""

INPUTS = "inputs"
"""The column that a network reads that has one input."""
TARGETS = "targets"
"""The column that losses and metrics read where they name none."""

_SPLIT = 2**63 - 1
"""The epoch whose order keeps examples back: none that is ever trained."""


class ExampleSource(Protocol):
    """Examples by number, from 0. Values of this kind go from process to process: they are small, or know where the
    examples are."""

    def __len__(self) -> int:
        """How many examples there are."""

    def read(self, indices: NDArray[np.int64], columns: Collection[str] | None = None) -> Arrays:
        """Some examples, in the order asked for, as the network takes them: (n, ...) float32 or int64 of each column;
        None: of all columns. What is not asked for is not read. Raises DatasetError if there is no such column."""

    @property
    def in_memory(self) -> bool:
        """Whether nothing is gained by reading ahead."""

    @property
    def num_bytes(self) -> int:
        """Memory that it takes by itself."""

    @property
    def folder(self) -> str:
        """Where on the service's machine it is read from; empty: it is in memory."""

    def fetched_with(self, fetch: Fetch) -> ExampleSource:
        """The same, where files of the service's machine that cannot be opened here come through `fetch`."""


@dataclass(frozen=True, init=False)
class Examples:
    """A dataset in memory.

    Args:
        inputs: the column of this name, if there is one.
        targets: likewise.
        further: the other columns.
    """

    columns: Arrays
    """By name, at least one, each (N, ...): float32, uint8, which is 255 times as much, or int64: tokens, or class
    labels with -100 where there is none."""

    def __init__(
        self,
        inputs: Array | None = None,
        targets: Array | None = None,
        further: Mapping[str, Array] = MappingProxyType({}),
    ) -> None:
        usual = {INPUTS: inputs, TARGETS: targets}
        columns = {**{name: array for name, array in usual.items() if array is not None}, **further}
        object.__setattr__(self, "columns", columns)

    @property
    def inputs(self) -> Array:
        """The column "inputs"."""
        return self.columns[INPUTS]

    @property
    def targets(self) -> Array:
        """The column "targets"."""
        return self.columns[TARGETS]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, rows: slice | NDArray[np.uint32 | np.int64]) -> Examples:
        """Some of them."""
        return Examples(further={name: array[rows] for name, array in self.columns.items()})

    def read(self, indices: NDArray[np.int64], columns: Collection[str] | None = None) -> Arrays:
        """See ExampleSource."""
        wanted = chosen(self.columns, columns)
        return {name: as_features(self.columns[name][indices]) for name in wanted}

    @property
    def in_memory(self) -> bool:
        """See ExampleSource."""
        return True

    @property
    def num_bytes(self) -> int:
        """See ExampleSource."""
        return sum(array.nbytes for array in self.columns.values())

    @property
    def folder(self) -> str:
        """See ExampleSource."""
        return ""

    def fetched_with(self, fetch: Fetch) -> Examples:  # noqa: ARG002 — nothing is to be fetched
        """See ExampleSource."""
        return self


@dataclass(frozen=True)
class Part:
    """The examples of a source that are kept back for validation, or the others; both in their order there."""

    source: ExampleSource
    num_kept_back: int
    seed: int
    """What draws those that are kept back; 0: they are the last ones."""
    kept_back: bool
    """Whether this is them, or the others."""

    def __len__(self) -> int:
        return self.num_kept_back if self.kept_back else len(self.source) - self.num_kept_back

    def read(self, indices: NDArray[np.int64], columns: Collection[str] | None = None) -> Arrays:
        """See ExampleSource."""
        if self.seed:
            return self.source.read(self._rows[indices].astype(np.int64, copy=False), columns)
        first = len(self.source) - self.num_kept_back if self.kept_back else 0
        return self.source.read(indices + first, columns)

    @property
    def in_memory(self) -> bool:
        """See ExampleSource."""
        return self.source.in_memory

    @property
    def num_bytes(self) -> int:
        """See ExampleSource."""
        return self.source.num_bytes

    @property
    def folder(self) -> str:
        """See ExampleSource."""
        return self.source.folder

    def fetched_with(self, fetch: Fetch) -> Part:
        """See ExampleSource."""
        return replace(self, source=self.source.fetched_with(fetch))

    @cached_property
    def _rows(self) -> NDArray[np.uint32 | np.int64]:
        return drawn_rows(len(self.source), self.num_kept_back, self.seed, kept_back=self.kept_back)


def parts(source: ExampleSource, num_kept_back: int, seed: int) -> tuple[ExampleSource, ExampleSource | None]:
    """What is trained on, and what is kept back for validation: None if that is nothing. The examples are a function of
    their number and the seed."""
    if num_kept_back == 0:
        return source, None
    if isinstance(source, Examples) and not seed:
        rest = len(source) - num_kept_back
        return source[:rest], source[rest:]
    if isinstance(source, Examples):  # copied apart here, so that no worker gets all of it twice
        first, second = (drawn_rows(len(source), num_kept_back, seed, kept_back=kept) for kept in (False, True))
        return source[first], source[second]
    return Part(source, num_kept_back, seed, kept_back=False), Part(source, num_kept_back, seed, kept_back=True)


def drawn_rows(num_examples: int, num_kept_back: int, seed: int, *, kept_back: bool) -> NDArray[np.uint32 | np.int64]:
    """The examples that a seed keeps back, or the others, in rising order."""
    drawn = data.compact_epoch_order(num_examples, seed=seed, epoch=_SPLIT)
    first = num_examples - num_kept_back
    return np.sort(drawn[first:] if kept_back else drawn[:first])


def chosen(names: Collection[str], columns: Collection[str] | None) -> Collection[str]:
    """The columns to read of those that there are; None: all. Raises DatasetError if one is not there."""
    if columns is None:
        return names
    for name in columns:
        if name not in names:
            raise DatasetError(f'the dataset has no column "{name}"; it has {", ".join(names)}')
    return columns


def as_features(inputs: Array) -> Array:
    """What the network takes: uint8 becomes float32 from 0 to 1, divided by 255; all else is as it is."""
    return np.divide(inputs, np.float32(255), dtype=np.float32) if inputs.dtype == np.uint8 else inputs
