"""Request ids: what makes a call that is repeated, also while the first one is still running, have one effect."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from chainrule.server.errors import AlreadyExistsError, InvalidRequestError, NotFoundError, echo
from chainrule.server.store import schema
from chainrule.server.store.database import find

MAX_REQUEST_ID_LENGTH = 128


@dataclass(frozen=True)
class Request:
    """A call that makes something."""

    id: str = ""
    """Chosen by the client; empty: none."""
    payload_digest: str = ""
    """Digest of what was asked for: tells a repeated call from another one."""

    @classmethod
    def of(cls, request_id: str, **payload: object) -> Self:
        """A request for this payload, of values that JSON has. Raises InvalidRequestError if the id can be none."""
        if len(request_id) > MAX_REQUEST_ID_LENGTH:
            raise InvalidRequestError.of(
                "request_id", f"it has {len(request_id):,} characters; use at most {MAX_REQUEST_ID_LENGTH}"
            )
        if "\0" in request_id:
            raise InvalidRequestError.of("request_id", f"is {echo(request_id)}; leave out the NUL")
        return cls(request_id, payload_digest(payload))


NO_REQUEST = Request()


def payload_digest(payload: dict[str, Any]) -> str:
    """Digest of what is asked for. What is empty is left out: a field that comes with a later version does not change
    the digest of a call that does not set it."""
    given = {key: value for key, value in payload.items() if value}
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()


KEPT_S = 7 * 24 * 3600.0
"""For how long a request is known again."""


def made(
    db: Connection, table: sa.Table, request: Request, *, tenant: str, is_tenants: bool = True
) -> RowMapping | None:
    """What a request has made before, in a table of resources, as it is now; None if it is new. To be asked within the
    transaction that makes it.

    Args:
        tenant: who asks, whose request id it is.
        is_tenants: whether the resource is theirs, too.

    Raises AlreadyExistsError if the id stands for another payload, or NotFoundError if what it has made was removed.
    """
    if not request.id:
        return None
    known = schema.requests
    query = sa.select(known).where(known.c.tenant == tenant, known.c.request_id == request.id)
    row = db.execute(query).mappings().first()
    if row is None:
        return None
    name = row["resource"]
    if row["payload_digest"] != request.payload_digest:
        raise AlreadyExistsError(
            f'request_id "{request.id}" has already made "{name}" from another payload; use a new request_id for '
            "another call",
            name=name,
        )
    resource = find(db, table, name, tenant=tenant if is_tenants else None)
    if resource is None or resource["create_time_us"] > row["time_us"]:  # the name may have been given anew
        raise NotFoundError(
            f'request_id "{request.id}" has made "{name}", which was removed since; use a new request_id to make it '
            "again",
            name=name,
        )
    return resource


def record(db: Connection, request: Request, name: str, *, tenant: str, now_us: int) -> None:
    """Remember what a request that is new has made, in the transaction that makes it.

    Args:
        now_us: or when the resource was made, if the clock went back since: `made` takes one that is younger than its
            request for another.
    """
    if request.id:
        db.execute(
            schema.requests.insert().values(
                tenant=tenant,
                request_id=request.id,
                payload_digest=request.payload_digest,
                resource=name,
                time_us=now_us,
            )
        )
