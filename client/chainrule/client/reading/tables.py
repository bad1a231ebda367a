"""Tables: columns by name, of which one is the target and the others are the inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chainrule.client.errors import InvalidInputError
from chainrule.client.examples import to_array
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
    """The inputs, targets and further columns of a table. Targets and further columns that are texts become classes, in
    the order of the alphabet."""

    def __init__(self, table: Table, options: ReadOptions) -> None:
        self._table = table
        self._options = options
        self._further = _further_of(table, options.further)
        self._target = _target_of(table, options.target, self._further)
        self._inputs = _inputs_of(table, self._target, self._further, options.columns)
        self._further = {name: of for name, of in self._further.items() if name not in ("inputs", "targets")}
        self._classes: dict[str, dict[str, int]] = {}
        self._whole: frozenset[str] = frozenset()

    @property
    def num_rows(self) -> int | None:
        """See Reader."""
        return self._table.num_rows

    @property
    def class_labels(self) -> tuple[str, ...]:
        """See Reader."""
        return tuple(self._classes.get(self._target, ()))

    def blocks(self) -> Iterator[Block]:
        """See Reader."""
        self._learn()
        first = 0
        further = [name for names in self._further.values() for name in names]
        targets = [self._target] if self._target else []
        for columns in self._table.read(list(dict.fromkeys([*self._inputs, *targets, *further]))):
            block = {}
            for name in self._inputs:
                self._check(columns[name], name, first)
            if self._inputs:
                block["inputs"] = self._join(columns)
            if self._target:
                block["targets"] = self._to_targets(columns[self._target], first)
            for name, sources in self._further.items():
                block[name] = self._to_further(name, [(of, columns[of]) for of in sources], first)
            yield to_block(block, self._options, first_row=first)
            first += len(next(iter(block.values())))

    def _learn(self) -> None:
        """Go through the table for what must be known of whole columns before the first row is sent."""
        further = {name for names in self._further.values() for name in names}
        targets = {self._target} if self._target and not self._options.regression else set()
        found = {name: self._find_classes(name) for name in sorted(further | targets)}
        self._classes = {name: classes for name, classes in found.items() if classes is not None}
        left = [] if self._table.is_typed else sorted(further - set(self._classes))
        whole = set(left)
        for columns in self._table.read(left) if left else ():
            whole -= {name for name in whole if not _are_whole(columns[name])}
        self._whole = frozenset(whole)

    def _find_classes(self, column: str) -> dict[str, int] | None:
        """The different texts of a column, with their numbers; None: it is numbers."""
        found: set[str] = set()
        first = 0
        for columns in self._table.read([column]):
            values = columns[column]
            if values.dtype.kind not in "OUST" or (not found and not any(isinstance(v, str) for v in values.tolist())):
                return None  # whether they are numbers, is asked when they are taken
            if column != self._target and not self._table.is_typed:
                self._check_texts(values, column, first)
            for row, value in enumerate(values.tolist()):
                if not isinstance(value, str):
                    raise InvalidInputError(
                        f'{self._table.where}, {self._table.row(first + row)}, column "{column}": '
                        f"{_shown(value)} is no text, as the others are; give every row one"
                    )
                found.add(value)
            if len(found) > MAX_CLASS_NAMES:
                raise InvalidInputError(
                    f'{self._table.where}: the column "{column}" has more than {MAX_CLASS_NAMES:,} different '
                    "texts; choose the columns of the classes with target and columns"
                )
            first += len(values)
        return {name: number for number, name in enumerate(sorted(found))}

    def _check_texts(self, values: NDArray[Any], column: str, first: int) -> None:
        """Raises InvalidInputError if some texts of a column are numbers: then the others are mistakes."""
        rows = [row for row, value in enumerate(values.tolist()) if not is_number(value)]
        if len(rows) < len(values):
            row = rows[0] if rows else 0
            raise InvalidInputError(
                f'{self._table.where}, {self._table.row(first + row)}, column "{column}": {_shown(values[row])} is no '
                f"{'number' if rows else 'text'}, as others are; correct it"
            )

    def _to_targets(self, values: NDArray[Any], first: int) -> NDArray[Any]:
        if self._target in self._classes:
            return self._numbered(values, self._target)
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

    def _to_further(self, name: str, sources: Sequence[tuple[str, NDArray[Any]]], first: int) -> NDArray[Any]:
        """A further column: one column of the table as it is, several side by side, (n, F)."""
        found = []
        for of, values in sources:
            if of in self._classes:
                found.append(self._numbered(values, of))
                continue
            self._check(values, of, first)
            found.append(values.astype(np.int64) if of in self._whole else values)
        if isinstance(self._options.further[name], str):
            return found[0]
        return np.concatenate([array.reshape(len(array), -1) for array in found], axis=1)

    def _numbered(self, values: NDArray[Any], column: str) -> NDArray[np.int64]:
        return np.array([self._classes[column][value] for value in values.tolist()], np.int64)

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
        self._columns = {str(name): to_array(values, str(name)) for name, values in columns.items()}
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


def _are_whole(values: NDArray[Any]) -> bool:
    """Whether all are whole numbers that float64 tells apart."""
    return bool((np.abs(values) <= 2**53).all() and (values == np.floor(values)).all())


def _target_of(table: Table, target: str | None, further: Mapping[str, Sequence[str]]) -> str:
    """The column of the targets; empty: there are none, since other columns are said to be what there is."""
    names = list(table.names)
    shown = ", ".join(names[:20]) or "none"
    if target is not None:
        if "targets" in further:
            raise InvalidInputError('target and columns["targets"] are the same; give one of them')
        if target not in names:
            raise InvalidInputError(f'{table.where} has no column "{target}"; its columns are {shown}')
        return target
    if "targets" in further:
        if len(further["targets"]) > 1:
            raise InvalidInputError('columns["targets"] names several columns; the target is one')
        return further["targets"][0]
    taken = {name for of in further.values() for name in of}
    known = [name for name in names if name.lower() in TARGET_NAMES and name not in taken]
    if further and not known:
        return ""
    if len(known) != 1:
        raise InvalidInputError(f"say with target which column of {table.where} is the target; its columns are {shown}")
    return known[0]


def _inputs_of(
    table: Table, target: str, further: Mapping[str, Sequence[str]], columns: Sequence[str] | None
) -> list[str]:
    """The columns of the inputs; none: other columns are said to be what there is."""
    taken = {target, *(name for of in further.values() for name in of)}
    columns = further.get("inputs", columns)
    wanted = [name for name in table.names if name not in taken] if columns is None else list(columns)
    for name in wanted:
        if name not in table.names or name == target:
            what = "is the target" if name == target else "is not there"
            raise InvalidInputError(f'column "{name}" of {table.where} {what}; choose inputs among the other columns')
    if not wanted and not further:
        raise InvalidInputError(f'{table.where} has no column but the target "{target}"; inputs are needed, too')
    return wanted


def _further_of(table: Table, further: Mapping[str, Any]) -> dict[str, list[str]]:
    """The table's columns that make up each further column of the dataset."""
    found: dict[str, list[str]] = {}
    for name, of in further.items():
        names = [of] if isinstance(of, str) else list(of) if isinstance(of, list | tuple) else []
        if not names or not all(isinstance(one, str) for one in names):
            raise InvalidInputError(
                f'columns["{name}"] is a {type(of).__name__}; of a table, give the name of its column, or a list'
            )
        for one in names:
            if one not in table.names:
                shown = ", ".join(list(table.names)[:20]) or "none"
                raise InvalidInputError(f'{table.where} has no column "{one}"; its columns are {shown}')
        found[name] = names
    return found


def _shown(value: object) -> str:
    text = repr(str(value) if isinstance(value, str) else value)  # numpy's texts say that they are
    return text if len(text) <= 40 else f"{text[:40]}…"
