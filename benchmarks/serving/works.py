"""The jobs that the service is measured with."""

from __future__ import annotations

from typing import Any

import numpy as np

import chainrule.engine as cr
from chainrule.client import Client
from chainrule.engine import models

NEVER_ENDS = 100_000
"""Epochs of a job that is cancelled."""


def prepared(client: Client, *, hidden: int, examples: int, batch_size: int, **config: Any) -> dict[str, Any]:
    """Arguments of `client.jobs.create` for training an MLP 784-hidden-hidden-10 on random examples in 2 shards; the
    model and the dataset are there."""
    name = f"mlp-{hidden}-{examples}"
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(examples, 784)).astype(np.float32)
    targets = rng.integers(0, 10, size=examples)
    sizes = {"in_features": 784, "hidden": [hidden, hidden], "num_classes": 10}
    model = client.models.create(name, models.build("mlp", sizes, generator=cr.Generator(1)))
    dataset = client.datasets.create(name, inputs=inputs, targets=targets)
    defaults: dict[str, Any] = {"batch_size": batch_size, "shards": 2, "optimizer": {"lr": 0.01, "momentum": 0.9}}
    return {"model": model, "dataset": dataset, **defaults, **config}
