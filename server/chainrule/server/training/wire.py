"""How the processes of a job talk: frames over sockets, within a machine and between machines.

A frame is its length, its kind, and its body. Within a machine it travels over a Unix socket in the abstract namespace,
which only processes of the same user may use and which can carry descriptors of shared memory; between machines over
TLS, where each side proves that it belongs to the attempt by the attempt's own certificate.
"""

from __future__ import annotations

import array
import json
import os
import secrets
import socket
import ssl
import struct
import sys
import tempfile
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from chainrule.server.training.errors import LinkError
from chainrule.server.training.tls import Identity, client_context

HEADER = struct.Struct("<QB")
"""Length of the body in bytes, and the kind."""
PUSH_BODY = struct.Struct("<QIIHHdqq")
"""Of a PUSH: tick, first shard and size of the block, slot, part; loss, right and all predictions. Behind it, the sums
of the other metrics, if there are any."""
STEP_BODY = struct.Struct("<QQ")
"""Of a STEP: tick, and steps done, which is the version of the weights."""
MAX_BODY_BYTES = 1 << 40
MAX_GREETING_BYTES = 1 << 16
"""Largest frame that is taken from a process that has not said the token."""
MESSAGE, PUSH, STEP, SLOT, END, BLOB, CLOCKS = range(7)
"""Kinds: a JSON object; a part of a contribution; new weights; a piece of shared memory; nothing more will come; bytes
that belong to the message before; where each shard is."""
CONNECT_TIMEOUT_S = 10.0
ABSTRACT = sys.platform == "linux"
"""Whether Unix sockets can have names that are no files."""
_PIECE = 1 << 18
_MAX_DESCRIPTORS = 16


@dataclass(frozen=True)
class Endpoint:
    """Where a process of a job listens."""

    machine: str
    """Which machine and network it is on; only there can `path` be used."""
    path: str
    """Name of the Unix socket in the abstract namespace."""
    host: str
    port: int
    """Where it listens for TLS."""


@dataclass(frozen=True)
class Frame:
    """What came over a connection."""

    kind: int
    body: bytes
    descriptor: int | None = None
    """Of shared memory, for SLOT."""

    @property
    def message(self) -> dict[str, Any]:
        """The body of a MESSAGE."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


class Connection:
    """A socket that carries frames. Not for use from several threads, but for `send` under a lock of the caller's."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._buffer = bytearray()
        self._frames: deque[Frame] = deque()
        self._descriptors: deque[int] = deque()
        self._local = connected.family == socket.AF_UNIX
        self.max_body_bytes = MAX_BODY_BYTES
        """Largest frame that is taken."""

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, kind: int, *parts: bytes | memoryview, descriptor: int | None = None) -> None:
        """Send a frame; blocks while the other side does not read. Raises LinkError if it is gone."""
        header = HEADER.pack(sum(len(part) for part in parts), kind)
        try:
            if descriptor is not None:
                socket.send_fds(self.socket, [header + b"".join(parts)], [descriptor])
            elif sum(map(len, parts)) <= _PIECE:
                self.socket.sendall(header + b"".join(parts))
            else:
                self.socket.sendall(header)
                for part in parts:
                    self.socket.sendall(part)
        except OSError as error:
            raise LinkError(f"the other side of a link is gone: {error}") from error

    def message(self, **fields: Any) -> None:
        """Send a MESSAGE. Raises LinkError."""
        self.send(MESSAGE, json.dumps(fields).encode())

    def read(self) -> list[Frame]:
        """The frames that are there, once the socket is readable; maybe none. Raises LinkError if it is closed."""
        return list(self.read_each())

    def read_each(self) -> Iterator[Frame]:
        """As `read`, frame by frame: each may be as large as `max_body_bytes` is when its turn comes."""
        try:
            if self._local:
                data, ancillary, _, _ = self.socket.recvmsg(
                    _PIECE, socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
                )
                self._keep_descriptors(ancillary)
            else:
                data = self.socket.recv(_PIECE)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError as error:
            raise LinkError(f"the other side of a link is gone: {error}") from error
        if not data:
            raise LinkError("the other side has closed the link")
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            length, kind = HEADER.unpack_from(self._buffer)
            if length > self.max_body_bytes:
                raise LinkError(f"a frame of {length} bytes was announced; this is no link of chainrule")
            if len(self._buffer) < HEADER.size + length:
                break
            body = bytes(self._buffer[HEADER.size : HEADER.size + length])
            del self._buffer[: HEADER.size + length]
            descriptor = None
            if kind == SLOT and self._local:
                if not self._descriptors:
                    raise LinkError("a slot was announced without its memory; this is no link of chainrule")
                descriptor = self._descriptors.popleft()
            yield Frame(kind, body, descriptor)

    def next(self) -> Frame:
        """Wait for a frame. Raises LinkError if none comes within the socket's timeout, or any more."""
        while not self._frames:
            self._frames.extend(self.read())
        return self._frames.popleft()

    def pending(self) -> list[Frame]:
        """The frames that came together with the one that `next` gave."""
        frames = list(self._frames)
        self._frames.clear()
        return frames

    def close(self) -> None:
        self.socket.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())

    def _keep_descriptors(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found = array.array("i")
                found.frombytes(data[: len(data) - len(data) % found.itemsize])
                self._descriptors.extend(found)


class Listener:
    """Where a process of a job can be reached: a Unix socket, and a TLS port for other machines."""

    def __init__(self, identity: Identity, *, host: str, name: str) -> None:
        self.identity = identity
        self._folder = None if ABSTRACT else tempfile.TemporaryDirectory(prefix="cr-")
        path = f"chainrule/{name}/{secrets.token_hex(8)}" if self._folder is None else f"{self._folder.name}/socket"
        self.local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.local.bind(_address(path))
        self.remote = socket.create_server((host, 0))
        for listening in (self.local, self.remote):
            listening.listen(128)
            listening.setblocking(False)
        self.endpoint = Endpoint(machine(), path, host, self.remote.getsockname()[1])

    def close(self) -> None:
        self.local.close()
        self.remote.close()
        if self._folder is not None:
            self._folder.cleanup()


def is_of_this_user(connected: socket.socket) -> bool:
    """Whether the other side of a Unix socket is a process of this user, or of root. Where the system cannot say, the
    socket lies in a folder that only this user may enter."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    return user in (os.getuid(), 0)


def connect_local(endpoint: Endpoint) -> socket.socket | None:
    """A connection within this machine; None if the endpoint is on another."""
    if endpoint.machine != machine():
        return None
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.connect(_address(endpoint.path))
    except OSError as error:
        connected.close()
        raise LinkError(f"nothing listens at {endpoint.path}: {error}") from error
    if not is_of_this_user(connected):
        connected.close()
        raise LinkError(f"somebody else listens at {endpoint.path}")
    return connected


def set_up(connected: socket.socket) -> None:
    """Have a TCP connection send at once what it is given, and notice a machine that is gone without a word."""
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 20_000)):
        if hasattr(socket, option):  # as on Linux
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def connect_remote(endpoint: Endpoint, identity: Identity) -> ssl.SSLSocket:
    """An encrypted connection, with both sides proven. Raises LinkError."""
    try:
        plain = socket.create_connection((endpoint.host, endpoint.port), CONNECT_TIMEOUT_S)
        set_up(plain)
        secured = client_context(identity).wrap_socket(plain, server_hostname=identity.name)
        secured.settimeout(None)
    except OSError as error:
        raise LinkError(f"cannot reach {endpoint.host}:{endpoint.port}: {error}") from error
    return secured


@lru_cache(maxsize=1)
def machine() -> str:
    """What tells machines, and containers with a network of their own, apart."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/net')}"
    except OSError:  # another system
        return f"{socket.gethostname()}/{uuid.getnode():x}"


def _address(path: str) -> str:
    return f"\0{path}" if ABSTRACT else path
