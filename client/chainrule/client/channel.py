"""The connection to the server: the three ways in which the client makes a call."""
# Derived from aio/channel.py by client/derive.py. Change that, and run `make client`.

from __future__ import annotations  # grpc's classes are generic in their stubs only

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import ParamSpec, TypeVar

import grpc
from google.protobuf.message import Message

from chainrule.client import runtime
from chainrule.client.credentials import metadata_of
from chainrule.client.encryption import Tls
from chainrule.client.errors import (
    Cancelled,
    ClientClosedError,
    DataLoss,
    DeadlineExceeded,
    ResourceExhausted,
    RpcError,
    Unavailable,
    from_rpc_error,
    unreachable_message,
)
from chainrule.client.retry import Patience, was_refused
from chainrule.client.transport import Settings, is_repeatable
from chainrule.v1 import cluster_pb2, cluster_pb2_grpc

P = ParamSpec("P")
T = TypeVar("T")
Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response")


class Connection:
    """Owns the channel. Every call of the client goes through here and fails with exceptions of the project.

    Args:
        address: host:port of the server.
        settings: deadlines and retries.
        tls: how to encrypt; None: not at all.
        token: the secret that every call shows; None: none.
    """

    def __init__(self, address: str, settings: Settings, tls: Tls | None = None, *, token: str | None = None) -> None:
        self.address = address
        self.settings = settings
        self._closed = runtime.Event()
        self._encrypted = tls is not None
        self._metadata = metadata_of(token, address, encrypted=self._encrypted)
        self._channel = runtime.open_channel(address, tls)
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
        """One request, one answer, within settings.call_timeout_s.

        A call that is refused before it began is made again, when the server says, within settings.retry.window_s. So
        is one that may be repeated (`is_repeatable`) while the server cannot be reached.

        Args:
            timeout_s: time for all of it, in place of both. A server that has never answered is not waited for then.

        Raises:
            RpcError: of the kind that belongs to the code of the answer.
            ClientClosedError: the client is closed.
        """
        patience = self.patience()
        end = None if timeout_s is None else time.monotonic() + timeout_s
        is_repeated = timeout_s is None and is_repeatable(request)
        while True:
            try:
                response = self.call_once(method, request, timeout_s=None if end is None else end - time.monotonic())
            except (ResourceExhausted, Unavailable) as error:
                if was_refused(error):
                    is_repeated = is_repeatable(request)
                elif not (is_repeated and isinstance(error, Unavailable)):
                    raise
                patience.spend(error, at_most_s=None if end is None else max(end - time.monotonic(), 0.0))
                if end is not None and time.monotonic() >= end:
                    raise
            else:
                patience.restore()
                return response

    def call_once(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        timeout_s: float | None = None,
    ) -> Response:
        """As `call`, without repeating anything; within settings.call_timeout_s, or `timeout_s`."""
        with self._translated():
            timeout_s = self.settings.call_timeout_s if timeout_s is None else timeout_s
            return method(request, timeout=timeout_s, metadata=self._metadata)

    def send(self, method: grpc.StreamUnaryMultiCallable[Request, Response], requests: Iterable[Request]) -> Response:
        """Many requests, one answer; within settings.transfer_timeout_s.

        Raises:
            RpcError: as for `call`.
            ClientClosedError: the client is closed.
            Exception: what making the requests raises; the server hears that there are no more.
        """
        failed: list[Exception] = []

        def sent() -> Iterator[Request]:
            """The requests; gRPC would tell of their error that there was one."""
            try:
                yield from requests
            except Exception as error:  # noqa: BLE001 -- raised below
                failed.append(error)

        try:
            with self._translated():
                answer = method(sent(), timeout=self.settings.transfer_timeout_s, metadata=self._metadata)
        except RpcError:
            if failed:
                raise failed[0] from None
            raise
        if failed:
            raise failed[0]
        return answer

    def exchange(
        self,
        method: grpc.StreamStreamMultiCallable[Request, Response],
        requests: Callable[[int], Iterable[Request]],
        *,
        count: int,
    ) -> Iterator[Response]:
        """Many requests that change nothing, as many answers in their order, through breaks of the transport.

        A stream that breaks, is refused, or reaches settings.stream_timeout_s with some answers, is opened again for
        the requests that are not answered.

        Args:
            requests: gives those that come after so many.
            count: how many there are.

        Raises:
            RpcError: as for `call`; Unavailable once settings.retry.window_s has passed without the server.
            ClientClosedError: the client is closed.
        """
        patience = self.patience()
        answered = 0
        while answered < count:
            before = answered
            try:
                with closing(self._exchanged(method, requests(answered))) as stream:
                    for response in stream:
                        patience.restore()
                        answered += 1
                        yield response
                broken: RpcError = Unavailable(f"the server at {self.address} ended a stream early")
            except DeadlineExceeded:
                if answered == before:
                    raise
                continue
            except (Cancelled, ResourceExhausted, Unavailable) as error:
                if isinstance(error, ResourceExhausted) and not was_refused(error):
                    raise
                broken = error  # nobody here cancels: the other side cut it off
            if answered < count:
                patience.spend(broken)

    def _exchanged(
        self, method: grpc.StreamStreamMultiCallable[Request, Response], requests: Iterable[Request]
    ) -> Generator[Response, None, None]:
        with self._translated():
            stream = method(iter(requests), timeout=self.settings.stream_timeout_s, metadata=self._metadata)
            try:
                for response in stream:
                    yield response
            finally:
                stream.cancel()

    def compute(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What takes a while and is no call, without holding up others."""
        return runtime.compute(function, *args, **kwargs)

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
                with closing(self._stream(method, request(), min(left_s, self.settings.stream_timeout_s))) as stream:
                    for response in stream:
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
                    self._probe()
                except Unavailable as error:
                    broken = error
                else:
                    patience.restore()
                    continue
            except (Cancelled, ResourceExhausted, Unavailable) as error:
                if isinstance(error, ResourceExhausted) and not was_refused(error):
                    raise
                broken = error  # nobody here cancels: the other side cut it off
            patience.spend(broken, at_most_s=None if end is None else max(end - time.monotonic(), 0.0))

    def _probe(self) -> None:
        """Raises Unavailable if the server gives no sign of life."""
        try:
            self.call_once(self._cluster.GetServerInfo, cluster_pb2.GetServerInfoRequest())
        except DeadlineExceeded as error:
            silence = f"no answer within {self.settings.call_timeout_s:g} s"
            raise Unavailable(unreachable_message(self.address, silence, encrypted=self._encrypted)) from error

    def _stream(
        self, method: grpc.UnaryStreamMultiCallable[Request, Response], request: Request, timeout_s: float
    ) -> Generator[Response, None, None]:
        with self._translated():
            stream = method(request, timeout=timeout_s, metadata=self._metadata)
            try:
                for response in stream:
                    yield response
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
        except runtime.ENDED_HERE as error:
            if self._closed.is_set() and not runtime.is_cancelled():
                raise ClientClosedError(f"the client of {self.address} was closed during a call") from error
            raise
