"""What goes on around a call: its code, its id, its numbers, and how it ends when the service stops."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import grpc
import pytest

from chainrule.server.errors import NotFoundError
from chainrule.server.logs import SubjectFilter
from chainrule.server.rpc.calls import TRANSFERS, CallInterceptor, Calls
from chainrule.server.rpc.status import ErrorInterceptor
from chainrule.server.telemetry.metrics import Metrics
from chainrule.server.telemetry.tracing import Tracing
from chainrule.v1 import blob_pb2, job_pb2, predict_pb2
from tests.server.telemetry.test_metrics import values


class FakeContext:
    """A call, as a handler sees it."""

    def __init__(self, metadata: tuple[tuple[str, str], ...] = (), left_s: float | None = None) -> None:
        self._metadata = metadata
        self._left_s = left_s
        self._code: grpc.StatusCode | int = 0
        self.trailing: tuple[tuple[str, Any], ...] = ()
        self.details = ""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def set_trailing_metadata(self, metadata: tuple[tuple[str, Any], ...]) -> None:
        self.trailing = metadata

    def trailing_metadata(self) -> tuple[tuple[str, Any], ...]:
        return self.trailing

    def time_remaining(self) -> float | None:
        return self._left_s

    def code(self) -> grpc.StatusCode | int:
        return self._code

    async def abort(self, code: grpc.StatusCode, details: str, trailing: tuple[tuple[str, Any], ...]) -> None:
        self._code, self.details, self.trailing = code, details, trailing
        raise grpc.aio.AbortError


class Around:
    """The interceptors of a service around methods of a test's own."""

    def __init__(self, tracing: Tracing | None = None) -> None:
        self.calls = Calls()
        self.metrics = Metrics(kernels="reference")
        self._interceptors = [CallInterceptor(self.calls, self.metrics, tracing), ErrorInterceptor()]

    async def _handler(self, path: str, handler: Any) -> Any:
        async def found(details: Any) -> Any:
            return handler

        async def inner(details: Any) -> Any:
            return await self._interceptors[1].intercept_service(found, details)

        details = cast(grpc.HandlerCallDetails, type("Details", (), {"method": path, "invocation_metadata": ()})())
        return await self._interceptors[0].intercept_service(inner, details)

    async def unary(self, method: str, answer: Callable[..., Any], request: Any, context: FakeContext) -> Any:
        handler = await self._handler(f"/chainrule.v1.{method}", grpc.unary_unary_rpc_method_handler(answer))
        return await asyncio.create_task(handler.unary_unary(request, context), context=contextvars.copy_context())

    async def stream(self, method: str, answer: Callable[..., Any], context: FakeContext) -> list[Any]:
        handler = await self._handler(f"/chainrule.v1.{method}", grpc.unary_stream_rpc_method_handler(answer))
        return [response async for response in handler.unary_stream(job_pb2.WatchJobRequest(name="jobs/x"), context)]

    def counted(self) -> dict[str, float]:
        return {
            name: value for name, value in values(self.metrics).items() if name.startswith("chainrule_grpc_calls_total")
        }


def total(method: str, code: str) -> str:
    return f'chainrule_grpc_calls_total{{code="{code}",method="{method}"}}'


GET = job_pb2.GetJobRequest(name="jobs/x")


async def test_a_call_is_counted_with_its_code_and_answered_with_its_id() -> None:
    around = Around()
    seen = {}

    async def answer(request: Any, context: Any) -> str:
        record = logging.makeLogRecord({})
        SubjectFilter().filter(record)
        seen.update(record.__dict__)
        return "answer"

    context = FakeContext((("x-request-id", "mine"),))
    assert await around.unary("JobService/GetJob", answer, GET, context) == "answer"
    assert context.trailing == (("x-request-id", "mine"),)
    assert (seen["request_id"], seen["method"], seen["job"]) == ("mine", "JobService/GetJob", "jobs/x")
    assert around.counted() == {total("JobService/GetJob", "OK"): 1}
    assert values(around.metrics)['chainrule_grpc_call_seconds_count{method="JobService/GetJob"}'] == 1


async def test_an_error_keeps_the_id_beside_its_details() -> None:
    around = Around()

    async def answer(request: Any, context: Any) -> str:
        raise NotFoundError("no such job")

    context = FakeContext()
    with pytest.raises(grpc.aio.AbortError):
        await around.unary("JobService/GetJob", answer, GET, context)
    assert [key for key, _ in context.trailing] == ["x-request-id", "grpc-status-details-bin"]
    assert around.counted() == {total("JobService/GetJob", "NOT_FOUND"): 1}


@pytest.mark.parametrize(("left_s", "code"), [(None, "CANCELLED"), (5.0, "CANCELLED"), (0.0, "DEADLINE_EXCEEDED")])
async def test_a_call_that_nobody_waits_for_any_more_is_counted_so(left_s: float | None, code: str) -> None:
    around = Around()
    begun = asyncio.Event()

    async def answer(request: Any, context: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    calling = asyncio.create_task(around.unary("JobService/GetJob", answer, GET, FakeContext(left_s=left_s)))
    await begun.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert around.counted() == {total("JobService/GetJob", code): 1}


async def test_methods_that_there_are_none_of_are_one_series() -> None:
    around = Around()
    for i in range(5):
        assert await around._handler(f"/chainrule.v1.JobService/No{i}", None) is None
        assert await around._handler(f"/elsewhere/No{i}", None) is None
    assert around.counted() == {total("unknown", "UNIMPLEMENTED"): 10}


async def test_a_call_is_a_span_with_its_code_and_its_id() -> None:
    export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = export.InMemorySpanExporter()
    tracing = Tracing("http://localhost:4317", exporter=exporter)
    around = Around(tracing)

    async def answer(request: Any, context: Any) -> str:
        raise NotFoundError("no such job")

    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    context = FakeContext((("traceparent", parent), ("x-request-id", "mine")))
    with pytest.raises(grpc.aio.AbortError):
        await around.unary("JobService/GetJob", answer, GET, context)
    await tracing.close()
    [span] = exporter.get_finished_spans()
    assert (span.name, f"{span.context.trace_id:032x}") == ("JobService/GetJob", parent[3:35])
    assert span.attributes["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]
    assert span.attributes["chainrule.request_id"] == "mine"


async def test_health_is_left_alone() -> None:
    handler: Any = grpc.unary_unary_rpc_method_handler(lambda request, context: None)
    assert await Around()._handler("/grpc.health.v1.Health/Check", handler) is handler


def test_streams_that_are_waited_for_are_methods_of_the_api() -> None:
    found = {
        f"{service.name}/{method.name}"
        for file in (blob_pb2.DESCRIPTOR, job_pb2.DESCRIPTOR, predict_pb2.DESCRIPTOR)
        for service in file.services_by_name.values()
        for method in service.methods
        if method.server_streaming
    }
    assert found > TRANSFERS
    assert "JobService/WatchJob" in found - TRANSFERS


# --- draining --------------------------------------------------------------------------------------------------


class Following:
    """A stream that has sent one response and waits for news."""

    def __init__(self) -> None:
        self.waits = asyncio.Event()
        self.news = asyncio.Event()

    async def answer(self, request: Any, context: Any) -> AsyncIterator[int]:
        yield 1
        self.waits.set()
        await self.news.wait()
        yield 2


async def test_followers_are_sent_away_and_told_to_come_back() -> None:
    around, news, context = Around(), Following(), FakeContext()
    watching = asyncio.create_task(around.stream("JobService/WatchJob", news.answer, context))
    await news.waits.wait()
    assert values(around.metrics)['chainrule_grpc_open_streams{method="JobService/WatchJob"}'] == 1
    await around.calls.drain(60)
    with pytest.raises(grpc.aio.AbortError):
        await watching
    assert context.code() is grpc.StatusCode.UNAVAILABLE
    assert [key for key, _ in context.trailing] == ["x-request-id", "grpc-status-details-bin"]
    assert around.counted() == {total("JobService/WatchJob", "UNAVAILABLE"): 1}
    found = values(around.metrics)
    assert found['chainrule_grpc_open_streams{method="JobService/WatchJob"}'] == 0
    assert found['chainrule_grpc_stream_seconds_count{method="JobService/WatchJob"}'] == 1


async def test_a_download_is_waited_for() -> None:
    around, news = Around(), Following()
    reading = asyncio.create_task(around.stream("BlobService/ReadBlob", news.answer, FakeContext()))
    await news.waits.wait()
    draining = asyncio.create_task(around.calls.drain(60))
    await asyncio.sleep(0)
    assert around.calls.draining
    assert not draining.done()
    news.news.set()
    await draining
    assert await reading == [1, 2]


async def test_new_calls_are_refused_while_draining() -> None:
    around = Around()
    await around.calls.drain(60)
    for context, calling in (
        (one := FakeContext(), around.unary("JobService/GetJob", Following().answer, GET, one)),
        (two := FakeContext(), around.stream("JobService/WatchJob", Following().answer, two)),
        (three := FakeContext(), around.stream("BlobService/ReadBlob", Following().answer, three)),
    ):
        with pytest.raises(grpc.aio.AbortError):
            await calling
        assert context.code() is grpc.StatusCode.UNAVAILABLE
        assert "try again" in context.details


@pytest.mark.parametrize("ended_by", ["grace", "hurry"])
async def test_calls_are_not_waited_for_beyond_the_grace(ended_by: str, caplog: pytest.LogCaptureFixture) -> None:
    around, news = Around(), Following()
    reading = asyncio.create_task(around.stream("BlobService/ReadBlob", news.answer, FakeContext()))
    await news.waits.wait()
    if ended_by == "hurry":
        around.calls.hurry()
    await around.calls.drain(0.01 if ended_by == "grace" else 3600)
    assert "1 calls had not ended when the service did" in caplog.text
    news.news.set()
    assert await reading == [1, 2]


async def test_a_client_that_goes_while_the_service_drains_is_one_that_went() -> None:
    around, news = Around(), Following()
    watching = asyncio.create_task(around.stream("JobService/WatchJob", news.answer, FakeContext()))
    await news.waits.wait()
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    await around.calls.drain(60)
    assert around.counted() == {total("JobService/WatchJob", "CANCELLED"): 1}


async def test_calls_that_were_cut_off_are_waited_for_but_not_for_ever() -> None:
    around, news = Around(), Following()
    reading = asyncio.create_task(around.stream("BlobService/ReadBlob", news.answer, FakeContext()))
    await news.waits.wait()
    await around.calls.over(0.01)
    over = asyncio.create_task(around.calls.over(60))
    await asyncio.sleep(0)
    assert not over.done()
    news.news.set()
    await over
    assert await reading == [1, 2]
