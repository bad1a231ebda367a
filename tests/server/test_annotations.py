"""Labels and descriptions: what may be noted."""

from __future__ import annotations

import pytest

from chainrule.server.annotations import (
    AnnotationChange,
    annotation_violations,
    check_annotation_change,
    check_annotations,
)
from chainrule.server.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("labels", "description"),
    [
        ({}, ""),
        ({"team": "vision", "a": "", "x-1_2.3/y": "É 漢"}, "For the demo.\nTwo lines."),
        ({"k" * 63: "v" * 63}, "d" * 1000),
        ({f"k{i}": "v" for i in range(64)}, ""),
    ],
)
def test_what_may_be_noted(labels: dict[str, str], description: str) -> None:
    check_annotations(labels=labels, description=description, field="model")
    check_annotation_change(AnnotationChange(labels, description), field="model")


@pytest.mark.parametrize(
    ("labels", "description", "field", "said"),
    [
        ({f"k{i}": "" for i in range(65)}, "", "labels", "are 65; use at most 64"),
        ({"": "x"}, "", "labels['']", "is no key of a label; use 1 to 63 lower-case letters"),
        ({"Team": "x"}, "", "labels['Team']", "is no key of a label"),
        ({"1a": "x"}, "", "labels['1a']", "is no key of a label"),
        ({"a\n": "x"}, "", r"labels['a\n']", "is no key of a label"),
        ({"k" * 64: "x"}, "", f"labels['{'k' * 64}']", "is no key of a label"),
        ({"team": "v" * 64}, "", "labels['team']", "has 64 characters; use at most 63"),
        ({"team": "a\0"}, "", "labels['team']", r"is 'a\x00'; leave out the NUL"),
        ({}, "d" * 1001, "description", "has 1,001 characters; use at most 1,000"),
        ({}, "\0", "description", r"is '\x00'; leave out the NUL"),
    ],
)
def test_what_may_not_be_noted_is_named(labels: dict[str, str], description: str, field: str, said: str) -> None:
    [violation] = annotation_violations(labels=labels, description=description, field="job")
    assert violation.field == f"job.{field}"
    assert violation.description.startswith(said)


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_annotations(labels={"B": "x" * 64, "A": ""}, description="x" * 2000, field="model")
    assert [violation.field for violation in caught.value.violations] == [
        "model.labels['A']", "model.labels['B']", "model.labels['B']", "model.description"
    ]  # fmt: skip


def test_a_change_is_checked_for_what_it_changes() -> None:
    check_annotation_change(AnnotationChange(), field="model")
    with pytest.raises(InvalidRequestError, match=r"model\.description: has 1,001"):
        check_annotation_change(AnnotationChange(description="d" * 1001), field="model")
