"""How tables are laid out as text."""

from __future__ import annotations

import math
from collections.abc import Sequence


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], *, words: set[str]) -> list[str]:
    """The lines of a table, with a rule below the header; columns of `words` begin at the left, figures end at the
    right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    texts = ["  ".join(_cells(line, header, widths, words)).rstrip() for line in lines]
    texts.insert(1, "-" * max(map(len, texts)))
    return texts


def figures(value: float) -> str:
    """A positive number, to three figures."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def _cells(line: Sequence[str], header: Sequence[str], widths: Sequence[int], words: set[str]) -> list[str]:
    return [
        text.ljust(width) if name in words else text.rjust(width)
        for name, text, width in zip(header, line, widths, strict=True)
    ]
