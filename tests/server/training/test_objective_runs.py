"""The same weights and the same measured values for 1, 2 and 3 workers, whatever the loss."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from chainrule.server.training.config import Loss, MetricSpec
from chainrule.server.training.events import Evaluated, StepsDone
from chainrule.server.training.examples import Examples
from chainrule.server.training.plan import Plan
from tests.server.training.runs import Run, images, run, small_plan

RNG = np.random.default_rng(1)
IMAGES = images(50)
LABELS = np.where(np.arange(50) % 4 == 0, -100, IMAGES.targets)
WEIGHTS = tuple(float(w) for w in np.arange(10) / 4)
HOT = (RNG.random((50, 10)) > 0.5).astype(np.float32)
REAL = RNG.normal(size=(50, 10)).astype(np.float32)
OF_CLASSES = (MetricSpec("accuracy"), MetricSpec("f1"), MetricSpec("top_k", k=3), MetricSpec("perplexity"))
OF_NUMBERS = (MetricSpec("mae"), MetricSpec("rmse"), MetricSpec("r2"))

CASES: dict[str, tuple[tuple[Loss, ...], tuple[MetricSpec, ...], Any]] = {
    "smoothed": ((Loss(label_smoothing=0.1),), OF_CLASSES, IMAGES.targets),
    "weighted": ((Loss(class_weights=WEIGHTS, ignore_index=-100),), OF_CLASSES, LABELS),
    "labels": ((Loss("bce_with_logits", pos_weight=(2.0,)),), (MetricSpec("subset_accuracy"), MetricSpec("iou")), HOT),
    "numbers": ((Loss("huber", delta=0.5),), OF_NUMBERS, REAL),
    "several": ((Loss("mse"), Loss("l1", weight=0.25)), OF_NUMBERS, REAL),
}


def measured(found: Run) -> list[Any]:
    steps = [m for event in found.of(StepsDone) for m in event.metrics]
    evaluated: list[Any] = [event.metric for event in found.of(Evaluated)]
    return [(m.step, m.loss, m.accuracy, dict(m.values)) for m in (*steps, *evaluated)]


def plan_of(case: str) -> Plan:
    losses, metrics, _ = CASES[case]
    return small_plan(losses=losses, metrics=metrics, num_validation=50, max_workers=3)


@pytest.mark.parametrize("links", ["memory", "tls"])
@pytest.mark.parametrize("case", CASES)
def test_any_number_of_workers_has_the_same_bits(case: str, links: str) -> None:
    if links == "tls" and case != "weighted":
        pytest.skip("the link is the same for all")
    data = Examples(IMAGES.inputs, CASES[case][2])
    runs = [
        asyncio.run(run(plan_of(case), data=data, validation=data, workers=workers, links=links))
        for workers in (1, 2, 3)
    ]
    assert len({found.digest for found in runs}) == 1
    first = measured(runs[0])
    assert any(values for *_, values in first)  # of the last batch of an epoch, no label may count
    assert all(measured(found) == first for found in runs[1:])
