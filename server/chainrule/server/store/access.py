"""Tokens and the audit log in the store."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import RowMapping

from chainrule.server.callers import AuditEntry, Token
from chainrule.server.errors import AlreadyExistsError
from chainrule.server.store import listings, requests, rows, schema
from chainrule.server.store.database import Database, find, get
from chainrule.server.store.paging import PageRequest, page
from chainrule.server.store.requests import NO_REQUEST, Request

_CONTENT = ("tenant", "scopes", "description", "expire_time_us", "secret_digest")
"""What is the same in two tokens that are the same."""


class AccessTables(Database):
    """Who may call, and what was asked."""

    # --- tokens ------------------------------------------------------------------------------------------------

    def create_token(
        self,
        token: Token,
        secret_digest: str,
        *,
        tenant: str,
        request: Request = NO_REQUEST,
        validate_only: bool = False,
    ) -> Token:
        """Store a token, or return the one of that name, or of that request, if it is the same. With `validate_only`
        nothing is stored.

        Args:
            tenant: who asks, whose request id it is.

        Raises AlreadyExistsError if name, request id or secret stand for something else, or for a token that was
        revoked; NotFoundError if what the request has made was removed.
        """
        with self._read() if validate_only else self._write() as db:
            known = requests.made(db, schema.tokens, request, tenant=tenant, is_tenants=False)
            known = known or find(db, schema.tokens, token.name)
            if known is not None:
                expire_time_us = _us(token.expire_time)
                wanted = (token.tenant, list(token.scopes), token.description, expire_time_us, secret_digest)
                if tuple(known[column] for column in _CONTENT) != wanted:
                    raise AlreadyExistsError(
                        f'there is already a token "{token.name}", with other content; tokens do not change: choose '
                        "another token_id",
                        name=token.name,
                    )
                if known["revoke_time_us"] is not None:
                    raise AlreadyExistsError(
                        f'the token "{token.name}" was revoked; choose another token_id, and draw a new secret',
                        name=token.name,
                    )
                return _token(known)
            same = sa.select(schema.tokens.c.name).where(schema.tokens.c.secret_digest == secret_digest)
            if db.execute(same).first() is not None:
                raise AlreadyExistsError("another token has this secret; draw a new one for each token")
            if validate_only:
                return token
            now = self._now_us()
            db.execute(
                schema.tokens.insert().values(
                    name=token.name,
                    tenant=token.tenant,
                    scopes=list(token.scopes),
                    secret_digest=secret_digest,
                    description=token.description,
                    create_time_us=now,
                    expire_time_us=_us(token.expire_time),
                )
            )
            requests.record(db, request, token.name, tenant=tenant, now_us=now)
            return _token(get(db, schema.tokens, token.name))

    def get_token(self, name: str) -> Token:
        """Raises NotFoundError."""
        with self._read() as db:
            return _token(get(db, schema.tokens, name))

    def list_tokens(self, asked: PageRequest) -> tuple[list[Token], str]:
        """A page, newest first, and the token of the next page."""
        with self._read() as db:
            found, after = page(db, sa.select(schema.tokens), listings.TOKENS, asked)
            return [_token(row) for row in found], after

    def revoke_token(self, name: str) -> Token:
        """Make a token good for nothing; it stays in the list. Raises NotFoundError."""
        table = schema.tokens
        with self._write() as db:
            unrevoked = table.update().where(table.c.name == name, table.c.revoke_time_us.is_(None))
            db.execute(unrevoked.values(revoke_time_us=self._now_us()))
            return _token(get(db, table, name))

    def tokens_by_digest(self) -> dict[str, Token]:
        """All tokens that were not revoked, by the digest of their secret."""
        with self._read() as db:
            query = sa.select(schema.tokens).where(schema.tokens.c.revoke_time_us.is_(None))
            return {row["secret_digest"]: _token(row) for row in db.execute(query).mappings()}

    def drop_tokens(self, *, older_than_s: float) -> list[str]:
        """Forget the tokens that were revoked, or expired, longer ago; returns their names."""
        table = schema.tokens
        with self._write() as db:
            before = self._now_us() - round(older_than_s * 1e6)
            gone = sa.or_(table.c.revoke_time_us < before, table.c.expire_time_us < before)
            names = [name for (name,) in db.execute(sa.select(table.c.name).where(gone))]
            db.execute(table.delete().where(table.c.name.in_(names)))
            return names

    def drop_requests(self, *, older_than_s: float) -> int:
        """Forget which requests have made what, of older ones; returns how many those were."""
        table = schema.requests
        with self._write() as db:
            before = self._now_us() - round(older_than_s * 1e6)
            return db.execute(table.delete().where(table.c.time_us < before)).rowcount

    # --- the audit log -----------------------------------------------------------------------------------------

    def add_audit_entry(self, entry: AuditEntry) -> None:
        """Add to the audit log."""
        with self._write() as db:
            db.execute(
                schema.audit.insert().values(
                    time_us=self._now_us(),
                    token=entry.token,
                    tenant=entry.tenant,
                    peer=entry.peer,
                    method=entry.method,
                    resource=entry.resource,
                    code=entry.code,
                )
            )

    def list_audit_entries(self, asked: PageRequest) -> tuple[list[AuditEntry], str]:
        """A page, newest first, and the token of the next page."""
        with self._read() as db:
            found, after = page(db, sa.select(schema.audit), listings.AUDIT, asked)
            return [_audit_entry(row) for row in found], after

    def drop_audit_entries(self, *, older_than_s: float, most: int) -> int:
        """Forget what is older; returns how many entries that were.

        Args:
            most: so many of the latest are kept of calls that did something, and so many of those that did not.
        """
        table = schema.audit
        with self._write() as db:
            before = self._now_us() - round(older_than_s * 1e6)
            dropped = db.execute(table.delete().where(table.c.time_us < before)).rowcount
            first, last = db.execute(sa.select(sa.func.min(table.c.id), sa.func.max(table.c.id))).one()
            if first is None or last - first < most:
                return dropped
            for kind in (table.c.code == "OK", table.c.code != "OK"):
                beyond = sa.select(table.c.id).where(kind).order_by(table.c.id.desc()).offset(most).limit(1)
                newest = db.execute(beyond).scalar()
                if newest is not None:
                    dropped += db.execute(table.delete().where(kind, table.c.id <= newest)).rowcount
            return dropped


def _token(row: RowMapping) -> Token:
    return Token(
        name=row["name"],
        tenant=row["tenant"],
        scopes=tuple(row["scopes"]),
        description=row["description"],
        create_time=rows.time(row["create_time_us"]),
        expire_time=rows.optional_time(row["expire_time_us"]),
        revoke_time=rows.optional_time(row["revoke_time_us"]),
    )


def _audit_entry(row: RowMapping) -> AuditEntry:
    return AuditEntry(
        token=row["token"],
        tenant=row["tenant"],
        peer=row["peer"],
        method=row["method"],
        resource=row["resource"],
        code=row["code"],
        sequence=row["id"],
        time=rows.time(row["time_us"]),
    )


def _us(time: datetime | None) -> int | None:
    return None if time is None else round(time.timestamp() * 1e6)
