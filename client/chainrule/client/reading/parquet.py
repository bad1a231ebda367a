"""Parquet files, read a batch of a row group at a time, once their pages were found to hold what their metadata say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.client.errors import InvalidInputError
from chainrule.client.reading.pages import check_chunk
from chainrule.client.reading.source import check_expansion, needed, rows_at_a_time
from chainrule.client.reading.tables import Columns

MAX_GROUP_BYTES = 1024**3
"""Largest row group, uncompressed: the reader may hold as much of one."""
_LEAST_CELL_BYTES = 8
_LISTED_BYTES = 16
"""What a value in a list takes while it is read: itself, and where lists begin and end."""


class ParquetTable:
    """A Parquet file. What its metadata declare is checked before anything is decompressed.

    Raises:
        InvalidInputError: it is none, or declares more than it may, or pyarrow is missing.
    """

    is_typed = True

    def __init__(self, path: Path, *, limit_bytes: int | None = None) -> None:
        self._arrow = needed("pyarrow", reads=f"the Parquet file {path}")
        self._parquet = needed("pyarrow.parquet", reads=f"the Parquet file {path}")
        self._path = path
        self.where = str(path)
        self._errors = (self._arrow.ArrowException, OSError, ValueError)
        try:
            with self._parquet.ParquetFile(path) as file:
                metadata = file.metadata
                self._schema = file.schema_arrow
                self.names = list(self._schema.names)
        except self._errors as error:
            raise InvalidInputError(f"{path} cannot be read as a Parquet file: {error}") from error
        self.num_rows: int | None = metadata.num_rows
        self._check(metadata, limit_bytes)
        self._metadata = metadata

    def row(self, number: int) -> str:
        """See Table."""
        return f"row {number}"

    def read(self, names: Sequence[str]) -> Iterator[Columns]:
        """See Table."""
        texts = {name for name in names if self._is_text(name)}
        texts &= self._check_pages(names)
        try:
            with self._parquet.ParquetFile(self._path, read_dictionary=sorted(texts)) as file:
                first = 0
                rows = min(65_536, rows_at_a_time(self._row_bytes))
                for batch in file.iter_batches(batch_size=rows, columns=list(names), use_threads=False):
                    yield {name: self._values(batch.column(name), name, first) for name in names}
                    first += batch.num_rows
        except InvalidInputError:
            raise
        except self._errors as error:
            raise InvalidInputError(f"{self._path} cannot be read: {error}") from error

    def _check(self, metadata: Any, limit_bytes: int | None) -> None:
        declared = 0
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            if group.total_byte_size > MAX_GROUP_BYTES:
                raise InvalidInputError(
                    f"{self._path}: row group {index} has {group.total_byte_size:,} bytes; at most "
                    f"{MAX_GROUP_BYTES:,} are read: write it with smaller row groups"
                )
            columns = [group.column(number) for number in range(group.num_columns)]
            stored = max(group.total_byte_size, sum(column.total_uncompressed_size for column in columns))
            listed = sum(column.num_values - group.num_rows for column in columns if column.num_values > group.num_rows)
            if listed * _LISTED_BYTES > MAX_GROUP_BYTES:
                raise InvalidInputError(
                    f"{self._path}: row group {index} has {listed:,} values in lists, {_LISTED_BYTES} bytes each; at "
                    f"most {MAX_GROUP_BYTES:,} are read: write it with smaller row groups"
                )
            cells = group.num_rows * group.num_columns + listed  # runs of one value take next to nothing
            declared += max(stored, cells * _LEAST_CELL_BYTES)
        self._row_bytes = declared // max(1, metadata.num_rows)
        check_expansion(self._path, declared, limit_bytes)

    def _is_text(self, name: str) -> bool:
        """Whether a column is of texts, which are read as places in a dictionary: one text may stand in all rows.

        Raises:
            InvalidInputError: it is of what is not read.
        """
        types, kind = self._arrow.types, self._schema.field(name).type
        if types.is_dictionary(kind):
            kind = kind.value_type
        if types.is_string(kind) or types.is_large_string(kind):
            return True
        while types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind):
            kind = kind.value_type
        if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
            return False
        kind = self._schema.field(name).type
        raise InvalidInputError(
            f'{self._path}, column "{name}" is {kind}; columns of numbers, texts, or lists of numbers are read'
        )

    def _check_pages(self, names: Sequence[str]) -> set[str]:
        """Which of these columns have dictionaries.

        Raises:
            InvalidInputError: pages hold more than the metadata say.
        """
        found: set[str] = set()
        with self._path.open("rb") as file:
            for index in range(self._metadata.num_row_groups):
                group = self._metadata.row_group(index)
                for number in range(group.num_columns):
                    chunk = group.column(number)
                    column = chunk.path_in_schema  # "values.list.element" of a column of lists
                    if not any(column == name or column.startswith(f"{name}.") for name in names):
                        continue
                    try:
                        check_chunk(file, chunk)
                    except ValueError as error:
                        raise InvalidInputError(
                            f'{self._path}, row group {index}, column "{column}": {error}'
                        ) from error
                    if chunk.has_dictionary_page:
                        found.add(column)
        return found

    def _values(self, column: Any, name: str, first: int) -> NDArray[Any]:
        types = self._arrow.types
        kind = column.type
        if column.null_count:
            row = next(row for row, is_there in enumerate(column.is_valid().to_pylist()) if not is_there)
            raise InvalidInputError(
                f'{self._path}, row {first + row}, column "{name}" has no value; fill it in, or drop the row'
            )
        if types.is_dictionary(kind):
            entries = self._values(column.dictionary, name, first)
            return np.asarray(entries[column.indices.to_numpy(zero_copy_only=False)])
        if types.is_string(kind) or types.is_large_string(kind):
            return np.array(column.to_pylist(), dtype=object)
        if types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind):
            return self._lists(column, name, first)
        return np.asarray(column.to_numpy(zero_copy_only=False))

    def _lists(self, column: Any, name: str, first: int) -> NDArray[Any]:
        """Lists of one length, (n, length)."""
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        if len(lengths) and (lengths != lengths[0]).any():
            row = int(np.argmax(lengths != lengths[0]))
            raise InvalidInputError(
                f'{self._path}, row {first + row}, column "{name}" has a list of {lengths[row]} values, row {first} '
                f"one of {lengths[0]}; all must have one length"
            )
        flat = self._values(column.flatten(), name, first)
        return flat.reshape(len(lengths), -1)
