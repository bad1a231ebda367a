"""Python values between the service and its driver: pickled, with the memory of arrays beside the pickle, not in it."""

from __future__ import annotations

import pickle
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

COUNT = struct.Struct("!I")
SIZE = struct.Struct("!Q")


@dataclass(frozen=True)
class Call:
    """The service asks for something."""

    number: int
    """Unique among the calls to one driver."""
    method: str
    arguments: tuple[Any, ...] = ()
    attempt: int | None = None
    """Number of the call that has launched the attempt whose method is called; None: the driver's own."""


@dataclass(frozen=True)
class Cancel:
    """Nobody waits for a call any more."""

    number: int


@dataclass(frozen=True)
class Answer:
    """What a call has come to."""

    number: int
    value: Any = None
    error: BaseException | None = None
    """What it raised, to be raised again; then there is no value."""


class Channel:
    """One end of a connection between two processes that trust each other: parent and child, by an unnamed socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, value: object) -> None:
        """Send a value; blocks until the other side has taken most of it. Raises OSError if there is no other side, and
        what pickle raises before anything is sent."""
        buffers: list[pickle.PickleBuffer] = []
        body = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        parts = [memoryview(body), *(buffer.raw() for buffer in buffers)]
        header = COUNT.pack(len(parts)) + b"".join(SIZE.pack(part.nbytes) for part in parts)
        with self._sending:
            self._connection.sendall(header)
            for part in parts:
                self._connection.sendall(part)

    def receive(self) -> Any:
        """The next value; blocks until it is there. Raises EOFError if the other side is gone."""
        [count] = COUNT.unpack(self._read(COUNT.size))
        sizes = [SIZE.unpack(self._read(SIZE.size))[0] for _ in range(count)]
        body, *buffers = [self._read(size) for size in sizes]
        return pickle.loads(body, buffers=buffers)  # noqa: S301 — of our own process

    def close(self) -> None:
        """Let the other side know that nothing comes any more, and end waiting here."""
        with suppress(OSError):  # the other side was quicker
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        rest = memoryview(data)
        while rest:
            try:
                count = self._connection.recv_into(rest)
            except OSError as error:
                raise EOFError("the connection broke") from error
            if count == 0:
                raise EOFError("the other side has ended")
            rest = rest[count:]
        return data
