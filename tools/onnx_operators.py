"""Writes the table of operators in docs/onnx.md, as graphs are loaded by it. `make docs` runs it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from chainrule.engine import graph

OUTPUT = Path(__file__).parents[1] / "docs" / "onnx.md"
BEGIN, END = "<!-- operators: made by `make docs` -->\n", "<!-- end of the operators -->\n"
NAMES = {"": "ONNX's own", "ai.onnx.ml": "`ai.onnx.ml`"}


def main() -> None:
    """Write the page anew."""
    OUTPUT.write_text(with_table(OUTPUT.read_text(encoding="utf-8")), encoding="utf-8")


def with_table(page: str) -> str:
    """The page with the table as it is now. Raises ValueError if it has no place for it."""
    before, found, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"docs/onnx.md lacks {BEGIN.strip()} or {END.strip()}")
    return before + BEGIN + tables() + END + after


def tables() -> str:
    """A table for each domain but the project's own, which `export` writes and its section tells of."""
    rows = [row for row in graph.operators() if row.domain in NAMES]
    return "".join(
        f"\n{NAMES[domain]}:\n\n{_table(list(group))}\n" for domain, group in groupby(rows, key=lambda row: row.domain)
    )


def _table(rows: Sequence[graph.Row]) -> str:
    lines = [f"| `{row.op}` | {row.since} to {row.until} |" for row in rows]
    return "\n".join(["| operator | opsets |", "|---|---|", *lines]) + "\n"


if __name__ == "__main__":
    main()
