"""The connection to the server: the channel's options, and the three ways in which the client makes a call."""

from __future__ import annotations  # grpc's classes are generic in their stubs only

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import grpc
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor

from chainrule.client.encryption import Tls
from chainrule.client.errors import (
    Cancelled,
    ClientClosedError,
    DataLoss,
    DeadlineExceeded,
    RpcError,
    Unavailable,
    from_rpc_error,
)
from chainrule.client.retry import Patience, RetryPolicy
from chainrule.v1 import blob_pb2, cluster_pb2, cluster_pb2_grpc, dataset_pb2, job_pb2, model_pb2

Request = TypeVar("Request")
Response = TypeVar("Response")

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
SERVICE_FILES: tuple[FileDescriptor, ...] = tuple(
    module.DESCRIPTOR for module in (blob_pb2, cluster_pb2, dataset_pb2, job_pb2, model_pb2)
)
LOOPBACK_HOSTS = ("localhost:", "127.", "[::1]:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a client talks to its server."""

    call_timeout_s: float = 30.0
    """Deadline of a plain call, retries included."""
    transfer_timeout_s: float = 600.0
    """Deadline of one upload or download of a blob."""
    stream_timeout_s: float = 300.0
    """Deadline of one stream that follows a job; it is opened again until the job has ended."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    """What happens when a stream or a transfer breaks."""


def is_idempotent(method: MethodDescriptor) -> bool:
    """Whether a call may be repeated without knowing if it arrived.

    Reading is. So is creating: a model or dataset of the same name and content is the one already there, and a job
    is known by its request_id, which the client always sends. And so is asking a job for what it may be doing already.
    """
    if method.client_streaming or method.server_streaming:
        return False
    return method.name.startswith(("Get", "List", "Find", "Create", "Pause", "Resume", "Revoke", "Scale"))


def service_config() -> dict[str, object]:
    """gRPC's service config: calls that are idempotent are repeated while the server is UNAVAILABLE."""
    return {
        "methodConfig": [
            {
                "name": [
                    {"service": service.full_name, "method": method.name}
                    for file in SERVICE_FILES
                    for service in file.services_by_name.values()
                    for method in service.methods
                    if is_idempotent(method)
                ],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": [grpc.StatusCode.UNAVAILABLE.name],
                },
            }
        ]
    }


def channel_options(address: str) -> list[tuple[str, int | str]]:
    """Options of the channel to `address`; a proxy never stands between this machine and itself."""
    return [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.enable_http_proxy", 0 if address.startswith(LOOPBACK_HOSTS) else 1),
        ("grpc.service_config", json.dumps(service_config())),
    ]


class Connection:
    """Owns the channel. Every call of the client goes through here and fails with exceptions of the project.

    Args:
        address: host:port of the server.
        settings: deadlines and retries.
        tls: how to encrypt; None: not at all.
    """

    def __init__(self, address: str, settings: Settings, tls: Tls | None = None) -> None:
        self.address = address
        self.settings = settings
        self._closed = threading.Event()
        self._encrypted = tls is not None
        options = channel_options(address)
        if tls is None:
            self._channel = grpc.insecure_channel(address, options=options)
        else:
            self._channel = grpc.secure_channel(address, tls.credentials(), options=options)
        self._cluster = cluster_pb2_grpc.ClusterServiceStub(self._channel)

    @property
    def channel(self) -> grpc.Channel:
        """The channel, for making stubs."""
        return self._channel

    def close(self) -> None:
        """Close the channel; calls under way end with ClientClosedError. Closing twice is fine."""
        self._closed.set()
        self._channel.close()

    def call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        timeout_s: float | None = None,
    ) -> Response:
        """One request, one answer; within settings.call_timeout_s unless told otherwise.

        Raises:
            RpcError: of the kind that belongs to the code of the answer.
            ClientClosedError: the client is closed.
        """
        with self._translated():
            return method(request, timeout=self.settings.call_timeout_s if timeout_s is None else timeout_s)

    def send(self, method: grpc.StreamUnaryMultiCallable[Request, Response], requests: Iterable[Request]) -> Response:
        """Many requests, one answer; within settings.transfer_timeout_s.

        Raises:
            RpcError: as for `call`.
            ClientClosedError: the client is closed.
        """
        with self._translated():
            return method(iter(requests), timeout=self.settings.transfer_timeout_s)

    def patience(self) -> Patience:
        """For an operation of several calls: how long to try again."""
        return Patience(self.settings.retry, self._closed)

    def follow(
        self,
        method: grpc.UnaryStreamMultiCallable[Request, Response],
        request: Callable[[], Request],
        *,
        timeout_s: float | None = None,
        is_complete: Callable[[], bool] = lambda: True,
        is_whole: Callable[[Response], bool] = lambda _: True,
    ) -> Iterator[Response]:
        """One request, many answers, through breaks of the transport.

        A stream that breaks, or reaches settings.stream_timeout_s, is opened again with what `request` then gives:
        the place to go on from. A stream that the server ends while `is_complete()` is false counts as broken.

        Args:
            timeout_s: time for all of it; None follows for as long as the server gives signs of life.
            is_whole: whether an answer is what was sent; after one that is not, the stream counts as broken.

        Raises:
            RpcError: as for `call`; Unavailable once settings.retry.window_s has passed without the server,
                DeadlineExceeded once timeout_s has.
            ClientClosedError: the client is closed.
        """
        patience = self.patience()
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = self.settings.stream_timeout_s if end is None else end - time.monotonic()
            if left_s <= 0:
                raise DeadlineExceeded(f"the {timeout_s:g} s given for following {self.address} are over")
            try:
                broken: RpcError | None = None
                for response in self._stream(method, request(), min(left_s, self.settings.stream_timeout_s)):
                    if not is_whole(response):
                        broken = DataLoss(f"what {self.address} sent arrived damaged")
                        break
                    patience.restore()
                    yield response
                if broken is None and is_complete():
                    return
                broken = broken or Unavailable(f"the server at {self.address} ended a stream early")
            except DeadlineExceeded:
                if end is not None and time.monotonic() >= end:
                    continue
                try:  # nothing new to tell, or nobody there to tell it?
                    self.call(self._cluster.GetServerInfo, cluster_pb2.GetServerInfoRequest())
                except (DeadlineExceeded, Unavailable) as error:
                    broken = error
                else:
                    patience.restore()
                    continue
            except (Cancelled, Unavailable) as error:  # nobody here cancels: the other side cut it off
                broken = error
            patience.spend(broken, at_most_s=None if end is None else max(end - time.monotonic(), 0.0))

    def _stream(
        self, method: grpc.UnaryStreamMultiCallable[Request, Response], request: Request, timeout_s: float
    ) -> Iterator[Response]:
        with self._translated():
            stream = method(request, timeout=timeout_s)
            try:
                yield from stream
            finally:
                stream.cancel()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        if self._closed.is_set():
            raise ClientClosedError(f"the client of {self.address} is closed; open one with Client.connect()")
        try:
            yield
        except grpc.RpcError as error:
            if self._closed.is_set():
                raise ClientClosedError(f"the client of {self.address} was closed during a call") from error
            raise from_rpc_error(error, address=self.address, encrypted=self._encrypted) from error
