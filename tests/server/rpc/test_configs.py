"""Training configurations to messages and back."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from chainrule.server.errors import InvalidRequestError
from chainrule.server.rpc.configs import training_config, training_config_record
from chainrule.server.store.configs import from_values, to_values
from chainrule.server.training.augmentation import (
    Augmentation,
    ColorJitter,
    Cutout,
    Normalize,
    RandomCrop,
    RandomFlip,
    RandomResizedCrop,
    Resize,
)
from chainrule.server.training.config import (
    Adam,
    Loss,
    MetricSpec,
    ParameterGroup,
    Schedule,
    Sgd,
    TrainingConfig,
    Validation,
)
from chainrule.v1 import job_pb2
from tests.server.conftest import refusal

OTHER = TrainingConfig(
    epochs=3,
    batch_size=128,
    shards=8,
    seed=2**64 - 1,
    optimizer=Sgd(lr=0.1, momentum=0.9, dampening=0.0, weight_decay=1e-4, nesterov=True),
    schedule=Schedule(warmup_steps=3, decay="linear", decay_steps=5, gamma=0.5, final_factor=0.1),
    clip_norm=1.5,
    parameter_groups=(
        ParameterGroup(("*.bias", "bn*"), weight_decay=0.0),
        ParameterGroup(("fc.*",), lr=0.5, momentum=0.0, dampening=0.5, nesterov=False),
    ),
    accumulate=4,
    ema_decay=0.99,
    precision="bfloat16",
    augmentation=Augmentation(
        (
            Resize(40, 30),
            RandomCrop(32, 31, padding=2),
            RandomResizedCrop(24, 20, scale=(0.5, 0.75), ratio=(0.5, 2.0)),
            RandomFlip(0.25, vertical=True),
            ColorJitter(0.5, 0.25, 0.125),
            Normalize((0.5, 0.25), (2.0, 4.0)),
            Cutout(3, 0.75),
            RandomFlip(0.0),
            RandomResizedCrop(8, 8),
        ),
        mixup=0.5,
    ),
    inputs={"ids": "tokens"},
    trainable=("fc.*", "conv?.weight"),
    non_finite="skip",
    validation=Validation(
        dataset="datasets/v", fraction=0.25, patience=3, restore_best=True, seed=2**63 + 1, metric="f1"
    ),
    staleness=2,
    losses=(
        Loss(
            name="nll",
            output="head",
            target="labels",
            weight=0.5,
            label_smoothing=0.1,
            class_weights=(1.0, 2.0),
            ignore_index=0,
            example_weight="w",
            pos_weight=(3.0,),
            delta=0.25,
            beta=0.0,
        ),
    ),
    metrics=(MetricSpec("f1", output="head", target="labels", k=3, threshold=0.25, average="micro"),),
    min_workers=2,
    max_workers=4,
    partitions=3,
    checkpoint_every_steps=7,
    keep_checkpoints=9,
    receipt_every_steps=11,
    audit_fraction=0.125,
    exact=False,
    max_failures=1,
)
"""Every field has another value than its default."""


@pytest.mark.parametrize(
    "config",
    [
        TrainingConfig(),
        OTHER,
        TrainingConfig(optimizer=Sgd(dampening=0.5)),
        TrainingConfig(optimizer=Adam()),
        TrainingConfig(
            optimizer=Adam(), parameter_groups=(ParameterGroup(("*",), beta1=0.5, beta2=0.0, eps=0.0, lr=1.0),)
        ),
        TrainingConfig(losses=(Loss(), Loss(ignore_index=-100)), metrics=(MetricSpec("top_k"), MetricSpec("mae"))),
        TrainingConfig(optimizer=Adam(lr=0.1, beta1=0.0, beta2=0.0, eps=0.0, weight_decay=0.1, decoupled=True)),
        *(TrainingConfig(schedule=Schedule(decay=decay)) for decay in ("none", "step", "linear", "cosine")),
    ],
)
def test_a_configuration_comes_back_from_the_wire(config: TrainingConfig) -> None:
    sent = training_config(config).SerializeToString()
    assert training_config_record(job_pb2.TrainingConfig.FromString(sent)) == config


def test_a_configuration_comes_back_from_the_store() -> None:
    for config in (OTHER, TrainingConfig()):
        assert from_values(json.loads(json.dumps(to_values(config)))) == config
    of_before = {
        name: value for name, value in to_values(TrainingConfig()).items() if name not in ("losses", "metrics")
    }
    assert from_values(of_before) == TrainingConfig()


def test_the_example_above_has_every_field_changed() -> None:
    default = TrainingConfig()
    pairs = (
        (OTHER, default),
        (OTHER.schedule, Schedule()),
        (OTHER.validation, Validation()),
        (OTHER.losses[0], Loss()),
        (OTHER.metrics[0], MetricSpec("")),
    )
    for changed, unchanged in pairs:
        for field in fields(changed):
            assert getattr(changed, field.name) != getattr(unchanged, field.name), field.name


def test_what_is_left_out_of_a_configuration_has_its_default() -> None:
    assert training_config_record(job_pb2.TrainingConfig()) == TrainingConfig()
    momentum = job_pb2.TrainingConfig(sgd=job_pb2.Sgd(momentum=0.9))
    assert training_config_record(momentum).optimizer == Sgd(lr=0.01, momentum=0.9)
    assert training_config_record(job_pb2.TrainingConfig(adam=job_pb2.Adam())).optimizer == Adam()


@pytest.mark.parametrize(
    ("message", "max_workers"),
    [
        (job_pb2.TrainingConfig(), 1),
        (job_pb2.TrainingConfig(workers=3), 3),
        (job_pb2.TrainingConfig(max_workers=2), 2),
        (job_pb2.TrainingConfig(workers=3, max_workers=2), 2),
    ],
)
def test_workers_stands_for_the_most_workers_where_those_are_not_given(
    message: job_pb2.TrainingConfig, max_workers: int
) -> None:
    config = training_config_record(message)
    assert config.max_workers == max_workers
    answer = training_config(config)
    assert (answer.workers, answer.max_workers) == (max_workers, max_workers)


@pytest.mark.parametrize("optimizer", [{"sgd": job_pb2.Sgd(lr=0)}, {"adam": job_pb2.Adam(lr=0)}])
def test_a_learning_rate_of_zero_is_not_left_out(optimizer: dict[str, job_pb2.Sgd]) -> None:
    assert training_config_record(job_pb2.TrainingConfig(**optimizer)).optimizer.lr == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "field",
    [
        "epochs",
        "batch_size",
        "shards",
        "accumulate",
        "min_workers",
        "max_workers",
        "keep_checkpoints",
        "receipt_every_steps",
    ],
)
def test_an_explicit_zero_is_not_taken_for_left_out(field: str) -> None:
    """It used to mean the default, and a job of one epoch ran where none was asked for."""
    message = job_pb2.TrainingConfig(**{field: 0})  # type: ignore[arg-type]
    assert getattr(training_config_record(message), field) == 0


def test_zero_workers_are_not_taken_for_left_out() -> None:
    assert training_config_record(job_pb2.TrainingConfig(workers=0)).max_workers == 0


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"non_finite": 7}, "non_finite"),
        ({"precision": 7}, "precision"),
        ({"schedule": {"decay": 9}}, "schedule.decay"),
    ],
)
def test_a_value_that_an_enum_does_not_have_is_refused(sent: dict[str, int], field: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"is \d, which is unknown; use ") as caught:
        training_config_record(job_pb2.TrainingConfig(**sent))  # type: ignore[arg-type]
    assert refusal(caught).field == f"job.config.{field}"
