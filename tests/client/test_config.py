"""The settings of a job: what may be given for them, and their way to the API and back."""

import dataclasses
import inspect
from typing import Any

import pytest

from chainrule.client import (
    Adam,
    Augmentation,
    InvalidInputError,
    Loss,
    MetricSpec,
    ParameterGroup,
    Schedule,
    Sgd,
    TrainingConfig,
    Validation,
)
from chainrule.client.config import (
    WEIGHT_FIELDS,
    to_losses,
    to_max_workers,
    to_metrics,
    to_optimizer,
    to_parameter_groups,
    to_schedule,
    to_trainable,
    to_validation,
)
from chainrule.client.config_messages import from_message, to_message
from chainrule.client.jobs import Jobs
from chainrule.server.training import config as servers
from chainrule.v1 import job_pb2

EVERYTHING = TrainingConfig(
    epochs=20,
    batch_size=32,
    shards=8,
    seed=3,
    optimizer=Adam(lr=0.002, beta1=0.8, beta2=0.99, eps=1e-6, weight_decay=0.1, decoupled=True),
    schedule=Schedule(warmup_steps=5, decay="step", decay_steps=7, gamma=0.5, final_factor=0.25),
    clip_norm=1.5,
    parameter_groups=(
        ParameterGroup(patterns=("*.bias", "bn*"), weight_decay=0.0),
        ParameterGroup(patterns=("fc.*",), lr=0.5, beta1=0.5, beta2=0.75, eps=1e-4),
        ParameterGroup(patterns=("*",), momentum=0.5, dampening=0.25, nesterov=False),
    ),
    accumulate=4,
    ema_decay=0.99,
    precision="bfloat16",
    trainable=("fc.*", "layer4.*"),
    non_finite="skip",
    validation=Validation(dataset="datasets/val", fraction=0.1, patience=4, restore_best=True, seed=9, metric="f1"),
    staleness=2,
    losses=(Loss(name="nll", class_weights=(1.0, 2.0), ignore_index=-100), Loss(name="huber", delta=0.5, weight=2.0)),
    metrics=(MetricSpec(name="top_k", k=3), MetricSpec(name="f1", average="micro", threshold=0.25)),
    augmentation=Augmentation(transforms=({"name": "random_flip", "probability": 0.25},), mixup=0.5),
    inputs={"input_ids": "tokens"},
    min_workers=2,
    max_workers=6,
    partitions=3,
    checkpoint_every_steps=50,
    keep_checkpoints=5,
    receipt_every_steps=10,
    audit_fraction=0.25,
    exact=False,
    max_failures=4,
)
"""No field has its default."""


def defaults_of(cls: type[Any]) -> dict[str, Any]:
    made = cls()
    return {field.name: getattr(made, field.name) for field in dataclasses.fields(cls)}


@pytest.mark.parametrize("name", ["Sgd", "Adam", "Loss", "Schedule", "Validation", "TrainingConfig"])
def test_the_settings_and_their_defaults_are_the_servers(name: str) -> None:
    ours, theirs = defaults_of(globals()[name]), defaults_of(getattr(servers, name))
    assert list(ours) == list(theirs)
    plain = {name for name, value in ours.items() if not dataclasses.is_dataclass(value)}
    assert {name: ours[name] for name in plain} == {name: theirs[name] for name in plain}


def test_a_job_is_created_with_the_same_defaults() -> None:
    parameters = inspect.signature(Jobs.create).parameters
    config = TrainingConfig()
    told = {field.name for field in dataclasses.fields(config)} - {
        "optimizer",
        "schedule",
        "validation",
        "augmentation",
        "inputs",
        "max_workers",
        "losses",
    }
    assert {name: parameters[name].default for name in told} == {name: getattr(config, name) for name in told}
    assert all(
        parameters[name].default is None
        for name in ("optimizer", "schedule", "validation", "augmentation", "inputs", "max_workers", "loss")
    )


def test_what_fixes_the_weights_comes_first() -> None:
    names = [field.name for field in dataclasses.fields(TrainingConfig)]
    assert names[: len(WEIGHT_FIELDS)] == list(WEIGHT_FIELDS)


# To the API and back


def test_every_setting_survives_the_way_to_the_api_and_back() -> None:
    defaults = TrainingConfig()
    assert all(getattr(EVERYTHING, f.name) != getattr(defaults, f.name) for f in dataclasses.fields(defaults))
    assert from_message(to_message(EVERYTHING)) == EVERYTHING
    assert from_message(to_message(defaults)) == defaults


def test_a_configuration_is_sent_under_the_apis_names() -> None:
    assert to_message(EVERYTHING) == job_pb2.TrainingConfig(
        epochs=20,
        batch_size=32,
        shards=8,
        seed=3,
        adam=job_pb2.Adam(lr=0.002, beta1=0.8, beta2=0.99, eps=1e-6, weight_decay=0.1, decoupled=True),
        schedule=job_pb2.Schedule(
            warmup_steps=5, decay=job_pb2.Schedule.DECAY_STEP, decay_steps=7, gamma=0.5, final_factor=0.25
        ),
        clip_norm=1.5,
        parameter_groups=[
            job_pb2.ParameterGroup(patterns=["*.bias", "bn*"], weight_decay=0.0),
            job_pb2.ParameterGroup(patterns=["fc.*"], lr=0.5, beta1=0.5, beta2=0.75, eps=1e-4),
            job_pb2.ParameterGroup(patterns=["*"], momentum=0.5, dampening=0.25, nesterov=False),
        ],
        inputs={"input_ids": "tokens"},
        augmentation=job_pb2.Augmentation(
            transforms=[job_pb2.Transform(random_flip=job_pb2.RandomFlip(probability=0.25))], mixup=0.5
        ),
        accumulate=4,
        ema_decay=0.99,
        precision=job_pb2.TrainingConfig.PRECISION_BFLOAT16,
        trainable=["fc.*", "layer4.*"],
        non_finite=job_pb2.TrainingConfig.NON_FINITE_SKIP,
        validation=job_pb2.Validation(
            dataset="datasets/val", fraction=0.1, patience=4, restore_best=True, seed=9, metric="f1"
        ),
        staleness=2,
        losses=[
            job_pb2.Loss(name="nll", weight=1, class_weights=[1, 2], ignore_index=-100, delta=1, beta=1),
            job_pb2.Loss(name="huber", weight=2, delta=0.5, beta=1),
        ],
        metrics=[
            job_pb2.MetricSpec(name="top_k", k=3, threshold=0.5),
            job_pb2.MetricSpec(name="f1", k=5, average="micro", threshold=0.25),
        ],
        min_workers=2,
        max_workers=6,
        partitions=3,
        checkpoint_every_steps=50,
        keep_checkpoints=5,
        receipt_every_steps=10,
        audit_fraction=0.25,
        exact=False,
        max_failures=4,
    )


def test_what_an_answer_leaves_unset_has_its_default() -> None:
    assert from_message(job_pb2.TrainingConfig()) == TrainingConfig()
    assert from_message(job_pb2.TrainingConfig(adam=job_pb2.Adam())).optimizer == Adam()


def test_workers_of_an_answer_are_its_max_workers() -> None:
    assert from_message(job_pb2.TrainingConfig(workers=3)).max_workers == 3
    assert from_message(job_pb2.TrainingConfig(workers=3, max_workers=4)).max_workers == 4


def test_a_word_of_a_newer_server_is_unknown() -> None:
    newer = job_pb2.TrainingConfig(schedule=job_pb2.Schedule(decay=job_pb2.Schedule.Decay.ValueType(99)))
    assert str(from_message(newer).schedule.decay) == "unknown"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"non_finite": "stop"}, "non_finite is 'stop'; it must be one of fail, skip"),
        ({"schedule": to_schedule("cos")}, "decay is 'cos'; it must be one of none, step, linear, cosine"),
        ({"staleness": -(2**31) - 1}, "staleness is -2147483649; it must be a whole number from 0 to 2147483647"),
        ({"clip_norm": "long"}, "clip_norm is 'long'; it must be a number"),
        ({"precision": "fp8"}, "precision is 'fp8'; it must be one of float32, bfloat16"),
        ({"accumulate": 1.5}, "accumulate is 1.5; it must be a whole number from 1 to 2147483647"),
        ({"ema_decay": "slow"}, "ema_decay is 'slow'; it must be a number"),
        (
            {"parameter_groups": (ParameterGroup(patterns=("*",), lr="fast"),)},  # type: ignore[arg-type]
            "lr is 'fast'; it must be a number",
        ),
        ({"exact": "yes"}, "exact is 'yes'; it must be True or False"),
        ({"validation": to_validation({"dataset": 3})}, "dataset is 3; it must be a name"),
        ({"keep_checkpoints": 1.5}, "keep_checkpoints is 1.5; it must be a whole number from 1 to 2147483647"),
    ],
)
def test_a_value_that_cannot_be_sent_is_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        to_message(TrainingConfig(**settings))
    assert str(caught.value) == message


# What may be given for a setting


@pytest.mark.parametrize(
    ("given", "losses"),
    [
        (None, ()),
        ("mse", (Loss(name="mse"),)),
        ({"label_smoothing": 0.1}, (Loss(label_smoothing=0.1),)),
        (
            ["l1", {"name": "nll", "class_weights": [1, 2]}],
            (Loss(name="l1"), Loss(name="nll", class_weights=(1.0, 2.0))),
        ),
        (Loss(weight=2.0), (Loss(weight=2.0),)),
    ],
)
def test_losses_are_given_by_name_by_their_fields_or_as_they_are(given: Any, losses: tuple[Loss, ...]) -> None:
    assert to_losses(given) == losses


def test_metrics_are_given_likewise() -> None:
    assert to_metrics("f1") == (MetricSpec(name="f1"),)
    assert to_metrics(["mae", {"name": "top_k", "k": 3}]) == (MetricSpec(name="mae"), MetricSpec(name="top_k", k=3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: to_losses({"smoothing": 0.1}),
            "the loss has no field smoothing; it takes name, output, target",
        ),
        (lambda: to_losses(3), 'loss is 3; it must be a name or a mapping, as "mse" or'),
        (lambda: to_losses({"class_weights": "12"}), "class_weights is '12'; it must be a list of numbers"),
        (lambda: to_metrics({"k": 3}), "the metric {'k': 3} has no name; give it, as \"f1\" or"),
        (
            lambda: to_metrics({"name": "f1", "mean": 1}),
            "the metric has no field mean; it takes name, output",
        ),
    ],
)
def test_what_is_no_loss_and_no_metric_is_refused(call: Any, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        call()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("given", "optimizer"),
    [
        (None, Sgd()),
        ({"lr": 0.1}, Sgd(lr=0.1)),
        ({"name": "sgd", "momentum": 0.9}, Sgd(momentum=0.9)),
        ({"name": "adam"}, Adam()),
        ("sgd", Sgd()),
        ("adam", Adam()),
        ("adamw", Adam(decoupled=True, weight_decay=0.01)),
        ({"name": "adam", "beta2": 0.95, "decoupled": True}, Adam(beta2=0.95, decoupled=True)),
        ({"name": "adamw"}, Adam(decoupled=True, weight_decay=0.01)),
        ({"name": "adamw", "weight_decay": 0.0}, Adam(decoupled=True)),
        (Adam(lr=1.0), Adam(lr=1.0)),
    ],
)
def test_an_optimizer_is_given_by_its_fields_or_as_it_is(given: Any, optimizer: Sgd | Adam) -> None:
    assert to_optimizer(given) == optimizer


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "rmsprop"}, "there is no optimizer 'rmsprop'; it must be one of sgd, adam, adamw"),
        (
            {"name": "adam", "momentum": 0.9},
            "the optimizer has no field momentum; adam takes lr, beta1, beta2, eps, weight_decay, decoupled",
        ),
        ({"name": "adamw", "decoupled": False}, 'for a coupled one, name the optimizer "adam"'),
        ("rmsprop", "there is no optimizer 'rmsprop'; it must be one of sgd, adam, adamw"),
        (0.1, 'optimizer is 0.1; it must be a name or a mapping, as "adam" or {"name": "adam", "lr": 0.001}'),
    ],
)
def test_what_is_no_optimizer_is_refused_with_the_remedy(given: Any, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        to_optimizer(given)
    assert message in str(caught.value)


def test_a_mapping_that_was_given_is_not_changed() -> None:
    given = {"name": "adam", "lr": 0.1}
    to_optimizer(given)
    assert given == {"name": "adam", "lr": 0.1}


def test_a_schedule_is_given_by_its_fields_or_as_it_is() -> None:
    assert to_schedule(None) == Schedule()
    assert to_schedule({"decay": "cosine", "warmup_steps": 5}) == Schedule(decay="cosine", warmup_steps=5)
    assert to_schedule(Schedule(gamma=0.2)) == Schedule(gamma=0.2)
    assert to_schedule("cosine") == Schedule(decay="cosine")
    with pytest.raises(InvalidInputError, match=r"the schedule has no field warmup; it takes warmup_steps, decay, "):
        to_schedule({"warmup": 5})


def test_a_validation_has_the_full_name_of_its_dataset() -> None:
    assert to_validation(None) == Validation()
    assert to_validation({"fraction": 0.1}) == Validation(fraction=0.1)
    assert to_validation({"dataset": "val"}) == Validation(dataset="datasets/val")
    assert to_validation(Validation(dataset="val", patience=3)) == Validation(dataset="datasets/val", patience=3)
    with pytest.raises(InvalidInputError, match="the validation has no field share; it takes dataset, fraction"):
        to_validation({"share": 0.1})
    with pytest.raises(InvalidInputError, match=r'validation is 0.1; it must be a mapping, as \{"fraction": 0.1\}'):
        to_validation(0.1)  # type: ignore[arg-type]


def test_workers_are_short_for_max_workers() -> None:
    assert to_max_workers(workers=None, max_workers=None) == 1
    assert to_max_workers(workers=3, max_workers=None) == to_max_workers(workers=None, max_workers=3) == 3
    assert to_max_workers(workers=0, max_workers=None) == 0, "it is the server's to refuse"
    assert to_max_workers(workers=3, max_workers=3) == 3
    with pytest.raises(InvalidInputError, match=r"workers is 2 and max_workers is 3; .*: give one of them"):
        to_max_workers(workers=2, max_workers=3)


def test_a_single_pattern_is_not_taken_for_a_list_of_letters() -> None:
    assert to_trainable(["fc.*"]) == ("fc.*",)
    with pytest.raises(InvalidInputError, match=r"""trainable is 'fc.\*'; it must be a list, as \["fc.\*"\]"""):
        to_trainable("fc.*")


@pytest.mark.parametrize(
    ("given", "message"), [([], "trainable is empty; name what is trained"), ([1], "must be a list of texts")]
)
def test_patterns_that_the_api_would_take_for_others_are_refused(given: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        to_trainable(given)


# Groups of parameters


def test_groups_are_given_by_their_fields() -> None:
    group = ParameterGroup(patterns=("*.bias",), weight_decay=0)
    assert to_parameter_groups([{"patterns": ["*.bias"], "weight_decay": 0}]) == (group,)
    assert to_parameter_groups((group,)) == (group,)
    assert to_parameter_groups([]) == ()
    assert group.settings == {"weight_decay": 0}


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"patterns": ["*"]}, "it must be a list of groups, as \\[{"),
        ("*.bias", "parameter_groups is '\\*.bias'; it must be a list of groups"),
        (["*.bias"], "parameter_groups\\[0\\] is '\\*.bias'; it must be a mapping"),
        ([{"lr": 1}], "parameter_groups\\[0\\] has no patterns; name its parameters"),
        ([{"patterns": "*"}], "the patterns of parameter_groups\\[0\\] is '\\*'; it must be a list"),
        (
            [{"patterns": ["*"], "rate": 1}],
            "the parameter_groups\\[0\\] has no field rate; it takes patterns, lr, weight",
        ),
    ],
)
def test_groups_that_cannot_be_are_refused(groups: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        to_parameter_groups(groups)
