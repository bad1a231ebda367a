"""The store looked at as a whole: how much there is, whether it is consistent, and a copy of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from chainrule.server.records import TRANSITIONS, JobState
from chainrule.server.store import schema
from chainrule.server.store.database import Database


class CensusTables(Database):
    """Counts, checks and copies all tables."""

    def count_jobs(self) -> dict[JobState, int]:
        """How many jobs are in each state; those that no job is in are left out."""
        table = schema.jobs.c
        with self._read() as db:
            found = db.execute(sa.select(table.state, sa.func.count()).group_by(table.state))
            return {JobState(state): int(count) for state, count in found}

    def size_bytes(self) -> int:
        """What the database takes on its disk; SQLite's log of what is yet to be merged is left out."""
        with self._read() as db:
            if db.dialect.name == "postgresql":
                return int(db.execute(sa.text("SELECT pg_database_size(current_database())")).scalar_one())
            pages = int(db.exec_driver_sql("PRAGMA page_count").scalar_one())
            return pages * int(db.exec_driver_sql("PRAGMA page_size").scalar_one())

    def is_empty(self) -> bool:
        """Whether nothing has been stored yet."""
        tables = (schema.models, schema.datasets, schema.jobs, schema.tokens)
        with self._read() as db:
            return all(
                db.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() is None for table in tables
            )

    def faults(self) -> list[str]:
        """What is inconsistent in the tables, one sentence each; what they say of blobs is not looked at."""
        with self._read() as db:
            if db.dialect.name == "sqlite":
                damage = list(_damage(db))
                if damage:  # what the tables say means little then
                    return damage
            return [*_without_versions(db), *_unfinished_without_input(db), *_without_weights(db), *_histories(db)]

    def copy_to(self, path: Path) -> None:
        """Write a SQLite store, as of one moment, into a new file, or one that is empty."""
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT", read=True) as db:
            assert db.dialect.name == "sqlite"
            driver = db.connection.driver_connection
            assert driver is not None  # of a connection in use
            driver.execute("VACUUM INTO ?", (str(path),))


def _damage(db: Connection) -> Iterator[str]:
    for (text,) in db.exec_driver_sql("PRAGMA integrity_check"):
        if text != "ok":
            yield f"the file is damaged: {text}"
    for table, row, parent, _ in db.exec_driver_sql("PRAGMA foreign_key_check"):
        yield f'row {row} of table "{table}" refers to what is not in "{parent}"'


def _without_versions(db: Connection) -> Iterator[str]:
    models, versions = schema.models.c, schema.model_versions.c
    has_one = sa.exists().where(versions.tenant == models.tenant, versions.model == models.name)
    for (name,) in db.execute(sa.select(models.name).where(~has_one).order_by(models.id)):
        yield f'model "{name}" has no version'


def _unfinished_without_input(db: Connection) -> Iterator[str]:
    """Of jobs that have not ended. The input of those that have may be removed."""
    jobs = schema.jobs.c
    unfinished = jobs.state.in_([state.value for state in JobState if not state.terminal])
    for kind, table in (("model", schema.models), ("dataset", schema.datasets)):
        named = jobs[kind]
        is_there = sa.exists().where(table.c.tenant == jobs.tenant, table.c.name == named)
        for name, state, missing in db.execute(
            sa.select(jobs.name, jobs.state, named).where(unfinished, ~is_there).order_by(jobs.id)
        ):
            yield f'job "{name}" is {state} and its {kind} "{missing}" is not there'


def _without_weights(db: Connection) -> Iterator[str]:
    jobs = schema.jobs.c
    lacking = sa.select(jobs.name).where(jobs.state == JobState.SUCCEEDED.value, jobs.weights_digest == "")
    for (name,) in db.execute(lacking.order_by(jobs.id)):
        yield f'job "{name}" is SUCCEEDED and has no weights'


def _histories(db: Connection) -> Iterator[str]:
    """Each job's history is a way through the allowed transitions that ends in its state."""
    states = {
        row["name"]: row["state"] for row in db.execute(sa.select(schema.jobs.c.name, schema.jobs.c.state)).mappings()
    }
    history = schema.job_history.c
    reached: dict[str, str] = {}
    for job, state in db.execute(sa.select(history.job, history.state).order_by(history.job, history.id)):
        before = reached.get(job)
        if before is None and state != JobState.QUEUED.value:
            yield f'the history of job "{job}" begins with {state}'
        elif before is not None and JobState(state) not in TRANSITIONS[JobState(before)]:
            yield f'the history of job "{job}" goes from {before} to {state}'
        reached[job] = state
    for job, state in states.items():
        if (last := reached.get(job)) != state:
            yield f'job "{job}" is {state} and its history ends with {last or "nothing"}'
