"""Which reader reads a source."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from chainrule.client.errors import InvalidInputError
from chainrule.client.reading.arrays import ArrayReader
from chainrule.client.reading.csv_files import CsvTable
from chainrule.client.reading.images import ImageFolder
from chainrule.client.reading.npz import NpzTable
from chainrule.client.reading.options import ReadOptions
from chainrule.client.reading.parquet import ParquetTable
from chainrule.client.reading.samples import SampleReader
from chainrule.client.reading.source import Reader
from chainrule.client.reading.tables import DictTable, FrameTable, TableReader
from chainrule.client.reading.texts import TextReader

KINDS = (
    "a pair of arrays, a dict of arrays, a frame of pandas or polars, a map-style dataset of PyTorch, or the path of a "
    ".npz, .csv, .tsv, .parquet, .jsonl or .txt file, or of a folder with a sub-folder of pictures for each class"
)


def open_reader(source: Any, inputs: ArrayLike | None, targets: ArrayLike | None, options: ReadOptions) -> Reader:
    """The reader of a source, or of inputs, targets and further columns.

    Raises:
        InvalidInputError: as `open_source`; or both are given, or neither.
    """
    if inputs is None and targets is not None and _is_array(source):
        source, inputs = None, source
    if source is None and (options.further or (inputs is not None and targets is not None)):
        return ArrayReader(inputs, targets, options, further=options.further)
    if source is not None and inputs is None and targets is None:
        return open_source(source, options)
    if source is not None and inputs is None:
        raise InvalidInputError(
            f"targets are given beside a {type(source).__name__}, which has its own; name the column with target, or "
            "give inputs and targets as arrays"
        )
    raise InvalidInputError("give a source, or inputs and targets (or columns): one of the two, and nothing else")


def _is_array(source: Any) -> bool:
    """Whether it is numbers, and nothing that has targets of its own."""
    return type(source).__name__ != "DataFrame" and (isinstance(source, list) or hasattr(source, "__array__"))


def open_source(source: Any, options: ReadOptions) -> Reader:
    """The reader of a source.

    Raises:
        InvalidInputError: it is of a kind that none reads, is not there, or is malformed; or a library is missing that
            its kind needs.
    """
    if isinstance(source, str | os.PathLike):
        return _open_path(Path(source), options)
    if isinstance(source, Mapping):
        return TableReader(DictTable(source), options)
    if type(source).__name__ in ("DataFrame", "LazyFrame"):
        if hasattr(source, "collect"):
            raise InvalidInputError("the frame is lazy; give frame.collect(), or write it to Parquet and give the path")
        return TableReader(FrameTable(source), options)
    if isinstance(source, tuple) and len(source) == 2 and all(hasattr(array, "__array__") for array in source):
        return ArrayReader(*source, options, further=options.further)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__") and not isinstance(source, np.ndarray | bytes):
        _without_further(f"a {type(source).__name__}", options)
        return SampleReader(source, options)
    raise InvalidInputError(f"a {type(source).__name__} cannot be read; give {KINDS}")


def _open_path(path: Path, options: ReadOptions) -> Reader:
    if path.is_dir():
        _without_further(str(path), options)
        return ImageFolder(path, options)
    if not path.is_file():
        raise InvalidInputError(f"{path} is not there, or is no file; give {KINDS}")
    match path.suffix.lower():
        case ".npz":
            return TableReader(NpzTable(path, limit_bytes=options.limit_bytes), options)
        case ".csv" | ".tsv" | ".tab":
            return TableReader(CsvTable(path), options)
        case ".parquet" | ".pq":
            return TableReader(ParquetTable(path, limit_bytes=options.limit_bytes), options)
        case ".jsonl" | ".txt":
            _without_further(str(path), options)
            return TextReader(path, options)
    raise InvalidInputError(f'{path} ends in "{path.suffix}", which says nothing of what it is; give {KINDS}')


def _without_further(what: str, options: ReadOptions) -> None:
    if options.further:
        names = ", ".join(f'"{name}"' for name in options.further)
        raise InvalidInputError(
            f"{what} cannot be asked for the columns {names}; give arrays, or a table with such columns"
        )
