"""Which blobs a tenant may read: those it has uploaded, and those that something of its own refers to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from chainrule.server.store import schema
from chainrule.server.store.database import Database

_AT_A_TIME = 1000
"""Digests in a query."""


class GrantTables(Database):
    """Tenants and blobs."""

    def readable_blobs(self, tenant: str, digests: Iterable[str]) -> set[str]:
        """Those of some blobs that a tenant may read."""
        wanted = list(digests)
        with self._read() as db:
            return {
                digest
                for start in range(0, len(wanted), _AT_A_TIME)
                for column, query in _held_by(tenant)
                for (digest,) in db.execute(query.where(column.in_(wanted[start : start + _AT_A_TIME])))
            }

    def blobs_of(self, tenant: str) -> set[str]:
        """All blobs that a tenant may read."""
        with self._read() as db:
            return {digest for column, query in _held_by(tenant) for (digest,) in db.execute(query) if digest}

    def grant_blob(self, tenant: str, digest: str) -> None:
        """Remember that a tenant has uploaded a blob, now."""
        table = schema.blob_grants
        same = (table.c.tenant == tenant, table.c.digest == digest)
        with self._write() as db:
            now = self._now_us()
            if not db.execute(table.update().where(*same).values(time_us=now)).rowcount:
                db.execute(table.insert().values(tenant=tenant, digest=digest, time_us=now))

    def renew_grants(self, tenant: str, digests: Iterable[str]) -> None:
        """Have the grants that a tenant has of some blobs count from now on: it is about to refer to them."""
        table = schema.blob_grants
        wanted = list(digests)
        with self._write() as db:
            for start in range(0, len(wanted), _AT_A_TIME):
                same = (table.c.tenant == tenant, table.c.digest.in_(wanted[start : start + _AT_A_TIME]))
                db.execute(table.update().where(*same).values(time_us=self._now_us()))

    def drop_grants(self, *, older_than_s: float) -> int:
        """Forget older grants; returns how many those were. They go whether or not the blob is still stored: that may
        be because another tenant has it. What a tenant's own rows refer to, it reads without a grant."""
        table = schema.blob_grants
        with self._write() as db:
            before = self._now_us() - round(older_than_s * 1e6)
            return db.execute(table.delete().where(table.c.time_us < before)).rowcount


def _held_by(tenant: str) -> Sequence[tuple[sa.Column[Any], sa.Select[Any]]]:
    """For each way of holding a blob, the column of its digest, and the query for all of the tenant's."""
    jobs, checkpoints = schema.jobs, schema.checkpoints
    own = [
        (table.c[column], sa.select(table.c[column]).where(table.c.tenant == tenant))
        for table, column in (
            (schema.blob_grants, "digest"),
            (schema.model_versions, "weights_digest"),
            (schema.models, "graph_digest"),
            (schema.models, "code_digest"),
            (schema.datasets, "digest"),
            (schema.dataset_chunks, "digest"),
            (jobs, "weights_digest"),
        )
    ]
    of_jobs = sa.join(checkpoints, jobs, checkpoints.c.job == jobs.c.name)
    taken = [
        (column, sa.select(column).select_from(of_jobs).where(jobs.c.tenant == tenant))
        for column in (checkpoints.c.state_digest, checkpoints.c.manifest_digest)
    ]
    return [*own, *taken]
