"""Small translations between the API's messages and Python values: names, times, labels."""

import uuid
from collections.abc import Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from chainrule.client.errors import InvalidInputError


class Named(Protocol):
    """What has a resource name."""

    @property
    def name(self) -> str:
        """The resource name."""


class Labelled(Protocol):
    """A message with labels."""

    @property
    def labels(self) -> MutableMapping[str, str]:
        """Notes to find it by."""


INT32 = f"a whole number from 0 to {2**31 - 1}"
POSITIVE_INT32 = f"a whole number from 1 to {2**31 - 1}"
PRIORITY = "a whole number from -100 to 100"
INT64 = f"a whole number from {-(2**63)} to {2**63 - 1}"
UINT64 = f"a whole number from 0 to {2**64 - 1}"


def resource_name(collection: str, name: str) -> str:
    """The full name of a resource; a name that is already full is returned as it is.

    >>> resource_name("models", "digits")
    'models/digits'
    """
    return name if name.startswith(f"{collection}/") else f"{collection}/{name}"


def name_of(collection: str, resource: Named | str) -> str:
    """The full name of what is given by its handle or its name.

    Raises:
        InvalidInputError: it is neither.
    """
    name = resource if isinstance(resource, str) else getattr(resource, "name", None)
    if not isinstance(name, str):
        raise InvalidInputError(f"{collection[:-1]} is {resource!r}; it must be a handle or a name")
    return resource_name(collection, name)


def version_name(model: str, number: int | None = None) -> str:
    """The full name of a model's version; of the newest one where neither the name nor the number says which.

    >>> version_name("digits", 2)
    'models/digits/versions/2'
    >>> version_name("models/digits/versions/2")
    'models/digits/versions/2'
    >>> version_name("digits")
    'models/digits/versions/latest'
    """
    name = resource_name("models", model)
    if "/versions/" in name:
        return name
    return f"{name}/versions/{'latest' if number is None else number}"


def moment(timestamp: Timestamp) -> datetime:
    """A timestamp as a datetime in UTC."""
    return timestamp.ToDatetime(tzinfo=UTC)


def put(message: object, field: str, value: object, *, allowed: str) -> None:
    """Set a field of a message, also to 0: what makes sense is the server's to say, only what fits is checked here.

    Args:
        allowed: what the API takes there, for the error's text.

    Raises:
        InvalidInputError: the value has the wrong type, or is too large or too small for the field.
    """
    try:
        setattr(message, field, value)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{field} is {value!r}; it must be {allowed}") from error


def enum_word(enum: EnumDescriptor, prefix: str, number: int) -> str:
    """The name of an enum's value without its prefix; empty where a newer server has one more."""
    known = enum.values_by_number.get(number)
    return known.name.removeprefix(prefix) if known else ""


def texts(field: str, values: Sequence[str]) -> tuple[str, ...]:
    """A list of texts; a single text, which is a sequence of its letters, is none.

    Raises:
        InvalidInputError: it is something else.
    """
    if isinstance(values, str):
        raise InvalidInputError(f'{field} is {values!r}; it must be a list, as ["{values}"]')
    if not isinstance(values, Sequence) or not all(isinstance(value, str) for value in values):
        raise InvalidInputError(f"{field} is {values!r}; it must be a list of texts")
    return tuple(values)


def plain(value: Any) -> Any:
    """A JSON value that came as a google.protobuf.Struct: whole numbers as int again, keys in alphabetical order.

    A Struct holds its numbers as floats, and its keys in an order that changes from message to message.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: plain(value[key]) for key in sorted(value)}
    return [plain(item) for item in value] if isinstance(value, list) else value


def put_labels(message: Labelled, labels: Mapping[str, str]) -> None:
    """Set the labels of a message.

    Raises:
        InvalidInputError: they are no mapping of texts to texts.
    """
    if not isinstance(labels, Mapping):
        raise InvalidInputError(f'labels is {labels!r}; it must be a mapping of texts, as {{"team": "vision"}}')
    for key, value in labels.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidInputError(f'labels has {key!r}: {value!r}; both must be texts, as {{"team": "vision"}}')
        message.labels[key] = value


def labels_of(message: Labelled) -> dict[str, str]:
    """The labels of a message in alphabetical order; their own order changes from message to message."""
    return dict(sorted(message.labels.items()))


class Measuring(Protocol):
    """A message with what was measured."""

    @property
    def accuracy(self) -> float:
        """Share that was classified right."""

    @property
    def values(self) -> MutableMapping[str, float]:
        """What was measured, by name."""

    def HasField(self, field_name: Literal["accuracy"], /) -> bool:  # noqa: N802 — protobuf's
        """Whether a field is set."""


def accuracy_of(message: Measuring) -> float | None:
    """The accuracy in a message; None where it is not measured."""
    return message.accuracy if message.HasField("accuracy") else None


def values_of(message: Measuring) -> dict[str, float]:
    """What was measured, accuracy first and the rest in alphabetical order; its own order changes from message to
    message."""
    return dict(sorted(message.values.items(), key=lambda item: (item[0] != "accuracy", item[0])))


def put_changes(
    message: Labelled,
    *,
    labels: Mapping[str, str] | None,
    description: str | None,
    priority: int | None = None,
    etag: str | None = None,
) -> FieldMask:
    """Set what is to be changed of a thing, what is not None, and name it; `etag` is what the thing must still have.

    Raises:
        InvalidInputError: nothing is to be changed, or a value has the wrong type.
    """
    mask = FieldMask()
    if labels is not None:
        put_labels(message, labels)
        mask.paths.append("labels")
    for name, value, allowed in (("description", description, "a text"), ("priority", priority, PRIORITY)):
        if value is not None:
            put(message, name, value, allowed=allowed)
            mask.paths.append(name)
    if not mask.paths:
        raise InvalidInputError("nothing says what to change; give labels, description or, of a job, priority")
    if etag is not None:
        put(message, "etag", etag, allowed="a text")
    return mask


def new_request_id(given: str | None) -> str:
    """What makes the repetitions of one call known as such: as given, or drawn.

    Raises:
        InvalidInputError: what is given is no text.
    """
    if given is not None and not isinstance(given, str):
        raise InvalidInputError(f"request_id is {given!r}; it must be a text")
    return str(uuid.uuid4()) if given is None else given
