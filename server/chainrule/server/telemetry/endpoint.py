"""An HTTP server for GET /metrics and GET /healthz, in the service's event loop.

It is written here because it has two addresses, no state and no need of a thread: what stops the loop stops its
answers, and that is what a probe is to find out. Each connection carries one request.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self

from chainrule.server.errors import StartupError
from chainrule.server.telemetry.metrics import Metrics

Health = Literal["starting", "serving", "draining"]
"""Whether calls are taken: not yet, yes, or not any more."""
MAX_HEAD_BYTES = 16 * 1024
"""Longest request line with its headers."""
TIMEOUT_S = 10.0
"""How long a client may take to ask, and then to read the answer."""
MAX_CONNECTIONS = 32
"""More at a time are sent away with 503 before they have asked."""
MAX_REST_BYTES = 1024**2
"""Most that is read, and thrown away, of what a client sends after its request."""
_PIECE_BYTES = 65_536

_TEXT = "text/plain; charset=utf-8"
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}
_REASONS[503] = "Service Unavailable"

logger = logging.getLogger(__name__)


class MetricsEndpoint:
    """The server, as an async context manager.

    Args:
        health: what the service does at the moment.
    """

    def __init__(self, metrics: Metrics, *, host: str, port: int, health: Callable[[], Health]) -> None:
        self._metrics = metrics
        self._host = host
        self._health = health
        self._connections: set[asyncio.Task[None]] = set()
        self._scraping = asyncio.Lock()
        self.port = port
        """Port it listens on; once entered, the one that was found for 0."""

    async def __aenter__(self) -> Self:
        """Raises StartupError."""
        try:
            self._server = await asyncio.start_server(
                self._connected, self._host, self.port, limit=MAX_HEAD_BYTES, reuse_port=False
            )
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
            raise endpoint_refused(self._host, self.port, reason) from error
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            body = b"too many connections at a time\n"
            writer.write(_response(503, _TEXT, body, len(body)))
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(self._converse(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                head = await _head_of(reader)
            code, content_type, body = await self._answer(head)
            async with asyncio.timeout(TIMEOUT_S):
                writer.write(_response(code, content_type, b"" if head.startswith("HEAD ") else body, len(body)))
                await writer.drain()
                writer.write_eof()
                await _to_its_end(reader)  # the other side has all of the answer once it closes
        except (TimeoutError, OSError) as error:
            logger.debug("a client of the metrics has gone: %s", error)
        finally:
            writer.close()

    async def _answer(self, head: str) -> tuple[int, str, bytes]:
        method, _, rest = head.partition(" ")
        target, _, version = rest.partition("\r\n")[0].partition(" ")
        path = target.partition("?")[0]
        if not version.startswith("HTTP/1."):
            return 400, _TEXT, b"this is not HTTP/1.1\n"
        if path not in ("/metrics", "/healthz"):
            return 404, _TEXT, b"there are /metrics and /healthz\n"
        if method not in ("GET", "HEAD"):
            return 405, _TEXT, b"use GET\n"
        if path == "/healthz":
            health = self._health()
            return 200 if health == "serving" else 503, _TEXT, f"{health}\n".encode()
        try:
            async with self._scraping:  # one at a time: each asks the store
                body, content_type = await asyncio.to_thread(self._metrics.exposition, _header(head, "accept"))
        except Exception:  # the next one may do better, and the service goes on without
            logger.exception("the metrics cannot be collected")
            return 500, _TEXT, b"the metrics cannot be collected; the log of the service says why\n"
        return 200, content_type, body


def endpoint_refused(host: str, port: int, reason: str) -> StartupError:
    """That nothing can listen there, why not, and what to do."""
    return StartupError(
        f"cannot listen on {host}:{port} for metrics: {reason}; choose another --metrics-port (0: any free one) or "
        "--metrics-host"
    )


async def _head_of(reader: asyncio.StreamReader) -> str:
    """The request up to its empty line; empty if there is none within MAX_HEAD_BYTES."""
    with suppress(asyncio.LimitOverrunError, asyncio.IncompleteReadError):
        return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    return ""


async def _to_its_end(reader: asyncio.StreamReader) -> None:
    """Return once the client has closed its side, or has sent more than it may."""
    left = MAX_REST_BYTES
    while left > 0 and (piece := await reader.read(_PIECE_BYTES)):
        left -= len(piece)


def _header(head: str, name: str) -> str:
    for line in head.split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.strip().lower() == name:
            return value.strip()
    return ""


def _response(code: int, content_type: str, body: bytes, length: int) -> bytes:
    allow = "Allow: GET, HEAD\r\n" if code == 405 else ""
    head = (
        f"HTTP/1.1 {code} {_REASONS[code]}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n"
        f"Connection: close\r\nCache-Control: no-store\r\n{allow}\r\n"
    )
    return head.encode("latin-1") + body
