"""Tokens and the audit log as values."""

from dataclasses import dataclass
from datetime import datetime

from chainrule.client.wire import moment
from chainrule.v1 import access_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What lets a caller in."""

    name: str
    """Resource name, for example "tokens/ci"."""
    tenant: str
    """Whose models, datasets, jobs and blobs it opens."""
    scopes: tuple[str, ...]
    """What it allows: "read", "submit", "admin"."""
    description: str
    """What it is for."""
    create_time: datetime
    """When it was made, in UTC."""
    expire_time: datetime | None
    """Until when it is good, in UTC; None: for ever."""
    revoke_time: datetime | None
    """When it was revoked, in UTC; None: it was not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken(Token):
    """A token that was just made, with its secret."""

    secret: str
    """What a caller shows. It is nowhere else: keep it."""

    def __repr__(self) -> str:
        return f"NewToken(name={self.name!r}, tenant={self.tenant!r}, scopes={self.scopes!r}, secret=...)"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Something that was asked of the server."""

    sequence: int
    """Position in the record, from 1."""
    time: datetime
    """When, in UTC."""
    token: str
    """Resource name of the token that was shown; empty: none, or one that is not known."""
    tenant: str
    """Its tenant; empty: none."""
    peer: str
    """Address of the caller."""
    method: str
    """What was asked, for example "chainrule.v1.JobService/CreateJob"."""
    resource: str
    """What it was asked of, or what came of it; may be empty."""
    code: str
    """What became of it: the name of a gRPC code."""


# Translation from the API.


def token_from_message(message: access_pb2.Token) -> Token:
    """A token from its message."""
    return Token(
        name=message.name,
        tenant=message.tenant,
        scopes=tuple(message.scopes),
        description=message.description,
        create_time=moment(message.create_time),
        expire_time=moment(message.expire_time) if message.HasField("expire_time") else None,
        revoke_time=moment(message.revoke_time) if message.HasField("revoke_time") else None,
    )


def entry_from_message(message: access_pb2.AuditEntry) -> AuditEntry:
    """An entry of the audit log from its message."""
    return AuditEntry(
        sequence=message.sequence,
        time=moment(message.time),
        token=message.token,
        tenant=message.tenant,
        peer=message.peer,
        method=message.method,
        resource=message.resource,
        code=message.code,
    )
