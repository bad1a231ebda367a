"""How a client talks to its server: its settings, the channel's options, and which calls may be repeated."""

from dataclasses import dataclass, field

from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.protobuf.message import Message

from chainrule.client.credentials import is_loopback
from chainrule.client.errors import InvalidInputError
from chainrule.client.retry import RetryPolicy
from chainrule.v1 import access_pb2, blob_pb2, cluster_pb2, dataset_pb2, job_pb2, model_pb2, predict_pb2

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
SERVICE_FILES: tuple[FileDescriptor, ...] = tuple(
    module.DESCRIPTOR for module in (access_pb2, blob_pb2, cluster_pb2, dataset_pb2, job_pb2, model_pb2, predict_pb2)
)
ADDRESS_VARIABLE = "CHAINRULE_ADDRESS"
DEFAULT_ADDRESS = "localhost:50051"
MAX_PORT = 65535
CONNECT_TIMEOUT_MS = 5_000
"""How long a server may take to shake hands. gRPC calls it the least backoff; after a refusal it waits less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a client talks to its server."""

    call_timeout_s: float = 30.0
    """Deadline of a plain call; each repetition has its own."""
    transfer_timeout_s: float = 600.0
    """Deadline of one upload or download of a blob."""
    stream_timeout_s: float = 300.0
    """Deadline of one stream that follows a job; it is opened again until the job has ended."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    """What happens when the server cannot be reached or takes no calls, and when a stream or a transfer breaks."""


def is_idempotent(method: MethodDescriptor) -> bool:
    """Whether a call may be repeated without knowing if it arrived.

    Reading is. So is creating: what is made is known by its request_id, which the client always sends. And so is asking
    a job for what it may be doing already. Changing and removing are not: a repetition would be told that the etag is
    stale, or that there is no such thing.
    """
    if method.client_streaming or method.server_streaming:
        return False
    return method.name.startswith(("Get", "List", "Find", "Predict", "Create", "Pause", "Resume", "Revoke", "Scale"))


_REPEATABLE = frozenset(
    method.input_type.full_name
    for file in SERVICE_FILES
    for service in file.services_by_name.values()
    for method in service.methods
    if is_idempotent(method)
)


def is_repeatable(request: Message) -> bool:
    """Whether the call that this is the request of may be repeated without knowing if it arrived.

    What names an etag may not: where the call did arrive, the etag is stale by its own doing.
    """
    return request.DESCRIPTOR.full_name in _REPEATABLE and not getattr(request, "etag", "")


def channel_options(address: str) -> list[tuple[str, int | str]]:
    """Options of the channel to `address`; a proxy never stands between this machine and itself."""
    return [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.enable_http_proxy", 0 if is_loopback(address) else 1),
    ]


def check_address(address: str) -> None:
    """Raises InvalidInputError if an address is not host:port, with a port from 1 to 65535."""
    if "://" in address:
        raise InvalidInputError(
            f'address "{address}" has a scheme; it must be host:port alone, for example {DEFAULT_ADDRESS}'
        )
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdecimal():
        raise InvalidInputError(f'address "{address}" is not host:port, for example {DEFAULT_ADDRESS}')
    if not 1 <= int(port) <= MAX_PORT:
        raise InvalidInputError(f'address "{address}" has port {port}; it must be from 1 to {MAX_PORT}')
