"""What goes on around every call: its id and span, its place in logs and numbers, its end when the service stops."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc
from grpc_status import rpc_status

from chainrule.server import logs
from chainrule.server.errors import StoppingError
from chainrule.server.rpc.status import status_of
from chainrule.server.rpc.wrapping import Answer, Context, Continuation, Handler, Stream, wrapped
from chainrule.server.telemetry.metrics import UNKNOWN_METHOD, Metrics
from chainrule.server.telemetry.tracing import Span, Tracing

API = "/chainrule.v1."
"""How the paths of the API's methods begin. Health and reflection speak for themselves, to the end."""
TRANSFERS = frozenset(("BlobService/ReadBlob", "PredictService/StreamPredict"))
"""Streams that come to an end by themselves; the others follow something for as long as it lasts."""

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}

logger = logging.getLogger(__name__)


class Calls:
    """The calls that are being answered; each is a `with` of it."""

    def __init__(self) -> None:
        self.draining = False
        """Whether the service is on its way out: new calls are refused."""
        self._open = 0
        self._none = asyncio.Event()
        self._none.set()
        self._hurried = asyncio.Event()
        self._followers: set[asyncio.Task[Any]] = set()
        self._ended: set[asyncio.Task[Any]] = set()

    def __enter__(self) -> None:
        """Count a call from here to `__exit__`: as long as it is answered."""
        self._open += 1
        self._none.clear()

    def __exit__(self, *_: object) -> None:
        self._open -= 1
        if not self._open:
            self._none.set()

    @contextmanager
    def following(self) -> Iterator[None]:
        """Have the stream that the running task answers ended by `drain`: it raises StoppingError then."""
        task = asyncio.current_task()
        assert task is not None
        self._followers.add(task)
        try:
            yield
        except asyncio.CancelledError as error:
            if task not in self._ended:  # the client has gone
                raise
            task.uncancel()
            raise _stopping() from error
        finally:
            self._followers.discard(task)
            self._ended.discard(task)

    def admit(self) -> None:
        """Raises StoppingError if no more calls are taken."""
        if self.draining:
            raise _stopping()

    async def drain(self, grace_s: float) -> None:
        """Refuse new calls, end the streams that follow something, and wait until the other calls have been answered,
        at most `grace_s` seconds, and not after `hurry`."""
        self.draining = True
        for task in self._followers:
            self._ended.add(task)
            task.cancel()
        waits = [asyncio.ensure_future(event.wait()) for event in (self._none, self._hurried)]
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        if self._open:
            logger.warning("%d calls had not ended when the service did; their clients can repeat them", self._open)

    async def over(self, timeout_s: float) -> None:
        """Wait until no call is answered any more, at most so long: who is cut off still writes down what became of
        it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._none.wait()

    def hurry(self) -> None:
        """Wait no more for calls that are being answered."""
        self._hurried.set()


def _stopping() -> StoppingError:
    return StoppingError("the service is being stopped; try again, it may be back soon")


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Belongs outside of all others: what they refuse is counted, too.

    A call's id is that of its metadata `x-request-id`, or is drawn; it is in the trailing metadata of the answer.
    """

    def __init__(self, calls: Calls, metrics: Metrics, tracing: Tracing | None = None) -> None:
        self._calls = calls
        self._metrics = metrics
        self._tracing = tracing

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        path = handler_call_details.method
        if handler is None:
            self._metrics.calls.labels(UNKNOWN_METHOD, grpc.StatusCode.UNIMPLEMENTED.name).inc()
            return None
        if not path.startswith(API):
            return handler
        method = path.removeprefix(API)
        return wrapped(
            handler,
            answer=lambda inner: self._answered(inner, method),
            stream=lambda inner: self._streamed(inner, method),
        )

    def _answered(self, inner: Answer, method: str) -> Answer:
        seconds, ended = self._metrics.call_seconds.labels(method), self._metrics.ended(method)

        async def answered(request: Any, context: Context) -> Any:
            with self._calls:
                request_id, span = self._begin(method, request, context)
                began_s = time.perf_counter()
                code = _Code(context)
                try:
                    with code:
                        await self._admit(context, method)
                        return await inner(request, context)
                finally:
                    seconds.observe(time.perf_counter() - began_s)
                    ended(code.name).inc()
                    if span is not None:
                        span.end(code.name, request_id)

        return answered

    def _streamed(self, inner: Stream, method: str) -> Stream:
        seconds, open_now = self._metrics.stream_seconds.labels(method), self._metrics.open_streams.labels(method)
        ended = self._metrics.ended(method)

        async def streamed(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._calls:
                request_id, span = self._begin(method, request, context)
                began_s = time.perf_counter()
                code = _Code(context)
                open_now.inc()
                try:
                    with code:
                        await self._admit(context, method)
                        try:
                            if method in TRANSFERS:
                                async for response in inner(request, context):
                                    yield response
                                return
                            with self._calls.following():
                                async for response in inner(request, context):
                                    yield response
                        except StoppingError as error:
                            await _refuse(context, error, method)
                finally:
                    open_now.dec()
                    seconds.observe(time.perf_counter() - began_s)
                    ended(code.name).inc()
                    if span is not None:
                        span.end(code.name, request_id)

        return streamed

    def _begin(self, method: str, request: Any, context: Context) -> tuple[str, Span | None]:
        metadata = dict(context.invocation_metadata() or ())
        name = getattr(request, "name", "")
        job = name if isinstance(name, str) and name.startswith("jobs/") else ""
        request_id = logs.begin_call(method, metadata.get(logs.REQUEST_ID), job=job)
        context.set_trailing_metadata(((logs.REQUEST_ID, request_id),))
        return request_id, None if self._tracing is None else self._tracing.begin(method, metadata)

    async def _admit(self, context: Context, method: str) -> None:
        try:
            self._calls.admit()
        except StoppingError as error:
            await _refuse(context, error, method)


class _Code:
    """With which code a call ends, as a context manager around its answer."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.name = grpc.StatusCode.OK.name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):  # nobody waits for the answer any more
            left_s = self._context.time_remaining()
            over = left_s is not None and left_s <= 0
            self.name = (grpc.StatusCode.DEADLINE_EXCEEDED if over else grpc.StatusCode.CANCELLED).name
        elif error is not None and not isinstance(error, grpc.aio.AbortError):
            self.name = grpc.StatusCode.UNKNOWN.name
        else:
            code: Any = self._context.code()  # a number or, where none was set, 0; the stubs have it otherwise
            self.name = code.name if isinstance(code, grpc.StatusCode) else _CODES[code or 0]


async def _refuse(context: Context, error: StoppingError, method: str) -> None:
    status = rpc_status.to_status(status_of(error, method))
    sent = context.trailing_metadata() or ()
    await context.abort(status.code, status.details, (*sent, *status.trailing_metadata))
