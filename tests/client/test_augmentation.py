"""What a job does to its images: how it is asked for, and how it comes back."""

from __future__ import annotations

from typing import Any

import pytest

from chainrule.client import Augmentation, InvalidInputError
from chainrule.client.augmentation import put_augmentation, read_augmentation, to_augmentation
from chainrule.v1 import job_pb2

CROP = {"name": "random_crop", "height": 32, "width": 30, "padding": 4}
WHOLE = Augmentation(
    transforms=(
        CROP,
        {"name": "random_flip"},
        {"name": "random_flip", "probability": 0.25, "vertical": True},
        {"name": "random_resized_crop", "height": 8, "width": 9, "scale": (0.5, 1.0)},
        {"name": "color_jitter", "brightness": 0.5},
        {"name": "normalize", "mean": (0.5, 0.25), "std": (1.0, 2.0)},
        {"name": "resize", "height": 7, "width": 6},
        {"name": "cutout", "size": 3},
    ),
    mixup=0.25,
)


def sent(augmentation: Augmentation) -> job_pb2.TrainingConfig:
    message = job_pb2.TrainingConfig()
    put_augmentation(message, augmentation)
    return message


def test_what_is_sent_comes_back() -> None:
    assert read_augmentation(sent(WHOLE)) == WHOLE
    assert not sent(Augmentation()).HasField("augmentation")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, Augmentation()),
        (WHOLE, WHOLE),
        (["random_flip", CROP], Augmentation(transforms=({"name": "random_flip"}, CROP))),
        ({"mixup": 0.5}, Augmentation(mixup=0.5)),
        ({"transforms": ["random_flip"]}, Augmentation(transforms=({"name": "random_flip"},))),
    ],
)
def test_ways_to_say_it(given: Any, expected: Augmentation) -> None:
    assert to_augmentation(given) == expected


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (["random_flop"], r"there is no transform 'random_flop'; it must be one of resize, normalize, random_crop"),
        ([{"height": 3}], r"there is no transform \{'height': 3\}"),
        ({"mixin": 1}, r"the augmentation has no field mixin; it takes transforms, mixup"),
        ("random_flip", r"the transforms of the augmentation are 'random_flip'; they must be a list"),
        ([{**CROP, "height": "tall"}], r"height.*'tall'.*whole number"),
        ([{**CROP, "heigth": 3}], r"random_crop has no field heigth; it takes height, width, padding"),
        ([{"name": "normalize", "mean": 0.5}], r"mean of normalize is 0\.5; it must be a list of numbers"),
        ({"mixup": "much"}, r"mixup.*'much'.*a number"),
    ],
)
def test_what_is_refused(given: Any, wrong: str) -> None:
    with pytest.raises(InvalidInputError, match=wrong):
        sent(to_augmentation(given))
