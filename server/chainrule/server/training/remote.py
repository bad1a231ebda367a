"""Links between machines: the two ends look like links of shared memory, and what lies in it travels over TLS.

A worker and a partition only know the local protocol. Where they are on different machines, a gateway beside the worker
stands for the partition, and a portal beside the partition stands for the worker; each has its own copy of the memory,
and between them go the parts that change. A link has a TLS connection for each direction, so that neither side ever has
to read in order to be able to write.
"""

from __future__ import annotations

import json
import secrets
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from chainrule.server.training.contributions import place_of_part
from chainrule.server.training.door import Door, start_thread
from chainrule.server.training.errors import LinkError
from chainrule.server.training.layout import PartitionLayout
from chainrule.server.training.memory import IN_PLACE, WRITING, Segment, Slot, Weights
from chainrule.server.training.tls import Identity
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
)

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
    start_thread("gateway-up", gateway.up)
    start_thread("gateway-down", gateway.down)
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
        self._door = Door(listener, self._let_in)
        self._waiting: dict[str, dict[str, _Stream]] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        self._door.open()

    def close(self) -> None:
        self._door.close()

    def _let_in(self, secured: ssl.SSLSocket) -> None:
        stream = _Stream(secured)
        _, length = stream.header()
        hello = json.loads(stream.exactly(min(length, MAX_HELLO_BYTES)))
        pair, way = str(hello["pair"]), str(hello["way"])
        secured.settimeout(None)
        with self._lock:
            ways = self._waiting.setdefault(pair, {})
            ways[way] = stream
            if len(ways) < 2:
                return
            del self._waiting[pair]
        local = connect_local(self._listener.endpoint)
        assert local is not None
        portal = _Portal(Connection(local), ways["up"], ways["down"], self._layout)
        start_thread("portal-down", portal.down)
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
