"""The coordinator's side of the lines to its parts: lets them in, hands on what they say, tells when one is gone."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import socket
from typing import Any, Protocol

from chainrule.server.training.tls import Identity, server_context
from chainrule.server.training.wire import (
    BLOB,
    HEADER,
    MAX_BODY_BYTES,
    MAX_GREETING_BYTES,
    MESSAGE,
    Endpoint,
    Listener,
    is_of_this_user,
)

Message = dict[str, Any]

logger = logging.getLogger(__name__)


class Line:
    """A part that has called."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.open = True
        self.who: Message = {}
        """What it said of itself when it was let in."""

    def send(self, **message: Any) -> None:
        """Tell it something; a part that is gone is not told, and `lost` has been or will be called for it."""
        if self.open:
            body = json.dumps(message).encode()
            self._writer.write(HEADER.pack(len(body), MESSAGE) + body)

    def close(self) -> None:
        self.open = False
        self._writer.close()


class Listening(Protocol):
    """Who is told. Its methods do not wait."""

    def heard(self, line: Line, message: Message, blob: bytes) -> None:
        """A part said something."""

    def lost(self, line: Line) -> None:
        """A part is gone, or was hung up on."""


class Switchboard:
    """Listens for the parts of one attempt."""

    def __init__(self, identity: Identity, owner: Listening, *, host: str, name: str) -> None:
        self._identity = identity
        self._owner = owner
        self._listener = Listener(identity, host=host, name=name)
        self._servers: list[asyncio.Server] = []
        self._lines: set[Line] = set()
        self.endpoint: Endpoint = self._listener.endpoint

    async def open(self) -> None:
        self._servers = [
            await asyncio.start_unix_server(self._talk, sock=self._listener.local),
            await asyncio.start_server(
                self._talk, sock=self._listener.remote, ssl=server_context(self._identity), ssl_handshake_timeout=10.0
            ),
        ]

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for line in list(self._lines):
            line.close()
        self._listener.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(writer)
        self._lines.add(line)
        try:
            line.who = await self._let_in(reader, writer)
            await self._listen(line, reader)
        except (asyncio.IncompleteReadError, ConnectionError, PermissionError, ValueError) as error:
            logger.debug("a line has ended: %s", error)
        except Exception:
            logger.exception("a line failed")
        finally:
            self._lines.discard(line)
            line.close()
            self._owner.lost(line)

    async def _let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Message:
        connected = writer.get_extra_info("socket")
        if connected.family == socket.AF_UNIX and not is_of_this_user(connected):
            raise PermissionError("a process of another user called")
        kind, body = await _frame(reader, MAX_GREETING_BYTES)
        hello = json.loads(body) if kind == MESSAGE else None
        token = str(hello.get("token")) if isinstance(hello, dict) else ""
        if not hmac.compare_digest(token.encode(), self._identity.token.encode()):
            raise PermissionError("a process without the token called")
        assert isinstance(hello, dict)
        return hello

    async def _listen(self, line: Line, reader: asyncio.StreamReader) -> None:
        """Hand on what a part says. The bytes that belong to a message come in pieces; others may go between."""
        waiting: Message = {}
        blob, filled = bytearray(), 0
        while True:
            kind, body = await _frame(reader, MAX_BODY_BYTES)
            if kind == MESSAGE:
                message: Message = json.loads(body)
                if size := message.pop("blob_bytes", 0):
                    waiting, blob, filled = message, bytearray(size), 0
                else:
                    self._owner.heard(line, message, b"")
            elif kind == BLOB and filled + len(body) <= len(blob):
                blob[filled : filled + len(body)] = body
                filled += len(body)
                if filled == len(blob):
                    whole, blob, filled = bytes(blob), bytearray(), 0
                    self._owner.heard(line, waiting, whole)
            else:
                raise ConnectionError(f"a frame of kind {kind} and {len(body)} bytes where none was due")


async def _frame(reader: asyncio.StreamReader, max_bytes: int) -> tuple[int, bytes]:
    length, kind = HEADER.unpack(await reader.readexactly(HEADER.size))
    if length > max_bytes:
        raise ConnectionError(f"a frame of {length} bytes was announced, where {max_bytes} are the most")
    return kind, await reader.readexactly(length)
