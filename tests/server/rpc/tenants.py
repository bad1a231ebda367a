"""Servicers behind a real channel, called as some tenant, and errors as clients get them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import grpc
import pytest
from google.protobuf.message import Message
from grpc_status import rpc_status

from chainrule.server.rpc import caller
from chainrule.server.rpc.caller import Caller
from chainrule.server.rpc.status import ErrorInterceptor

M = TypeVar("M", bound=Message)


class AsTenant(grpc.aio.ServerInterceptor):
    """Every call is that of `tenant`."""

    def __init__(self) -> None:
        self.tenant = "default"

    async def intercept_service(self, continuation: Callable[..., Any], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        inner = handler.unary_unary

        async def called(request: Any, context: Any) -> Any:
            token = caller._current.set(Caller(tenant=self.tenant))
            try:
                return await inner(request, context)
            finally:
                caller._current.reset(token)

        return grpc.unary_unary_rpc_method_handler(
            called,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


@asynccontextmanager
async def channel_to(add: Callable[[grpc.aio.Server], None], *, as_tenant: AsTenant) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server to which `add` has added servicers."""
    server = grpc.aio.server(interceptors=[ErrorInterceptor(), as_tenant])
    add(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


def detail(caught: pytest.ExceptionInfo[grpc.aio.AioRpcError], kind: type[M]) -> M:
    """The detail of a kind that an error has."""
    status = rpc_status.from_call(cast(grpc.Call, caught.value))
    assert status is not None
    [packed] = [packed for packed in status.details if packed.Is(kind.DESCRIPTOR)]
    message = kind()
    packed.Unpack(message)
    return message
