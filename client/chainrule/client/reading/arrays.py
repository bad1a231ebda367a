"""Arrays in memory, or mapped into it: cut into blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chainrule.client.errors import InvalidInputError
from chainrule.client.examples import in_order, to_array, to_column, to_inputs, to_targets
from chainrule.client.reading.options import ReadOptions
from chainrule.client.reading.source import Block, rows_at_a_time


class ArrayReader:
    """Columns that are arrays. Arrays of different lengths are one block, for the server to refuse.

    Args:
        further: the columns besides inputs and targets.

    Raises:
        InvalidInputError: a column is given twice, or is no array.
    """

    class_labels: tuple[str, ...] = ()

    def __init__(
        self,
        inputs: ArrayLike | None,
        targets: ArrayLike | None,
        options: ReadOptions | None = None,
        *,
        further: Mapping[str, ArrayLike] = MappingProxyType({}),
    ) -> None:
        given = {name: of for name, of in (("inputs", inputs), ("targets", targets)) if of is not None}
        for name, values in further.items():
            if name in given:
                raise InvalidInputError(f'columns has "{name}", which is given as {name}, too; give it once')
            if isinstance(values, str | bytes):
                raise InvalidInputError(f'columns["{name}"] is {values!r}; beside arrays, give an array')
        self._columns = {name: to_array(values, name) for name, values in {**given, **further}.items()}
        self._options = options or ReadOptions()

    @property
    def num_rows(self) -> int | None:
        """See Reader."""
        first = next(iter(self._columns.values()))
        return len(first) if first.ndim else None

    def blocks(self) -> Iterator[Block]:
        """See Reader."""
        columns = self._columns
        lengths = {len(array) if array.ndim else 0 for array in columns.values()}
        if len(lengths) > 1 or 0 in lengths:
            yield to_block(columns, self._options)
            return
        [length] = lengths
        rows = rows_at_a_time(sum(array.size for array in columns.values()) * 8 // length)
        for start in range(0, length, rows):
            part = {name: array[start : start + rows] for name, array in columns.items()}
            yield to_block(part, self._options, first_row=start)


def to_block(columns: Mapping[str, NDArray[Any]], options: ReadOptions, *, first_row: int = 0) -> Block:
    """Some examples as they are sent. Raises InvalidInputError."""
    return {name: _sent(name, columns[name], options, first_row) for name in in_order(columns)}


def _sent(name: str, values: NDArray[Any], options: ReadOptions, first_row: int) -> NDArray[Any]:
    if options.pictures and values.dtype == np.uint8 and name != "targets":
        return np.ascontiguousarray(values)
    if name == "inputs":
        return to_inputs(values, tokens=options.tokens, first_row=first_row)
    if name == "targets":
        return to_targets(values, regression=options.regression, first_row=first_row)
    return to_column(values, name, first_row=first_row)
