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
from chainrule.server.training.config import Loss, MetricSpec
from tests.server.conftest import refusal
from tests.server.jobs.submitting import CONFIG, Catalogs


@pytest.mark.parametrize(
    ("config", "field", "description"),
    [
        ({"losses": (Loss("mse"),)}, "losses[0].name", "compares each output with a target"),
        ({"losses": (Loss(output="head"),)}, "losses[0].output", 'is "head", but the outputs of the model are 0'),
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
