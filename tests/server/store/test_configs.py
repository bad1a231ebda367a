"""Training configurations as the store keeps them, and those that older versions have kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chainrule.server.store.configs import from_values, to_values
from chainrule.server.training.config import Adam, ParameterGroup, Schedule, Sgd, TrainingConfig, Validation

RECIPE = TrainingConfig(
    optimizer=Adam(weight_decay=0.1),
    schedule=Schedule(decay="cosine"),
    validation=Validation(fraction=0.1),
    parameter_groups=(ParameterGroup(("*.bias", "bn*"), weight_decay=0.0), ParameterGroup(("fc.*",), lr=0.1)),
    accumulate=4,
    ema_decay=0.999,
    precision="bfloat16",
    trainable=("fc.*", "bn*"),
)
NEW = ("parameter_groups", "accumulate", "ema_decay", "precision")


@pytest.mark.parametrize("config", [TrainingConfig(), RECIPE, TrainingConfig(optimizer=Sgd(momentum=0.9))])
def test_a_configuration_comes_back_from_the_store(config: TrainingConfig) -> None:
    assert from_values(json.loads(json.dumps(to_values(config)))) == config


def test_one_of_before_the_recipe_has_its_defaults() -> None:
    values: dict[str, Any] = json.loads(json.dumps(to_values(TrainingConfig(epochs=3, trainable=("fc.*",)))))
    for name in NEW:
        del values[name]
    assert from_values(values) == TrainingConfig(epochs=3, trainable=("fc.*",))
