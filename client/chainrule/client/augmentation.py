"""What a job does to its images, and its translation to and from the API."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from chainrule.client.errors import InvalidInputError
from chainrule.client.wire import INT32, put
from chainrule.v1 import job_pb2

_KINDS: Mapping[str, Any] = job_pb2.Transform.DESCRIPTOR.fields_by_name
_ALLOWED = {
    FieldDescriptor.TYPE_INT32: INT32,
    FieldDescriptor.TYPE_DOUBLE: "a number",
    FieldDescriptor.TYPE_BOOL: "True or False",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What is done to images before they are trained on, drawn anew in each epoch."""

    transforms: tuple[Mapping[str, Any], ...] = ()
    """In order: mappings of which "name" says what, and the rest how: "resize" (height, width), "normalize" (mean and
    std of each channel), "random_crop" (height, width, padding), "random_resized_crop" (height, width, scale, ratio),
    "random_flip" (probability, vertical), "color_jitter" (brightness, contrast, saturation), "cutout" (size,
    probability). "resize" and "normalize" are done to images that are evaluated, too."""
    mixup: float = 0.0
    """Each image is mixed with another of its batch, and so are their losses, with a weight from Beta(mixup, mixup);
    from 0 to 1. 0: none."""


def to_augmentation(given: Augmentation | Mapping[str, Any] | Sequence[Any] | None) -> Augmentation:
    """An augmentation from its fields by name, or from its transforms alone, each a mapping or a mere name.

    Raises:
        InvalidInputError: it has no such field, or there is no such transform.
    """
    if given is None:
        return Augmentation()
    if isinstance(given, Augmentation):
        given = {"transforms": given.transforms, "mixup": given.mixup}
    if not isinstance(given, Mapping):
        given = {"transforms": given}
    if unknown := sorted(map(str, set(given) - {"transforms", "mixup"})):
        raise InvalidInputError(f"the augmentation has no field {', '.join(unknown)}; it takes transforms, mixup")
    transforms = given.get("transforms", ())
    if isinstance(transforms, (str, Mapping)) or not isinstance(transforms, Sequence):
        raise InvalidInputError(
            f'the transforms of the augmentation are {transforms!r}; they must be a list, as ["random_flip", '
            '{"name": "random_crop", "height": 32, "width": 32, "padding": 4}]'
        )
    return Augmentation(transforms=tuple(map(_transform, transforms)), mixup=given.get("mixup", 0.0))


def put_augmentation(message: job_pb2.TrainingConfig, augmentation: Augmentation) -> None:
    """Sets it in a configuration, unless nothing is done.

    Raises:
        InvalidInputError: a transform has no such field, or a value has the wrong type.
    """
    if not augmentation.transforms and not augmentation.mixup:
        return
    put(message.augmentation, "mixup", augmentation.mixup, allowed="a number")
    for transform in augmentation.transforms:
        kind = getattr(message.augmentation.transforms.add(), transform["name"])
        kind.SetInParent()
        for field, value in transform.items():
            if field != "name":
                _put(kind, transform["name"], field, value)


def read_augmentation(message: job_pb2.TrainingConfig) -> Augmentation:
    """An augmentation from its form in the API, with the fields that are set."""
    transforms = read_transforms(message.augmentation.transforms)
    return Augmentation(transforms=transforms, mixup=message.augmentation.mixup)


def read_transforms(messages: Iterable[job_pb2.Transform]) -> tuple[Mapping[str, Any], ...]:
    """Transforms from their form in the API, likewise."""
    transforms = []
    for transform in messages:
        name = transform.WhichOneof("kind")
        if name is not None:
            kind = getattr(transform, name)
            told = {field.name: getattr(kind, field.name) for field, _ in kind.ListFields()}
            transforms.append({"name": name} | {key: _plain(value) for key, value in told.items()})
    return tuple(transforms)


def _transform(given: object) -> Mapping[str, Any]:
    transform = {"name": given} if isinstance(given, str) else given
    if not isinstance(transform, Mapping) or transform.get("name") not in _KINDS:
        raise InvalidInputError(
            f"there is no transform {given!r}; it must be one of {', '.join(_KINDS)}, or a mapping with such a name"
        )
    return dict(transform)


def _put(kind: Message, name: str, field: str, value: object) -> None:
    known = kind.DESCRIPTOR.fields_by_name
    if field not in known:
        raise InvalidInputError(f"{name} has no field {field}; it takes {', '.join(known)}")
    told = known[field]
    if not told.is_repeated:
        put(kind, field, value, allowed=_ALLOWED[told.type])
        return
    try:
        getattr(kind, field).extend(value)
    except TypeError as error:
        raise InvalidInputError(f"{field} of {name} is {value!r}; it must be a list of numbers") from error


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float)) else tuple(value)
