"""The jobs of the chaos tests, what each gives without any fault, and how faults are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from chainrule.server.architecture import Builtin
from chainrule.server.training.config import Adam, ParameterGroup, Schedule, Sgd, TrainingConfig, Validation
from chainrule.server.training.examples import Examples
from chainrule.server.training.faults import VARIABLE
from chainrule.server.training.plan import Plan
from tests.server.training.runs import Meddle, Run, images, run, small_plan, train

Fault = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Something to train."""

    plan: Plan
    data: Examples
    validation: Examples | None = None


def cnn(**config: Any) -> Job:
    """BatchNorm and dropout, 8 shards, ten steps over two epochs; a receipt of every step."""
    settings: dict[str, Any] = {"shards": 8, "batch_size": 12, "receipt_every_steps": 1, "checkpoint_every_steps": 3}
    plan = small_plan(family_config={"width": 4, "dropout": 0.25}, **{**settings, **config})
    return Job(plan, images(plan.num_examples))


def resnet() -> Job:
    """A ResNet-18 on 64 × 64: 11.7 M parameters, several buckets."""
    config = TrainingConfig(
        batch_size=8, shards=8, seed=5, optimizer=Sgd(lr=0.01, momentum=0.9), receipt_every_steps=1, max_workers=8
    )
    return Job(Plan(Builtin("resnet18", {"num_classes": 10}), 16, 0, config), images(16, size=64, channels=3))


def gpt() -> Job:
    """A small GPT with dropout, tied weights and Adam; a target for each token."""
    config = TrainingConfig(
        epochs=2,
        batch_size=8,
        shards=8,
        seed=7,
        optimizer=Adam(lr=1e-3, weight_decay=0.01, decoupled=True),
        schedule=Schedule(warmup_steps=2, decay="cosine"),
        receipt_every_steps=1,
        max_workers=8,
    )
    family = {"vocab_size": 32, "context": 12, "dim": 16, "heads": 2, "layers": 2, "dropout": 0.1}
    rng = np.random.default_rng(2)
    tokens = rng.integers(0, 32, size=(20, 13))
    return Job(Plan(Builtin("gpt", family), 20, 0, config), Examples(tokens[:, :-1].copy(), tokens[:, 1:].copy()))


def with_config(job: Job, **config: Any) -> Job:
    """The job with another configuration."""
    return replace(job, plan=replace(job.plan, config=replace(job.plan.config, **config)))


RECIPE: dict[str, Any] = {
    "batch_size": 24,
    "optimizer": Adam(lr=0.01, weight_decay=0.05, decoupled=True),
    "schedule": Schedule(warmup_steps=3, decay="cosine"),
    "clip_norm": 0.5,
    "parameter_groups": (
        ParameterGroup(("*.bias", "bn?.*"), weight_decay=0.0),
        ParameterGroup(("fc.*",), lr=0.003, beta1=0.8),
    ),
    "accumulate": 3,
    "ema_decay": 0.8,
    "precision": "bfloat16",
}
"""All of a recipe at once."""


def validated(config: Mapping[str, Any] = MappingProxyType({}), **validation: Any) -> Job:
    """Evaluated after each of six epochs."""
    job = cnn(epochs=6, validation=Validation(fraction=0.2, **validation), **config)
    plan = Plan(job.plan.architecture, 40, 10, job.plan.config)
    whole = images(50)
    return Job(
        plan,
        Examples(whole.inputs[:40], whole.targets[:40]),
        Examples(whole.inputs[40:], whole.targets[40:]),
    )


# --- running and comparing -------------------------------------------------------------------------------------

_fault_free: dict[str, Run] = {}


async def fault_free(job: Job) -> Run:
    """What a job gives with one worker and no fault."""
    key = f"{job.plan} {np.isfinite(job.data.inputs).all()}"
    if key not in _fault_free:
        _fault_free[key] = await run(job.plan, data=job.data, validation=job.validation)
    return _fault_free[key]


async def disturbed(
    job: Job,
    folder: Path,
    *faults: Fault,
    workers: int = 1,
    meddle: Meddle | None = None,
    together: bool = True,
    variables: Callable[[str], dict[str, str]] = lambda _: {},
    **setting: Any,
) -> Run:
    """Train a job to its end, as the service does, while something goes wrong.

    Args:
        job: what is trained.
        folder: an empty one, for what the processes have to know of each other.
        faults: that come about in the processes, each once unless it says `often`.
        workers: how many there are.
        meddle: what is done from outside.
        together: whether the first step waits until all workers are there: else those that are quick do the work.
        variables: further ones of the environment, for a part: "worker 3", "partition 0".
        setting: see runs.Setting and runs.train.
    """
    gate = folder / "all-are-there"

    async def do(found: Run) -> None:
        if together:
            await found.until(lambda: found.workers >= workers)
            gate.touch()
        if meddle is not None:
            await meddle(found)

    waiting = [fault("worker.compute", "wait", step=1, path=str(gate), often=True)] if together else []
    listed = json.dumps([_marked(each, folder, number) for number, each in enumerate([*waiting, *faults])])
    return await train(
        job.plan,
        data=job.data,
        validation=job.validation,
        meddle=do,
        workers=workers,
        environment=lambda part: {VARIABLE: listed, **variables(part)},
        **setting,
    )


async def assert_same_bits(found: Run, job: Job) -> None:
    """Weights, optimizer state and statistics at the end, and the digests and losses of all steps, are those of the job
    with one worker and no fault."""
    expected = await fault_free(job)
    assert type(found.last) is type(expected.last), found.last
    assert found.digest == expected.digest
    assert found.receipts == expected.receipts
    assert found.losses == expected.losses
    assert found.evaluations == expected.evaluations


# --- faults ----------------------------------------------------------------------------------------------------


def fault(point: str, action: str, **facts: Any) -> Fault:
    """A fault wherever the facts are those of the point, once or `often`; see training.faults."""
    return {"point": point, "action": action, **facts}


def _marked(wanted: Fault, folder: Path, number: int) -> Fault:
    often = wanted.get("often", False)
    facts = {name: value for name, value in wanted.items() if name != "often"}
    return facts if often else {**facts, "once": str(folder / f"fault-{number}")}


SLOW = fault("worker.compute", "sleep", seconds=0.05, often=True)
"""Makes steps long enough for something to happen in them."""
