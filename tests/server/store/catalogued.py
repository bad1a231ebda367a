"""Rows for tests of the catalog: models, datasets, versions, and jobs that use them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from chainrule.server.architecture import Builtin
from chainrule.server.records import Dataset, JobState, Model
from chainrule.server.store import Store, configs, schema
from chainrule.server.training.config import TrainingConfig, Validation

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = Model("models/m", Builtin("small_cnn", {"num_classes": 10}), "a" * 64, 7, 123, NOW)
DATASET = Dataset("datasets/d", "b" * 64, 100, (8,), 10, 6400, NOW, target_shape=(8,), num_tokens=12)


def model(name: str = "models/m", **changes: Any) -> Model:
    return replace(MODEL, name=name, **changes)


def dataset(name: str = "datasets/d", **changes: Any) -> Dataset:
    return replace(DATASET, name=name, **changes)


def add_version(store: Store, number: int, *, tenant: str = "default", digest: str = "") -> None:
    """Another version of "models/m", as a job makes it."""
    values = {
        "tenant": tenant,
        "model": "models/m",
        "number": number,
        "weights_digest": digest or f"{number:064d}",
        "job": f"jobs/j{number}",
        "parent": number - 1,
        "dataset": "datasets/d",
        "dataset_digest": "b" * 64,
        "step": 10 * number,
        "create_time_us": 10**15 + number,
        "preparation": [],
        "class_labels": [],
        "raw_bytes": False,
    }
    with store._write() as db:
        db.execute(schema.model_versions.insert().values(**values))
        db.execute(schema.models.update().where(schema.models.c.tenant == tenant).values(last_version=number))


def add_job(
    store: Store,
    name: str = "jobs/j",
    *,
    tenant: str = "default",
    model: str = "models/m",
    version: int = 1,
    dataset: str = "datasets/d",
    validation: str = "",
    state: JobState = JobState.QUEUED,
) -> None:
    config = TrainingConfig(epochs=1, validation=Validation(dataset=validation))
    values = {
        "name": name,
        "tenant": tenant,
        "model": model,
        "source_version": version,
        "dataset": dataset,
        "dataset_digest": "b" * 64,
        "config": configs.to_values(config),
        "total_steps": 1,
        "state": state.value,
        "attempt": 0,
        "running_workers": 0,
        "fingerprint": "",
        "weights_digest": "",
        "weights_step": 0,
        "result_version": 0,
        "create_time_us": 10**15,
        "labels": {},
        "description": "",
        "revision": 1,
        "priority": 0,
        "class_labels": [],
    }
    with store._write() as db:
        db.execute(schema.jobs.insert().values(**values))


def end_job(store: Store, name: str = "jobs/j", state: JobState = JobState.FAILED) -> None:
    with store._write() as db:
        db.execute(schema.jobs.update().where(schema.jobs.c.name == name).values(state=state.value))
