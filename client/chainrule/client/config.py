"""How to train: the settings of a job, and their translation to and from the API."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from chainrule.client.errors import InvalidInputError
from chainrule.client.wire import POSITIVE_INT32, UINT64, put
from chainrule.v1 import job_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sgd:
    """Stochastic gradient descent with PyTorch's formulas (torch.optim.SGD)."""

    lr: float = 0.01
    """Learning rate, above 0."""
    momentum: float = 0.0
    """Momentum factor, from 0."""
    dampening: float = 0.0
    """Dampening of the momentum."""
    weight_decay: float = 0.0
    """L2 penalty, from 0."""
    nesterov: bool = False
    """Nesterov momentum; needs momentum above 0 and dampening 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How to train. All fields but workers fix the resulting weights."""

    epochs: int = 1
    """Passes over the dataset."""
    batch_size: int = 64
    """Examples of one step: the global batch."""
    shards: int = 1
    """Slices each global batch is cut into, at most batch_size; fixes the numerics."""
    workers: int = 1
    """Workers that compute the shards, at most shards; does not change the weights."""
    seed: int = 0
    """Seed of the order of examples."""
    optimizer: Sgd = field(default_factory=Sgd)
    """What turns gradients into weights."""


def to_sgd(optimizer: Sgd | Mapping[str, Any] | None) -> Sgd:
    """An optimizer from its fields by name; None is SGD with its defaults.

    Raises:
        InvalidInputError: a field has an unknown name.
    """
    if isinstance(optimizer, Sgd):
        return optimizer
    known = [f.name for f in fields(Sgd)]
    unknown = sorted(set(optimizer or {}) - set(known))
    if unknown:
        raise InvalidInputError(f"the optimizer has no field {', '.join(unknown)}; sgd takes {', '.join(known)}")
    return Sgd(**(optimizer or {}))


def to_message(config: TrainingConfig) -> job_pb2.TrainingConfig:
    """The API's form of a configuration, with every field set: the server takes none of its defaults.

    Raises:
        InvalidInputError: a value has the wrong type, or does not fit the API's field.
    """
    message = job_pb2.TrainingConfig(sgd=job_pb2.Sgd())
    for name in ("epochs", "batch_size", "shards", "workers"):
        put(message, name, getattr(config, name), allowed=POSITIVE_INT32)
    put(message, "seed", config.seed, allowed=UINT64)
    for name in ("lr", "momentum", "dampening", "weight_decay"):
        put(message.sgd, name, getattr(config.optimizer, name), allowed="a number")
    put(message.sgd, "nesterov", config.optimizer.nesterov, allowed="True or False")
    return message


def from_message(message: job_pb2.TrainingConfig) -> TrainingConfig:
    """A configuration from its form in the API."""
    sgd = message.sgd
    return TrainingConfig(
        epochs=message.epochs,
        batch_size=message.batch_size,
        shards=message.shards,
        workers=message.workers,
        seed=message.seed,
        optimizer=Sgd(
            lr=sgd.lr if sgd.HasField("lr") else Sgd().lr,
            momentum=sgd.momentum,
            dampening=sgd.dampening,
            weight_decay=sgd.weight_decay,
            nesterov=sgd.nesterov,
        ),
    )
