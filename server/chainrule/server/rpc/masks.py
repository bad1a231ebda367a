"""Field masks of update calls, as in AIP-134."""

from __future__ import annotations

from collections.abc import Collection

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from chainrule.server.annotations import AnnotationChange
from chainrule.server.errors import InvalidRequestError, Violation, echo
from chainrule.v1 import dataset_pb2, model_pb2

ANNOTATIONS = ("labels", "description")


def changed_fields(resource: Message, mask: FieldMask, *, mutable: Collection[str]) -> set[str]:
    """Which of the fields that can be changed are to be: those of the mask, or, where it is empty, those that are set.

    Raises InvalidRequestError naming `update_mask` for a field that there is not, or that cannot be changed.
    """
    if not mask.paths:
        return {field.name for field, _ in resource.ListFields()}.intersection(mutable)
    known = resource.DESCRIPTOR.fields_by_name
    can = f"what can be changed is {', '.join(mutable)}, or * for all of them"
    kind = resource.DESCRIPTOR.name.lower()
    wrong = []
    for path in mask.paths:
        field, _, rest = path.partition(".")
        if path == "*" or path in mutable:
            continue
        if field in mutable and rest:
            wrong.append(f"{echo(path)} is a part of {field}, which is changed as a whole: give {field}")
        elif field in known:
            wrong.append(f"{echo(path)} of a {kind} cannot be changed; {can}")
        else:
            wrong.append(f"{echo(path)} is no field of a {kind}; {can}")
    if wrong:
        raise InvalidRequestError([Violation("update_mask", description) for description in wrong])
    return set(mutable) if "*" in mask.paths else set(mask.paths)


def annotation_change(resource: model_pb2.Model | dataset_pb2.Dataset, mask: FieldMask) -> AnnotationChange:
    """What an update call changes of the annotations. Raises InvalidRequestError as `changed_fields`."""
    changed = changed_fields(resource, mask, mutable=ANNOTATIONS)
    return AnnotationChange(
        labels=dict(resource.labels) if "labels" in changed else None,
        description=resource.description if "description" in changed else None,
    )
