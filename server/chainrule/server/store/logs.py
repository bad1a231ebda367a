"""What the processes of jobs have logged."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from chainrule.server.errors import NotFoundError
from chainrule.server.records import LogRecord
from chainrule.server.store import rows, schema
from chainrule.server.store.database import Database, find, get
from chainrule.server.training.logs import LogEntry

MAX_LOGS = 10_000
"""Most entries that are kept of a job: the latest."""
_MAX_SOURCE_CHARS = 40
_MAX_NODE_CHARS = 64


class LogTables(Database):
    """The logs of jobs."""

    def add_logs(self, name: str, entries: Sequence[LogEntry]) -> None:
        """Store what was logged about a job during its present attempt, and forget the oldest of what is too much. What
        is logged about a job that there is not is left out."""
        table = schema.job_logs
        of_job = table.c.job == name
        with self._write() as db:
            job = find(db, schema.jobs, name)
            if job is None or not entries:
                return
            last = db.execute(sa.select(sa.func.max(table.c.sequence)).where(of_job)).scalar() or 0
            new = [
                {
                    "job": name,
                    "sequence": sequence,
                    "time_us": entry.time_us,
                    "severity": entry.severity,
                    "source": entry.source[:_MAX_SOURCE_CHARS],
                    "node": entry.node[:_MAX_NODE_CHARS],
                    "attempt": job["attempt"],
                    "message": entry.message,
                }
                for sequence, entry in enumerate(entries, last + 1)
            ]
            db.execute(table.insert(), new)
            db.execute(table.delete().where(of_job, table.c.sequence <= last + len(new) - MAX_LOGS))

    def logs(
        self, name: str, *, tenant: str, after_sequence: int, limit: int, min_severity: int = 0, source: str = ""
    ) -> list[LogRecord]:
        """Entries after `after_sequence`, in order: those of at least a severity, as the numbers of `logging`, and of a
        source, if one is given. Raises NotFoundError if the tenant has no such job."""
        table = schema.job_logs
        query = sa.select(table).where(
            table.c.job == name, table.c.sequence > after_sequence, table.c.severity >= min_severity
        )
        if source:
            query = query.where(table.c.source == source)
        with self._read() as db:
            _check_owner(db, name, tenant)
            found = db.execute(query.order_by(table.c.sequence).limit(limit)).mappings().all()
        return [rows.log(row) for row in found]


def _check_owner(db: Connection, name: str, tenant: str) -> None:
    if get(db, schema.jobs, name)["tenant"] != tenant:
        raise NotFoundError(f'there is no job "{name}"; list what there is with: chainrule jobs ls', name=name)
