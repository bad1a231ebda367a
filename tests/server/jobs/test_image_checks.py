"""What is done to images, as it goes with the model and the dataset."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import graph, nn
from chainrule.server.errors import (
    InvalidRequestError,
)
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
)
from chainrule.server.training.config import TrainingConfig, Validation
from tests.server.conftest import refusal
from tests.server.jobs.submitting import CONFIG, Catalogs


def augmented(*transforms: Transform, mixup: float = 0.0) -> TrainingConfig:
    return replace(CONFIG, augmentation=Augmentation(transforms, mixup))


@pytest.mark.parametrize(
    ("config", "field", "wrong"),
    [
        (augmented(mixup=1.5), "mixup", r"is 1\.5; use 0 to 1"),
        (augmented(Resize(0, 8)), "transforms[0].height", r"is 0; use 1 to 4,096"),
        (augmented(RandomFlip(), Cutout(9999)), "transforms[1].size", r"is 9999; use 1 to"),
        (augmented(Normalize((), ())), "transforms[0].mean", r"is \[\]; use a finite number for each channel"),
        (augmented(Normalize((0.5,), (0.0,))), "transforms[0].std", r"use a number above 0 for each of 1 channels"),
        (augmented(RandomResizedCrop(8, 8, scale=(0.5, 2.0))), "transforms[0].scale", r"above 0, at most 1"),
        (augmented(ColorJitter(2.0)), "transforms[0].brightness", r"is 2\.0; use 0 to 1"),
        (augmented(RandomFlip(-1.0)), "transforms[0].probability", r"use 0 to 1"),
        (augmented(*[RandomFlip()] * 33), "transforms", r"are 33; use at most 32"),
        (augmented(RandomCrop(99, 8)), "transforms[0]", r"height 99 is more than the image's 8"),
        (augmented(Cutout(9)), "transforms[0].size", r"is 9, more than the 8 x 8 of the image, which would be blank"),
        (augmented(Normalize((0.5, 0.5), (1.0, 1.0))), "transforms[0].mean", r"has 2 values; images have 1 channels"),
    ],
)
def test_what_is_wrong_with_what_is_done_to_images(
    catalogs: Catalogs, config: TrainingConfig, field: str, wrong: str
) -> None:
    with pytest.raises(InvalidRequestError, match=wrong) as error:
        catalogs.submit(config=config)
    assert refusal(error).field == f"job.config.augmentation.{field}"


def test_images_are_tried_as_they_are_trained_on(catalogs: Catalogs) -> None:
    assert catalogs.submit(config=augmented(RandomCrop(8, 8, padding=2), RandomFlip(), mixup=0.2))
    with pytest.raises(InvalidRequestError, match=r"inputs of shape \[1, 5, 5\].*do not fit"):
        catalogs.submit(config=augmented(Resize(5, 5)))


def test_rows_of_a_table_are_no_images(catalogs: Catalogs) -> None:
    dataset = catalogs.create_dataset("rows", (3,), label=1)
    with pytest.raises(InvalidRequestError, match=r"is for float32 or uint8 images .* float32 of shape \[3\]"):
        catalogs.submit(dataset=dataset, config=augmented(RandomFlip()))


def test_images_that_are_cropped_for_training_are_evaluated_in_the_models_size(catalogs: Catalogs) -> None:
    large, small = catalogs.create_dataset("large", (1, 12, 12)), catalogs.create_dataset("small", (1, 8, 8), count=3)
    cropped = augmented(RandomCrop(8, 8), RandomFlip())
    assert catalogs.submit(dataset=large, config=cropped)
    assert catalogs.submit(dataset=large, config=replace(cropped, validation=Validation(small)))
    resized = augmented(Resize(8, 8), RandomCrop(8, 8, padding=1))
    assert catalogs.submit(dataset=large, config=replace(resized, validation=Validation(fraction=0.2)))
    for validation, field in ((Validation(fraction=0.2), "fraction"), (Validation(large), "dataset")):
        with pytest.raises(
            InvalidRequestError,
            match=r"inputs of shape \[1, 12, 12\] .* only resize and normalize are done to those that",
        ) as caught:
            catalogs.submit(dataset=large, config=replace(cropped, validation=validation))
        assert refusal(caught).field == f"job.config.validation.{field}"


@pytest.mark.parametrize("transform", [RandomFlip(), RandomCrop(8, 8, padding=2), RandomResizedCrop(8, 8)])
def test_images_with_a_target_for_each_place_are_not_moved(catalogs: Catalogs, transform: Transform) -> None:
    segmenting = nn.Sequential(nn.Conv2d(1, 3, 1))
    model = catalogs.create_graph(graph.export(segmenting, cr.randn(2, 1, 8, 8)))
    dataset = catalogs.create("masks", np.zeros((10, 1, 8, 8), np.float32), np.ones((10, 8, 8), np.int64))
    assert catalogs.submit(model=model, dataset=dataset, config=augmented(Normalize((0.5,), (0.5,)), Cutout(2)))
    with pytest.raises(InvalidRequestError, match=rf"is a {transform.kind}, which moves .* of shape \[8, 8\]") as error:
        catalogs.submit(model=model, dataset=dataset, config=augmented(Cutout(2), transform))
    assert refusal(error).field == "job.config.augmentation.transforms[1]"
