"""What evaluations are compared by."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest

from chainrule.server.training.config import Loss, MetricSpec, TrainingConfig, Validation
from chainrule.server.training.events import Evaluated, Finished
from chainrule.server.training.metrics import METRICS
from chainrule.server.training.state import EvaluationMetric
from chainrule.server.training.watching import FALLING, Watched, measured, metric_name, watched
from tests.server.training.runs import Run, images, run, small_plan
from tests.server.training.test_attempt import IN_THREADS


def evaluations(*losses: float) -> list[EvaluationMetric]:
    return [EvaluationMetric(epoch, 3 * epoch, loss, None, 10, 0.0) for epoch, loss in enumerate(losses, 1)]


def measuring(name: str, *values: float | None) -> list[EvaluationMetric]:
    """The loss falls all the time."""
    return [
        EvaluationMetric(epoch, 3 * epoch, 1.0 / epoch, None, 10, 0.0, {} if value is None else {name: value})
        for epoch, value in enumerate(values, 1)
    ]


def test_the_best_evaluation_is_the_first_with_the_least_loss() -> None:
    by = Watched()
    assert by.best(evaluations(3.0, 1.0, 2.0, 1.0)).epoch == 2
    assert by.best(evaluations(math.nan, 5.0, math.nan)).epoch == 2
    assert by.best(evaluations(math.nan, math.nan)).epoch == 1
    assert by.best(evaluations(math.inf, math.nan)).epoch == 1
    assert by.told(evaluations(0.5)[0]) == "a validation loss below 0.5"


def test_of_a_metric_it_is_the_first_with_the_best_value_whichever_way_that_is() -> None:
    f1, rmse = Watched("f1", rises=True), Watched("rmse")
    assert f1.best(measuring("f1", 0.5, 0.75, 0.75, 0.25)).epoch == 2
    assert f1.best(measuring("f1", None, math.nan, 0.0)).epoch == 3
    assert f1.best(measuring("f1", None, None)).epoch == 1
    assert rmse.best(measuring("rmse", 2.0, 3.0, 1.0)).epoch == 3
    assert f1.told(measuring("f1", 0.75)[0]) == "a validation f1 above 0.75"
    assert rmse.told(measuring("rmse", 0.75)[0]) == "a validation rmse below 0.75"


def test_accuracy_has_a_place_of_its_own() -> None:
    found = [replace(one, accuracy=share) for one, share in zip(evaluations(1, 2, 3), (0.5, 0.75, None), strict=True)]
    assert Watched("accuracy", rises=True).best(found).epoch == 2


@pytest.mark.parametrize("name", METRICS)
def test_the_direction_follows_from_the_metric(name: str) -> None:
    config = TrainingConfig(metrics=(MetricSpec(name, output="head"),), validation=Validation(metric=f"head.{name}"))
    if name != "top_k":
        assert watched(config) == Watched(f"head.{name}", rises=name not in FALLING)


def test_names_are_those_of_the_values() -> None:
    top = TrainingConfig(metrics=(MetricSpec("top_k", k=3),), validation=Validation(metric="top_3"))
    assert watched(top) == Watched("top_3", rises=True)
    assert watched(TrainingConfig()) == Watched()
    assert metric_name(MetricSpec("f1", average="micro")) == "f1_micro"


def test_accuracy_is_measured_where_the_first_loss_is_one_of_classes() -> None:
    assert measured(TrainingConfig()) == (MetricSpec("accuracy"),)
    assert measured(TrainingConfig(losses=(Loss("nll", output="a"),))) == (MetricSpec("accuracy", output="a"),)
    assert measured(TrainingConfig(losses=(Loss("mse"),))) == ()


def test_a_run_stops_and_restores_by_the_metric() -> None:
    """Classes that are drawn at random: the more is learnt of some, the less is known of others."""

    def runs(metric: str) -> Run:
        validation = Validation(fraction=0.2, patience=2, restore_best=True, metric=metric)
        plan = small_plan(num_validation=10, epochs=6, metrics=(MetricSpec("accuracy"), MetricSpec("perplexity")))
        plan = replace(plan, num_examples=40, config=replace(plan.config, validation=validation))
        data, held = images(40), images(10, seed=5)
        return asyncio.run(run(plan, data=data, validation=held, **IN_THREADS))

    for metric in ("", "accuracy", "perplexity"):
        found = runs(metric)
        seen = [event.metric for event in found.of(Evaluated)]
        by = Watched(metric, rises=metric == "accuracy")
        best = by.best(seen)
        assert len(seen) == min(6, best.epoch + 2)
        assert found.last == Finished(best.step)
        stops = found.incidents_of("early_stop")
        assert stops == ([f"after epoch {len(seen)}: none since epoch {best.epoch} has had {by.told(best)}"])
