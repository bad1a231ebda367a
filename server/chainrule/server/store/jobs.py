"""Jobs in the store: what was asked for, and the state each is in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from chainrule.server.errors import AlreadyExistsError, IllegalStateError
from chainrule.server.records import TRANSITIONS, Job, JobFailure, JobState
from chainrule.server.store import configs, listings, rows, schema
from chainrule.server.store.database import Database, get
from chainrule.server.store.paging import PageRequest, page
from chainrule.server.training.config import TrainingConfig

_WITH_WORKERS = (JobState.RUNNING, JobState.RECOVERING, JobState.PAUSING)
"""States in which a job can have workers."""


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


class JobTables(Database):
    """Jobs and their states. `_move` is the only way to another state."""

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
                    tenant=schema.DEFAULT_TENANT,
                    labels={},
                    description="",
                    revision=1,
                    priority=0,
                    model=new.model,
                    source_version=1,
                    result_version=0,
                    dataset_digest="",
                    dataset=new.dataset,
                    config=configs.to_values(new.config),
                    total_steps=new.total_steps,
                    state=JobState.QUEUED.value,
                    attempt=0,
                    running_workers=0,
                    fingerprint="",
                    weights_digest="",
                    weights_step=0,
                    create_time_us=now,
                )
            )
            if new.request_id:
                db.execute(
                    schema.requests.insert().values(
                        tenant=schema.DEFAULT_TENANT,
                        request_id=new.request_id,
                        payload_digest=new.payload_digest,
                        resource=new.name,
                        time_us=now,
                    )
                )
            _record(db, new.name, JobState.QUEUED, "submitted", now)
            return rows.job(db, get(db, schema.jobs, new.name)), True

    def find_job_of_request(self, request_id: str, payload_digest: str) -> Job | None:
        """The job a request id has made, if any. Raises AlreadyExistsError if it was made of another payload."""
        with self._read() as db:
            return self._job_of_request(db, request_id, payload_digest)

    def get_job(self, name: str) -> Job:
        """Raises NotFoundError."""
        with self._read() as db:
            return rows.job(db, get(db, schema.jobs, name))

    def list_jobs(self, asked: PageRequest) -> tuple[list[Job], str]:
        """A page, and the token of the next; the jobs come without their events and evaluations. Raises
        InvalidRequestError."""
        with self._read() as db:
            found, token = page(db, sa.select(schema.jobs), listings.JOBS, asked)
            return [rows.job(db, row, whole=False) for row in found], token

    def unfinished_jobs(self) -> list[Job]:
        """All jobs that have not ended, oldest first, without their events and evaluations."""
        states = [state.value for state in JobState if not state.terminal]
        with self._read() as db:
            query = sa.select(schema.jobs).where(schema.jobs.c.state.in_(states)).order_by(schema.jobs.c.id)
            return [rows.job(db, row, whole=False) for row in db.execute(query).mappings().all()]

    # --- states ------------------------------------------------------------------------------------------------

    def transition(
        self,
        name: str,
        to: JobState,
        *,
        reason: str = "",
        failure: JobFailure | None = None,
        weights_digest: str = "",
        weights_step: int = 0,
        running_workers: int = 0,
    ) -> Job:
        """Move a job to another state. Raises IllegalStateError if that state cannot follow the present one."""
        with self._write() as db:
            state = JobState(get(db, schema.jobs, name)["state"])
            if to not in TRANSITIONS[state]:
                raise IllegalStateError(f'job "{name}" is {state.value} and cannot become {to.value}', name=name)
            values: dict[str, Any] = {"running_workers": running_workers}
            if failure is not None:
                values["failure"] = asdict(failure)
            if weights_digest:
                values["weights_digest"] = weights_digest
                values["weights_step"] = weights_step
            return self._move(db, name, to, reason, values)

    def cancel(self, name: str) -> tuple[Job, bool]:
        """Move a job to CANCELLING; True with it if this call did so, False if it was cancelled before.

        Raises IllegalStateError if it has succeeded or failed.
        """
        with self._write() as db:
            job = rows.job(db, get(db, schema.jobs, name))
            if job.state in (JobState.CANCELLING, JobState.CANCELLED):
                return job, False
            if job.state.terminal:
                raise _refused(job, "only a job that has not ended can be cancelled")
            return self._move(db, name, JobState.CANCELLING, "asked to", {"running_workers": 0}), True

    def pause(self, name: str) -> tuple[Job, bool]:
        """Move a job to PAUSING, or to PAUSED if it has nothing running; True with it if this call did so, False if it
        was paused before. Raises IllegalStateError if it is on its way out or has ended."""
        with self._write() as db:
            job = rows.job(db, get(db, schema.jobs, name))
            if job.state in (JobState.PAUSING, JobState.PAUSED):
                return job, False
            if job.state is JobState.QUEUED:
                return self._move(db, name, JobState.PAUSED, "asked to", {}), True
            if JobState.PAUSING not in TRANSITIONS[job.state]:
                raise _refused(job, "only a RUNNING job can be paused")
            return self._move(db, name, JobState.PAUSING, "asked to", {}), True

    def resume(self, name: str) -> tuple[Job, bool]:
        """Move a paused job to QUEUED; True with it if this call did so, False if it is on its way already. Raises
        IllegalStateError if it is still PAUSING, on its way out, or has ended."""
        with self._write() as db:
            job = rows.job(db, get(db, schema.jobs, name))
            if job.state is JobState.PAUSED:
                return self._move(db, name, JobState.QUEUED, "resumed", {}), True
            if job.state in (JobState.PAUSING, JobState.CANCELLING) or job.state.terminal:
                raise _refused(job, "only a PAUSED job can be resumed")
            return job, False

    def reconfigure(self, name: str, change: Callable[[TrainingConfig], TrainingConfig]) -> Job:
        """Replace a job's configuration by what `change` makes of it, and what that raises is raised. Raises
        IllegalStateError if the job is being cancelled or has ended."""
        with self._write() as db:
            job = rows.job(db, get(db, schema.jobs, name))
            if job.state is JobState.CANCELLING or job.state.terminal:
                raise _refused(job, "only a job that has not ended can be scaled")
            values = configs.to_values(change(job.config))
            db.execute(schema.jobs.update().where(schema.jobs.c.name == name).values(config=values))
            return rows.job(db, get(db, schema.jobs, name))

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
        table = schema.jobs
        with self._write() as db:
            unknown = table.update().where(table.c.name == name, table.c.fingerprint == "")
            db.execute(unknown.values(fingerprint=fingerprint))

    # --- private -----------------------------------------------------------------------------------------------

    def _job_of_request(self, db: Connection, request_id: str, payload_digest: str) -> Job | None:
        if not request_id:
            return None
        query = sa.select(schema.requests).where(schema.requests.c.request_id == request_id)
        row = db.execute(query).mappings().first()
        if row is None:
            return None
        if row["payload_digest"] != payload_digest:
            raise AlreadyExistsError(
                f'request_id "{request_id}" has already made "{row["resource"]}" from another payload; '
                "use a new request_id for another job",
                name=row["resource"],
            )
        return rows.job(db, get(db, schema.jobs, row["resource"]))

    def _move(self, db: Connection, name: str, to: JobState, reason: str, values: Mapping[str, Any]) -> Job:
        now = self._now_us()
        values = {**values, "state": to.value}
        if to is JobState.RUNNING:
            values["start_time_us"] = sa.func.coalesce(schema.jobs.c.start_time_us, now)
        if to.terminal:
            values["end_time_us"] = now
        db.execute(schema.jobs.update().where(schema.jobs.c.name == name).values(**values))
        _record(db, name, to, reason, now)
        return rows.job(db, get(db, schema.jobs, name))


def _refused(job: Job, remedy: str) -> IllegalStateError:
    return IllegalStateError(f'job "{job.name}" is {job.state.value}; {remedy}', name=job.name)


def _record(db: Connection, job: str, state: JobState, reason: str, now_us: int) -> None:
    db.execute(
        schema.job_history.insert().values(
            job=job, state=state.value, reason=reason, time_us=now_us, attempt=0, cause=""
        )
    )
