"""docs/onnx.md lists the operators that there are."""

from __future__ import annotations

import pytest

from chainrule.engine import graph
from tools.onnx_operators import BEGIN, OUTPUT, with_table


def test_the_table_is_the_one_that_graphs_are_loaded_by() -> None:
    page = OUTPUT.read_text(encoding="utf-8")
    assert with_table(page) == page, "run `make docs`"


def test_most_operators_are_ones_own() -> None:
    assert len({row.op for row in graph.operators() if row.domain == ""}) >= 90
    assert all(1 <= row.since <= row.until for row in graph.operators())


def test_a_page_without_a_place_for_it_is_told() -> None:
    with pytest.raises(ValueError, match="lacks"):
        with_table(OUTPUT.read_text(encoding="utf-8").replace(BEGIN, ""))
