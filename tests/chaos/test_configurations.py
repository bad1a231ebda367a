"""What must not decide the bits: workers, partitions and links, for several models, optimizers and settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from chainrule.server.training.config import Adam, ParameterGroup, Schedule, Sgd
from chainrule.server.training.events import CheckpointTaken
from chainrule.server.training.layout import count_partitions
from tests.chaos.jobs import (
    RECIPE,
    Job,
    assert_same_bits,
    cnn,
    disturbed,
    fault_free,
    gpt,
    resnet,
    validated,
    with_config,
)
from tests.server.training.runs import initial_state

MODELS = {"small_cnn": cnn, "resnet18": resnet, "gpt": gpt}
LONG = pytest.param("resnet18", marks=pytest.mark.whole)


@pytest.mark.parametrize(
    ("model", "workers"),
    [
        *(("small_cnn", workers) for workers in (2, 3, 4, 7)),
        *(
            pytest.param(model, workers, marks=[pytest.mark.whole] if workers != 3 else [])
            for model in ("resnet18", "gpt")
            for workers in (2, 3, 4, 7)
        ),
    ],
)
async def test_the_number_of_workers_does_not(model: str, workers: int, tmp_path: Path) -> None:
    job = MODELS[model]()
    await assert_same_bits(await disturbed(job, tmp_path, workers=workers), job)


@pytest.mark.parametrize("model", ["small_cnn", "gpt", LONG])
async def test_nor_does_the_number_of_partitions(model: str, tmp_path: Path) -> None:
    job = MODELS[model]()
    in_three = with_config(job, partitions=3)
    assert count_partitions(in_three.plan) == 3
    await assert_same_bits(await disturbed(in_three, tmp_path, workers=2), job)


@pytest.mark.parametrize("model", ["small_cnn", "gpt", LONG])
async def test_nor_do_links_over_tls(model: str, tmp_path: Path) -> None:
    job = MODELS[model]()
    await assert_same_bits(await disturbed(job, tmp_path, workers=2, links="tls"), job)


CONFIGS: dict[str, Callable[[], Job]] = {
    "adam": lambda: cnn(optimizer=Adam(lr=1e-3, weight_decay=0.01)),
    "nesterov": lambda: cnn(optimizer=Sgd(lr=0.05, momentum=0.9, nesterov=True)),
    "plain sgd": lambda: cnn(optimizer=Sgd(lr=0.05)),
    "clip_norm": lambda: cnn(clip_norm=0.5),
    "clip_norm, 3 partitions": lambda: cnn(clip_norm=0.5, partitions=3),
    "non_finite=skip": lambda: cnn(non_finite="skip"),
    "schedule": lambda: cnn(schedule=Schedule(warmup_steps=3, decay="cosine")),
    "frozen": lambda: cnn(trainable=("fc.*",)),
    "audit_fraction=1": lambda: cnn(audit_fraction=1.0),
    "more shards than examples": lambda: cnn(shards=16),
    "validation": lambda: validated(),
    "early stop": lambda: validated(patience=1),
    "restore_best": lambda: validated(restore_best=True, patience=2),
    "parameter_groups": lambda: cnn(parameter_groups=RECIPE["parameter_groups"], optimizer=Adam()),
    "accumulate": lambda: cnn(batch_size=24, accumulate=3),
    "ema_decay": lambda: validated({"ema_decay": 0.8}),
    "precision": lambda: cnn(precision="bfloat16"),
    "the whole recipe": lambda: validated(RECIPE),
    "the whole recipe, 3 partitions": lambda: validated({**RECIPE, "clip_norm": 0.0, "partitions": 3}),
}


@pytest.mark.parametrize("config", CONFIGS)
async def test_with_any_setting_three_workers_give_what_one_gives(config: str, tmp_path: Path) -> None:
    job = CONFIGS[config]()
    await assert_same_bits(await disturbed(job, tmp_path, workers=3), job)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (cnn(audit_fraction=1.0), cnn()),
        (cnn(clip_norm=1e9), cnn()),
        (cnn(non_finite="skip"), cnn()),
        (cnn(clip_norm=0.5, partitions=3), cnn(clip_norm=0.5)),
        (cnn(checkpoint_every_steps=1), cnn()),
        (cnn(parameter_groups=(ParameterGroup(("fc.*",), lr=0.05), ParameterGroup(("*",), momentum=0.9))), cnn()),
    ],
    ids=[
        "audits",
        "a limit that is not reached",
        "a skip that is not needed",
        "partitions of clipped",
        "checkpoints",
        "groups with the optimizer's settings",
    ],
)
async def test_what_changes_no_gradient_changes_no_bit(one: Job, other: Job) -> None:
    found, expected = await fault_free(one), await fault_free(other)
    assert found.digest == expected.digest
    assert found.receipts == expected.receipts


@pytest.mark.parametrize(
    "other",
    [
        cnn(seed=4),
        cnn(shards=4),
        cnn(clip_norm=0.01),
        cnn(optimizer=Adam()),
        cnn(schedule=Schedule(decay="linear")),
        cnn(parameter_groups=(ParameterGroup(("fc.*",), lr=1e-4),)),
        cnn(ema_decay=0.5),
        cnn(precision="bfloat16"),
    ],
    ids=["seed", "shards", "clip_norm", "optimizer", "schedule", "groups", "ema_decay", "precision"],
)
async def test_what_changes_the_training_changes_the_digest(other: Job) -> None:
    """Else the comparisons above would say nothing."""
    assert (await fault_free(other)).digest != (await fault_free(cnn())).digest


async def test_frozen_parameters_stay_as_they_were() -> None:
    job = CONFIGS["frozen"]()
    before, after = initial_state(job.plan), (await fault_free(job)).state
    for name, array in before.parameters.items():
        assert np.array_equal(after.parameters[name], array) == (not name.startswith("fc.")), name
    assert set(after.slots["momentum_buffer"]) == {"fc.weight", "fc.bias"}


async def test_early_stopping_ends_after_the_epoch_that_was_not_better(tmp_path: Path) -> None:
    job = CONFIGS["early stop"]()
    found = await disturbed(job, tmp_path, workers=2)
    losses = [loss for loss, _ in found.evaluations.values()]
    worse = next(place for place in range(1, len(losses)) if losses[place] >= min(losses[:place]))
    assert len(losses) == worse + 1 < job.plan.config.epochs
    assert max(found.steps) == len(losses) * job.plan.steps_per_epoch
    [message] = found.incidents_of("early_stop")
    assert message.startswith(f"after epoch {len(losses)}: none since epoch")


async def test_the_best_epoch_is_the_result_if_it_is_to_be_restored(tmp_path: Path) -> None:
    job = CONFIGS["restore_best"]()
    found = await disturbed(job, tmp_path, workers=2)
    best = min(found.evaluations, key=lambda epoch: found.evaluations[epoch])
    assert best < len(found.evaluations)
    assert found.state.step == best * job.plan.steps_per_epoch
    assert found.state.step in [event.step for event in found.of(CheckpointTaken)]
