"""Pages of rows: which rows, in which order, and the token with which the next page goes on.

A token names the last row of its page by what the rows are ordered by. So it stays valid whatever is added or removed
meanwhile, and no row comes twice. It is encrypted: keys of rows count those of all tenants.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from sqlalchemy.engine import Connection, RowMapping

from chainrule.server.errors import InvalidRequestError, echo
from chainrule.server.store import filtering, schema
from chainrule.server.store.filtering import Field, by_bytes

DEFAULT_PAGE_SIZE = 50
MAX_TOKEN_LENGTH = 400
_UNSET = -(2**63)
"""What a number or time is ordered by that is not there: it comes before all others."""


@dataclass(frozen=True)
class PageRequest:
    """A page as asked for."""

    size: int = DEFAULT_PAGE_SIZE
    token: str = ""
    """Of the page before; empty: the first page."""
    filter: str = ""
    """As in `filtering`; empty: everything."""
    order_by: str = ""
    """A field, and " desc" for the falling order; empty: the newest first."""


@dataclass(frozen=True)
class Listing:
    """How the rows of a table can be listed."""

    key: sa.Column[int]
    """Rises in the order in which rows were made, and tells those apart that are to be listed."""
    fields: Mapping[str, Field] = field(default_factory=dict)
    """What a filter can name."""
    orders: Mapping[str, sa.Column[Any]] = field(default_factory=dict)
    """What rows can be ordered by, besides their key."""


def page(
    db: Connection, query: sa.Select[Any], listing: Listing, asked: PageRequest, *, scope: str = ""
) -> tuple[Sequence[RowMapping], str]:
    """A page of the rows of a query, which has all columns of the listing's table, and the token of the next page.

    Args:
        scope: what the query depends on besides, if a token is to be good for the same only: the parent's name, say.

    Raises InvalidRequestError naming `filter`, `order_by` or `page_token`.
    """
    order = _Order.parse(asked.order_by, listing)
    digest = hashlib.sha256(
        json.dumps([listing.key.table.name, scope, asked.filter, asked.order_by]).encode()
    ).hexdigest()[:16]
    if listing.fields:
        query = query.where(filtering.parse(asked.filter, listing.fields))
    if asked.token:
        query = query.where(order.after(_last_row(db, asked.token, digest)))
    rows = db.execute(query.order_by(*order.columns()).limit(asked.size + 1)).mappings().all()
    if len(rows) <= asked.size:
        return rows, ""
    rows = rows[: asked.size]
    return rows, _token(db, [digest, *order.place(rows[-1])])


# --- order -----------------------------------------------------------------------------------------------------

_ORDER_BY = re.compile(r"\s*(\w+)(?:\s+(asc|desc))?\s*", re.ASCII)


@dataclass(frozen=True)
class _Order:
    """By a column and, where that has equals, by the key; both rise, or both fall."""

    key: sa.Column[int]
    column: sa.Column[Any] | None
    """None: the key alone."""
    falling: bool

    @classmethod
    def parse(cls, text: str, listing: Listing) -> _Order:
        if not text.strip():
            return cls(listing.key, None, falling=True)
        found = _ORDER_BY.fullmatch(text)
        if found is None or found[1] not in listing.orders:
            known = ", ".join(listing.orders)
            raise InvalidRequestError.of(
                "order_by", f'is {echo(text)}; use one of {known}, and " desc" after it for the falling order'
            )
        column = listing.orders[found[1]]
        return cls(listing.key, None if column is listing.key else column, falling=found[2] == "desc")

    def columns(self) -> list[sa.ColumnElement[Any]]:
        """What the rows are ordered by."""
        parts: list[sa.ColumnElement[Any]] = [*self._value(), self.key]
        return [part.desc() if self.falling else part.asc() for part in parts]

    def place(self, row: RowMapping) -> list[object]:
        """Where a row is in the order."""
        if self.column is None:
            return [row[self.key.name]]
        value = row[self.column.name]
        return [_UNSET if value is None else value, row[self.key.name]]

    def after(self, place: Sequence[Any]) -> sa.ColumnElement[bool]:
        """The rows behind a place."""
        parts: list[sa.ColumnElement[Any]] = [*self._value(), self.key]
        *values, last = [sa.literal(value, sa.BigInteger if isinstance(value, int) else sa.String) for value in place]
        behind = self.key < last if self.falling else self.key > last
        for part, value in zip(parts, values, strict=False):
            beyond = part < value if self.falling else part > value
            behind = sa.or_(beyond, sa.and_(part == value, behind))
        return behind

    def _value(self) -> list[sa.ColumnElement[Any]]:
        if self.column is None:
            return []
        if self.column.type.python_type is str:
            return [by_bytes(self.column)]
        return [sa.func.coalesce(self.column, _UNSET) if self.column.nullable else self.column]


# --- tokens ----------------------------------------------------------------------------------------------------


def _cipher(db: Connection) -> AESSIV:
    """What tokens of this store are encrypted with, and cannot be made without. The same place is the same token."""
    identity = db.execute(sa.select(schema.identity.c.id)).scalar_one()
    return AESSIV(hashlib.sha512(f"page tokens of {identity}".encode()).digest())


def _token(db: Connection, content: Sequence[object]) -> str:
    sealed = _cipher(db).encrypt(json.dumps(content, separators=(",", ":")).encode(), None)
    return base64.urlsafe_b64encode(sealed).decode().rstrip("=")


def _last_row(db: Connection, token: str, digest: str) -> Sequence[Any]:
    """The place of the last row of the page before. Raises InvalidRequestError if the token is none, or of another
    list."""
    try:
        if len(token) > MAX_TOKEN_LENGTH:
            raise ValueError("it is too long")
        sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars="-_", validate=True)
        content: list[Any] = json.loads(_cipher(db).decrypt(sealed, None))
    except (ValueError, InvalidTag) as error:
        raise _no_token(token) from error
    found, *place = content
    if found != digest:
        raise InvalidRequestError.of(
            "page_token",
            f"{echo(token)} is of a list with another filter or order_by; send those that the page before was asked "
            "with, or leave the token empty for the first page",
        )
    return place


def _no_token(token: str) -> InvalidRequestError:
    return InvalidRequestError.of(
        "page_token",
        f"{echo(token)} is no token; use next_page_token of the page before, or leave it empty for the first page",
    )
