"""How errors look on the wire: one table from our errors to gRPC codes, and the one interceptor that applies it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from chainrule.engine import ChainruleError
from chainrule.server import errors
from chainrule.server.rpc.wrapping import Answer, Context, Continuation, Handler, Stream, wrapped

DOMAIN = "chainrule"
"""Domain of the reasons in ErrorInfo."""
RETRY_DELAY_S = 2
"""After how long to try again what is unavailable, or has no room now."""

MAX_TEXT_BYTES = 1000
"""Longest message or description; of what is longer, the middle is left out."""
MAX_METADATA_BYTES = 100
MAX_VIOLATIONS = 16
MAX_VIOLATIONS_BYTES = 2000
"""All violations together. gRPC carries a status in the trailers, the message twice and in the worst case
percent-encoded, and drops what exceeds 8 KiB in all."""

CODES: dict[type[ChainruleError], grpc.StatusCode] = {
    errors.InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.IllegalStateError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.CodeNotAllowedError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StaleEtagError: grpc.StatusCode.ABORTED,
    errors.QueueFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DamagedBlobError: grpc.StatusCode.DATA_LOSS,
    errors.DamagedChunkError: grpc.StatusCode.DATA_LOSS,
    errors.IncompleteUploadError: grpc.StatusCode.ABORTED,
    errors.WrongOffsetError: grpc.StatusCode.OUT_OF_RANGE,
    errors.PredictorUnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.PredictorLostError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.StorageFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.OutOfMemoryError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.TooManyCallsError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.ClusterUnreachableError: grpc.StatusCode.UNAVAILABLE,
    errors.StoreUnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.StoppingError: grpc.StatusCode.UNAVAILABLE,
}
"""The code of each error. One that is not here, nor a subclass of one that is, is INTERNAL: a defect."""

RESOURCE_TYPES = {
    "datasets": "chainrule.v1.Dataset",
    "jobs": "chainrule.v1.Job",
    "models": "chainrule.v1.Model",
    "models/versions": "chainrule.v1.ModelVersion",
    "tokens": "chainrule.v1.Token",
}
"""Types of resources in ResourceInfo, by the collections that their names go through."""

logger = logging.getLogger(__name__)


def code_of(error: BaseException) -> grpc.StatusCode:
    """The code of an error: its own, or that of the closest base class that has one."""
    for kind in type(error).__mro__:
        if kind in CODES:
            return CODES[kind]
    return grpc.StatusCode.INTERNAL


def status_of(error: BaseException, method: str) -> status_pb2.Status:
    """An error as a google.rpc.Status with its details. What is not one of ours is logged, and says no more to the
    client than an id to look for in the log."""
    if isinstance(error, MemoryError):
        logger.error("%s: out of memory", method, exc_info=error)
        error = errors.OutOfMemoryError(
            "the service has too little memory for this request; send less at a time, or serve from a larger machine"
        )
    code = code_of(error)
    if code is grpc.StatusCode.INTERNAL or not isinstance(error, errors.ServiceError):
        incident = secrets.token_hex(4)
        logger.error("%s: incident %s", method, incident, exc_info=error)
        message = f"the service failed (incident {incident}); its log says more"
        info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"incident": incident})
        return _status(grpc.StatusCode.INTERNAL, message, [info])
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=error.reason,
            domain=DOMAIN,
            metadata={key: _cut(value, MAX_METADATA_BYTES) for key, value in error.metadata.items()},
        )
    ]
    if isinstance(error, errors.InvalidRequestError):
        details.append(_bad_request(error.violations))
    if (resource := _resource_info(error.metadata)) is not None:
        details.append(resource)
    if code is grpc.StatusCode.UNAVAILABLE or isinstance(error, errors.QueueFullError):
        details.append(_retry_info(RETRY_DELAY_S))
    if isinstance(error, errors.TooManyCallsError):
        details.append(_retry_info(error.retry_after_s))
    return _status(code, error.message, details)


def _retry_info(delay_s: float) -> error_details_pb2.RetryInfo:
    delay = duration_pb2.Duration()
    delay.FromNanoseconds(round(delay_s * 1e9))
    return error_details_pb2.RetryInfo(retry_delay=delay)


def _resource_info(metadata: Mapping[str, str]) -> error_details_pb2.ResourceInfo | None:
    """What an error is about, if it is about something that has a name or a digest."""
    if (digest := metadata.get("digest")) is not None:
        return error_details_pb2.ResourceInfo(
            resource_type="chainrule.v1.Blob", resource_name=_cut(digest, MAX_METADATA_BYTES)
        )
    name = metadata.get("name", "")
    parts = name.split("/")
    collections = "/".join(parts[::2])
    if collections not in RESOURCE_TYPES or len(parts) % 2:
        return None
    return error_details_pb2.ResourceInfo(
        resource_type=RESOURCE_TYPES[collections], resource_name=_cut(name, MAX_METADATA_BYTES)
    )


def _bad_request(violations: Sequence[errors.Violation]) -> error_details_pb2.BadRequest:
    told = list(violations)
    if len(told) > MAX_VIOLATIONS:
        told[MAX_VIOLATIONS - 1 :] = [errors.Violation("…", f"and {len(told) - MAX_VIOLATIONS + 1} more are wrong")]
    share = min(MAX_TEXT_BYTES, MAX_VIOLATIONS_BYTES // max(len(told), 1))
    request = error_details_pb2.BadRequest()
    for violation in told:
        field = _cut(violation.field, share // 2)
        description = _cut(violation.description, share - len(field.encode()))
        request.field_violations.add(field=field, description=description)
    return request


def _cut(text: str, most_bytes: int) -> str:
    """The text, without its middle if it is longer: the beginning names the thing, the end has the remedy."""
    encoded = text.encode()
    if len(encoded) <= most_bytes:
        return text
    mark = f" … [{len(encoded):,} bytes, cut] … "
    half = (most_bytes - len(mark.encode())) // 2
    return encoded[:half].decode(errors="ignore") + mark + encoded[-half:].decode(errors="ignore")


def _status(code: grpc.StatusCode, message: str, details: list[Message]) -> status_pb2.Status:
    packed = []
    for detail in details:
        any_detail = any_pb2.Any()
        any_detail.Pack(detail)
        packed.append(any_detail)
    return status_pb2.Status(code=code_pb2.Code.Value(code.name), message=_cut(message, MAX_TEXT_BYTES), details=packed)


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Ends calls whose handler raised with the status of what it raised."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith("/chainrule."):  # health and reflection speak for themselves
            return handler
        return wrapped(
            handler,
            answer=lambda inner: _guard_unary(inner, method),
            stream=lambda inner: _guard_stream(inner, method),
        )


def _guard_unary(inner: Answer, method: str) -> Answer:
    async def guarded(request: Any, context: Context) -> Any:
        try:
            return await inner(request, context)
        except Exception as error:  # noqa: BLE001 — every error ends the call with its status
            await _abort(context, error, method)

    return guarded


def _guard_stream(inner: Stream, method: str) -> Stream:
    async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            async for response in inner(request, context):
                yield response
        except Exception as error:  # noqa: BLE001 — every error ends the call with its status
            await _abort(context, error, method)

    return guarded


async def _abort(context: Context, error: Exception, method: str) -> None:
    if isinstance(error, grpc.aio.AbortError):  # the handler has ended the call itself
        raise error
    status = rpc_status.to_status(status_of(error, method))
    sent = context.trailing_metadata() or ()  # what goes with every answer; abort would leave it out
    await context.abort(status.code, status.details, (*sent, *status.trailing_metadata))
