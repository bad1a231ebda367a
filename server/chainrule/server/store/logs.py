"""What the processes of jobs have logged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from chainrule.server.records import LogRecord
from chainrule.server.store import rows, schema
from chainrule.server.store.database import Database, find, get
from chainrule.server.training.logs import LogEntry

MAX_LOGS = 10_000
"""Most entries that are kept of a job: the latest."""
MAX_PAGE_BYTES = 4 * 1024**2 - 1024
"""Most bytes of entries that are read at a time, though one is always: clients of gRPC take messages of 4 MiB unless
they are told otherwise."""
_MAX_SOURCE_CHARS = 40
_MAX_NODE_CHARS = 64
_ENTRY_BYTES = 64
"""Most bytes of an entry on the wire beside its texts."""
_READ_AT_ONCE = 500


@dataclass(frozen=True)
class LogPage:
    """What was found, from some sequence number on."""

    entries: tuple[LogRecord, ...]
    seen: int
    """The sequence number up to which all entries have been looked at, whether or not they were asked for."""
    has_more: bool
    """Whether there are others that were asked for, after the last of these."""


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
    ) -> LogPage:
        """Entries after `after_sequence`, in order: those of at least a severity, as the numbers of `logging`, and of a
        source, if one is given; at most `limit`, and MAX_PAGE_BYTES. Raises NotFoundError if the
        tenant has no such job."""
        table = schema.job_logs
        query = sa.select(table).where(table.c.job == name, table.c.severity >= min_severity)
        if source:
            query = query.where(table.c.source == source)
        found: list[LogRecord] = []
        seen, size = after_sequence, 0
        with self._read() as db:
            get(db, schema.jobs, name, tenant=tenant)
            last = db.execute(sa.select(sa.func.max(table.c.sequence)).where(table.c.job == name)).scalar() or 0
            while seen < last:
                wanted = min(_READ_AT_ONCE, limit + 1 - len(found))
                some = query.where(table.c.sequence > seen).order_by(table.c.sequence).limit(wanted)
                for row in (read := db.execute(some).mappings().all()):
                    size += _ENTRY_BYTES + sum(len(row[text].encode()) for text in ("message", "source", "node"))
                    if found and (len(found) == limit or size > MAX_PAGE_BYTES):
                        return LogPage(tuple(found), seen, has_more=True)
                    found.append(rows.log(row))
                    seen = row["sequence"]
                if len(read) < wanted:
                    seen = last
        return LogPage(tuple(found), seen, has_more=False)
