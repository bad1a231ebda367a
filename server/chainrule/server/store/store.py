"""Reads and writes of the store. Each method is one transaction; all block, so coroutines call them in a thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from chainrule.server.errors import (
    AlreadyExistsError,
    IllegalStateError,
    InvalidRequestError,
    NotFoundError,
    StoreUnavailableError,
)
from chainrule.server.records import (
    TRANSITIONS,
    Checkpoint,
    Dataset,
    Job,
    JobFailure,
    JobState,
    Model,
)
from chainrule.server.store import rows, schema
from chainrule.server.training.plan import TrainingConfig
from chainrule.server.training.state import StepMetric

BUSY_TIMEOUT_S = 30.0
"""How long a transaction waits for another one's lock."""


@dataclass(frozen=True)
class NewJob:
    """A job as submitted."""

    name: str
    request_id: str
    """Empty: none."""
    payload_digest: str
    """Digest of what was asked for: tells a repeated request from another one."""
    model: str
    dataset: str
    config: TrainingConfig
    total_steps: int


class Store:
    """The store at a SQLAlchemy URL. Close it when done."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._engine = sa.create_engine(url)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _set_up_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)
        schema.metadata.create_all(self._engine)

    def close(self) -> None:
        self._engine.dispose()

    # --- models ------------------------------------------------------------------------------------------------

    def create_model(self, model: Model) -> Model:
        """Store a model, or return the one of that name if it is the same. Raises AlreadyExistsError."""
        with self._write() as db:
            row = _find(db, schema.models, model.name)
            if row is None:
                values = asdict(model) | {"init_seed": str(model.init_seed), "create_time_us": self._now_us()}
                del values["create_time"]
                db.execute(schema.models.insert().values(**values))
                return rows.model(_get(db, schema.models, model.name))
            known = rows.model(row)
            wanted = (model.family, dict(model.family_config), model.weights_digest)
            if (known.family, dict(known.family_config), known.weights_digest) != wanted:
                raise AlreadyExistsError(
                    f'there is already a model "{model.name}", with another architecture or other weights; '
                    "models do not change: choose another name",
                    name=model.name,
                )
            return known

    def get_model(self, name: str) -> Model:
        """Raises NotFoundError."""
        with self._read() as db:
            return rows.model(_get(db, schema.models, name))

    def list_models(self, page_size: int, page_token: str) -> tuple[list[Model], str]:
        """A page, newest first, and the token of the next."""
        with self._read() as db:
            found, token = _page(db, schema.models, page_size, page_token)
            return [rows.model(row) for row in found], token

    # --- datasets ----------------------------------------------------------------------------------------------

    def create_dataset(self, dataset: Dataset) -> Dataset:
        """Store a dataset, or return the one of that name if it is the same. Raises AlreadyExistsError."""
        with self._write() as db:
            row = _find(db, schema.datasets, dataset.name)
            if row is None:
                values = asdict(dataset) | {"create_time_us": self._now_us()}
                del values["create_time"]
                db.execute(schema.datasets.insert().values(**values))
                return rows.dataset(_get(db, schema.datasets, dataset.name))
            known = rows.dataset(row)
            if known.digest != dataset.digest:
                raise AlreadyExistsError(
                    f'there is already a dataset "{dataset.name}" with other content (SHA-256 {known.digest}); '
                    "datasets do not change: choose another name",
                    name=dataset.name,
                )
            return known

    def get_dataset(self, name: str) -> Dataset:
        """Raises NotFoundError."""
        with self._read() as db:
            return rows.dataset(_get(db, schema.datasets, name))

    def list_datasets(self, page_size: int, page_token: str) -> tuple[list[Dataset], str]:
        """A page, newest first, and the token of the next."""
        with self._read() as db:
            found, token = _page(db, schema.datasets, page_size, page_token)
            return [rows.dataset(row) for row in found], token

    # --- jobs --------------------------------------------------------------------------------------------------

    def create_job(self, new: NewJob) -> tuple[Job, bool]:
        """Store a job as QUEUED; True with it if it is new, False if the request id has stored it before.

        Raises AlreadyExistsError if the request id stands for another payload.
        """
        with self._write() as db:
            known = self._job_of_request(db, new.request_id, new.payload_digest)
            if known is not None:
                return known, False
            now = self._now_us()
            db.execute(
                schema.jobs.insert().values(
                    name=new.name,
                    request_id=new.request_id or None,
                    payload_digest=new.payload_digest,
                    model=new.model,
                    dataset=new.dataset,
                    config=asdict(new.config),
                    total_steps=new.total_steps,
                    state=JobState.QUEUED.value,
                    attempt=0,
                    weights_digest="",
                    create_time_us=now,
                )
            )
            _record(db, new.name, JobState.QUEUED, "submitted", now)
            return rows.job(db, _get(db, schema.jobs, new.name)), True

    def find_job_of_request(self, request_id: str, payload_digest: str) -> Job | None:
        """The job a request id has made, if any. Raises AlreadyExistsError if it was made of another payload."""
        with self._read() as db:
            return self._job_of_request(db, request_id, payload_digest)

    def get_job(self, name: str) -> Job:
        """Raises NotFoundError."""
        with self._read() as db:
            return rows.job(db, _get(db, schema.jobs, name))

    def list_jobs(self, page_size: int, page_token: str) -> tuple[list[Job], str]:
        """A page, newest first, and the token of the next."""
        with self._read() as db:
            found, token = _page(db, schema.jobs, page_size, page_token)
            return [rows.job(db, row) for row in found], token

    def unfinished_jobs(self) -> list[Job]:
        """All jobs that have not ended, oldest first."""
        states = [state.value for state in JobState if not state.terminal]
        with self._read() as db:
            query = sa.select(schema.jobs).where(schema.jobs.c.state.in_(states)).order_by(schema.jobs.c.id)
            return [rows.job(db, row) for row in db.execute(query).mappings().all()]

    def transition(
        self,
        name: str,
        to: JobState,
        *,
        reason: str = "",
        failure: JobFailure | None = None,
        weights_digest: str = "",
    ) -> Job:
        """Move a job to another state. Raises IllegalStateError if that state cannot follow the present one."""
        with self._write() as db:
            state = JobState(_get(db, schema.jobs, name)["state"])
            if to not in TRANSITIONS[state]:
                raise IllegalStateError(f'job "{name}" is {state.value} and cannot become {to.value}', name=name)
            values: dict[str, Any] = {}
            if failure is not None:
                values["failure"] = asdict(failure)
            if weights_digest:
                values["weights_digest"] = weights_digest
            return self._move(db, name, to, reason, values)

    def cancel(self, name: str) -> tuple[Job, bool]:
        """Move a job to CANCELLING; True with it if this call did so, False if it was cancelled before.

        Raises IllegalStateError if it has succeeded or failed.
        """
        with self._write() as db:
            job = rows.job(db, _get(db, schema.jobs, name))
            if job.state in (JobState.CANCELLING, JobState.CANCELLED):
                return job, False
            if job.state.terminal:
                raise IllegalStateError(
                    f'job "{name}" is {job.state.value}; only a job that has not ended can be cancelled', name=name
                )
            return self._move(db, name, JobState.CANCELLING, "asked to", {}), True

    def next_attempt(self, name: str) -> int:
        """Number the next attempt at a job, from 1. The numbers never repeat: they are the fences."""
        with self._write() as db:
            update = schema.jobs.update().where(schema.jobs.c.name == name)
            db.execute(update.values(attempt=schema.jobs.c.attempt + 1))
            return int(_get(db, schema.jobs, name)["attempt"])

    # --- metrics and checkpoints -------------------------------------------------------------------------------

    def add_metrics(self, name: str, metrics: Sequence[StepMetric]) -> None:
        """Store the metrics of steps. A step that is there already was computed again, with the same result."""
        with self._write() as db:
            latest = sa.select(sa.func.max(schema.metrics.c.step)).where(schema.metrics.c.job == name)
            known = db.execute(latest).scalar() or 0
            new = [
                {
                    "job": name,
                    "step": metric.step,
                    "epoch": metric.epoch,
                    "loss": metric.loss,
                    "accuracy": metric.accuracy,
                    "num_examples": metric.num_examples,
                    "time_us": round(metric.time_s * 1e6),
                }
                for metric in metrics
                if metric.step > known
            ]
            if new:
                db.execute(schema.metrics.insert(), new)

    def metrics(self, name: str, *, after_step: int, limit: int) -> list[StepMetric]:
        """Metrics of the steps after `after_step`, in order. Raises NotFoundError if there is no such job."""
        table = schema.metrics.c
        query = sa.select(schema.metrics).where(table.job == name, table.step > after_step)
        with self._read() as db:
            _get(db, schema.jobs, name)
            found = db.execute(query.order_by(table.step).limit(limit)).mappings().all()
        return [rows.metric(row) for row in found]

    def add_checkpoint(self, job: str, *, step: int, epoch: int, manifest_digest: str) -> None:
        """Remember a checkpoint whose blobs are stored. One of the same step was computed again and is the same."""
        table = schema.checkpoints
        with self._write() as db:
            same = sa.select(table.c.step).where(table.c.job == job, table.c.step == step)
            if db.execute(same).first() is None:
                db.execute(
                    table.insert().values(
                        job=job, step=step, epoch=epoch, manifest_digest=manifest_digest, create_time_us=self._now_us()
                    )
                )

    def checkpoints(self, job: str) -> list[Checkpoint]:
        """A job's checkpoints, latest first."""
        table = schema.checkpoints
        query = sa.select(table).where(table.c.job == job).order_by(table.c.step.desc())
        with self._read() as db:
            return [rows.checkpoint(row) for row in db.execute(query).mappings()]

    # --- private -----------------------------------------------------------------------------------------------

    def _job_of_request(self, db: Connection, request_id: str, payload_digest: str) -> Job | None:
        if not request_id:
            return None
        query = sa.select(schema.jobs).where(schema.jobs.c.request_id == request_id)
        row = db.execute(query).mappings().first()
        if row is None:
            return None
        if row["payload_digest"] != payload_digest:
            raise AlreadyExistsError(
                f'request_id "{request_id}" has already made "{row["name"]}" from another payload; '
                "use a new request_id for another job",
                name=row["name"],
            )
        return rows.job(db, row)

    def _move(self, db: Connection, name: str, to: JobState, reason: str, values: Mapping[str, Any]) -> Job:
        now = self._now_us()
        values = {**values, "state": to.value}
        if to is JobState.RUNNING:
            values["start_time_us"] = sa.func.coalesce(schema.jobs.c.start_time_us, now)
        if to.terminal:
            values["end_time_us"] = now
        db.execute(schema.jobs.update().where(schema.jobs.c.name == name).values(**values))
        _record(db, name, to, reason, now)
        return rows.job(db, _get(db, schema.jobs, name))

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with _available(), self._engine.connect().execution_options(read=True) as db:
            yield db

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with _available(), self._engine.begin() as db:
            yield db

    def _now_us(self) -> int:
        return round(self._clock() * 1e6)


@contextmanager
def _available() -> Iterator[None]:
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.TimeoutError) as error:  # locked, full, gone
        raise StoreUnavailableError(f"the store does not answer: {error.args[0]}") from error


# --- queries ---------------------------------------------------------------------------------------------------


def _find(db: Connection, table: sa.Table, name: str) -> RowMapping | None:
    return db.execute(sa.select(table).where(table.c.name == name)).mappings().first()


def _get(db: Connection, table: sa.Table, name: str) -> RowMapping:
    row = _find(db, table, name)
    if row is None:
        kind = table.name.removesuffix("s")
        raise NotFoundError(
            f'there is no {kind} "{name}"; list what there is with: chainrule {table.name} ls', name=name
        )
    return row


def _page(db: Connection, table: sa.Table, page_size: int, page_token: str) -> tuple[Sequence[RowMapping], str]:
    query = sa.select(table).order_by(table.c.id.desc()).limit(page_size + 1)
    if page_token:
        if not page_token.isascii() or not page_token.isdigit():
            raise InvalidRequestError.of("page_token", f"{page_token!r} is not a token from a page before")
        query = query.where(table.c.id < int(page_token))
    rows = db.execute(query).mappings().all()
    more = len(rows) > page_size
    rows = rows[:page_size]
    return rows, str(rows[-1]["id"]) if more else ""


def _record(db: Connection, job: str, state: JobState, reason: str, now_us: int) -> None:
    db.execute(schema.job_history.insert().values(job=job, state=state.value, reason=reason, time_us=now_us))


# --- SQLite ----------------------------------------------------------------------------------------------------


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # what was acknowledged survives a power cut
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA busy_timeout={round(BUSY_TIMEOUT_S * 1000)}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """A write takes its lock at once: one that began as a read could find that it must start again."""
    reading = connection.get_execution_options().get("read", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
