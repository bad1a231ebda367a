"""What all readers have in common: blocks of examples, the bound on what files unfold to, and libraries that may be
missing."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from chainrule.client.errors import InvalidInputError

Block = Mapping[str, NDArray[Any]]
"""Some examples by column, as they are sent: (n, ...) float32, int64 or uint8; usually "inputs" and "targets"."""

BLOCK_BYTES = 8 * 1024**2
"""About how much is read at a time."""
MIN_LIMIT_BYTES = 256 * 1024**2
"""What every file may unfold to."""
MAX_EXPANSION = 100
"""How many times its size a larger file may unfold to."""


class Reader(Protocol):
    """Reads a source once, from its beginning to its end."""

    @property
    def num_rows(self) -> int | None:
        """How many examples there are; None: that is not known before they have been read."""

    @property
    def class_labels(self) -> tuple[str, ...]:
        """Names of the classes, that of class 0 first; none: targets are numbers already."""

    def blocks(self) -> Iterator[Block]:
        """The examples, some at a time. Raises InvalidInputError naming the file, the row and the column, or what else
        it is that cannot be read."""


def check_expansion(path: Path, unfolded_bytes: int, limit_bytes: int | None, *, what: str = "") -> None:
    """Raises InvalidInputError if a file says of itself that it unfolds to more than it may: before anything of it is
    decompressed."""
    size = path.stat().st_size
    limit = max(MIN_LIMIT_BYTES, MAX_EXPANSION * size) if limit_bytes is None else limit_bytes
    if unfolded_bytes > limit:
        raise InvalidInputError(
            f"{path}{what} has {size:,} bytes and unfolds to {unfolded_bytes:,}, more than the limit of {limit:,}; if "
            "that is what it should hold, give limit_bytes"
        )


def needed(module: str, *, reads: str) -> Any:
    """A module of a library that chainrule does not need otherwise.

    Raises:
        InvalidInputError: it is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InvalidInputError(
            f"to read {reads}, install what reads them: pip install 'chainrule[data]' ({error})"
        ) from error


def rows_at_a_time(row_bytes: int) -> int:
    """How many rows of a size make a block."""
    return max(1, BLOCK_BYTES // max(1, row_bytes))
