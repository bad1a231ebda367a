"""Requests as they arrive: bytes made into messages, or found to be none that the service can take."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from chainrule.server.errors import InvalidRequestError
from chainrule.server.rpc.wrapping import Continuation, Handler, wrapped

Context = TypeVar("Context")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Unacceptable:
    """Stands for a request, or for one of a stream, until the call is answered: what is raised while gRPC decodes it
    counts as a failure of the service."""

    error: InvalidRequestError
    """What is wrong with it."""


class RequestInterceptor(grpc.aio.ServerInterceptor):
    """Hands requests to the API's methods that are messages of their type, and raises InvalidRequestError for others.
    To stand behind the interceptor that answers errors; one in between may see an Unacceptable."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith("/chainrule."):
            return handler
        check = all_checked if handler.request_streaming else checked
        return wrapped(handler, answer=check, stream=check, decode=decoder)


def decoder(decode: Callable[[bytes], Message]) -> Callable[[bytes], Message | Unacceptable]:
    """Makes messages of bytes; of those that are none of this type, and of text that holds the character NUL, which
    not every database takes, an Unacceptable."""

    def decoded(content: bytes) -> Message | Unacceptable:
        try:
            message = decode(content)
        except DecodeError as error:
            return _unacceptable(
                "request", f"its bytes cannot be read ({error}); send a message of this method's type, as protobuf"
            )
        if b"\0" in content and (field := next(_places_of_nul(message, ""), None)) is not None:
            return _unacceptable(field, "holds the character NUL; leave it out")
        return message

    return decoded


def checked(handler: Callable[[Any, Context], Answer]) -> Callable[[Any, Context], Answer]:
    """The handler, which then gets a message only. It raises the InvalidRequestError of what is none."""

    def handle(request: Any, context: Context) -> Answer:
        return handler(_accepted(request), context)

    return handle


def all_checked(handler: Callable[[Any, Context], Answer]) -> Callable[[Any, Context], Answer]:
    """The handler of a stream of requests, which then gets messages only."""

    def handle(requests: AsyncIterator[Any], context: Context) -> Answer:
        return handler((_accepted(request) async for request in requests), context)

    return handle


def _accepted(request: Message | Unacceptable) -> Message:
    if isinstance(request, Unacceptable):
        raise request.error
    return request


def _unacceptable(field: str, description: str) -> Unacceptable:
    return Unacceptable(InvalidRequestError.of(field, description))


def _places_of_nul(message: Message, prefix: str) -> Iterator[str]:
    """Paths of the fields whose text holds NUL."""
    for field in _with_text(message.DESCRIPTOR):
        path = prefix + field.name
        value = getattr(message, field.name)
        if not field.is_repeated:
            if field.message_type is None or message.HasField(field.name):
                yield from _within(value, path)
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key in value:
                yield from _within(key, path)
                yield from _within(value[key], path)
        else:
            for index, part in enumerate(value):
                yield from _within(part, f"{path}[{index}]")


def _within(value: object, path: str) -> Iterator[str]:
    if isinstance(value, Message):
        yield from _places_of_nul(value, f"{path}.")
    elif isinstance(value, str) and "\0" in value:
        yield path


@cache
def _with_text(descriptor: Descriptor) -> tuple[FieldDescriptor, ...]:
    """The fields that may hold text, themselves or within. Bytes are not looked at: that would copy them."""
    kinds = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE)
    return tuple(field for field in descriptor.fields if field.type in kinds)
