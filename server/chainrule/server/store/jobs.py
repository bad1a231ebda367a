"""Jobs in the store: what was asked for, and the state each is in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from chainrule.server.annotations import AnnotationChange
from chainrule.server.errors import IllegalStateError, QueueFullError
from chainrule.server.records import TRANSITIONS, Cause, Job, JobFailure, JobState, UnfinishedJob
from chainrule.server.store import configs, listings, requests, rows, schema, versions
from chainrule.server.store.database import Database, check_etag, get
from chainrule.server.store.paging import PageRequest, page
from chainrule.server.store.requests import NO_REQUEST, Request
from chainrule.server.store.versions import Inputs
from chainrule.server.training.config import TrainingConfig

_WITH_WORKERS = (JobState.RUNNING, JobState.RECOVERING, JobState.PAUSING)
"""States in which a job can have workers."""
_LEFT_BY_JOBS = (
    schema.metrics,
    schema.evaluations,
    schema.job_events,
    schema.receipts,
    schema.job_logs,
    schema.checkpoints,
    schema.job_history,
)
"""What goes with a job."""


@dataclass(frozen=True)
class NewJob:
    """A job as submitted."""

    name: str
    request: Request
    """The call that makes it."""
    model: str
    dataset: str
    config: TrainingConfig
    total_steps: int
    tenant: str = schema.DEFAULT_TENANT
    version: int | None = 1
    """Of the model; None: the newest when the job is stored."""
    labels: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    priority: int = 0
    checked: Inputs | None = None
    """What the job was checked with; None: nothing has been."""
    class_labels: tuple[str, ...] = ()
    """What the classes of the version that it makes are called; empty: as its model says."""


@dataclass(frozen=True)
class JobChange(AnnotationChange):
    """What of a job is to be changed."""

    priority: int | None = None
    """None: it stays."""


class JobTables(Database):
    """Jobs and their states. `_move` is the only way to another state.

    Where a tenant is given, a job of another one is not found; the service itself finds all. Where an etag is given,
    StaleEtagError is raised if the job has another one now.
    """

    def inputs(self, tenant: str, *, model: str, version: int | None, dataset: str, validation: str = "") -> Inputs:
        """What a job would be made of; version None is the newest. Raises NotFoundError."""
        with self._read() as db:
            return versions.inputs(db, tenant, model=model, version=version, dataset=dataset, validation=validation)

    def create_job(self, new: NewJob, *, max_waiting: int | None = None) -> tuple[Job, bool]:
        """Store a job as QUEUED; True with it if it is new, False if the request id has stored it before.

        Args:
            max_waiting: most jobs of the tenant that may be QUEUED or PAUSED; None: any number.

        Raises AlreadyExistsError if the request id stands for another payload; NotFoundError if it stands for a job
        that was removed since, or for what the job is made of; QueueFullError; or IllegalStateError if that is not what
        the job was checked with.
        """
        with self._write() as db:
            made = requests.made(db, schema.jobs, new.request, tenant=new.tenant)
            if made is not None:
                return rows.job(db, made), False
            return self._insert(db, new, max_waiting), True

    def preview_job(self, new: NewJob, *, max_waiting: int | None = None) -> Job:
        """The job as `create_job` would store it, and what that raises; nothing is stored."""
        with self._write() as db:
            requests.made(db, schema.jobs, new.request, tenant=new.tenant)
            job = self._insert(db, replace(new, request=NO_REQUEST), max_waiting)
            db.rollback()
            return job

    def find_job_of_request(self, request: Request, *, tenant: str) -> Job | None:
        """The job a request has made, if any. Raises AlreadyExistsError if it was made of another payload, or
        NotFoundError if it was removed since."""
        with self._read() as db:
            made = requests.made(db, schema.jobs, request, tenant=tenant)
            return None if made is None else rows.job(db, made)

    def get_job(self, name: str, *, tenant: str | None = None) -> Job:
        """Raises NotFoundError."""
        with self._read() as db:
            return rows.job(db, get(db, schema.jobs, name, tenant=tenant))

    def list_jobs(self, asked: PageRequest, *, tenant: str | None = None) -> tuple[list[Job], str]:
        """A page, and the token of the next; see `rows.listed_jobs` for what is left out of the jobs. Raises
        InvalidRequestError."""
        query = sa.select(schema.jobs)
        if tenant is not None:
            query = query.where(schema.jobs.c.tenant == tenant)
        with self._read() as db:
            found, token = page(db, query, listings.JOBS, asked, scope=tenant or "")
            return rows.listed_jobs(db, found), token

    def unfinished_jobs(self) -> list[UnfinishedJob]:
        """All jobs that have something to wait for or to do, oldest first: neither ended nor PAUSED. One query, however
        many they are."""
        table = schema.jobs.c
        states = [state.value for state in JobState if not (state.terminal or state is JobState.PAUSED)]
        columns = (table.name, table.tenant, table.state, table.priority, table.config)
        query = sa.select(*columns).where(table.state.in_(states)).order_by(table.id)
        with self._read() as db:
            return [
                UnfinishedJob(name, tenant, JobState(state), priority, configs.from_values(config))
                for name, tenant, state, priority, config in db.execute(query)
            ]

    # --- states ------------------------------------------------------------------------------------------------

    def transition(
        self,
        name: str,
        to: JobState,
        *,
        cause: Cause | None = None,
        reason: str = "",
        failure: JobFailure | None = None,
        weights_digest: str = "",
        weights_step: int = 0,
        running_workers: int = 0,
        since: JobState | None = None,
        repeated: bool = False,
    ) -> Job:
        """Move a job to another state; one that has SUCCEEDED makes a version of its model. Raises IllegalStateError if
        that state cannot follow the present one.

        Args:
            since: the state the job must still be in; None: any.
            repeated: whether the same was tried before, and the answer was lost: what that try has stored counts.
        """
        with self._write() as db:
            row = get(db, schema.jobs, name)
            if repeated and _is_made(db, row, to, cause, reason):
                return rows.job(db, row)
            state = JobState(row["state"])
            if to not in TRANSITIONS[state] or since not in (None, state):
                raise IllegalStateError(
                    f'job "{name}" is {state.value} and cannot become {to.value}', name=name, state=state.value
                )
            values: dict[str, Any] = {"running_workers": running_workers}
            if failure is not None:
                values["failure"] = asdict(failure)
            if weights_digest:
                values["weights_digest"] = weights_digest
                values["weights_step"] = weights_step
                if to is JobState.SUCCEEDED:
                    values["result_version"] = versions.append(
                        db, row, weights_digest=weights_digest, step=weights_step, now_us=self._now_us()
                    )
            return self._move(db, row, to, cause, reason, values)

    def cancel(self, name: str, *, tenant: str | None = None, etag: str = "") -> tuple[Job, bool]:
        """Move a job to CANCELLING; True with it if this call did so, False if it was cancelled before.

        Raises IllegalStateError if it has succeeded or failed, NotFoundError or StaleEtagError.
        """
        with self._write() as db:
            row, job = self._addressed(db, name, tenant, etag)
            if job.state in (JobState.CANCELLING, JobState.CANCELLED):
                return job, False
            if job.state.terminal:
                raise _refused(job, "only a job that has not ended can be cancelled")
            return self._move(db, row, JobState.CANCELLING, Cause.REQUEST, "asked to", {"running_workers": 0}), True

    def pause(self, name: str, *, tenant: str | None = None, etag: str = "") -> tuple[Job, bool]:
        """Move a job to PAUSING, or to PAUSED if it has nothing running; True with it if this call did so, False if it
        was paused before. Raises IllegalStateError if it is on its way out or has ended, NotFoundError or
        StaleEtagError."""
        with self._write() as db:
            row, job = self._addressed(db, name, tenant, etag)
            if job.state in (JobState.PAUSING, JobState.PAUSED):
                return job, False
            if job.state is JobState.QUEUED:
                return self._move(db, row, JobState.PAUSED, Cause.REQUEST, "asked to", {}), True
            if JobState.PAUSING not in TRANSITIONS[job.state]:
                raise _refused(job, "only a RUNNING job can be paused")
            return self._move(db, row, JobState.PAUSING, Cause.REQUEST, "asked to", {}), True

    def resume(self, name: str, *, tenant: str | None = None, etag: str = "") -> tuple[Job, bool]:
        """Move a paused job to QUEUED; True with it if this call did so, False if it is on its way already. Raises
        IllegalStateError if it is still PAUSING, on its way out, or has ended, NotFoundError or StaleEtagError."""
        with self._write() as db:
            row, job = self._addressed(db, name, tenant, etag)
            if job.state is JobState.PAUSED:
                return self._move(db, row, JobState.QUEUED, Cause.REQUEST, "resumed", {}), True
            if job.state in (JobState.PAUSING, JobState.CANCELLING) or job.state.terminal:
                raise _refused(job, "only a PAUSED job can be resumed")
            return job, False

    # --- changes -----------------------------------------------------------------------------------------------

    def reconfigure(
        self,
        name: str,
        change: Callable[[TrainingConfig], TrainingConfig],
        *,
        tenant: str | None = None,
        etag: str = "",
    ) -> Job:
        """Replace a job's configuration by what `change` makes of it, and what that raises is raised. Raises
        IllegalStateError if the job is being cancelled or has ended, NotFoundError or StaleEtagError."""
        with self._write() as db:
            row, job = self._addressed(db, name, tenant, etag)
            if job.state is JobState.CANCELLING or job.state.terminal:
                raise _refused(job, "only a job that has not ended can be scaled")
            config = change(job.config)
            return job if config == job.config else _changed(db, row, {"config": configs.to_values(config)})

    def update_job(self, name: str, change: JobChange, *, tenant: str | None = None, etag: str = "") -> Job:
        """Change what may be changed of a job in any state. Raises NotFoundError or StaleEtagError."""
        with self._write() as db:
            row, job = self._addressed(db, name, tenant, etag)
            new = {key: value for key, value in vars(change).items() if value is not None and value != row[key]}
            return _changed(db, row, new) if new else job

    def delete_job(self, name: str, *, tenant: str | None = None, etag: str = "") -> set[str]:
        """Remove a job and what it has left, but for the version of its model; returns the blobs of its checkpoints.
        What its request id has made stays known, so that a late retry does not make it again.

        Raises IllegalStateError if it has not ended, NotFoundError or StaleEtagError.
        """
        known = schema.checkpoints.c
        with self._write() as db:
            _, job = self._addressed(db, name, tenant, etag)
            if not job.state.terminal:
                raise _refused(job, "only a job that has ended can be removed: cancel it first")
            blobs = db.execute(sa.select(known.manifest_digest, known.state_digest).where(known.job == name)).all()
            for table in _LEFT_BY_JOBS:
                db.execute(table.delete().where(table.c.job == name))
            db.execute(schema.jobs.delete().where(schema.jobs.c.name == name))
        return {digest for row in blobs for digest in row}

    # --- attempts ----------------------------------------------------------------------------------------------

    def next_attempt(self, name: str) -> int:
        """Number the next attempt at a job, from 1. The numbers never repeat: they are the fences."""
        with self._write() as db:
            update = schema.jobs.update().where(schema.jobs.c.name == name)
            db.execute(update.values(attempt=schema.jobs.c.attempt + 1))
            return int(get(db, schema.jobs, name)["attempt"])

    def set_running_workers(self, name: str, workers: int) -> None:
        """Remember how many workers a job has now. One that can have none keeps none."""
        table = schema.jobs
        able = table.c.state.in_([state.value for state in _WITH_WORKERS])
        with self._write() as db:
            db.execute(table.update().where(table.c.name == name, able).values(running_workers=workers))

    def set_fingerprint(self, name: str, fingerprint: str) -> None:
        """Remember what a job's workers compute with; what the first attempt has reported stays."""
        with self._write() as db:
            unknown = schema.jobs.update().where(schema.jobs.c.name == name, schema.jobs.c.fingerprint == "")
            db.execute(unknown.values(fingerprint=fingerprint))

    # --- private -----------------------------------------------------------------------------------------------

    def _insert(self, db: Connection, new: NewJob, max_waiting: int | None) -> Job:
        found = versions.inputs(
            db,
            new.tenant,
            model=new.model,
            version=new.version,
            dataset=new.dataset,
            validation=new.config.validation.dataset,
        )
        if new.checked is not None and not found.stands_for(new.checked):
            raise IllegalStateError(
                f'"{new.model}" or a dataset was removed and made anew while the job was being checked; submit it again'
            )
        if max_waiting is not None:
            _check_queue(db, new.tenant, max_waiting)
        now = self._now_us()
        values = {
            "name": new.name,
            "tenant": new.tenant,
            "labels": dict(new.labels),
            "description": new.description,
            "revision": 1,
            "priority": new.priority,
            "model": new.model,
            "source_version": found.version,
            "result_version": 0,
            "dataset": new.dataset,
            "dataset_digest": found.dataset.digest,
            "config": configs.to_values(new.config),
            "total_steps": new.total_steps,
            "state": JobState.QUEUED.value,
            "attempt": 0,
            "running_workers": 0,
            "fingerprint": "",
            "weights_digest": "",
            "weights_step": 0,
            "create_time_us": now,
            "class_labels": new.class_labels,
        }
        db.execute(schema.jobs.insert().values(**values))
        requests.record(db, new.request, new.name, tenant=new.tenant, now_us=now)
        row = get(db, schema.jobs, new.name)
        _record(db, row, JobState.QUEUED, Cause.REQUEST, "submitted", now)
        return rows.job(db, row)

    def _addressed(self, db: Connection, name: str, tenant: str | None, etag: str) -> tuple[RowMapping, Job]:
        """The job that somebody asks to change. Raises NotFoundError or StaleEtagError."""
        row = get(db, schema.jobs, name, tenant=tenant)
        job = rows.job(db, row)
        check_etag(name, job.etag, etag)
        return row, job

    def _move(
        self,
        db: Connection,
        row: RowMapping,
        to: JobState,
        cause: Cause | None,
        reason: str,
        values: Mapping[str, Any],
    ) -> Job:
        now = self._now_us()
        values = {**values, "state": to.value}
        if to is JobState.RUNNING:
            values["start_time_us"] = sa.func.coalesce(schema.jobs.c.start_time_us, now)
        if to.terminal:
            values["end_time_us"] = now
        _record(db, row, to, cause, reason, now)
        return _changed(db, row, values)


def _changed(db: Connection, row: RowMapping, values: Mapping[str, Any]) -> Job:
    """The job with other values, and with them another revision."""
    name = row["name"]
    update = schema.jobs.update().where(schema.jobs.c.name == name)
    db.execute(update.values(**values, revision=schema.jobs.c.revision + 1))
    return rows.job(db, get(db, schema.jobs, name))


def _check_queue(db: Connection, tenant: str, max_waiting: int) -> None:
    """PAUSED jobs count: they can be queued again at any time."""
    table = schema.jobs.c
    states = [state.value for state in (JobState.QUEUED, JobState.PAUSED)]
    waiting = sa.select(sa.func.count()).where(table.tenant == tenant, table.state.in_(states))
    if (found := db.execute(waiting).scalar_one()) >= max_waiting:
        raise QueueFullError(
            f"{found:,} jobs wait or are paused, and no more than {max_waiting:,} may; try again once some have begun, "
            "cancel some, or have the service started with a larger --queue-limit",
            waiting=str(found),
        )


def _is_made(db: Connection, row: RowMapping, to: JobState, cause: Cause | None, reason: str) -> bool:
    """Whether a change is the job's latest but for what callers have asked for since."""
    table = schema.job_history.c
    asked = [state.value for state in (JobState.QUEUED, JobState.PAUSING, JobState.CANCELLING)]
    of_callers = sa.and_(table.cause == Cause.REQUEST.value, table.state.in_(asked))
    query = sa.select(table.state, table.cause, table.reason, table.attempt)
    latest = db.execute(query.where(table.job == row["name"], sa.not_(of_callers)).order_by(table.id.desc()).limit(1))
    return latest.first() == (to.value, "" if cause is None else cause.value, reason, row["attempt"])


def _refused(job: Job, remedy: str) -> IllegalStateError:
    return IllegalStateError(f'job "{job.name}" is {job.state.value}; {remedy}', name=job.name, state=job.state.value)


def _record(db: Connection, row: RowMapping, state: JobState, cause: Cause | None, reason: str, now_us: int) -> None:
    db.execute(
        schema.job_history.insert().values(
            job=row["name"],
            state=state.value,
            reason=reason,
            time_us=now_us,
            attempt=row["attempt"],
            cause="" if cause is None else cause.value,
        )
    )
