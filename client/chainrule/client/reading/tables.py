"""Tables: columns by name, of which one is the target and the others are the inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chainrule.client.errors import InvalidInputError
from chainrule.client.reading.arrays import to_block
from chainrule.client.reading.options import ReadOptions
from chainrule.client.reading.source import Block, rows_at_a_time

Columns = Mapping[str, NDArray[Any]]
"""Some rows: an array (n, ...) for each column, of numbers, truth values or texts (dtype object)."""

TARGET_NAMES = ("target", "targets", "label", "labels", "y")
"""What a target is called where nobody says."""
MAX_CLASS_NAMES = 100_000
"""Most different texts in a column of targets."""


class Table(Protocol):
    """Rows of named columns, which can be gone through more than once."""

    @property
    def where(self) -> str:
        """What it is, for errors: "data.csv"."""

    @property
    def is_typed(self) -> bool:
        """Whether its numbers say if they are whole ones, as those of a text do not."""

    @property
    def names(self) -> Sequence[str]:
        """Its columns."""

    @property
    def num_rows(self) -> int | None:
        """How many rows there are; None: that is not known before they have been read."""

    def row(self, number: int) -> str:
        """What row number `number`, from 0, is called: "row 3"."""

    def read(self, names: Sequence[str]) -> Iterator[Columns]:
        """These columns, some rows at a time. Raises InvalidInputError."""


class TableReader:
    """The inputs and targets of a table. Targets that are texts become classes, in the order of the alphabet."""

    def __init__(self, table: Table, options: ReadOptions) -> None:
        self._table = table
        self._options = options
        self._target = _target_of(table, options.target)
        self._inputs = _inputs_of(table, self._target, options.columns)
        self._classes: dict[str, int] | None = None

    @property
    def num_rows(self) -> int | None:
        """See Reader."""
        return self._table.num_rows

    @property
    def class_labels(self) -> tuple[str, ...]:
        """See Reader."""
        return tuple(self._classes or ())

    def blocks(self) -> Iterator[Block]:
        """See Reader."""
        self._classes = None if self._options.regression else self._find_classes()
        first = 0
        for columns in self._table.read([*self._inputs, self._target]):
            for name in self._inputs:
                self._check(columns[name], name, first)
            targets = self._to_targets(columns[self._target], first)
            inputs = self._join(columns)
            yield to_block(inputs, targets, self._options, first_row=first)
            first += len(targets)

    def _find_classes(self) -> dict[str, int] | None:
        """The different texts of the target, with their numbers; None: it is numbers."""
        found: set[str] = set()
        first = 0
        for columns in self._table.read([self._target]):
            values = columns[self._target]
            if values.dtype.kind not in "OUST":
                return None
            for row, value in enumerate(values.tolist()):
                if not isinstance(value, str):
                    raise InvalidInputError(
                        f'{self._table.where}, {self._table.row(first + row)}, column "{self._target}": '
                        f"{_shown(value)} is no text, as the others are; give every row a target"
                    )
                found.add(value)
            if len(found) > MAX_CLASS_NAMES:
                raise InvalidInputError(
                    f'{self._table.where}: the target "{self._target}" has more than {MAX_CLASS_NAMES:,} different '
                    "texts; choose the column of the classes with target"
                )
            first += len(values)
        return {name: number for number, name in enumerate(sorted(found))}

    def _to_targets(self, values: NDArray[Any], first: int) -> NDArray[Any]:
        if self._classes is not None:
            return np.array([self._classes[value] for value in values.tolist()], np.int64)
        self._check(values, self._target, first)
        if self._table.is_typed or self._options.regression:
            return values
        labels = values.astype(np.int64)
        if (changed := np.flatnonzero(labels != values)).size:
            row = int(changed[0])
            raise InvalidInputError(
                f'{self._table.where}, {self._table.row(first + row)}, column "{self._target}": {values[row]} is no '
                "class label, which is a whole number; for numbers to predict say regression=True (--regression)"
            )
        return labels

    def _check(self, values: NDArray[Any], name: str, first: int) -> None:
        """Raises InvalidInputError unless values are finite numbers."""
        if values.dtype.kind not in "fiub":
            row = next((r for r, value in enumerate(values.tolist()) if not is_number(value)), 0)
            shown = _shown(values[row])
            raise InvalidInputError(
                f'{self._table.where}, {self._table.row(first + row)}, column "{name}": {shown} is no number; drop the '
                "column, or choose others with columns"
            )
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            place = np.argwhere(~np.isfinite(values))[0]
            raise InvalidInputError(
                f'{self._table.where}, {self._table.row(first + int(place[0]))}, column "{name}": '
                f"{values[tuple(place)]} is no finite number; replace or drop it"
            )

    def _join(self, columns: Columns) -> NDArray[Any]:
        """One column as it is, (n, ...); several side by side, (n, F)."""
        arrays = [columns[name] for name in self._inputs]
        if len(arrays) == 1 and arrays[0].ndim > 1:
            return arrays[0]
        if self._options.tokens:
            return np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1)
        flat = [array.reshape(len(array), -1).astype(np.float64, copy=False) for array in arrays]
        return np.concatenate(flat, axis=1)


class DictTable:
    """Arrays by name, of one length.

    Raises:
        InvalidInputError: they are of different lengths.
    """

    where = "the dict"
    is_typed = True

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self._columns = {str(name): np.asarray(values) for name, values in columns.items()}
        lengths = {name: len(array) if array.ndim else 0 for name, array in self._columns.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f'"{name}" {length}' for name, length in lengths.items())
            raise InvalidInputError(f"the columns have different lengths: {listed}; give each row all of them")
        self.names = list(self._columns)
        self.num_rows: int | None = next(iter(lengths.values()), 0)

    def row(self, number: int) -> str:
        """See Table."""
        return f"row {number}"

    def read(self, names: Sequence[str]) -> Iterator[Columns]:
        """See Table."""
        chosen = {name: self._columns[name] for name in names}
        length = self.num_rows or 0
        rows = rows_at_a_time(sum(array.nbytes for array in chosen.values()) // max(1, length))
        for start in range(0, length, rows):
            yield {name: array[start : start + rows] for name, array in chosen.items()}


class FrameTable:
    """A frame of pandas or polars.

    Raises:
        InvalidInputError: two columns have one name.
    """

    where = "the frame"
    is_typed = True

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self.names = [str(name) for name in frame.columns]
        self._own_names = dict(zip(self.names, frame.columns, strict=True))
        if len(self._own_names) < len(self.names):
            raise InvalidInputError(f"the frame has two columns of one name: {', '.join(self.names[:20])}")
        self.num_rows: int | None = len(frame)

    def row(self, number: int) -> str:
        """See Table."""
        return f"row {number}"

    def read(self, names: Sequence[str]) -> Iterator[Columns]:
        """See Table."""
        rows = rows_at_a_time(8 * len(names))
        for start in range(0, self.num_rows or 0, rows):
            yield {name: self._values(name, start, start + rows) for name in names}

    def _values(self, name: str, start: int, stop: int) -> NDArray[Any]:
        column = self._frame[self._own_names[name]]
        part = column.iloc[start:stop] if hasattr(column, "iloc") else column[start:stop]
        values = np.asarray(part.to_numpy())
        return stacked(values) if values.dtype.kind == "O" else values


def stacked(values: NDArray[Any]) -> NDArray[Any]:
    """An array of objects as one of numbers, if these are numbers, or sequences of numbers of one length; else as it
    was."""
    first = values[0] if len(values) else None
    if isinstance(first, str | bytes) or first is None:
        return values
    try:
        found = np.array(values.tolist())
    except ValueError:  # of different lengths
        return values
    return found if found.dtype.kind in "fiub" else values


def is_number(value: object) -> bool:
    """Whether it is a number, or a text that stands for one."""
    try:
        float(value)  # type: ignore[arg-type] # that is the question
    except (TypeError, ValueError):
        return False
    return True


def _target_of(table: Table, target: str | None) -> str:
    names = list(table.names)
    shown = ", ".join(names[:20]) or "none"
    if target is not None:
        if target not in names:
            raise InvalidInputError(f'{table.where} has no column "{target}"; its columns are {shown}')
        return target
    known = [name for name in names if name.lower() in TARGET_NAMES]
    if len(known) != 1:
        raise InvalidInputError(f"say with target which column of {table.where} is the target; its columns are {shown}")
    return known[0]


def _inputs_of(table: Table, target: str, columns: Sequence[str] | None) -> list[str]:
    wanted = [name for name in table.names if name != target] if columns is None else list(columns)
    for name in wanted:
        if name not in table.names or name == target:
            what = "is the target" if name == target else "is not there"
            raise InvalidInputError(f'column "{name}" of {table.where} {what}; choose inputs among the other columns')
    if not wanted:
        raise InvalidInputError(f'{table.where} has no column but the target "{target}"; inputs are needed, too')
    return wanted


def _shown(value: object) -> str:
    text = repr(str(value) if isinstance(value, str) else value)  # numpy's texts say that they are
    return text if len(text) <= 40 else f"{text[:40]}…"
