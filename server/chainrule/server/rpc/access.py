"""AccessService."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from chainrule.server import callers
from chainrule.server.access import NewToken, TokenCatalog
from chainrule.server.errors import InvalidRequestError
from chainrule.server.rpc.caller import caller
from chainrule.server.rpc.convert import timestamp
from chainrule.server.rpc.paging import page_request
from chainrule.server.rpc.wrapping import Context
from chainrule.server.store import Request
from chainrule.server.store.schema import DEFAULT_TENANT
from chainrule.v1 import access_pb2, access_pb2_grpc


class AccessServicer(access_pb2_grpc.AccessServiceServicer):
    """Translates between AccessService and the token catalog."""

    def __init__(self, tokens: TokenCatalog) -> None:
        self._tokens = tokens

    async def CreateToken(self, request: access_pb2.CreateTokenRequest, context: Context) -> access_pb2.Token:
        made = await asyncio.to_thread(
            self._tokens.create, new_token(request), tenant=caller().tenant, validate_only=request.validate_only
        )
        return token(made)

    async def GetToken(self, request: access_pb2.GetTokenRequest, context: Context) -> access_pb2.Token:
        return token(await asyncio.to_thread(self._tokens.get, request.name))

    async def ListTokens(
        self, request: access_pb2.ListTokensRequest, context: Context
    ) -> access_pb2.ListTokensResponse:
        asked = page_request(request.page_size, request.page_token)
        page, after = await asyncio.to_thread(self._tokens.page, asked)
        return access_pb2.ListTokensResponse(tokens=map(token, page), next_page_token=after)

    async def RevokeToken(self, request: access_pb2.RevokeTokenRequest, context: Context) -> access_pb2.Token:
        return token(await asyncio.to_thread(self._tokens.revoke, request.name))

    async def ListAuditEntries(
        self, request: access_pb2.ListAuditEntriesRequest, context: Context
    ) -> access_pb2.ListAuditEntriesResponse:
        asked = page_request(request.page_size, request.page_token)
        page, after = await asyncio.to_thread(self._tokens.audit_page, asked)
        return access_pb2.ListAuditEntriesResponse(audit_entries=map(audit_entry, page), next_page_token=after)


def new_token(request: access_pb2.CreateTokenRequest) -> NewToken:
    asked = request.token
    expires = _moment(asked.expire_time, field="token.expire_time") if asked.HasField("expire_time") else None
    content: dict[str, Any] = {
        "tenant": asked.tenant or DEFAULT_TENANT,
        "scopes": tuple(asked.scopes),
        "secret_digest": asked.secret_digest,
        "description": asked.description,
    }
    return NewToken(
        token_id=request.token_id,
        **content,
        expire_time=expires,
        request=Request.of(request.request_id, token_id=request.token_id, **content, expire_time=str(expires or "")),
    )


def token(record: callers.Token) -> access_pb2.Token:
    """A token without the digest of its secret."""
    return access_pb2.Token(
        name=record.name,
        tenant=record.tenant,
        scopes=record.scopes,
        description=record.description,
        create_time=timestamp(record.create_time),
        expire_time=None if record.expire_time is None else timestamp(record.expire_time),
        revoke_time=None if record.revoke_time is None else timestamp(record.revoke_time),
    )


def audit_entry(record: callers.AuditEntry) -> access_pb2.AuditEntry:
    return access_pb2.AuditEntry(
        sequence=record.sequence,
        time=None if record.time is None else timestamp(record.time),
        token=record.token,
        tenant=record.tenant,
        peer=record.peer,
        method=record.method,
        resource=record.resource,
        code=record.code,
    )


def _moment(time: Timestamp, *, field: str) -> datetime:
    try:
        return time.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequestError.of(
            field, f"is {time.seconds} s and {time.nanos} ns from 1970; use a time from year 1 to 9999"
        ) from error
