"""Writes the table of operators in docs/onnx.md, as `graph.operators()` has them. `make docs` runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from chainrule.engine import graph

OUTPUT = Path(__file__).parents[1] / "docs" / "onnx.md"
BEGIN, END = "<!-- operators: written by `make docs` -->", "<!-- end of operators -->"
REMARKS = {
    "ArrayFeatureExtractor": "with indices within bounds",
    "AveragePool": "one or two spatial dimensions, or windows along the first only",
    "BatchNormalization": "mean and variance are initialisers",
    "Conv": "one or two spatial dimensions",
    "ConvTranspose": "one or two spatial dimensions",
    "Dropout": "drops while the module trains",
    "LinearClassifier": "as Gemm, Softmax or Sigmoid, and ArgMax",
    "LinearRegressor": "as Gemm",
    "MaxPool": "one or two spatial dimensions",
    "Scatter": "reduction none or add",
    "ScatterElements": "reduction none or add",
    "ScatterND": "reduction none or add",
}


def main() -> None:
    """Write the table into the page."""
    OUTPUT.write_text(written(OUTPUT.read_text()))


def written(page: str) -> str:
    """The page with the table of now between the marks. Raises ValueError if they are not there."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{OUTPUT} has no {BEGIN} … {END}")
    return f"{head}{BEGIN}\n\n{table(graph.operators())}\n{END}{tail}"


def table(rows: Sequence[graph.Row]) -> str:
    """The operators that files of others have, with their opsets."""
    lines = [("operator", "opsets", ""), ("---", "---", "---")]
    for row in rows:
        if row.domain != "chainrule":
            name = f"{row.domain}.{row.op}" if row.domain else row.op
            lines.append((f"`{name}`", f"{row.since}–{row.until}", REMARKS.get(row.op, "")))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
