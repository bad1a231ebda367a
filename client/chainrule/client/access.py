"""Who may call the server: its tokens, and the record of what was asked of it."""
# Derived from aio/access.py by client/derive.py. Change that, and run `make client`.

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from chainrule.client.channel import Connection
from chainrule.client.credentials import digest_of, draw_secret
from chainrule.client.errors import InvalidInputError
from chainrule.client.paging import page_size, take
from chainrule.client.tokens import AuditEntry, NewToken, Token, entry_from_message, token_from_message
from chainrule.client.wire import put, resource_name, texts
from chainrule.v1 import access_pb2, access_pb2_grpc


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

        return take(read_page, lambda page: map(token_from_message, page.tokens), limit=limit)

    def revoke(self, token: str) -> Token:
        """Make a token good for nothing, from now on; of one that was revoked, say so again. Raises NotFound."""
        request = access_pb2.RevokeTokenRequest(name=resource_name("tokens", token))
        return token_from_message(self._connection.call(self._stub.RevokeToken, request))

    def audit(self, *, limit: int | None = 100) -> tuple[AuditEntry, ...]:
        """What changed something, and what was refused, newest first; at most `limit`, None for all."""

        def read_page(after: str) -> access_pb2.ListAuditEntriesResponse:
            request = access_pb2.ListAuditEntriesRequest(page_size=page_size(limit), page_token=after)
            return self._connection.call(self._stub.ListAuditEntries, request)

        return take(read_page, lambda page: map(entry_from_message, page.audit_entries), limit=limit)
