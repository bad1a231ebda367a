"""Which fields of a resource an update is to change."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf import field_mask_pb2
from google.protobuf.message import Message

from chainrule.server.errors import InvalidRequestError, Violation, echo


def update_mask(mask: field_mask_pb2.FieldMask, message: Message, *, of: Sequence[str]) -> set[str]:
    """The fields to change, of those that can be changed: "*" is all, and no mask is those that are set.

    Raises InvalidRequestError naming update_mask.
    """
    if not mask.paths:
        return {field.name for field, _ in message.ListFields()} & set(of)
    unknown = [path for path in mask.paths if path != "*" and path not in of]
    if unknown:
        known = ", ".join(of)
        raise InvalidRequestError(
            [Violation("update_mask", f'{echo(path)} cannot be changed; use {known}, or "*"') for path in unknown]
        )
    return set(of) if "*" in mask.paths else set(mask.paths)
