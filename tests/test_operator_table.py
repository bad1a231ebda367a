"""The table of operators in docs/onnx.md is the one of the code, and long enough."""

from __future__ import annotations

import onnx

from chainrule.engine import graph
from tools.operator_table import OUTPUT, REMARKS, written


def test_it_is_the_one_of_the_code() -> None:
    assert OUTPUT.read_text() == written(OUTPUT.read_text()), "run `make docs`"


def test_there_are_ninety_operators_of_onnx_at_least() -> None:
    assert sum(row.domain == "" for row in graph.operators()) >= 90


def test_every_operator_is_one_of_onnx_in_its_opsets() -> None:
    schemas = {(schema.domain, schema.name): schema for schema in onnx.defs.get_all_schemas_with_history()}
    for row in graph.operators():
        if row.domain != "chainrule":
            assert (row.domain, row.op) in schemas, row
            assert 1 <= row.since <= row.until
    assert REMARKS.keys() <= {row.op for row in graph.operators()}
