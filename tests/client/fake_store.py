"""How the fake server keeps, changes and removes things, and the errors it answers with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from chainrule.v1 import dataset_pb2, job_pb2, model_pb2

T = TypeVar("T")
Thing = TypeVar("Thing", model_pb2.Model, model_pb2.ModelVersion, dataset_pb2.Dataset, job_pb2.Job)
Updated = TypeVar("Updated", model_pb2.Model, dataset_pb2.Dataset, job_pb2.Job)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An answer that is an error."""

    code: grpc.StatusCode
    message: str = ""
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: Mapping[str, str] = field(default_factory=dict)
    retry_after_s: int | None = None
    resource: tuple[str, str] | None = None  # its type and name

    def end(self, context: grpc.ServicerContext) -> None:
        """End the call with it."""
        details: list[Message] = []
        if self.reason:
            details.append(ErrorInfo(reason=self.reason, domain="chainrule", metadata=self.metadata))
        if self.violations:
            fields = [BadRequest.FieldViolation(field=f, description=d) for f, d in self.violations.items()]
            details.append(BadRequest(field_violations=fields))
        if self.retry_after_s is not None:
            details.append(RetryInfo(retry_delay=Duration(seconds=self.retry_after_s)))
        if self.resource is not None:
            details.append(ResourceInfo(resource_type=self.resource[0], resource_name=self.resource[1]))
        if not details:
            context.abort(self.code, self.message)
        packed = [AnyMessage() for _ in details]
        for box, detail in zip(packed, details, strict=True):
            box.Pack(detail)
        status = Status(code=self.code.value[0], message=self.message, details=packed)
        context.abort_with_status(rpc_status.to_status(status))


BREAK = Failure(code=grpc.StatusCode.UNAVAILABLE, message="connection lost")


def find(things: Mapping[str, Thing], name: str, context: grpc.ServicerContext) -> Thing:
    """The thing of a name, or NOT_FOUND."""
    if name not in things:
        Failure(code=grpc.StatusCode.NOT_FOUND, message=f"there is no {name}").end(context)
    return things[name]


def _check_etag(thing: Message, etag: str, context: grpc.ServicerContext) -> None:
    current = getattr(thing, "etag", "")
    if etag and etag != current:
        Failure(code=grpc.StatusCode.ABORTED, message=f'its etag is "{current}", not "{etag}"').end(context)


def update(things: dict[str, Updated], sent: Updated, mask: FieldMask, context: grpc.ServicerContext) -> Updated:
    """Change what the mask names, unless the etag is another one."""
    thing = find(things, sent.name, context)
    _check_etag(thing, sent.etag, context)
    for path in mask.paths:
        thing.ClearField(path)  # type: ignore[arg-type]
    mask.MergeMessage(sent, thing, replace_repeated_field=True)
    thing.etag = str(int(thing.etag or 0) + 1)
    return thing


def delete(things: dict[str, Thing], request: Any, context: grpc.ServicerContext) -> Empty:
    """Remove a thing, unless the etag is another one."""
    if request.name in things or not request.allow_missing:
        _check_etag(find(things, request.name, context), getattr(request, "etag", ""), context)
        del things[request.name]
    return Empty()


def page(things: list[T], token: str) -> tuple[list[T], str]:
    """Two things a page; the token is the index of the next page's first."""
    start = int(token or 0)
    return things[start : start + 2], str(start + 2) if start + 2 < len(things) else ""
