"""How an interceptor puts itself around a method, whatever of request and response is a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias, cast

import grpc

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in its stubs only
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]]
Answer = Callable[[Any, Context], Awaitable[Any]]
"""What takes a request, or the iterator of several, and gives one response."""
Stream = Callable[[Any, Context], AsyncIterator[Any]]
"""What takes the same, and gives several."""


def wrapped(
    handler: Handler,
    *,
    answer: Callable[[Answer], Answer],
    stream: Callable[[Stream], Stream],
    decode: Callable[[Any], Any] = lambda decode: decode,
) -> Handler:
    """A handler of the same kind, whose behaviour is what one of these makes of the handler's own.

    Args:
        decode: what makes messages of bytes, of what the handler does it with.
    """
    codecs = {
        "request_deserializer": decode(handler.request_deserializer),
        "response_serializer": handler.response_serializer,
    }
    if handler.response_streaming:
        if handler.request_streaming:
            several = stream(cast(Stream, handler.stream_stream))
            return grpc.stream_stream_rpc_method_handler(cast(Any, several), **codecs)
        return grpc.unary_stream_rpc_method_handler(cast(Any, stream(cast(Stream, handler.unary_stream))), **codecs)
    if handler.request_streaming:
        return grpc.stream_unary_rpc_method_handler(cast(Any, answer(cast(Answer, handler.stream_unary))), **codecs)
    return grpc.unary_unary_rpc_method_handler(cast(Any, answer(cast(Answer, handler.unary_unary))), **codecs)
