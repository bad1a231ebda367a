"""The coordinator's side of the lines to its parts: lets them in, hands on what they say, tells when one is gone."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from chainrule.server.training.door import Door, pumped
from chainrule.server.training.errors import LinkError
from chainrule.server.training.memory import Segment
from chainrule.server.training.tls import Identity
from chainrule.server.training.wire import (
    BLOB,
    HEADER,
    MAX_BODY_BYTES,
    MAX_GREETING_BYTES,
    MESSAGE,
    Connection,
    Endpoint,
    Frame,
    Listener,
    is_of_this_user,
)

Message = dict[str, Any]

logger = logging.getLogger(__name__)


class Listening(Protocol):
    """Who is told. Its methods do not wait."""

    def heard(self, line: Line, message: Message, blob: memoryview) -> None:
        """A part said something. The blob is what belongs to it; what lies in shared memory stays there, and is
        overwritten once the part is told that it may do so."""

    def lost(self, line: Line) -> None:
        """A part is gone, or was hung up on."""


@dataclass
class _Waiting:
    """A message, for the bytes that belong to it."""

    message: Message
    size: int
    content: bytearray = field(default_factory=bytearray)
    """What has come of them, in pieces."""


class Line:
    """Somebody who has called: a part, once it has said the token. Lives in one event loop."""

    def __init__(self, connected: socket.socket, token: str, owner: Listening, ended: Callable[[Line], object]) -> None:
        connected.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._connection = Connection(connected)
        self._connection.max_body_bytes = MAX_GREETING_BYTES
        self._token = token
        self._owner = owner
        self._ended = ended
        self._unsent = bytearray()
        self._waiting: _Waiting | None = None
        self.open = True
        self.who: Message = {}
        """What it said of itself when it was let in."""
        self._loop.add_reader(connected, self._read)

    def send(self, **message: Any) -> None:
        """Tell it something; a part that is gone is not told, and `lost` has been or will be called for it."""
        if self.open:
            body = json.dumps(message).encode()
            self._unsent += HEADER.pack(len(body), MESSAGE) + body
            self._write()

    def close(self) -> None:
        """Hang up; what it has not read by now it will not hear."""
        if self.open:
            self.open = False
            self._loop.remove_reader(self._connection.socket)
            self._loop.remove_writer(self._connection.socket)
            self._connection.close()
            self._ended(self)
            self._loop.call_soon(self._owner.lost, self)

    def _write(self) -> None:
        try:
            del self._unsent[: self._connection.socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError as error:
            logger.debug("a line has ended: %s", error)
            self.close()
            return
        if self._unsent:
            self._loop.add_writer(self._connection.socket, self._write)
        else:
            self._loop.remove_writer(self._connection.socket)

    def _read(self) -> None:
        try:
            for frame in self._connection.read_each():
                if not self.who:
                    self._let_in(frame)
                else:
                    self._take(frame)
                if not self.open:  # hung up on meanwhile
                    return
        except (LinkError, PermissionError, ValueError) as error:
            logger.debug("a line has ended: %s", error)
            self.close()
        except Exception:
            logger.exception("a line failed")
            self.close()

    def _let_in(self, frame: Frame) -> None:
        hello = frame.message if frame.kind == MESSAGE else None
        token = str(hello.get("token")) if isinstance(hello, dict) else ""
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            raise PermissionError("a process without the token called")
        assert isinstance(hello, dict)
        self.who = hello
        self._connection.max_body_bytes = MAX_BODY_BYTES

    def _take(self, frame: Frame) -> None:
        """Hand on a message; one to which bytes belong, once these are there. Others may go between."""
        if frame.kind == MESSAGE:
            message: Message = frame.message
            if size := message.pop("blob_bytes", 0):
                self._waiting = _Waiting(message, size)
            else:
                self._owner.heard(self, message, memoryview(b""))
        elif self._waiting is not None and frame.kind == BLOB:
            self._waiting.content += frame.body
            self._hear_waiting(memoryview(self._waiting.content))
        elif self._waiting is not None and frame.descriptor is not None:
            segment = Segment.of(frame.descriptor)
            segment.close()  # the memory stays as long as it is mapped
            self._hear_waiting(segment.memory[: self._waiting.size])
        else:
            raise LinkError(f"a frame of kind {frame.kind} where none was due")

    def _hear_waiting(self, content: memoryview) -> None:
        """Hand on the message that waits for bytes, if these are all."""
        assert self._waiting is not None
        message, size = self._waiting.message, self._waiting.size
        if len(content) > size:
            raise LinkError(f"{len(content)} bytes came where {size} were announced")
        if len(content) == size:
            self._waiting = None
            self._owner.heard(self, message, content.toreadonly())


class Switchboard:
    """Listens for the parts of one attempt."""

    def __init__(self, identity: Identity, owner: Listening, *, host: str, name: str) -> None:
        self._identity = identity
        self._owner = owner
        self._listener = Listener(identity, host=host, name=name)
        self._loop = asyncio.get_running_loop()
        self._door = Door(self._listener, self._let_in)
        self._lines: set[Line] = set()
        self.endpoint: Endpoint = self._listener.endpoint

    async def open(self) -> None:
        self._loop.add_reader(self._listener.local, self._on_call)
        self._door.open()

    async def close(self) -> None:
        if self._listener.local.fileno() < 0:  # closed already
            return
        self._loop.remove_reader(self._listener.local)
        self._door.close()
        for line in list(self._lines):
            line.close()
        self._listener.close()

    def _on_call(self) -> None:
        try:
            connected, _ = self._listener.local.accept()
        except OSError as error:  # it has gone again, or there are no descriptors for it at the moment
            logger.debug("a call was not answered: %s", error)
            return
        if is_of_this_user(connected):
            self._answer(connected)
        else:
            connected.close()

    def _let_in(self, secured: ssl.SSLSocket) -> None:
        """In a thread: somebody of this attempt has called from another machine."""
        secured.settimeout(None)
        connected = pumped(secured)
        try:
            self._loop.call_soon_threadsafe(self._answer, connected)
        except RuntimeError:  # the loop has ended
            connected.close()

    def _answer(self, connected: socket.socket) -> None:
        self._lines.add(Line(connected, self._identity.token, self._owner, self._lines.discard))
