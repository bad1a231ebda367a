"""Losses and metrics, as they go with the outputs of the model and the columns of the dataset."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chainrule.server.errors import (
    InvalidRequestError,
)
from chainrule.server.records import JobState
from chainrule.server.training.config import Loss, MetricSpec, Validation
from tests.server.conftest import refusal
from tests.server.jobs.submitting import CONFIG, Catalogs


@pytest.mark.parametrize(
    ("config", "field", "description"),
    [
        ({"losses": (Loss("mse"),)}, "losses[0].name", "compares each output with a target"),
        (
            {"losses": (Loss(output="head"),)},
            "losses[0].output",
            'is "head", which is no output; name one of 0, the outputs',
        ),
        ({"losses": (Loss(target="y"),)}, "losses[0].target", 'has "inputs" and "targets"'),
        ({"losses": (Loss(class_weights=(1, 2)),)}, "losses[0].class_weights", "has 2 numbers, but"),
        ({"metrics": (MetricSpec("top_k", k=11),)}, "metrics[0].k", "is 11, but there are 10 classes"),
        ({"metrics": (MetricSpec("mae"),)}, "metrics[0].name", "needs a target for each number of the output"),
        ({"metrics": (MetricSpec("f1", average="binary"),)}, "metrics[0].average", "is binary, but there are 10"),
    ],
)
def test_losses_and_metrics_that_do_not_fit_are_refused(
    catalogs: Catalogs, config: dict[str, Any], field: str, description: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        catalogs.submit(config=replace(CONFIG, **config))
    assert refusal(caught).field == f"job.config.{field}"
    assert description in refusal(caught).description


def test_numbers_are_trained_on_with_a_loss_of_numbers(catalogs: Catalogs) -> None:
    inputs = np.zeros((10, 1, 8, 8), np.float32)
    name = catalogs.create("numbers", inputs, np.zeros((10, 10), np.float32))
    taken = replace(CONFIG, losses=(Loss("mse"), Loss("l1")), metrics=(MetricSpec("r2"),))
    assert catalogs.submit(dataset=name, config=taken)[0] is JobState.QUEUED
    other = catalogs.create("column", inputs, np.zeros(10, np.float32))
    with pytest.raises(InvalidRequestError, match="goes with int64 class labels, but the targets of") as caught:
        catalogs.submit(dataset=other)
    assert refusal(caught).field == "job.dataset"


@pytest.mark.parametrize("metric", ["accuracy", "f1", "iou", "subset_accuracy"])
def test_a_metric_of_classes_does_not_go_with_a_loss_of_numbers(catalogs: Catalogs, metric: str) -> None:
    name = catalogs.create("numbers", np.zeros((10, 1, 8, 8), np.float32), np.zeros((10, 10), np.float32))
    config = replace(CONFIG, losses=(Loss("mse"), Loss("l1")), metrics=(MetricSpec("r2"), MetricSpec(metric)))
    with pytest.raises(InvalidRequestError) as caught:
        catalogs.submit(dataset=name, config=config)
    assert refusal(caught).field == "job.config.metrics[1].name"
    assert refusal(caught).description == (
        f'"{metric}" is of classes or labels, but "mse" and "l1", the loss of that output, takes targets for numbers; '
        "measure mae, mse, rmse, r2, or train with cross_entropy or bce_with_logits"
    )
    both = replace(config, losses=(Loss("mse"), Loss("bce_with_logits")))
    assert catalogs.submit(dataset=name, config=both)[0] is JobState.QUEUED


def test_places_without_a_label_are_left_out_or_refused(catalogs: Catalogs) -> None:
    labels = np.arange(10)
    labels[3] = -100
    name = catalogs.create("some", np.zeros((10, 1, 8, 8), np.float32), labels)
    assert catalogs.submit(dataset=name, config=replace(CONFIG, losses=(Loss(ignore_index=-100),)))
    for losses, field in (
        ((), "job.dataset"),
        ((Loss(),), "job.config.losses[0].ignore_index"),
        ((Loss("nll", ignore_index=0),), "job.config.losses[0].ignore_index"),
    ):
        with pytest.raises(
            InvalidRequestError, match=r'"datasets/some" has places without a label, .*; set ign'
        ) as caught:
            catalogs.submit(dataset=name, config=replace(CONFIG, losses=losses))
        assert refusal(caught).field == field
    with pytest.raises(InvalidRequestError, match="places without a label") as caught:
        catalogs.submit(config=replace(CONFIG, validation=Validation(name)))
    assert refusal(caught).field == "job.config.validation.dataset"


@pytest.mark.parametrize("loss", ["cross_entropy", "bce_with_logits"])
def test_numbers_are_not_taken_for_probabilities(catalogs: Catalogs, loss: str) -> None:
    inputs = np.zeros((10, 1, 8, 8), np.float32)
    shares = catalogs.create("shares", inputs, np.full((10, 10), 0.1, np.float32))
    assert catalogs.submit(dataset=shares, config=replace(CONFIG, losses=(Loss(loss),)))
    prices = catalogs.create("prices", inputs, np.linspace(-2, 30, 100, dtype=np.float32).reshape(10, 10))
    with pytest.raises(
        InvalidRequestError, match=rf'"{loss}" goes with float32 targets from 0 to 1, but .* go from -2 to 30; use mse'
    ) as caught:
        catalogs.submit(dataset=prices, config=replace(CONFIG, losses=(Loss(loss),)))
    assert refusal(caught).field == "job.config.losses[0].name"
