"""What goes wrong for a caller of the service, and the one table from gRPC codes to exceptions.

ChainruleError                          root of all errors of the project
├── InvalidInputError                   refused here, before anything was sent
├── ClientClosedError                   a call on a client that has been closed
├── JobFailedError                      the awaited job has FAILED
├── JobCancelledError                   the awaited job was CANCELLED
└── RpcError                            a call that the server refused or that did not get through
    ├── InvalidArgument                 .violations says which fields, and why
    │   └── OutOfRange
    ├── NotFound
    ├── AlreadyExists
    ├── FailedPrecondition
    ├── Aborted
    ├── ResourceExhausted               .retry_after_s, where the server says it
    ├── Unauthenticated
    ├── PermissionDenied
    ├── Unimplemented
    ├── DataLoss                        bytes that do not match their digest
    ├── Unavailable                     cannot reach the server: says nothing about the job
    ├── DeadlineExceeded                also raised when a wait's own time is up
    ├── Cancelled
    ├── Internal
    └── Unknown
"""
# ruff: noqa: N818 -- the classes below RpcError carry the names of the gRPC codes

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import ClassVar, TypeVar, cast

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, ResourceInfo, RetryInfo
from grpc_status import rpc_status

from chainrule.client.words import argument_of, in_own_words
from chainrule.engine import ChainruleError

Detail = TypeVar("Detail", bound=Message)


class InvalidInputError(ChainruleError, ValueError):
    """A value cannot be sent as the API wants it; nothing was sent."""


class ClientClosedError(ChainruleError):
    """The client has been closed; its channel is gone."""


class JobFailedError(ChainruleError):
    """The awaited job has FAILED.

    Attributes:
        job: resource name of the job, for example "jobs/bea3phtux7dd".
        reason: kind of failure as a constant, for example "NON_FINITE_LOSS"; may be empty.
        traceback: traceback of the worker or server; may be empty.
    """

    def __init__(self, message: str, *, job: str = "", reason: str = "", traceback: str = "") -> None:
        super().__init__(message)
        self.job = job
        self.reason = reason
        self.traceback = traceback


class JobCancelledError(ChainruleError):
    """The awaited job was CANCELLED.

    Attributes:
        job: resource name of the job, for example "jobs/bea3phtux7dd".
    """

    def __init__(self, message: str, *, job: str = "") -> None:
        super().__init__(message)
        self.job = job


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that the server refuses."""

    field: str  # name of the argument, for example "epochs" or "optimizer.lr"
    description: str
    path: str = dataclass_field(default="", compare=False)  # of the request's field, for example "job.config.epochs"

    def __str__(self) -> str:
        return f"{self.field}: {self.description}"


class RpcError(ChainruleError):
    """A call that the server refused or that did not get through.

    Attributes:
        reason: kind of error as a constant (google.rpc.ErrorInfo.reason); empty where the server gave none.
        metadata: facts that belong to the reason (google.rpc.ErrorInfo.metadata).
        violations: the refused fields (google.rpc.BadRequest).
        retry_after_s: how long the server asks to wait before another try (google.rpc.RetryInfo), or None.
        resource_type: what kind of thing the call was about (google.rpc.ResourceInfo), for example "chainrule.v1.Job";
            empty where the server does not say.
        resource_name: its name, for example "jobs/bea3phtux7dd"; likewise.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: tuple[FieldViolation, ...] = (),
        retry_after_s: float | None = None,
        resource_type: str = "",
        resource_name: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = violations
        self.retry_after_s = retry_after_s
        self.resource_type = resource_type
        self.resource_name = resource_name


class InvalidArgument(RpcError, ValueError):
    """The request is wrong whatever the state of the server."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class OutOfRange(InvalidArgument):
    """The request goes past the end, as an offset behind the last byte of a blob."""

    code = grpc.StatusCode.OUT_OF_RANGE


class NotFound(RpcError, LookupError):
    """The server has no such thing."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(RpcError):
    """The name, or the request id, is taken by something else."""

    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(RpcError):
    """The thing is not in the state that the call needs."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(RpcError):
    """The call lost against another one; it may be tried again from its beginning."""

    code = grpc.StatusCode.ABORTED


class ResourceExhausted(RpcError):
    """The server has no room for this now, or the message is larger than it takes."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unauthenticated(RpcError):
    """The server does not know who calls."""

    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(RpcError):
    """The server knows who calls and does not allow it."""

    code = grpc.StatusCode.PERMISSION_DENIED


class Unimplemented(RpcError):
    """The server does not know this call: it is older than the client, or not a chainrule server."""

    code = grpc.StatusCode.UNIMPLEMENTED


class DataLoss(RpcError):
    """Bytes do not have the digest they should have."""

    code = grpc.StatusCode.DATA_LOSS


class Unavailable(RpcError, ConnectionError):
    """The server cannot be reached, or is not ready. It says nothing about what the server is doing."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(RpcError, TimeoutError):
    """No answer came in time."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Cancelled(RpcError):
    """The call was cancelled."""

    code = grpc.StatusCode.CANCELLED


class Internal(RpcError):
    """The server has a defect."""

    code = grpc.StatusCode.INTERNAL


class Unknown(RpcError):
    """The server gave no usable code."""

    code = grpc.StatusCode.UNKNOWN


ERROR_OF_CODE: Mapping[grpc.StatusCode, type[RpcError]] = {
    error.code: error
    for error in (
        Aborted,
        AlreadyExists,
        Cancelled,
        DataLoss,
        DeadlineExceeded,
        FailedPrecondition,
        Internal,
        InvalidArgument,
        NotFound,
        OutOfRange,
        PermissionDenied,
        ResourceExhausted,
        Unauthenticated,
        Unavailable,
        Unimplemented,
        Unknown,
    )
}


def unreachable_message(address: str, details: str, *, encrypted: bool = False) -> str:
    """What to tell when no server answers at `address`: what was tried, what came of it, what to do."""
    text = (
        f"cannot reach a chainrule server at {address}: {details or 'no answer'}; "
        'start one with "chainrule serve", or name another with --address or CHAINRULE_ADDRESS'
    )
    if encrypted:  # of several addresses, gRPC says what came of any one
        text += (
            "; if one is there, either it does not encrypt, or its certificate is not of an authority in --tls-ca, or "
            "not for this host, or it asks for a certificate of yours, of its authority: --tls-cert and --tls-key"
        )
    elif any(sign in details.lower() for sign in ("handshake", "socket closed")):  # something may be there
        text += (
            "; if one is there and asks for TLS, name its authority with --tls-ca (CHAINRULE_TLS_CA), and your "
            "certificate with --tls-cert and --tls-key where it asks for one"
        )
    return text


def from_rpc_error(error: grpc.RpcError, *, address: str, encrypted: bool = False) -> RpcError:
    """The exception for what gRPC raised on a call to the server at `address`.

    The server's own errors carry google.rpc details. An UNAVAILABLE without any comes from the transport; its
    message says how to get a server. What the server says of fields and calls is told in the SDK's words. Refused
    fields that the message does not tell are notes of the exception, so that tracebacks show them.
    """
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return Unknown(f"the call to {address} failed: {error}")
    code, text, details = error.code(), error.details() or "", _details_of(error)
    if code is grpc.StatusCode.UNAVAILABLE and not details:
        text = unreachable_message(address, text, encrypted=encrypted)
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED and not details:
        text = f"no answer from the server at {address} in time: {text}"
    elif code is grpc.StatusCode.UNIMPLEMENTED and not details:
        text = (
            f"the server at {address} does not know this call: it is older than this client, or no chainrule server"
            + (f" ({text})" if text else "")
        )
    elif not text:
        text = f"the server at {address} answered {code.name} and said no more"

    info = _first(details, ErrorInfo)
    bad_request = _first(details, BadRequest)
    retry = _first(details, RetryInfo)
    resource = _first(details, ResourceInfo)
    violations = tuple(
        FieldViolation(argument_of(violation.field), violation.description, violation.field)
        for violation in (bad_request.field_violations if bad_request else ())
    )
    if details:  # the words are the server's
        text = in_own_words(text, {violation.path: violation.field for violation in violations})
    translated = ERROR_OF_CODE.get(code, Unknown)(
        text,
        reason=info.reason if info else "",
        metadata=info.metadata if info else None,
        violations=violations,
        retry_after_s=retry.retry_delay.ToTimedelta().total_seconds() if retry else None,
        resource_type=resource.resource_type if resource else "",
        resource_name=resource.resource_name if resource else "",
    )
    for violation in translated.violations:
        if str(violation) not in text:
            translated.add_note(str(violation))
    return translated


def _details_of(call: grpc.Call | grpc.aio.AioRpcError) -> Sequence[Any]:
    try:
        status = rpc_status.from_call(cast(grpc.Call, call))  # it asks for what both have
    except ValueError:  # the details contradict the status they came with: the status alone counts
        return ()
    return status.details if status else ()


def _first(details: Sequence[Any], kind: type[Detail]) -> Detail | None:
    for detail in details:
        message = kind()
        if detail.Unpack(message):
            return message
    return None
