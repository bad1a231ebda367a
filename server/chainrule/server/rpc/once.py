"""Methods are wrapped by the interceptors when they are first called, not at every call."""

from __future__ import annotations

import grpc

from chainrule.server.rpc.wrapping import Continuation, Handler


class OnceInterceptor(grpc.aio.ServerInterceptor):
    """Keeps what the interceptors behind it make of a method. To stand in front of all others, which may look at a
    call's context but not at `handler_call_details`, but for the method: that is the first call's."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        method = handler_call_details.method
        handler = self._handlers.get(method)
        if handler is None:
            handler = await continuation(handler_call_details)
            if handler is not None:  # names that are none are not kept: there is no end of them
                self._handlers[method] = handler
        return handler
