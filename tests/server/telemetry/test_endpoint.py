"""/metrics and /healthz as a client of HTTP sees them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from chainrule.server.errors import StartupError
from chainrule.server.telemetry import endpoint
from chainrule.server.telemetry.endpoint import MAX_HEAD_BYTES, Health, MetricsEndpoint
from chainrule.server.telemetry.metrics import Metrics
from tests.server.training.bench import until


class State:
    health: Health = "serving"


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
async def served(state: State) -> AsyncIterator[MetricsEndpoint]:
    metrics = Metrics(kernels="reference")
    async with MetricsEndpoint(metrics, host="127.0.0.1", port=0, health=lambda: state.health) as served:
        yield served


async def ask(served: MetricsEndpoint, request: bytes) -> tuple[str, bytes]:
    """Head and body of the answer to a request, as it is sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(request)
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode(), body


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


async def test_metrics_are_told_in_the_form_that_is_asked_for(served: MetricsEndpoint) -> None:
    head, body = await ask(served, get("/metrics?x=1"))
    assert head.startswith("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=")
    assert f"Content-Length: {len(body)}" in head
    assert b"chainrule_build_info{" in body
    head, body = await ask(served, get("/metrics", "Accept: application/openmetrics-text;version=1.0.0"))
    assert "Content-Type: application/openmetrics-text" in head
    assert body.endswith(b"# EOF\n")


async def test_health_is_told(served: MetricsEndpoint, state: State) -> None:
    head, body = await ask(served, get("/healthz"))
    assert (head.partition("\r\n")[0], body) == ("HTTP/1.1 200 OK", b"serving\n")
    state.health = "draining"
    head, body = await ask(served, get("/healthz"))
    assert (head.partition("\r\n")[0], body) == ("HTTP/1.1 503 Service Unavailable", b"draining\n")
    head, body = await ask(served, b"HEAD /healthz HTTP/1.0\r\n\r\n")
    assert (head.partition("\r\n")[0], body) == ("HTTP/1.1 503 Service Unavailable", b"")


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (get("/"), "404 Not Found"),
        (get("/metrics/../x"), "404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "405 Method Not Allowed"),
        (b"\r\n\r\n", "400 Bad Request"),
        (b"PRI * HTTP/2.0\r\n\r\n", "400 Bad Request"),
        (b"GET /metrics\r\n\r\n", "400 Bad Request"),
        (b"\xff\xfe\x00 nonsense\r\n\r\n", "400 Bad Request"),
        (get("/metrics", "X: " + "x" * MAX_HEAD_BYTES), "400 Bad Request"),
    ],
)
async def test_what_is_no_request_for_either_is_refused(served: MetricsEndpoint, request_: bytes, answer: str) -> None:
    head, _ = await ask(served, request_)
    assert head.startswith(f"HTTP/1.1 {answer}\r\n")


async def test_who_asks_for_nothing_is_not_waited_for_at_the_end() -> None:
    metrics = Metrics(kernels="reference")
    async with MetricsEndpoint(metrics, host="127.0.0.1", port=0, health=lambda: "serving") as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        await ask(served, get("/healthz"))  # so that the one before has been accepted
    async with asyncio.timeout(60):
        assert await reader.read() == b""
    writer.close()


async def test_the_loop_goes_on_while_metrics_are_collected(
    served: MetricsEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slowly(self: Metrics, accept: str) -> tuple[bytes, str]:
        asked.set()
        assert go_on.wait(60)
        return b"done", "text/plain"

    monkeypatch.setattr(Metrics, "exposition", slowly)
    scraping = asyncio.create_task(ask(served, get("/metrics")))
    assert await asyncio.to_thread(asked.wait, 60)
    assert (await ask(served, get("/healthz")))[1] == b"serving\n"
    go_on.set()
    assert (await scraping)[1] == b"done"


async def test_metrics_that_cannot_be_collected_are_an_error_of_that_scrape(
    served: MetricsEndpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Metrics, accept: str) -> tuple[bytes, str]:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patched:
        patched.setattr(Metrics, "exposition", fail)
        head, body = await ask(served, get("/metrics"))
    assert head.startswith("HTTP/1.1 500 ")
    assert b"a defect" not in body
    assert "a defect" in caplog.text
    assert (await ask(served, get("/metrics")))[0].startswith("HTTP/1.1 200 ")


async def test_too_many_at_a_time_are_sent_away_before_they_ask(
    served: MetricsEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "MAX_CONNECTIONS", 1)
    _, first = await asyncio.open_connection("127.0.0.1", served.port)
    reader, second = await asyncio.open_connection("127.0.0.1", served.port)
    async with asyncio.timeout(60):
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
    assert len(served._connections) == 1
    for writer in (first, second):
        writer.close()
    await until(lambda: not served._connections)
    assert (await ask(served, get("/healthz")))[1] == b"serving\n"


async def test_what_is_sent_after_a_request_is_not_kept_and_ends_the_connection(
    served: MetricsEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[int] = []
    read = asyncio.StreamReader.read

    async def counted(self: asyncio.StreamReader, size: int = -1) -> bytes:
        piece = await read(self, size)
        pieces.append(len(piece))
        return piece

    monkeypatch.setattr(asyncio.StreamReader, "read", counted)
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(get("/healthz"))
    sent = 0
    with suppress(ConnectionError):  # it is closed while the client goes on
        async with asyncio.timeout(60):
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()
                sent += 65_536
    writer.close()
    assert sent >= endpoint.MAX_REST_BYTES // 2
    assert max(pieces) <= 65_536
    assert sum(pieces) <= endpoint.MAX_REST_BYTES + 65_536


async def test_a_port_in_use_is_named(served: MetricsEndpoint) -> None:
    other = MetricsEndpoint(Metrics(kernels=""), host="127.0.0.1", port=served.port, health=lambda: "serving")
    with pytest.raises(
        StartupError, match=rf"cannot listen on 127\.0\.0\.1:{served.port} for metrics: address already"
    ):
        await other.__aenter__()
