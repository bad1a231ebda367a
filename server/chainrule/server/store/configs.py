"""Training configurations as JSON values, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from chainrule.server.training.augmentation import KINDS, Augmentation, Transform
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

_OPTIMIZERS: Mapping[str, type[Sgd | Adam]] = {"sgd": Sgd, "adam": Adam}


def to_values(config: TrainingConfig) -> dict[str, Any]:
    """A configuration as JSON has it."""
    [kind] = [name for name, optimizer in _OPTIMIZERS.items() if isinstance(config.optimizer, optimizer)]
    return {
        **asdict(config),
        "optimizer": {"kind": kind, **asdict(config.optimizer)},
        "augmentation": augmentation_values(config.augmentation),
    }


def from_values(values: Mapping[str, Any]) -> TrainingConfig:
    """The configuration again; what one of an older version does not have is as it was then, the default."""
    optimizer = dict(values["optimizer"])
    return TrainingConfig(
        **{
            **values,
            "optimizer": _OPTIMIZERS[optimizer.pop("kind")](**optimizer),
            "schedule": Schedule(**values["schedule"]),
            "validation": Validation(**values["validation"]),
            "trainable": tuple(values["trainable"]),
            "parameter_groups": tuple(
                ParameterGroup(**{**group, "patterns": tuple(group["patterns"])})
                for group in values.get("parameter_groups", ())
            ),
            "losses": tuple(Loss(**_with_tuples(loss)) for loss in values.get("losses", ())),
            "metrics": tuple(MetricSpec(**metric) for metric in values.get("metrics", ())),
            "augmentation": _augmentation(values.get("augmentation", {})),
        }
    )


def augmentation_values(augmentation: Augmentation) -> dict[str, Any]:
    """What is done to images, likewise."""
    return {"transforms": transform_values(augmentation.transforms), "mixup": augmentation.mixup}


def transform_values(transforms: Iterable[Transform]) -> list[dict[str, Any]]:
    """Transforms, likewise."""
    return [{"kind": transform.kind, **asdict(transform)} for transform in transforms]


def transforms_of(values: Iterable[Mapping[str, Any]]) -> tuple[Transform, ...]:
    """The transforms again."""
    return tuple(KINDS[t.pop("kind")](**t) for t in map(_with_tuples, values))


def _augmentation(values: Mapping[str, Any]) -> Augmentation:
    return Augmentation(transforms_of(values.get("transforms", ())), values.get("mixup", 0.0))


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
