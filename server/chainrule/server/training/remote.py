"""Links between machines: the two ends look like links of shared memory, and what lies in it travels over TLS.

A worker and a partition only know the local protocol. Where they are on different machines, a gateway beside the worker
stands for the partition, and a portal beside the partition stands for the worker; each has its own copy of the memory,
and between them go the parts that change. A link has a TLS connection for each direction, so that neither side ever has
to read in order to be able to write.
"""

from __future__ import annotations

import json
import secrets
import selectors
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial

from chainrule.server.training.contributions import place_of_part
from chainrule.server.training.errors import LinkError
from chainrule.server.training.layout import PartitionLayout
from chainrule.server.training.memory import IN_PLACE, WRITING, Segment, Slot, Weights
from chainrule.server.training.tls import Identity, server_context
from chainrule.server.training.wire import (
    BLOB,
    HEADER,
    MESSAGE,
    PUSH,
    PUSH_BODY,
    SLOT,
    STEP,
    STEP_BODY,
    Connection,
    Endpoint,
    Frame,
    Listener,
    connect_local,
    connect_remote,
    set_up,
)

HANDSHAKE_TIMEOUT_S = 10.0
MAX_HELLO_BYTES = 1024
_VERSION = struct.Struct("<q")
_PIECE = 1 << 16


# --- beside the worker -----------------------------------------------------------------------------------------


def through_gateway(endpoint: Endpoint, identity: Identity, layout: PartitionLayout) -> socket.socket:
    """A connection to a partition on another machine that looks like one within this machine. Raises LinkError."""
    pair = secrets.token_hex(16)
    up, down = (_Stream(connect_remote(endpoint, identity)) for _ in range(2))
    for stream, way in ((up, "up"), (down, "down")):
        stream.send(MESSAGE, json.dumps({"pair": pair, "way": way}).encode())
    ours, theirs = socket.socketpair()
    gateway = _Gateway(Connection(ours), up, down, layout)
    _start("gateway-up", gateway.up)
    _start("gateway-down", gateway.down)
    return theirs


class _Gateway:
    def __init__(self, worker: Connection, up: _Stream, down: _Stream, layout: PartitionLayout) -> None:
        self._worker = worker
        self._up = up
        self._down = down
        self._layout = layout
        self._slots: dict[int, Slot] = {}

    def up(self) -> None:
        """From the worker to the partition."""
        with _closing(self._worker, self._up, self._down), _closing_slots(self._slots):
            while True:
                frame = self._worker.next()
                if frame.kind == SLOT and frame.descriptor is not None:
                    self._slots[int.from_bytes(frame.body, "little")] = Slot.of(frame.descriptor, self._layout)
                    self._up.send(SLOT, frame.body)
                elif frame.kind == PUSH:
                    tick, _, _, number, part, *_ = PUSH_BODY.unpack(frame.body)
                    start, stop = place_of_part(self._layout, part)
                    content = bytes(self._slots[number].memory[start:stop])
                    if int(self._slots[number].tick[0]) == tick:  # else the worker has gone on without being waited for
                        self._up.send(PUSH, frame.body, content)
                else:
                    self._up.send(frame.kind, frame.body)

    def down(self) -> None:
        """From the partition to the worker."""
        with (
            _closing(self._worker, self._up, self._down),
            closing(Segment.make("chainrule weights of another machine", Weights.size(self._layout))) as segment,
        ):
            weights = Weights(segment, self._layout)
            weights.versions[:] = WRITING
            version = WRITING
            while True:
                kind, length = self._down.header()
                if kind == SLOT:  # the constants, once
                    self._down.into(segment.memory[segment.size - length :])
                    self._worker.send(SLOT, descriptor=segment.descriptor)
                elif kind == BLOB:  # weights; they count once STEP says so
                    [version] = _VERSION.unpack(self._down.exactly(_VERSION.size))
                    if version == IN_PLACE:
                        self._down.into(weights.regions[0])
                    elif weights.holds(version):  # told again, while the worker may be reading them
                        self._down.exactly(len(weights.regions[0]))
                    else:
                        weights.versions[version % 2] = WRITING
                        self._down.into(weights.regions[version % 2])
                elif kind == STEP:
                    body = self._down.exactly(length)
                    if version == IN_PLACE:
                        weights.versions[:] = IN_PLACE
                    elif version == STEP_BODY.unpack(body)[1]:
                        weights.versions[version % 2] = version
                    self._worker.send(STEP, body)
                else:
                    self._worker.send(kind, self._down.exactly(length))


# --- beside the partition --------------------------------------------------------------------------------------


class Portals:
    """Lets in workers of other machines, and stands for each of them in front of the partition of this process."""

    def __init__(self, listener: Listener, layout: PartitionLayout) -> None:
        self._listener = listener
        self._layout = layout
        self._context = server_context(listener.identity)
        self._waiting: dict[str, dict[str, _Stream]] = {}
        self._lock = threading.Lock()
        self._closing, self._closed = socket.socketpair()

    def start(self) -> None:
        _start("portals", self._accept)

    def close(self) -> None:
        self._closing.close()

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener.remote, selectors.EVENT_READ)
            selector.register(self._closed, selectors.EVENT_READ)
            while self._closed not in [key.fileobj for key, _ in selector.select()]:
                with suppress(OSError):  # it has gone again, or there are no descriptors for it at the moment
                    connected, _ = self._listener.remote.accept()
                    _start("portal", partial(self._let_in, connected))
            self._closed.close()

    def _let_in(self, plain: socket.socket) -> None:
        try:
            plain.settimeout(HANDSHAKE_TIMEOUT_S)
            set_up(plain)
            secured = self._context.wrap_socket(plain, server_side=True)
            stream = _Stream(secured)
            _, length = stream.header()
            hello = json.loads(stream.exactly(min(length, MAX_HELLO_BYTES)))
            pair, way = str(hello["pair"]), str(hello["way"])
            secured.settimeout(None)
        except (OSError, LinkError, ValueError, KeyError, TypeError):  # nobody of this job
            plain.close()
            return
        with self._lock:
            ways = self._waiting.setdefault(pair, {})
            ways[way] = stream
            if len(ways) < 2:
                return
            del self._waiting[pair]
        local = connect_local(self._listener.endpoint)
        assert local is not None
        portal = _Portal(Connection(local), ways["up"], ways["down"], self._layout)
        _start("portal-down", portal.down)
        portal.up()


class _Portal:
    def __init__(self, partition: Connection, up: _Stream, down: _Stream, layout: PartitionLayout) -> None:
        self._partition = partition
        self._up = up
        self._down = down
        self._layout = layout
        self._slots: dict[int, Slot] = {}

    def up(self) -> None:
        """From the worker to the partition."""
        with _closing(self._partition, self._up, self._down), _closing_slots(self._slots):
            while True:
                kind, length = self._up.header()
                if kind == SLOT:
                    number = self._up.exactly(length)
                    slot = Slot.make("chainrule push of another machine", self._layout)
                    self._slots[int.from_bytes(number, "little")] = slot
                    self._partition.send(SLOT, number, descriptor=slot.segment.descriptor)
                elif kind == PUSH:
                    body = self._up.exactly(PUSH_BODY.size)
                    tick, _, _, number, part, *_ = PUSH_BODY.unpack(body)
                    start, stop = place_of_part(self._layout, part)
                    self._slots[number].begin(tick)
                    self._up.into(self._slots[number].memory[start:stop])
                    self._partition.send(PUSH, body)
                else:
                    self._partition.send(kind, self._up.exactly(length))

    def down(self) -> None:
        """From the partition to the worker."""
        with _closing(self._partition, self._up, self._down):
            first = self._partition.next()
            if first.descriptor is None:  # it does not want this worker, and says why
                self._down.send(first.kind, first.body)
                return
            segment = Segment.of(first.descriptor)
            segment.close()  # the memory stays as long as it is mapped
            weights = Weights(segment, self._layout)
            self._down.send(SLOT, segment.memory[Weights.size(self._layout) - self._layout.constant_bytes :])
            while True:
                frame = self._partition.next()
                if frame.kind == STEP:
                    self._send_weights(weights, frame)
                else:
                    self._down.send(frame.kind, frame.body)

    def _send_weights(self, weights: Weights, frame: Frame) -> None:
        """Weights, and then that they count; unless they were overwritten meanwhile: the next are on their way then."""
        _, step = STEP_BODY.unpack(frame.body)
        if not weights.holds(step):
            return
        region = weights.region(step)
        self._down.send(BLOB, _VERSION.pack(int(weights.versions[region])), weights.regions[region])
        if weights.holds(step):
            self._down.send(STEP, frame.body)


class _Stream:
    """A TLS connection, used in one direction. What comes in is read straight to where it belongs."""

    def __init__(self, secured: ssl.SSLSocket) -> None:
        self.socket = secured

    def send(self, kind: int, *parts: bytes | memoryview) -> None:
        """Raises LinkError if the other side is gone."""
        header = HEADER.pack(sum(len(part) for part in parts), kind)
        try:
            if sum(map(len, parts)) <= _PIECE:
                self.socket.sendall(b"".join([header, *parts]))
            else:
                self.socket.sendall(header)
                for part in parts:
                    self.socket.sendall(part)
        except OSError as error:
            raise LinkError(f"the other side of a link is gone: {error}") from error

    def header(self) -> tuple[int, int]:
        """The kind of the next frame, and the length of its body. Raises LinkError."""
        length, kind = HEADER.unpack(self.exactly(HEADER.size))
        return kind, length

    def exactly(self, count: int) -> bytes:
        """So many bytes. Raises LinkError."""
        content = bytearray(count)
        self.into(memoryview(content))
        return bytes(content)

    def into(self, target: memoryview) -> None:
        """Fill this with what comes next. Raises LinkError."""
        done = 0
        while done < len(target):
            try:
                count = self.socket.recv_into(target[done:])
            except OSError as error:
                raise LinkError(f"the other side of a link is gone: {error}") from error
            if count == 0:
                raise LinkError("the other side has closed the link")
            done += count


# --- control ---------------------------------------------------------------------------------------------------


def pumped(secured: ssl.SSLSocket) -> socket.socket:
    """A plain socket whose bytes travel over a TLS connection, both ways."""
    ours, theirs = socket.socketpair()
    secured.setblocking(False)  # what makes it readable may be nothing for us, a key say

    def work() -> None:
        with suppress(OSError), ours, secured, selectors.DefaultSelector() as selector:
            selector.register(ours, selectors.EVENT_READ)
            selector.register(secured, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    goes_on = _pump_in(secured, ours) if key.fileobj is secured else _pump_out(ours, secured)
                    if not goes_on:
                        return

    _start("control-pump", work)
    return theirs


def _pump_in(secured: ssl.SSLSocket, plain: socket.socket) -> bool:
    """Hand on all that has come; False at the end."""
    while True:
        try:
            data = secured.recv(_PIECE)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        if not data:
            return False
        plain.sendall(data)


def _pump_out(plain: socket.socket, secured: ssl.SSLSocket) -> bool:
    """Hand on what there is; False at the end."""
    left = memoryview(plain.recv(_PIECE))
    if not left:
        return False
    while left:
        try:
            left = left[secured.send(left) :]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError) as error:
            wanted = selectors.EVENT_WRITE if isinstance(error, ssl.SSLWantWriteError) else selectors.EVENT_READ
            with selectors.DefaultSelector() as waiting:
                waiting.register(secured, wanted)
                waiting.select()
    return True


class _closing:  # noqa: N801 — used as a statement
    """Closes all ends of a link once one of them is gone."""

    def __init__(self, *connections: Connection | _Stream) -> None:
        self._connections = connections

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        for connection in self._connections:
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread of the other direction
            with suppress(OSError):
                connection.socket.close()
        return isinstance(error, LinkError | OSError)


@contextmanager
def _closing_slots(slots: dict[int, Slot]) -> Iterator[None]:
    try:
        yield
    finally:
        for slot in slots.values():
            slot.close()


def _start(name: str, work: Callable[[], None]) -> None:
    threading.Thread(target=work, name=name, daemon=True).start()
