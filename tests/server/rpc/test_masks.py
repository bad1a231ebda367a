"""Field masks of update calls."""

from __future__ import annotations

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from chainrule.server.annotations import AnnotationChange
from chainrule.server.errors import InvalidRequestError
from chainrule.server.rpc.masks import annotation_change, changed_fields
from chainrule.v1 import job_pb2, model_pb2

MODEL = model_pb2.Model(name="models/m", weights_digest="a", labels={"team": "vision"}, etag="e")


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ([], AnnotationChange(labels={"team": "vision"})),
        (["labels"], AnnotationChange(labels={"team": "vision"})),
        (["description"], AnnotationChange(description="")),
        (["labels", "description", "labels"], AnnotationChange({"team": "vision"}, "")),
        (["*"], AnnotationChange({"team": "vision"}, "")),
        (["*", "labels"], AnnotationChange({"team": "vision"}, "")),
    ],
)
def test_what_the_mask_names_is_changed_and_without_one_what_is_set(
    paths: list[str], expected: AnnotationChange
) -> None:
    assert annotation_change(MODEL, FieldMask(paths=paths)) == expected


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("colour", "'colour' is no field of a model; what can be changed is labels, description, or * for all of them"),
        ("", "'' is no field of a model"),
        ("weights_digest", "'weights_digest' of a model cannot be changed; what can be changed is labels, description"),
        ("name", "'name' of a model cannot be changed"),
        ("builtin.family", "'builtin.family' of a model cannot be changed"),
        ("labels.team", "'labels.team' is a part of labels, which is changed as a whole: give labels"),
    ],
)
def test_what_cannot_be_changed_is_said_so(path: str, said: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        annotation_change(MODEL, FieldMask(paths=["labels", path, "nothing"]))
    first, second = caught.value.violations
    assert (first.field, second.field) == ("update_mask", "update_mask")
    assert first.description.startswith(said)
    assert second.description.startswith("'nothing' is no field")


def test_other_resources_have_other_fields_that_can_be_changed() -> None:
    job = job_pb2.Job(priority=3, weights_digest="a")
    mutable = ("labels", "description", "priority")
    assert changed_fields(job, FieldMask(), mutable=mutable) == {"priority"}
    assert changed_fields(job, FieldMask(paths=["*"]), mutable=mutable) == set(mutable)
