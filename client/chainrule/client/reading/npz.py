"""Files of numpy, `.npz`: read row by row from the archive, and nothing in them is ever executed."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from chainrule.client.errors import InvalidInputError
from chainrule.client.reading.source import MIN_LIMIT_BYTES, check_expansion, rows_at_a_time
from chainrule.client.reading.tables import Columns

_ERRORS = (OSError, EOFError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class _Header:
    """What a `.npy` within the archive begins with."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_by_columns: bool
    """Whether it lies column by column: then its rows are not together, and it is read as a whole."""

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class NpzTable:
    """The arrays of a `.npz` file, by name. The archive's own sizes are checked before anything is decompressed.

    Raises:
        InvalidInputError: it is none, unfolds to more than it may, or has arrays of objects.
    """

    is_typed = True

    def __init__(self, path: Path, *, limit_bytes: int | None = None) -> None:
        self._path = path
        self.where = str(path)
        self._headers: dict[str, _Header] = {}
        with self._opened() as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            check_expansion(path, sum(info.file_size for info in members), limit_bytes)
            for info in members:
                with archive.open(info) as file:
                    self._headers[info.filename.removesuffix(".npy")] = self._header(file, info)
        if not self._headers:
            raise InvalidInputError(
                f"{path} holds no arrays; write one with numpy.savez(file, inputs=..., targets=...)"
            )
        self.names = list(self._headers)

    @property
    def num_rows(self) -> int | None:
        """See Table."""
        shape = next(iter(self._headers.values())).shape
        return shape[0] if shape else None

    def row(self, number: int) -> str:
        """See Table."""
        return f"row {number}"

    def read(self, names: Sequence[str]) -> Iterator[Columns]:
        """See Table."""
        lengths = {name: self._headers[name].shape[0] if self._headers[name].shape else 0 for name in names}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f'"{name}" {length}' for name, length in lengths.items())
            raise InvalidInputError(f"{self._path}: arrays have different lengths: {listed}; give each row all of them")
        length = lengths[names[0]]
        rows = rows_at_a_time(sum(self._headers[name].row_bytes for name in names))
        with self._opened() as archive, ExitStack() as stack:
            files = {name: stack.enter_context(archive.open(f"{name}.npy")) for name in names}
            whole: dict[str, NDArray[Any]] = {}
            for name, file in files.items():
                self._header(file, archive.getinfo(f"{name}.npy"))
                if self._headers[name].is_by_columns:
                    whole[name] = self._rows(file, name, length, order="F")
            for start in range(0, length, rows):
                count = min(rows, length - start)
                yield {
                    name: whole[name][start : start + count] if name in whole else self._rows(file, name, count)
                    for name, file in files.items()
                }

    def _rows(self, file: IO[bytes], name: str, count: int, *, order: Literal["C", "F"] = "C") -> NDArray[Any]:
        header = self._headers[name]
        content = file.read(count * header.row_bytes)
        if len(content) != count * header.row_bytes:
            raise InvalidInputError(f'{self._path}: array "{name}" ends too early')
        return np.frombuffer(content, header.dtype).reshape(count, *header.shape[1:], order=order)

    def _header(self, file: IO[bytes], info: zipfile.ZipInfo) -> _Header:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise InvalidInputError(f'{self._path}: "{info.filename}" is of version {version} of the format .npy')
        if dtype.hasobject:
            raise InvalidInputError(
                f'{self._path}: "{info.filename}" holds Python objects, which are not read, since reading them may run '
                "anything; save arrays of numbers"
            )
        if fortran and info.file_size > MIN_LIMIT_BYTES:
            raise InvalidInputError(
                f'{self._path}: "{info.filename}" is saved column by column, so that it must be read as a whole, which '
                f"is done up to {MIN_LIMIT_BYTES:,} bytes; save numpy.ascontiguousarray of it"
            )
        if math.prod(shape) * dtype.itemsize > info.file_size:
            raise InvalidInputError(
                f'{self._path}: "{info.filename}" declares an array of shape {shape} in {info.file_size:,} bytes'
            )
        return _Header(shape, dtype, fortran)

    @contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self._path) as archive:
                yield archive
        except InvalidInputError:
            raise
        except _ERRORS as error:
            raise InvalidInputError(f"{self._path} cannot be read as a .npz file: {error}") from error
