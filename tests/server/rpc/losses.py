"""A network that loses a call at a chosen place: its request, its reply, or neither but twice delivered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, cast

import grpc

from chainrule.server.errors import ServiceError

Loss = Literal["request lost", "reply lost", "delivered twice"]


class Line:
    """Stands between a client and a server, and can be cut: both see their connection break."""

    def __init__(self) -> None:
        self._open: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def to(self, address: str) -> AsyncIterator[str]:
        """Where a client reaches the server of this address."""
        host, _, port = address.rpartition(":")
        over = asyncio.Event()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            if over.is_set():  # who came while the line was taken down is not carried any more
                writer.transport.abort()
                far_writer.transport.abort()
                return
            self._open |= {writer, far_writer}
            for source, target in ((reader, far_writer), (far_reader, writer)):
                task = asyncio.create_task(self._carry(source, target))
                self._carrying.add(task)
                task.add_done_callback(self._carrying.discard)

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            over.set()
            self.cut()
            await asyncio.gather(*self._carrying)

    def cut(self) -> None:
        """Break what is connected now; what was not delivered is lost."""
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(64 * 1024):
                target.write(data)
                await target.drain()
        except ConnectionError:
            pass  # it has been cut
        finally:
            target.close()


class LosingInterceptor(grpc.aio.ServerInterceptor):
    """Has the next call of one method suffer a loss. To stand behind the interceptor that answers errors.

    Args:
        line: what is cut.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._method = ""
        self._loss: Loss | None = None
        self.calls = 0
        """Calls of the method that have reached the server."""
        self.refusals: list[ServiceError] = []
        """Why some of them were refused."""

    def lose(self, method: str, loss: Loss) -> None:
        """From now on, of this method: the next call."""
        self._method, self._loss = method, loss
        self.calls, self.refusals = 0, []

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.endswith(f"/{self._method}") or not self._method:
            return handler
        inner: Any = handler.stream_unary if handler.request_streaming else handler.unary_unary

        async def losing(request: Any, context: Any) -> Any:
            self.calls += 1
            loss, self._loss = self._loss, None
            if loss == "request lost":
                self._line.cut()
                await asyncio.Event().wait()  # cancelled, as the client is gone
            times = 2 if loss == "delivered twice" else 1
            outcomes = await asyncio.gather(*(inner(request, context) for _ in range(times)), return_exceptions=True)
            answers = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
            self.refusals += [outcome for outcome in outcomes if isinstance(outcome, ServiceError)]
            if loss == "reply lost":
                self._line.cut()
            if not answers:
                raise cast(BaseException, outcomes[0])
            return answers[0]

        make = (
            grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        )
        return make(
            cast(Any, losing),
            request_deserializer=cast(Any, handler.request_deserializer),
            response_serializer=cast(Any, handler.response_serializer),
        )
