"""What a job is submitted with: the arguments of `jobs.create` and `jobs.check`, and their translation to the API."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from chainrule.client.augmentation import Augmentation, to_augmentation
from chainrule.client.config import (
    Loss,
    MetricSpec,
    Optimizer,
    ParameterGroup,
    Schedule,
    TrainingConfig,
    Validation,
    to_columns,
    to_losses,
    to_max_workers,
    to_metrics,
    to_optimizer,
    to_parameter_groups,
    to_schedule,
    to_trainable,
    to_validation,
)
from chainrule.client.config_messages import to_message
from chainrule.client.resources import Dataset
from chainrule.client.wire import PRIORITY, Named, name_of, new_request_id, put, put_labels
from chainrule.v1 import job_pb2

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
_CONFIG_FIELDS = frozenset(field.name for field in fields(TrainingConfig))


def job_request(
    *,
    model: Named | str,
    dataset: Dataset | str,
    epochs: int = 1,
    batch_size: int = 64,
    shards: int = 1,
    seed: int = 0,
    optimizer: Optimizer | str | Mapping[str, Any] | None = None,
    schedule: Schedule | str | Mapping[str, Any] | None = None,
    clip_norm: float = 0.0,
    augmentation: Augmentation | Mapping[str, Any] | Sequence[Any] | None = None,
    inputs: Mapping[str, str] | None = None,
    parameter_groups: Sequence[ParameterGroup | Mapping[str, Any]] = (),
    accumulate: int = 1,
    ema_decay: float = 0.0,
    precision: Literal["float32", "bfloat16"] = "float32",
    trainable: Sequence[str] = ("*",),
    non_finite: Literal["fail", "skip"] = "fail",
    validation: Validation | Mapping[str, Any] | None = None,
    staleness: int = 0,
    loss: Loss | str | Mapping[str, Any] | Sequence[Loss | str | Mapping[str, Any]] | None = None,
    metrics: MetricSpec | str | Mapping[str, Any] | Sequence[MetricSpec | str | Mapping[str, Any]] = (),
    workers: int | None = None,
    min_workers: int = 1,
    max_workers: int | None = None,
    partitions: int = 0,
    checkpoint_every_steps: int = 0,
    keep_checkpoints: int = 3,
    receipt_every_steps: int = 100,
    audit_fraction: float = 0.0,
    exact: bool = True,
    max_failures: int = 10,
    labels: Mapping[str, str] | None = None,
    description: str = "",
    priority: int = 0,
    request_id: str | None = None,
) -> job_pb2.CreateJobRequest:
    """The request that submits a job; `Jobs.create` explains the arguments.

    Raises:
        InvalidInputError: a value has the wrong type, or a mapping a name that is unknown.
    """
    given: dict[str, Any] = {name: value for name, value in locals().items() if name in _CONFIG_FIELDS}
    given |= {
        "optimizer": to_optimizer(optimizer),
        "augmentation": to_augmentation(augmentation),
        "inputs": to_columns(inputs),
        "parameter_groups": to_parameter_groups(parameter_groups),
        "schedule": to_schedule(schedule),
        "trainable": to_trainable(trainable),
        "validation": to_validation(validation),
        "losses": to_losses(loss),
        "metrics": to_metrics(metrics),
        "max_workers": to_max_workers(workers=workers, max_workers=max_workers),
    }
    config = TrainingConfig(**given)
    job = job_pb2.Job(model=name_of("models", model), dataset=name_of("datasets", dataset), config=to_message(config))
    put(job, "description", description, allowed="a text")
    put(job, "priority", priority, allowed=PRIORITY)
    put_labels(job, labels or {})
    return job_pb2.CreateJobRequest(job=job, request_id=new_request_id(request_id))


def requested(arguments: Mapping[str, Any]) -> job_pb2.CreateJobRequest:
    """The request that submits a job with these arguments of `job_request`, and what that raises.

    Raises:
        TypeError: an argument is unknown, or a job needs one that is not there.
    """
    known = inspect.signature(job_request).parameters
    for name in arguments:
        if name not in known:
            [*near] = get_close_matches(name, known, n=1)
            meant = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}."
            raise TypeError(
                f"a job has no argument {name}; {meant} help(client.jobs.create) and docs/training.md explain them all"
            )
    for name in ("model", "dataset"):
        if name not in arguments:
            raise TypeError(f'nothing says which {name} to take; give {name}="digits", or a handle')
    return job_request(**arguments)


def with_arguments_of(
    source: Callable[P, Any],
) -> Callable[[Callable[Concatenate[S, ...], R]], Callable[Concatenate[S, P], R]]:
    """Give a method the arguments of a function, behind `self`; for type checkers and for `help()`."""

    def give(method: Callable[Concatenate[S, ...], R]) -> Callable[Concatenate[S, P], R]:
        told = inspect.signature(method)
        this = next(iter(told.parameters.values()))
        given = inspect.signature(source).parameters.values()
        method.__signature__ = told.replace(parameters=[this, *given])  # type: ignore[attr-defined]
        return method

    return give
