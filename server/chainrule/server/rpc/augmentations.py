"""What is done to images, to messages and back: the messages' fields have the names of the records'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from google.protobuf.message import Message

from chainrule.server.errors import InvalidRequestError
from chainrule.server.training.augmentation import KINDS, Augmentation, Transform
from chainrule.v1 import job_pb2


def augmentation(record: Augmentation) -> job_pb2.Augmentation:
    """A message with all its fields."""
    return job_pb2.Augmentation(mixup=record.mixup, transforms=map(transform, record.transforms))


def transform(record: Transform) -> job_pb2.Transform:
    """A message with all its fields."""
    values: Any = {field.name: getattr(record, field.name) for field in fields(record)}
    kind: Any = {record.kind: values}
    return job_pb2.Transform(**kind)


def augmentation_record(message: job_pb2.Augmentation) -> Augmentation:
    """What it says, with the defaults of what was left out. Raises InvalidRequestError for a transform of no kind."""
    return Augmentation(
        tuple(_transform(transform, index) for index, transform in enumerate(message.transforms)), message.mixup
    )


def _transform(message: job_pb2.Transform, index: int) -> Transform:
    name = message.WhichOneof("kind")
    if name is None:
        raise InvalidRequestError.of(
            f"job.config.augmentation.transforms[{index}]", f"is of no kind; use one of {', '.join(KINDS)}"
        )
    return KINDS[name](**_values(getattr(message, name)))


def _values(message: Message) -> Mapping[str, Any]:
    """Fields that are not left out. Numbers that have no default of their own have the message's, 0."""
    values = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            value = tuple(value)
            if not value and field.name in ("scale", "ratio"):
                continue
        elif field.has_presence and not message.HasField(field.name):
            continue
        values[field.name] = value
    return values
