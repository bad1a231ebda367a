"""What a configuration is refused for, whatever the model and the data are."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from chainrule.server.jobs.checks import check_config
from chainrule.server.training.config import Adam, Loss, MetricSpec, Schedule, Sgd, TrainingConfig, Validation
from chainrule.server.training.config import ParameterGroup as Group
from tests.server.jobs.submitting import CONFIG


@pytest.mark.parametrize(
    "config",
    [
        TrainingConfig(),
        CONFIG,
        replace(CONFIG, optimizer=Sgd(lr=1e-9, momentum=0.9, nesterov=True)),
        replace(CONFIG, optimizer=Sgd(lr=10, dampening=0.5, weight_decay=0.1)),
        replace(CONFIG, optimizer=Adam(beta1=0, beta2=0, eps=0, weight_decay=0.1, decoupled=True)),
        replace(CONFIG, seed=2**64 - 1),
        replace(CONFIG, min_workers=4, max_workers=4, partitions=64, audit_fraction=1, max_failures=0),
        replace(CONFIG, clip_norm=1.0, non_finite="skip", partitions=1),
        replace(CONFIG, staleness=3, exact=False),
        replace(CONFIG, batch_size=11, accumulate=2, ema_decay=0.999, precision="bfloat16"),
        replace(CONFIG, optimizer=Sgd(nesterov=True, momentum=0.9), parameter_groups=(Group(("a",), weight_decay=0),)),
        replace(CONFIG, optimizer=Adam(), parameter_groups=(Group(("a", "b"), lr=1), Group(("*",), beta1=0.5))),
        replace(CONFIG, staleness=3, exact=False, accumulate=1, parameter_groups=(Group(("*",), lr=1),)),
        replace(CONFIG, schedule=Schedule(10, "cosine", 100, gamma=1, final_factor=1)),
        replace(CONFIG, validation=Validation(fraction=0.9, patience=3, restore_best=True)),
        replace(CONFIG, validation=Validation("datasets/v", metric="accuracy")),
        replace(CONFIG, validation=Validation(fraction=0.5, metric="top_3"), metrics=(MetricSpec("top_k", k=3),)),
        replace(CONFIG, checkpoint_every_steps=1, keep_checkpoints=1, receipt_every_steps=0),
    ],
)
def test_a_configuration_that_can_be_run_is_taken(config: TrainingConfig) -> None:
    assert check_config(config) == []


@pytest.mark.parametrize(
    ("changed", "field", "description"),
    [
        ({"epochs": 0}, "epochs", "is 0; use 1 to 1,000,000"),
        ({"epochs": 1_000_001}, "epochs", "is 1000001; use 1 to 1,000,000"),
        ({"shards": 0, "max_workers": 0}, "shards", "is 0; use 1 to 65,536"),
        ({"batch_size": 10**6, "shards": 65_537}, "shards", "is 65537; use 1 to 65,536"),
        ({"shards": 5}, "shards", "is 5, more than batch_size 4"),
        ({"max_workers": 5}, "max_workers", "is 5; use 1 to shards (4)"),
        ({"max_workers": 0}, "max_workers", "is 0; use 1 to shards (4)"),
        ({"min_workers": 0}, "min_workers", "is 0; use at least 1"),
        ({"min_workers": 3}, "min_workers", "is 3, more than max_workers 2"),
        ({"optimizer": Sgd(lr=0)}, "sgd.lr", "is 0; use a number above 0"),
        ({"optimizer": Sgd(lr=math.nan)}, "sgd.lr", "is nan; use a number above 0"),
        ({"optimizer": Sgd(momentum=-0.1)}, "sgd.momentum", "is -0.1; use 0 or more"),
        ({"optimizer": Sgd(dampening=math.inf)}, "sgd.dampening", "is inf; use a finite number"),
        ({"optimizer": Sgd(weight_decay=-1)}, "sgd.weight_decay", "is -1; use 0 or more"),
        ({"optimizer": Sgd(nesterov=True)}, "sgd.nesterov", "needs momentum above 0"),
        ({"optimizer": Sgd(nesterov=True, momentum=0.9, dampening=0.1)}, "sgd.nesterov", "needs momentum above 0"),
        ({"optimizer": Adam(lr=math.inf)}, "adam.lr", "is inf; use a number above 0"),
        ({"optimizer": Adam(beta1=1)}, "adam.beta1", "is 1; use a number from 0, below 1"),
        ({"optimizer": Adam(beta2=math.nan)}, "adam.beta2", "is nan; use a number from 0, below 1"),
        ({"optimizer": Adam(eps=-1e-8)}, "adam.eps", "is -1e-08; use 0 or more"),
        ({"optimizer": Adam(weight_decay=-1)}, "adam.weight_decay", "is -1; use 0 or more"),
        ({"schedule": Schedule(warmup_steps=-1)}, "schedule.warmup_steps", "is -1; use 0 or more"),
        ({"schedule": Schedule(decay_steps=-1)}, "schedule.decay_steps", "is -1; use 0 or more"),
        ({"schedule": Schedule(gamma=0)}, "schedule.gamma", "is 0; use a number above 0, at most 1"),
        ({"schedule": Schedule(gamma=1.5)}, "schedule.gamma", "is 1.5; use a number above 0, at most 1"),
        ({"schedule": Schedule(final_factor=2)}, "schedule.final_factor", "is 2; use 0 to 1"),
        ({"clip_norm": -1}, "clip_norm", "is -1; use 0 or more"),
        ({"accumulate": 0}, "accumulate", "is 0; use at least 1"),
        ({"accumulate": 2}, "accumulate", "is 2, but the smallest of 4 shards of a batch of 4 has 1 examples"),
        ({"ema_decay": -0.1}, "ema_decay", "is -0.1; use a number above 0, below 1, or 0 for no average"),
        ({"ema_decay": 1.0}, "ema_decay", "is 1.0; use a number above 0, below 1"),
        ({"ema_decay": math.nan}, "ema_decay", "is nan; use a number above 0, below 1"),
        ({"parameter_groups": (Group((), lr=1),)}, "parameter_groups[0].patterns", "names nothing; use patterns"),
        ({"parameter_groups": (Group(("",), lr=1),)}, "parameter_groups[0].patterns[0]", "is empty; use a pattern"),
        ({"parameter_groups": (Group(("*",)),)}, "parameter_groups[0]", "sets nothing; give it lr"),
        (
            {"parameter_groups": (Group(("a",), lr=1), Group(("*",), lr=0))},
            "parameter_groups[1].lr",
            "is 0; use a number above 0",
        ),
        (
            {"parameter_groups": (Group(("*",), weight_decay=-1),)},
            "parameter_groups[0].weight_decay",
            "is -1; use 0 or more",
        ),
        (
            {"parameter_groups": (Group(("*",), nesterov=True),)},
            "parameter_groups[0].nesterov",
            "needs momentum above 0 and dampening 0",
        ),
        (
            {"parameter_groups": (Group(("*",), beta1=0.5),)},
            "parameter_groups[0].beta1",
            "is not a setting of the job's optimizer, sgd; leave it out",
        ),
        (
            {"optimizer": Adam(), "parameter_groups": (Group(("*",), momentum=0.5),)},
            "parameter_groups[0].momentum",
            "is not a setting of the job's optimizer, adam; leave it out",
        ),
        (
            {"optimizer": Adam(), "parameter_groups": (Group(("*",), beta2=1.0),)},
            "parameter_groups[0].beta2",
            "is 1.0; use a number from 0, below 1",
        ),
        ({"parameter_groups": (Group(("*",), lr=1),) * 65}, "parameter_groups", "has 65 groups; use at most 64"),
        ({"clip_norm": 1, "partitions": 2}, "clip_norm", "needs the whole gradient in one place, but partitions is 2;"),
        ({"non_finite": "skip", "partitions": 2}, "non_finite", "SKIP needs the whole gradient in one place"),
        ({"trainable": ()}, "trainable", "names nothing; leave it out to train all parameters"),
        ({"trainable": ("*", "")}, "trainable[1]", "is empty; use a pattern of names"),
        (
            {"validation": Validation(fraction=0.91)},
            "validation.fraction",
            "is 0.91; use a number above 0, at most 0.9",
        ),
        ({"validation": Validation(fraction=-0.1)}, "validation.fraction", "is -0.1; use a number above 0"),
        ({"validation": Validation("datasets/v", 0.1)}, "validation.fraction", "is 0.1, but validation.dataset is"),
        ({"validation": Validation("datasets/v", seed=5)}, "validation.seed", "is 5, but there is no share to draw"),
        ({"validation": Validation(patience=1)}, "validation.patience", "is 1; needs something to evaluate on"),
        ({"validation": Validation(fraction=0.1, patience=-1)}, "validation.patience", "is -1; use 0 or more"),
        ({"validation": Validation(metric="accuracy")}, "validation.metric", "needs something to evaluate on"),
        (
            {"validation": Validation(fraction=0.1, metric="f1")},
            "validation.metric",
            "is 'f1', which the job does not measure; name it in metrics, too, or use accuracy",
        ),
        (
            {"validation": Validation(fraction=0.1, metric="mae"), "losses": (Loss("mse"),)},
            "validation.metric",
            "is 'mae', which the job does not measure; name it in metrics, too",
        ),
        (
            {"validation": Validation(fraction=0.1, metric="f1"), "metrics": (MetricSpec("f1", average="none"),)},
            "validation.metric",
            "is 'f1', which has a value for each class; measure it with the average macro or micro",
        ),
        ({"validation": Validation(restore_best=True)}, "validation.restore_best", "needs something to evaluate on"),
        ({"staleness": -1}, "staleness", "is -1; use 0 or more"),
        ({"staleness": 1}, "staleness", "is 1: weights would depend on timing, but exact is true"),
        ({"partitions": -1}, "partitions", "is -1; use 0 to 64"),
        ({"partitions": 65}, "partitions", "is 65; use 0 to 64"),
        ({"checkpoint_every_steps": -1}, "checkpoint_every_steps", "is -1; use 0 or more"),
        ({"keep_checkpoints": 0}, "keep_checkpoints", "is 0; use 1 to 1,000"),
        ({"receipt_every_steps": -1}, "receipt_every_steps", "is -1; use 0 or more"),
        ({"audit_fraction": 1.5}, "audit_fraction", "is 1.5; use 0 to 1"),
        ({"max_failures": -1}, "max_failures", "is -1; use 0 or more"),
    ],
)
def test_a_field_that_is_wrong_is_named(changed: dict[str, Any], field: str, description: str) -> None:
    violation = check_config(replace(CONFIG, **changed))[0]
    assert violation.field == f"job.config.{field}"
    assert violation.description.startswith(description)


def test_all_fields_that_are_wrong_are_named() -> None:
    wrong = TrainingConfig(epochs=-1, batch_size=0, shards=-1, max_workers=-1, optimizer=Sgd(lr=-1, momentum=-1))
    fields = {violation.field.removeprefix("job.config.") for violation in check_config(wrong)}
    assert fields == {"epochs", "batch_size", "shards", "max_workers", "sgd.lr", "sgd.momentum"}


# --- losses and metrics ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "metrics", "field", "description"),
    [
        ((Loss("hinge"),), (), "losses[0].name", "is 'hinge', which is no loss; there are cross_entropy, nll, "),
        ((Loss(label_smoothing=2),), (), "losses[0].label_smoothing", "is 2; use 0 to 1"),
        ((Loss("mse", label_smoothing=0.1),), (), "losses[0].label_smoothing", 'which the loss "mse" does not have'),
        ((Loss("huber", delta=math.nan),), (), "losses[0].delta", "is nan; use a number above 0"),
        ((Loss(class_weights=(1, -1)),), (), "losses[0].class_weights", "use 0 or more, and not 0 for all"),
        ((Loss(weight=0),), (), "losses[0].weight", "is 0; use a number above 0"),
        ((), (MetricSpec("auc"),), "metrics[0].name", "is 'auc', which is no metric; there are accuracy, top_k, "),
        ((), (MetricSpec("f1", average="mean"),), "metrics[0].average", "use macro, micro, binary, none"),
        ((), (MetricSpec("f1"), MetricSpec("f1")), "metrics[1]", "is called 'f1' as another one is"),
    ],
)
def test_losses_and_metrics_that_make_no_sense_are_refused(
    losses: tuple[Loss, ...], metrics: tuple[MetricSpec, ...], field: str, description: str
) -> None:
    [violation] = check_config(replace(CONFIG, losses=losses, metrics=metrics))
    assert violation.field == f"job.config.{field}"
    assert description in violation.description


# --- bounded staleness ------------------------------------------------------------------------------------------

STALE = TrainingConfig(staleness=2, exact=False, optimizer=Sgd(lr=0.1))
IS_SET = "does not go with staleness 2, which applies every contribution by itself"


@pytest.mark.parametrize("config", [{}, {"partitions": 1}, {"shards": 4096, "batch_size": 4096}])
def test_what_can_be_applied_contribution_by_contribution_is_taken(config: dict[str, Any]) -> None:
    assert check_config(replace(STALE, **config)) == []


@pytest.mark.parametrize(
    ("config", "field", "description"),
    [
        ({"partitions": 2}, "partitions", f"is 2, which {IS_SET}; use partitions 0 or 1"),
        ({"clip_norm": 1.0}, "clip_norm", f"is 1.0, which {IS_SET}; use clip_norm 0"),
        ({"ema_decay": 0.9}, "ema_decay", f"is 0.9, which {IS_SET}; use ema_decay 0"),
        ({"non_finite": "skip"}, "non_finite", f"SKIP {IS_SET}; use FAIL"),
        ({"audit_fraction": 0.5}, "audit_fraction", f"is 0.5, which {IS_SET}; use 0"),
        ({"shards": 4097, "batch_size": 8192}, "shards", "is 4097; with staleness use at most 4,096"),
    ],
)
def test_what_needs_all_contributions_at_once_is_refused(config: dict[str, Any], field: str, description: str) -> None:
    [violation] = check_config(replace(STALE, **config))
    assert (violation.field.split(".")[-1], violation.description) == (field, description)
    assert check_config(replace(STALE, staleness=0, **config)) == []
