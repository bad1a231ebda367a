"""The first rows of a dataset: which bytes of a blob they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.engine.io.chunked import places

Preview = Mapping[str, NDArray[Any]]
"""The first rows by column, as they are stored."""


@dataclass(frozen=True)
class Rows:
    """Where the first rows of a column lie in a blob."""

    column: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def array(self, content: bytes) -> NDArray[Any]:
        """The rows in these bytes."""
        return np.frombuffer(content, self.dtype).reshape(self.shape)


def first_rows(head: bytes, rows: int) -> list[Rows]:
    """Where the first rows lie in a safetensors blob, inputs first.

    Raises:
        FormatError: its header is malformed.
    """
    return [
        Rows(name, np.dtype(place.dtype).newbyteorder("<"), (min(rows, place.shape[0]), *place.shape[1:]), place.begin)
        for name, place in sorted(places(head).items())
    ]
