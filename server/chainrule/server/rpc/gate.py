"""The interceptor that every call passes: who is it, may it, and what is written down of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar, cast

import grpc

from chainrule.server.audit import AuditLog
from chainrule.server.callers import AuditEntry
from chainrule.server.rpc.authentication import Admitted, Doorkeeper
from chainrule.server.rpc.caller import calling
from chainrule.server.rpc.scopes import CHANGING
from chainrule.server.rpc.status import code_of
from chainrule.server.rpc.wrapping import Answer, Context, Continuation, Handler, Stream, wrapped

_REFUSED = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
_IDS = (("model_id", "models"), ("dataset_id", "datasets"), ("token_id", "tokens"))
_CHANGED = ("model", "dataset", "job")
"""Fields of requests that have a resource with its name."""

Result = TypeVar("Result")


class GateInterceptor(grpc.aio.ServerInterceptor):
    """Lets in calls of the API that may be made, sets their `caller()`, and records what they change, and those that it
    refuses. It raises what it refuses them with, so it stands behind the interceptor that makes errors of that. Health
    and reflection are for everybody."""

    def __init__(self, doorkeeper: Doorkeeper, audit: AuditLog) -> None:
        self._doorkeeper = doorkeeper
        self._audit = audit

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith("/chainrule."):
            return handler
        is_stream = handler.request_streaming
        return wrapped(
            handler,
            answer=lambda inner: self._unary(inner, method, is_stream=is_stream),
            stream=lambda inner: self._stream(inner, method, is_stream=is_stream),
        )

    def _unary(self, inner: Answer, method: str, *, is_stream: bool) -> Answer:
        async def gated(request: Any, context: Context) -> Any:
            if is_stream or method not in CHANGING:
                return await answer(request, context)
            return await _to_its_end(answer(request, context))

        async def answer(request: Any, context: Context) -> Any:
            record = _Record(method, context.peer(), None if is_stream else request)
            try:
                admitted = self._admit(context, record)
                with calling(admitted.caller):
                    if is_stream:
                        async with self._uploading(admitted):
                            response = await inner(request, context)
                    else:
                        response = await inner(request, context)
            except BaseException as error:
                await self._write(record.entry(None, error))
                raise
            if (entry := record.entry(response, None)) is not None:
                await self._write(entry)
            return response

        return gated

    @asynccontextmanager
    async def _uploading(self, admitted: Admitted) -> AsyncIterator[None]:
        """Around the answer to a stream of requests, which ends with the token."""
        with self._doorkeeper.place(admitted):
            if admitted.token is None:
                yield
                return
            with self._doorkeeper.lease(admitted.token) as lease:
                async with lease.waiting():
                    yield

    def _stream(self, inner: Stream, method: str, *, is_stream: bool) -> Stream:
        async def gated(request: Any, context: Context) -> AsyncIterator[Any]:
            record = _Record(method, context.peer(), None if is_stream else request)
            try:
                admitted = self._admit(context, record)
                asked = self._in_turn(request, admitted) if is_stream else request
                with self._doorkeeper.place(admitted):
                    async for response in self._responses(inner(asked, context), admitted):
                        yield response
            except Exception as error:
                await self._write(record.entry(None, error))
                raise

        return gated

    async def _in_turn(self, requests: AsyncIterator[Any], admitted: Admitted) -> AsyncIterator[Any]:
        """Requests that are each answered count as calls, the first as the one that has opened their stream; they are
        read when they may be made."""
        is_first = True
        async for request in requests:
            if not is_first:
                await self._doorkeeper.turn(admitted)
            is_first = False
            yield request

    async def _responses(self, responses: AsyncIterator[Any], admitted: Admitted) -> AsyncIterator[Any]:
        """The answers of a method to whom it was let in for, as long as that one's token is good."""
        if admitted.token is None:
            async for response in responses:
                yield response
            return
        with self._doorkeeper.lease(admitted.token) as lease:
            while True:
                with calling(admitted.caller):
                    async with lease.waiting():
                        try:
                            response = await anext(responses)
                        except StopAsyncIteration:
                            return
                yield response

    def _admit(self, context: Context, record: _Record) -> Admitted:
        admitted = self._doorkeeper.identify(lambda: cast(Any, context.invocation_metadata()) or (), record.peer)
        record.admitted = admitted
        self._doorkeeper.check(record.method, admitted, record.peer)
        return admitted

    async def _write(self, entry: AuditEntry | None) -> None:
        if entry is not None:
            await self._audit.record(entry)


async def _to_its_end(answering: Coroutine[Any, Any, Result]) -> Result:
    """The result of what goes on also if its caller has gone: a change that is made in a thread cannot be stopped, and
    what came of it is to be recorded."""
    task = asyncio.create_task(answering)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # is recorded, and nobody else's any more
        raise


class _Record:
    """What is known of a call."""

    def __init__(self, method: str, peer: str, request: Any) -> None:
        self.method = method
        self.peer = peer
        self.admitted: Admitted | None = None
        self._request = request

    def entry(self, response: Any, error: BaseException | None) -> AuditEntry | None:
        """What the audit log says of it; None if that is nothing: it has changed nothing, and was not refused."""
        if error is None:
            code = grpc.StatusCode.OK
        else:  # what is no Exception is a cancellation
            code = code_of(error) if isinstance(error, Exception) else grpc.StatusCode.CANCELLED
        is_change = self.method in CHANGING and not getattr(self._request, "validate_only", False)
        if not is_change and code not in _REFUSED:
            return None
        caller = None if self.admitted is None else self.admitted.caller
        return AuditEntry(
            token="" if caller is None else caller.token,
            tenant="" if caller is None else caller.tenant,
            peer=_clean(self.peer, 128),
            method=self.method[1:],
            resource=_clean(_resource(self._request, response), 160),
            code=code.name,
        )


def _resource(request: Any, response: Any) -> str:
    """Resource name of what came of a call, or of what it was about."""
    for message in (response, request):
        if name := getattr(message, "name", ""):
            return str(name)
        if digest := getattr(message, "digest", ""):
            return f"blobs/{digest}"
    for field, kind in _IDS:
        if id_ := getattr(request, field, ""):
            return f"{kind}/{id_}"
    changed = (getattr(getattr(request, field, None), "name", "") for field in _CHANGED)
    return next((name for name in changed if name), "")


def _clean(text: str, most: int) -> str:
    """What a caller sent, fit for a line of a log."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:most])
