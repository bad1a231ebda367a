"""Who may call the server: its tokens, and the record of what was asked of it."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from chainrule.client.channel import Connection
from chainrule.client.credentials import digest_of, draw_secret
from chainrule.client.errors import InvalidInputError
from chainrule.client.wire import moment, page_size, pages, put, resource_name, texts
from chainrule.v1 import access_pb2, access_pb2_grpc


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


class Access:
    """The tokens of a server, and its audit log; for a token of scope "admin"."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = access_pb2_grpc.AccessServiceStub(connection.channel)

    def create(
        self,
        token: str,
        *,
        scopes: Sequence[str],
        tenant: str = "default",
        expire_time: datetime | None = None,
        description: str = "",
        secret: str | None = None,
    ) -> NewToken:
        """Make a token. Its secret is drawn here, and the server is told its digest only.

        Args:
            token: its name, or the last part of it.
            scopes: what it allows: "read", "submit", "admin", each including those before it.
            tenant: whose models, datasets, jobs and blobs it opens.
            expire_time: until when it is good, with a time zone; None: for ever.
            description: what it is for.
            secret: of at least 256 random bits; by default one is drawn.

        Raises:
            InvalidInputError: expire_time has no time zone, or a value has the wrong type.
            AlreadyExists: there is a token of this name.
        """
        if expire_time is not None and expire_time.tzinfo is None:
            raise InvalidInputError(
                f"expire_time is {expire_time}, without a time zone; give one, as datetime.now(UTC)"
            )
        secret = secret or draw_secret()
        wanted = access_pb2.Token(scopes=texts("scopes", scopes), secret_digest=digest_of(secret))
        put(wanted, "tenant", tenant, allowed="a text")
        put(wanted, "description", description, allowed="a text")
        if expire_time is not None:
            wanted.expire_time.FromDatetime(expire_time.astimezone(UTC).replace(tzinfo=None))
        request = access_pb2.CreateTokenRequest(token=wanted, request_id=str(uuid.uuid4()))
        put(request, "token_id", token.removeprefix("tokens/"), allowed="a text")
        made = token_from_message(self._connection.call(self._stub.CreateToken, request))
        return NewToken(**{name: getattr(made, name) for name in Token.__slots__}, secret=secret)

    def get(self, token: str) -> Token:
        """The token of a name, or of the last part of it. Raises NotFound."""
        request = access_pb2.GetTokenRequest(name=resource_name("tokens", token))
        return token_from_message(self._connection.call(self._stub.GetToken, request))

    def list(self, *, limit: int | None = None) -> tuple[Token, ...]:
        """Tokens, newest first, also those that were revoked; at most `limit`."""

        def read_page(after: str) -> access_pb2.ListTokensResponse:
            request = access_pb2.ListTokensRequest(page_size=page_size(limit), page_token=after)
            return self._connection.call(self._stub.ListTokens, request)

        taken: list[Token] = []
        for page in pages(read_page):
            taken += map(token_from_message, page.tokens)
            if limit is not None and len(taken) >= limit:
                break
        return tuple(taken[:limit])

    def revoke(self, token: str) -> Token:
        """Make a token good for nothing, from now on; of one that was revoked, say so again. Raises NotFound."""
        request = access_pb2.RevokeTokenRequest(name=resource_name("tokens", token))
        return token_from_message(self._connection.call(self._stub.RevokeToken, request))

    def audit(self, *, limit: int | None = 100) -> tuple[AuditEntry, ...]:
        """What changed something, and what was refused, newest first; at most `limit`, None for all."""

        def read_page(after: str) -> access_pb2.ListAuditEntriesResponse:
            request = access_pb2.ListAuditEntriesRequest(page_size=page_size(limit), page_token=after)
            return self._connection.call(self._stub.ListAuditEntries, request)

        taken: list[AuditEntry] = []
        for page in pages(read_page):
            taken += map(entry_from_message, page.audit_entries)
            if limit is not None and len(taken) >= limit:
                break
        return tuple(taken[:limit])


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
