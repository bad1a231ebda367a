"""Rows of the tables as records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from chainrule.engine.io.chunked import Column
from chainrule.engine.models import Outline
from chainrule.server.architecture import Architecture, Builtin, CodeArchitecture, GraphArchitecture
from chainrule.server.records import (
    Cause,
    Checkpoint,
    ColumnStatistics,
    Dataset,
    Job,
    JobEvent,
    JobFailure,
    JobState,
    LogRecord,
    Model,
    ModelVersion,
    Progress,
    Receipt,
    StateChange,
    TensorSpec,
)
from chainrule.server.store import configs, schema
from chainrule.server.training.config import TrainingConfig
from chainrule.server.training.state import EvaluationMetric, StepMetric

PACE_STEPS = 100
"""How many steps the pace of a job is taken from."""
MAX_EVENTS = 100
"""Most events that a job is shown with."""
MAX_EVALUATIONS = 1000
"""Most evaluations that a job is shown with."""


def model(row: RowMapping, *, latest_version: int | None = None) -> Model:
    """A model; `latest_version` is the number of its newest version, None: the last that was given out."""
    return Model(
        name=row["name"],
        architecture=architecture(row),
        weights_digest=row["weights_digest"],
        init_seed=int(row["init_seed"]),
        num_parameters=row["num_parameters"],
        create_time=time(row["create_time_us"]),
        labels=row["labels"],
        description=row["description"],
        revision=row["revision"],
        latest_version=row["last_version"] if latest_version is None else latest_version,
        class_labels=tuple(row["class_labels"]),
        inputs=tuple(map(_tensor_spec, row["inputs"])),
        outputs=tuple(map(_tensor_spec, row["outputs"])),
        warnings=tuple(row["warnings"]),
    )


def architecture(row: RowMapping) -> Architecture:
    """What a model's network is; of a graph, which one."""
    if row["graph_digest"]:
        return GraphArchitecture(row["graph_digest"])
    if row["code_digest"]:
        return _code(row)
    return Builtin(row["family"], row["family_config"])


def architecture_values(value: Architecture) -> dict[str, object]:
    """An architecture as columns: those of the other kinds are empty."""
    empty: dict[str, object] = {"family": "", "family_config": {}, "graph_digest": "", "code_digest": "", "code": {}}
    match value:
        case Builtin(family, config):
            return empty | {"family": family, "family_config": dict(config)}
        case GraphArchitecture(digest):
            return empty | {"graph_digest": digest}
        case CodeArchitecture(digest):
            return empty | {"code_digest": digest, "code": _code_values(value)}


def _code(row: RowMapping) -> CodeArchitecture:
    values = row["code"]
    kinds = {
        kind: {name: (dtype, tuple(shape)) for name, dtype, shape in values[kind]} for kind in ("parameters", "buffers")
    }
    return CodeArchitecture(
        digest=row["code_digest"],
        factory=values["factory"],
        config=values["config"],
        seed=int(row["init_seed"]),
        declared=Outline(**kinds, tied=values["tied"], batch_norms=values["batch_norms"]),
        file_name=values["file_name"],
    )


def _code_values(value: CodeArchitecture) -> dict[str, object]:
    """What is kept of code besides its digest and seed."""
    declared = value.declared
    return {
        "factory": value.factory,
        "config": dict(value.config),
        "file_name": value.file_name,
        "parameters": [[name, *spec] for name, spec in declared.parameters.items()],
        "buffers": [[name, *spec] for name, spec in declared.buffers.items()],
        "tied": dict(declared.tied),
        "batch_norms": dict(declared.batch_norms),
    }


def _tensor_spec(value: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(name=value["name"], dtype=value["dtype"], shape=tuple(value["shape"]))


def model_version(row: RowMapping) -> ModelVersion:
    return ModelVersion(
        model=row["model"],
        number=row["number"],
        weights_digest=row["weights_digest"],
        create_time=time(row["create_time_us"]),
        job=row["job"],
        parent=row["parent"],
        dataset=row["dataset"],
        dataset_digest=row["dataset_digest"],
        step=row["step"],
        preparation=configs.transforms_of(row["preparation"]),
        class_labels=tuple(row["class_labels"]),
        raw_bytes=row["raw_bytes"],
    )


def dataset(row: RowMapping) -> Dataset:
    return Dataset(
        name=row["name"],
        digest=row["digest"],
        num_examples=row["num_examples"],
        input_shape=tuple(row["input_shape"]),
        num_classes=row["num_classes"],
        size_bytes=row["size_bytes"],
        create_time=time(row["create_time_us"]),
        target_shape=tuple(row["target_shape"]),
        num_tokens=row["num_tokens"],
        columns=tuple(Column(of["name"], of["dtype"], tuple(of["shape"])) for of in row["columns"]),
        statistics=tuple(
            ColumnStatistics(**{**of, "class_counts": tuple(of["class_counts"])}) for of in row["statistics"]
        ),
        class_labels=tuple(row["class_labels"]),
        num_chunks=row["num_chunks"],
        source_uri=row["source_uri"],
        labels=row["labels"],
        description=row["description"],
        revision=row["revision"],
    )


# --- jobs ------------------------------------------------------------------------------------------------------


def job(db: Connection, row: RowMapping) -> Job:
    """A job, with all there is to know of it."""
    name, table = row["name"], schema.metrics.c
    query = sa.select(schema.metrics).where(table.job == name).order_by(table.step.desc()).limit(PACE_STEPS + 1)
    latest = db.execute(query).mappings().all()
    job = _job(row, _histories(db, [name])[name], latest)
    return replace(job, events=_events(db, name), evaluations=evaluations(db, name, MAX_EVALUATIONS))


def listed_jobs(db: Connection, page: Sequence[RowMapping]) -> list[Job]:
    """Jobs in a number of queries that does not grow with theirs: without events and evaluations, and with a pace only
    where they have workers."""
    names = [row["name"] for row in page]
    histories, latest = _histories(db, names), _latest_metrics(db, names)
    return [_job(row, histories[row["name"]], latest[row["name"]], paced=row["running_workers"] > 0) for row in page]


def _job(row: RowMapping, changes: Sequence[RowMapping], latest: Sequence[RowMapping], *, paced: bool = True) -> Job:
    """A job without its events and evaluations; without a pace, too, unless it is to be `paced`. `latest` are metrics
    of its last steps, newest first."""
    config = configs.from_values(row["config"])
    return Job(
        name=row["name"],
        model=row["model"],
        dataset=row["dataset"],
        config=config,
        state=JobState(row["state"]),
        history=tuple(map(_state_change, changes)),
        create_time=time(row["create_time_us"]),
        start_time=optional_time(row["start_time_us"]),
        end_time=optional_time(row["end_time_us"]),
        weights_digest=row["weights_digest"],
        failure=JobFailure(**row["failure"]) if row["failure"] else None,
        progress=_progress(row, config, changes, latest, paced=paced),
        running_workers=row["running_workers"],
        fingerprint=row["fingerprint"],
        weights_step=row["weights_step"],
        tenant=row["tenant"],
        labels=row["labels"],
        description=row["description"],
        priority=row["priority"],
        revision=row["revision"],
        source_version=row["source_version"],
        result_version=row["result_version"],
        dataset_digest=row["dataset_digest"],
    )


def _histories(db: Connection, jobs: Sequence[str]) -> Mapping[str, list[RowMapping]]:
    """The changes of state of each of the jobs, oldest first."""
    table = schema.job_history
    found: dict[str, list[RowMapping]] = {job: [] for job in jobs}
    for change in db.execute(sa.select(table).where(table.c.job.in_(jobs)).order_by(table.c.id)).mappings():
        found[change["job"]].append(change)
    return found


def _latest_metrics(db: Connection, jobs: Sequence[str]) -> Mapping[str, list[RowMapping]]:
    """The last metric of each of the jobs; where it has workers, as many as its pace is taken from, newest first."""
    job, metric, other = schema.jobs.c, schema.metrics.c, schema.metrics.alias().c
    last = sa.select(sa.func.max(other.step)).where(other.job == job.name).scalar_subquery()
    count = sa.case((job.running_workers > 0, PACE_STEPS + 1), else_=1)
    among = sa.and_(metric.job == job.name, metric.step > last - count)
    query = sa.select(schema.metrics).select_from(schema.jobs).join(schema.metrics, among).where(job.name.in_(jobs))
    found: dict[str, list[RowMapping]] = {name: [] for name in jobs}
    for row in db.execute(query.order_by(metric.step.desc())).mappings():
        found[row["job"]].append(row)
    return found


def _state_change(row: RowMapping) -> StateChange:
    return StateChange(
        state=JobState(row["state"]),
        time=time(row["time_us"]),
        reason=row["reason"],
        attempt=row["attempt"],
        cause=Cause(row["cause"]) if row["cause"] else None,
    )


def _events(db: Connection, job: str) -> tuple[JobEvent, ...]:
    table = schema.job_events
    query = sa.select(table).where(table.c.job == job).order_by(table.c.id.desc()).limit(MAX_EVENTS)
    latest = db.execute(query).mappings().all()
    return tuple(
        JobEvent(row["kind"], row["message"], row["step"], row["seconds_lost"], time(row["time_us"]))
        for row in reversed(latest)
    )


def evaluations(db: Connection, job: str, limit: int | None = None) -> tuple[EvaluationMetric, ...]:
    """The latest evaluations of a job, oldest first."""
    table = schema.evaluations
    query = sa.select(table).where(table.c.job == job).order_by(table.c.epoch.desc()).limit(limit)
    latest = db.execute(query).mappings().all()
    return tuple(evaluation(row) for row in reversed(latest))


def _progress(
    row: RowMapping,
    config: TrainingConfig,
    changes: Sequence[RowMapping],
    latest: Sequence[RowMapping],
    *,
    paced: bool,
) -> Progress:
    total_steps = row["total_steps"]
    if not latest:
        return Progress(0, total_steps, 0, config.epochs)
    last = metric(latest[0])
    rate, seconds_per_step = _pace(latest, changes) if paced else (0.0, 0.0)
    return Progress(
        step=last.step,
        total_steps=total_steps,
        epoch=last.epoch,
        total_epochs=config.epochs,
        loss=last.loss,
        accuracy=last.accuracy,
        values=last.values,
        examples_per_second=rate,
        eta_s=seconds_per_step * (total_steps - last.step) if rate else None,
    )


def _pace(latest: Sequence[RowMapping], changes: Sequence[RowMapping]) -> tuple[float, float]:
    """Examples per second and seconds per step over the latest steps (newest first), but no further back than when the
    job last began to run; zeros if that is too little to tell."""
    since = max((c["time_us"] for c in changes if c["state"] == JobState.RUNNING.value), default=0)
    steps = [step for step in latest if step["time_us"] >= since]
    if len(steps) > PACE_STEPS:  # the oldest only says when the next one began
        since = steps.pop()["time_us"]
    seconds = (latest[0]["time_us"] - since) / 1e6
    if not steps or seconds <= 0:
        return 0.0, 0.0
    return sum(step["num_examples"] for step in steps) / seconds, seconds / len(steps)


# --- what training leaves --------------------------------------------------------------------------------------


def metric(row: RowMapping) -> StepMetric:
    return StepMetric(
        step=row["step"],
        epoch=row["epoch"],
        loss=_loss(row),
        accuracy=row["accuracy"],
        num_examples=row["num_examples"],
        time_s=row["time_us"] / 1e6,
        values=_values(row),
    )


def evaluation(row: RowMapping) -> EvaluationMetric:
    return EvaluationMetric(
        epoch=row["epoch"],
        step=row["step"],
        loss=_loss(row),
        accuracy=row["accuracy"],
        num_examples=row["num_examples"],
        time_s=row["time_us"] / 1e6,
        values=_values(row),
    )


def checkpoint(row: RowMapping, best_step: int | None) -> Checkpoint:
    return Checkpoint(
        job=row["job"],
        step=row["step"],
        epoch=row["epoch"],
        manifest_digest=row["manifest_digest"],
        state_digest=row["state_digest"],
        size_bytes=row["size_bytes"],
        create_time=time(row["create_time_us"]),
        is_best=row["step"] == best_step,
    )


def log(row: RowMapping) -> LogRecord:
    return LogRecord(
        sequence=row["sequence"],
        time=time(row["time_us"]),
        severity=row["severity"],
        source=row["source"],
        node=row["node"],
        attempt=row["attempt"],
        message=row["message"],
    )


def receipt(row: RowMapping) -> Receipt:
    return Receipt(row["step"], row["state_digest"], row["chain_digest"])


def stored_values(values: Mapping[str, float]) -> dict[str, float | str]:
    """Values by name as JSON has them, which has no NaN and nothing infinite."""
    return {name: value if math.isfinite(value) else repr(value) for name, value in values.items()}


def _values(row: RowMapping) -> dict[str, float]:
    return {name: float(value) for name, value in row["measured"].items()}


def _loss(row: RowMapping) -> float:
    return math.nan if row["loss"] is None else float(row["loss"])


# --- times -----------------------------------------------------------------------------------------------------


def time(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us / 1e6, UTC)


def optional_time(time_us: int | None) -> datetime | None:
    return None if time_us is None else time(time_us)
