"""What is wrong with what a job does to its images."""

from __future__ import annotations

import math
from collections.abc import Iterator

from chainrule.server.errors import Violation
from chainrule.server.training.augmentation import (
    Augmentation,
    ColorJitter,
    Cutout,
    Normalize,
    RandomCrop,
    RandomFlip,
    RandomResizedCrop,
    Resize,
    Transform,
    size_after,
)

MAX_TRANSFORMS = 32
MAX_SIDE = 4096
"""Pixels of the largest side that images can be given, and of the most padding."""
_PATH = "job.config.augmentation"


def check_augmentation(augmentation: Augmentation) -> list[Violation]:
    """Everything that is wrong, whatever the images."""
    found = []
    if len(augmentation.transforms) > MAX_TRANSFORMS:
        found.append(
            Violation(f"{_PATH}.transforms", f"are {len(augmentation.transforms)}; use at most {MAX_TRANSFORMS}")
        )
    if not 0 <= augmentation.mixup <= 1:
        found.append(Violation(f"{_PATH}.mixup", f"is {augmentation.mixup}; use 0 to 1"))
    for index, transform in enumerate(augmentation.transforms[:MAX_TRANSFORMS]):
        path = f"{_PATH}.transforms[{index}]"
        found += [Violation(f"{path}.{field}", description) for field, description in _wrong(transform)]
    return found


def check_images(
    augmentation: Augmentation, shape: tuple[int, ...], dtype: str
) -> tuple[tuple[int, ...], list[Violation]]:
    """The shape that inputs have after what is done to them, and what does not fit these inputs.

    Args:
        shape: of one input.
        dtype: of the inputs.
    """
    if not augmentation.transforms and not augmentation.mixup:
        return shape, []
    if dtype not in ("float32", "uint8") or (augmentation.transforms and len(shape) != 3):
        wanted = "float32 or uint8 images of shape (channels, height, width)"
        return shape, [
            Violation(_PATH, f"is for {wanted}, but the inputs are {dtype} of shape {list(shape)}; leave it out")
        ]
    if not augmentation.transforms:
        return shape, []
    channels, height, width = shape
    found = []
    for index, transform in enumerate(augmentation.transforms):
        path = f"{_PATH}.transforms[{index}]"
        if isinstance(transform, Normalize) and len(transform.mean) != channels:
            found.append(
                Violation(
                    f"{path}.mean", f"has {len(transform.mean)} values; images have {channels} channels: give as many"
                )
            )
        if isinstance(transform, ColorJitter) and channels not in (1, 3):
            found.append(Violation(path, f"is for images of 1 or 3 channels; these have {channels}: leave it out"))
        if isinstance(transform, Cutout) and transform.size > max(height, width):
            why = f"is {transform.size}, more than the {height} x {width} of the image, which would be blank; use less"
            found.append(Violation(f"{path}.size", why))
        try:
            height, width = size_after([transform], (height, width))
        except ValueError as error:
            found.append(Violation(path, str(error)))
            break
    return (channels, height, width), found


def check_places(augmentation: Augmentation, shape: tuple[int, ...], target_shape: tuple[int, ...]) -> list[Violation]:
    """What moves the places of images whose targets have a value for each place, which would stay where they are."""
    if len(shape) != 3 or target_shape[-2:] != shape[-2:]:
        return []
    return [
        Violation(
            f"{_PATH}.transforms[{index}]",
            f"is a {transform.kind}, which moves what is in an image, but the targets, of shape {list(target_shape)}, "
            "have a value for each place of it and would stay as they are; leave it out",
        )
        for index, transform in enumerate(augmentation.transforms)
        if isinstance(transform, RandomCrop | RandomResizedCrop | RandomFlip)
    ]


def check_evaluated(augmentation: Augmentation, shape: tuple[int, ...], dtype: str) -> tuple[tuple[int, ...], str]:
    """The shape that inputs have where they are evaluated, and why what is done to all images does not fit them; empty:
    it does."""
    shape, wrong = check_images(Augmentation(augmentation.preparation), shape, dtype)
    return shape, "; ".join(f"{of.field.removeprefix('job.config.')} {of.description}" for of in wrong)


def _wrong(transform: Transform) -> Iterator[tuple[str, str]]:
    """Fields and what is wrong with them."""
    match transform:
        case Resize() | RandomCrop() | RandomResizedCrop():
            yield from _from_1("height", transform.height)
            yield from _from_1("width", transform.width)
        case Cutout():
            yield from _from_1("size", transform.size)
    match transform:
        case Normalize(mean, std):
            if not mean or not all(map(math.isfinite, mean)):
                yield "mean", f"is {list(mean)}; use a finite number for each channel"
            if len(std) != len(mean) or not all(math.isfinite(value) and value > 0 for value in std):
                yield "std", f"is {list(std)}; use a number above 0 for each of {len(mean)} channels"
        case RandomCrop(padding=padding):
            if not 0 <= padding <= MAX_SIDE:
                yield "padding", f"is {padding}; use 0 to {MAX_SIDE:,}"
        case RandomResizedCrop(scale=scale, ratio=ratio):
            yield from _interval("scale", scale, most=1.0)
            yield from _interval("ratio", ratio, most=1000.0)
        case RandomFlip(probability=probability) | Cutout(probability=probability):
            yield from _share("probability", probability)
        case ColorJitter():
            for field in ("brightness", "contrast", "saturation"):
                yield from _share(field, getattr(transform, field))


def _from_1(field: str, value: int) -> Iterator[tuple[str, str]]:
    if not 1 <= value <= MAX_SIDE:
        yield field, f"is {value}; use 1 to {MAX_SIDE:,}"


def _share(field: str, value: float) -> Iterator[tuple[str, str]]:
    if not 0 <= value <= 1:
        yield field, f"is {value}; use 0 to 1"


def _interval(field: str, values: tuple[float, ...], *, most: float) -> Iterator[tuple[str, str]]:
    if len(values) != 2 or not 0 < values[0] <= values[1] <= most:
        yield field, f"is {list(values)}; use the least and the most, above 0, at most {most:g}"
