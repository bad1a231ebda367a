"""The settings of a job as the API's message, whose fields have the same names, and back."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from chainrule.client.augmentation import put_augmentation, read_augmentation
from chainrule.client.config import (
    LISTS_OF_NUMBERS,
    Adam,
    Loss,
    MetricSpec,
    ParameterGroup,
    Schedule,
    Sgd,
    TrainingConfig,
    Validation,
)
from chainrule.client.errors import InvalidInputError
from chainrule.client.wire import INT32, INT64, POSITIVE_INT32, UINT64, put
from chainrule.v1 import job_pb2

_FROM_1 = frozenset({"epochs", "batch_size", "shards", "accumulate", "min_workers", "max_workers", "keep_checkpoints"})
_REPEATED = LISTS_OF_NUMBERS | {"trainable", "patterns"}
_ALLOWED = {
    FieldDescriptor.TYPE_INT32: INT32,
    FieldDescriptor.TYPE_INT64: INT64,
    FieldDescriptor.TYPE_UINT64: UINT64,
    FieldDescriptor.TYPE_DOUBLE: "a number",
    FieldDescriptor.TYPE_BOOL: "True or False",
    FieldDescriptor.TYPE_STRING: "a name",
}


def to_message(config: TrainingConfig) -> job_pb2.TrainingConfig:
    """The API's form of a configuration, with every field set: the server takes none of its defaults.

    Raises:
        InvalidInputError: a value has the wrong type, or does not fit the API's field.
    """
    message = job_pb2.TrainingConfig()
    _fill(message, config)
    _fill(message.adam if isinstance(config.optimizer, Adam) else message.sgd, config.optimizer)
    _fill(message.schedule, config.schedule)
    if config.validation != Validation():
        _fill(message.validation, config.validation)
    message.trainable.extend(config.trainable)
    put_augmentation(message, config.augmentation)
    message.inputs.update(config.inputs)
    for group in config.parameter_groups:
        _put_given(message.parameter_groups.add(patterns=group.patterns), group.settings)
    for loss in config.losses:
        told = message.losses.add()
        _fill(told, loss)
        told.class_weights.extend(loss.class_weights)
        told.pos_weight.extend(loss.pos_weight)
    for metric in config.metrics:
        _fill(message.metrics.add(), metric)
    return message


def from_message(message: job_pb2.TrainingConfig) -> TrainingConfig:
    """A configuration from its form in the API."""
    is_adam = message.WhichOneof("optimizer") == "adam"
    told = _read(message, TrainingConfig)
    told["optimizer"] = Adam(**_read(message.adam, Adam)) if is_adam else Sgd(**_read(message.sgd, Sgd))
    told["schedule"] = Schedule(**_read(message.schedule, Schedule))
    told["validation"] = Validation(**_read(message.validation, Validation))
    if message.trainable:
        told["trainable"] = tuple(message.trainable)
    told["augmentation"] = read_augmentation(message)
    told["inputs"] = dict(message.inputs)
    told["parameter_groups"] = tuple(
        ParameterGroup(patterns=tuple(group.patterns), **_read(group, ParameterGroup))
        for group in message.parameter_groups
    )
    told["losses"] = tuple(
        Loss(
            **{**_read(loss, Loss), "name": loss.name or Loss().name},
            class_weights=tuple(loss.class_weights),
            pos_weight=tuple(loss.pos_weight),
        )
        for loss in message.losses
    )
    told["metrics"] = tuple(MetricSpec(**_read(metric, MetricSpec)) for metric in message.metrics)
    if message.HasField("workers") and not message.HasField("max_workers"):
        told["max_workers"] = message.workers
    return TrainingConfig(**told)


def _scalars(message: Message, settings: Any) -> list[Any]:
    """The descriptors of a message's fields that hold one value of these settings."""
    known = message.DESCRIPTOR.fields_by_name
    found = [known[f.name] for f in fields(settings) if f.name in known]
    return [f for f in found if f.message_type is None and f.name not in _REPEATED]


def _put_given(message: Message, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        put(message, name, value, allowed=_ALLOWED[message.DESCRIPTOR.fields_by_name[name].type])


def _fill(message: Message, settings: Any) -> None:
    message.SetInParent()
    for told in _scalars(message, settings):
        value = getattr(settings, told.name)
        if value is None:  # what has no default in the API
            continue
        if told.enum_type is not None:
            setattr(message, told.name, _number_of(told.enum_type, told.name, value))
        else:
            put(message, told.name, value, allowed=POSITIVE_INT32 if told.name in _FROM_1 else _ALLOWED[told.type])


def _read(message: Message, cls: type[Any]) -> dict[str, Any]:
    """What a message says of these settings; what it leaves unset has its default."""
    values: dict[str, Any] = {}
    for told in _scalars(message, cls):
        value = getattr(message, told.name)
        if told.enum_type is not None:
            value = _word_of(told.enum_type, value)
        if value is None or (told.has_presence and not message.HasField(told.name)):
            continue
        values[told.name] = value
    return values


def _words(enum: EnumDescriptor) -> dict[str, int]:
    """The values of an enum as the words used here: DECAY_COSINE is "cosine"; without the one that says nothing."""
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    return {value.name.removeprefix(prefix).lower(): value.number for value in enum.values[1:]}


def _number_of(enum: EnumDescriptor, name: str, word: object) -> int:
    words = _words(enum)
    if not isinstance(word, str) or word not in words:
        raise InvalidInputError(f"{name} is {word!r}; it must be one of {', '.join(words)}")
    return words[word]


def _word_of(enum: EnumDescriptor, number: int) -> str | None:
    """The word for a value; None where nothing was said, "unknown" where a newer server has one more."""
    return {0: None, **{n: word for word, n in _words(enum).items()}}.get(number, "unknown")
