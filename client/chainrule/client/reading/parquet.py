"""Parquet files, read a batch of a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.client.errors import InvalidInputError
from chainrule.client.reading.source import check_expansion, needed, rows_at_a_time
from chainrule.client.reading.tables import Columns

MAX_GROUP_BYTES = 1024**3
"""Largest row group, uncompressed: the reader may hold as much of one."""
_LEAST_CELL_BYTES = 8


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
                self.names = list(file.schema_arrow.names)
        except self._errors as error:
            raise InvalidInputError(f"{path} cannot be read as a Parquet file: {error}") from error
        self.num_rows: int | None = metadata.num_rows
        self._check(metadata, limit_bytes)

    def row(self, number: int) -> str:
        """See Table."""
        return f"row {number}"

    def read(self, names: Sequence[str]) -> Iterator[Columns]:
        """See Table."""
        try:
            with self._parquet.ParquetFile(self._path) as file:
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
            cells = group.num_rows * group.num_columns * _LEAST_CELL_BYTES  # runs of one value take next to nothing
            declared += max(group.total_byte_size, cells)
        self._row_bytes = declared // max(1, metadata.num_rows)
        check_expansion(self._path, declared, limit_bytes)

    def _values(self, column: Any, name: str, first: int) -> NDArray[Any]:
        types = self._arrow.types
        kind = column.type
        if types.is_dictionary(kind):
            column, kind = column.dictionary_decode(), kind.value_type
        if column.null_count:
            row = next(row for row, is_there in enumerate(column.is_valid().to_pylist()) if not is_there)
            raise InvalidInputError(
                f'{self._path}, row {first + row}, column "{name}" has no value; fill it in, or drop the row'
            )
        if types.is_string(kind) or types.is_large_string(kind):
            return np.array(column.to_pylist(), dtype=object)
        if types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind):
            return self._lists(column, name, first)
        if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
            raise InvalidInputError(
                f'{self._path}, column "{name}" is {kind}; columns of numbers, texts, or lists of numbers are read'
            )
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
