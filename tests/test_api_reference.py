"""The API reference: that it is the one of the protos, and can be followed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.api_reference import OUTPUT, error_rows, load, reference

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def page() -> str:
    return reference(load(ROOT / "protos"))


def test_it_is_the_one_of_the_protos(page: str) -> None:
    assert OUTPUT.read_text() == page, "run `make docs`"


def test_every_link_leads_somewhere(page: str) -> None:
    anchors = [heading.lower().replace(" ", "-").replace(".", "") for heading in re.findall(r"^#+ (.*)$", page, re.M)]
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r"\]\(#([^)]*)\)", page)) <= set(anchors)


def test_every_cell_of_a_table_says_something(page: str) -> None:
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert [row for row in rows if re.search(r"\|\s*\|", row)] == []


def test_methods_fields_and_values_are_told(page: str) -> None:
    assert "[CreateJobRequest](#createjobrequest) → [Job](#job)" in page
    assert "stream of [WriteBlobRequest](#writeblobrequest) → [Blob](#blob)" in page
    assert "| `size_bytes` | int64 | Length of the content in bytes. |" in page
    assert "| `blob` | [Blob](#blob) (one of `part`) |" in page
    assert "| `chunk_crc32c` | optional fixed32 |" in page
    assert "| `labels` | map of string to string |" in page


def test_every_error_has_its_code() -> None:
    rows = {(code, reason) for code, reason, _ in error_rows()}
    assert ("NOT_FOUND", "`NOT_FOUND`") in rows
    assert ("UNAVAILABLE", "`CLUSTER_UNREACHABLE`") in rows
    assert not any(reason == "`STARTUP`" for _, reason in rows)
