"""Training configurations to messages and back."""

from __future__ import annotations

from dataclasses import fields
from typing import Literal, TypeVar, cast

from google.protobuf.message import Message

from chainrule.server.errors import InvalidRequestError
from chainrule.server.rpc.augmentations import augmentation, augmentation_record
from chainrule.server.training.config import (
    Adam,
    Loss,
    MetricSpec,
    Optimizer,
    ParameterGroup,
    Schedule,
    Sgd,
    TrainingConfig,
    Validation,
)
from chainrule.v1 import job_pb2

T = TypeVar("T")
Decay = Literal["none", "step", "linear", "cosine"]
NonFinite = Literal["fail", "skip"]
Precision = Literal["float32", "bfloat16"]

_DECAYS: dict[int, Decay] = {
    job_pb2.Schedule.DECAY_UNSPECIFIED: "none",
    job_pb2.Schedule.DECAY_NONE: "none",
    job_pb2.Schedule.DECAY_STEP: "step",
    job_pb2.Schedule.DECAY_LINEAR: "linear",
    job_pb2.Schedule.DECAY_COSINE: "cosine",
}
_NON_FINITE: dict[int, NonFinite] = {
    job_pb2.TrainingConfig.NON_FINITE_UNSPECIFIED: "fail",
    job_pb2.TrainingConfig.NON_FINITE_FAIL: "fail",
    job_pb2.TrainingConfig.NON_FINITE_SKIP: "skip",
}
_PRECISIONS: dict[int, Precision] = {
    job_pb2.TrainingConfig.PRECISION_UNSPECIFIED: "float32",
    job_pb2.TrainingConfig.PRECISION_FLOAT32: "float32",
    job_pb2.TrainingConfig.PRECISION_BFLOAT16: "bfloat16",
}


def training_config(config: TrainingConfig) -> job_pb2.TrainingConfig:
    """A configuration with all its fields."""
    message = job_pb2.TrainingConfig(
        epochs=config.epochs,
        batch_size=config.batch_size,
        shards=config.shards,
        workers=config.max_workers,
        seed=config.seed,
        schedule=job_pb2.Schedule(
            warmup_steps=config.schedule.warmup_steps,
            decay=job_pb2.Schedule.Decay.Value(f"DECAY_{config.schedule.decay.upper()}"),
            decay_steps=config.schedule.decay_steps,
            gamma=config.schedule.gamma,
            final_factor=config.schedule.final_factor,
        ),
        clip_norm=config.clip_norm,
        parameter_groups=[
            job_pb2.ParameterGroup(patterns=group.patterns, **group.settings) for group in config.parameter_groups
        ],
        accumulate=config.accumulate,
        ema_decay=config.ema_decay,
        precision=job_pb2.TrainingConfig.Precision.Value(f"PRECISION_{config.precision.upper()}"),
        trainable=config.trainable,
        non_finite=job_pb2.TrainingConfig.NonFinite.Value(f"NON_FINITE_{config.non_finite.upper()}"),
        validation=job_pb2.Validation(
            dataset=config.validation.dataset,
            fraction=config.validation.fraction,
            patience=config.validation.patience,
            restore_best=config.validation.restore_best,
            seed=config.validation.seed,
            metric=config.validation.metric,
        ),
        staleness=config.staleness,
        min_workers=config.min_workers,
        max_workers=config.max_workers,
        partitions=config.partitions,
        checkpoint_every_steps=config.checkpoint_every_steps,
        keep_checkpoints=config.keep_checkpoints,
        receipt_every_steps=config.receipt_every_steps,
        audit_fraction=config.audit_fraction,
        exact=config.exact,
        max_failures=config.max_failures,
        augmentation=augmentation(config.augmentation),
        inputs=config.inputs,
        losses=map(_loss_message, config.losses),
        metrics=map(_metric_message, config.metrics),
    )
    _put_optimizer(message, config.optimizer)
    return message


def _put_optimizer(message: job_pb2.TrainingConfig, optimizer: Optimizer) -> None:
    match optimizer:
        case Sgd() as sgd:
            message.sgd.CopyFrom(
                job_pb2.Sgd(
                    lr=sgd.lr,
                    momentum=sgd.momentum,
                    dampening=sgd.dampening,
                    weight_decay=sgd.weight_decay,
                    nesterov=sgd.nesterov,
                )
            )
        case Adam() as adam:
            message.adam.CopyFrom(
                job_pb2.Adam(
                    lr=adam.lr,
                    beta1=adam.beta1,
                    beta2=adam.beta2,
                    eps=adam.eps,
                    weight_decay=adam.weight_decay,
                    decoupled=adam.decoupled,
                )
            )


def training_config_record(message: job_pb2.TrainingConfig) -> TrainingConfig:
    """A configuration with the defaults of what was left out. Raises InvalidRequestError for a value of an enum that
    this version does not know."""
    default = TrainingConfig()
    validation = message.validation
    return TrainingConfig(
        epochs=_given(message, "epochs", default.epochs),
        batch_size=_given(message, "batch_size", default.batch_size),
        shards=_given(message, "shards", default.shards),
        seed=message.seed,
        optimizer=_optimizer(message),
        schedule=_schedule(message.schedule),
        clip_norm=message.clip_norm,
        parameter_groups=tuple(_group(group) for group in message.parameter_groups),
        accumulate=_given(message, "accumulate", default.accumulate),
        ema_decay=message.ema_decay,
        precision=_known(
            _PRECISIONS, message.precision, field="precision", use="PRECISION_FLOAT32 or PRECISION_BFLOAT16"
        ),
        trainable=tuple(message.trainable) or default.trainable,
        non_finite=_known(
            _NON_FINITE, message.non_finite, field="non_finite", use="NON_FINITE_FAIL or NON_FINITE_SKIP"
        ),
        validation=Validation(
            dataset=validation.dataset,
            fraction=validation.fraction,
            patience=validation.patience,
            restore_best=validation.restore_best,
            seed=validation.seed,
            metric=validation.metric,
        ),
        staleness=message.staleness,
        min_workers=_given(message, "min_workers", default.min_workers),
        max_workers=_given(message, "max_workers", _given(message, "workers", default.max_workers)),
        partitions=message.partitions,
        checkpoint_every_steps=message.checkpoint_every_steps,
        keep_checkpoints=_given(message, "keep_checkpoints", default.keep_checkpoints),
        receipt_every_steps=_given(message, "receipt_every_steps", default.receipt_every_steps),
        audit_fraction=message.audit_fraction,
        exact=_given(message, "exact", default.exact),
        max_failures=_given(message, "max_failures", default.max_failures),
        augmentation=augmentation_record(message.augmentation),
        inputs=dict(message.inputs),
        losses=tuple(map(_loss, message.losses)),
        metrics=tuple(map(_metric, message.metrics)),
    )


def _loss_message(loss: Loss) -> job_pb2.Loss:
    return job_pb2.Loss(
        name=loss.name,
        output=loss.output,
        target=loss.target,
        weight=loss.weight,
        label_smoothing=loss.label_smoothing,
        class_weights=loss.class_weights,
        ignore_index=loss.ignore_index,
        example_weight=loss.example_weight,
        pos_weight=loss.pos_weight,
        delta=loss.delta,
        beta=loss.beta,
    )


def _loss(message: job_pb2.Loss) -> Loss:
    return Loss(
        name=message.name or Loss.name,
        output=message.output,
        target=message.target,
        weight=_given(message, "weight", Loss.weight),
        label_smoothing=message.label_smoothing,
        class_weights=tuple(message.class_weights),
        ignore_index=message.ignore_index if message.HasField("ignore_index") else None,
        example_weight=message.example_weight,
        pos_weight=tuple(message.pos_weight),
        delta=_given(message, "delta", Loss.delta),
        beta=_given(message, "beta", Loss.beta),
    )


def _metric_message(metric: MetricSpec) -> job_pb2.MetricSpec:
    return job_pb2.MetricSpec(
        name=metric.name,
        output=metric.output,
        target=metric.target,
        k=metric.k,
        threshold=metric.threshold,
        average=metric.average,
    )


def _metric(message: job_pb2.MetricSpec) -> MetricSpec:
    return MetricSpec(
        name=message.name,
        output=message.output,
        target=message.target,
        k=_given(message, "k", MetricSpec.k),
        threshold=_given(message, "threshold", MetricSpec.threshold),
        average=message.average,
    )


def _optimizer(message: job_pb2.TrainingConfig) -> Optimizer:
    if message.WhichOneof("optimizer") == "adam":
        adam = message.adam
        return Adam(
            lr=_given(adam, "lr", Adam.lr),
            beta1=_given(adam, "beta1", Adam.beta1),
            beta2=_given(adam, "beta2", Adam.beta2),
            eps=_given(adam, "eps", Adam.eps),
            weight_decay=adam.weight_decay,
            decoupled=adam.decoupled,
        )
    sgd = message.sgd
    return Sgd(
        lr=_given(sgd, "lr", Sgd.lr),
        momentum=sgd.momentum,
        dampening=sgd.dampening,
        weight_decay=sgd.weight_decay,
        nesterov=sgd.nesterov,
    )


def _group(message: job_pb2.ParameterGroup) -> ParameterGroup:
    names = [field.name for field in fields(ParameterGroup) if field.name != "patterns"]
    given = {name: getattr(message, name) for name in names if message.HasField(name)}  # type: ignore[arg-type]
    return ParameterGroup(tuple(message.patterns), **given)


def _schedule(message: job_pb2.Schedule) -> Schedule:
    return Schedule(
        warmup_steps=message.warmup_steps,
        decay=_known(_DECAYS, message.decay, field="schedule.decay", use="DECAY_NONE, _STEP, _LINEAR or _COSINE"),
        decay_steps=message.decay_steps,
        gamma=_given(message, "gamma", Schedule.gamma),
        final_factor=message.final_factor,
    )


def _given(message: Message, field: str, default: T) -> T:
    """A field of the default's type that may be left out."""
    return cast(T, getattr(message, field)) if message.HasField(field) else default


def _known(values: dict[int, T], value: int, *, field: str, use: str) -> T:
    if value not in values:
        raise InvalidRequestError.of(f"job.config.{field}", f"is {value}, which is unknown; use {use}")
    return values[value]
