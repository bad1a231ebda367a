"""Links between machines: the two ends look like links of shared memory, and what lies in it travels over TLS.

A worker and a partition only know the local protocol. Where they are on different machines, a gateway beside the worker
stands for the partition, and a portal beside the partition stands for the worker; each has its own copy of the memory,
and between them go the parts that change. Weights come to a machine once: the first of its workers keeps a copy, which
the others read (see machine_copy). A link has a TLS connection for each direction, so that neither side ever has to
read in order to be able to write.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from chainrule.server.training.contributions import place_of_part
from chainrule.server.training.door import HANDSHAKE_TIMEOUT_S, Door, start_thread
from chainrule.server.training.errors import LinkError
from chainrule.server.training.layout import PartitionLayout
from chainrule.server.training.machine_copy import KeptCopy, ReadCopy, machine_copy
from chainrule.server.training.memory import EMPTY, IN_PLACE, WRITING, Segment, SharedMemoryError, Slot, Weights
from chainrule.server.training.tls import Identity
from chainrule.server.training.wire import (
    BLOB,
    CLOCKS,
    END,
    HEADER,
    MAX_GREETING_BYTES,
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

logger = logging.getLogger(__name__)

MAX_HELLO_BYTES = 1024
_VERSION = struct.Struct("<q")
_PIECE = 1 << 16


# --- beside the worker -----------------------------------------------------------------------------------------


def through_gateway(
    endpoint: Endpoint, identity: Identity, layout: PartitionLayout, *, shared: bool = True
) -> socket.socket:
    """A connection to a partition on another machine that looks like one within this machine.

    Args:
        shared: Whether the workers of this machine read one copy of the weights; not where these change in place.

    Raises LinkError, and SharedMemoryError if there is no memory for the weights.
    """
    copy = machine_copy(endpoint, identity, layout, shared=shared)
    hello = {"pair": secrets.token_hex(16), "copy": copy.number, "keeps": isinstance(copy, KeptCopy)}
    streams: list[_Stream] = []
    try:
        for way in ("up", "down"):
            streams.append(_Stream(connect_remote(endpoint, identity)))
            streams[-1].send(MESSAGE, json.dumps({**hello, "way": way}).encode())
    except LinkError:
        copy.close()
        for stream in streams:
            stream.socket.close()
        raise
    ours, theirs = socket.socketpair()
    up, down = streams
    gateway = _Gateway(Connection(ours), up, down, layout, copy)
    start_thread("gateway-up", gateway.up)
    start_thread("gateway-down", gateway.down)
    if isinstance(copy, ReadCopy):
        start_thread("gateway-copy", partial(gateway.follow, copy))
    return theirs


class _Gateway:
    def __init__(
        self, worker: Connection, up: _Stream, down: _Stream, layout: PartitionLayout, copy: KeptCopy | ReadCopy
    ) -> None:
        self._worker = worker
        self._up = up
        self._down = down
        self._layout = layout
        self._copy = copy
        self._slots: dict[int, Slot] = {}
        self._arrived = WRITING  # version of the weights that came last
        self._lock = threading.Lock()
        self._accepted = False  # by the partition
        self._given = False  # the memory, to the worker
        self._news: Frame | None = None  # a STEP whose weights may not be there yet, or the END

    def up(self) -> None:
        """From the worker to the partition."""
        with _closing(self._worker, self._up, self._down), _closing_slots(self._slots):
            while True:
                frame = self._worker.next()
                if frame.kind == SLOT and frame.descriptor is not None:
                    self._slots[int.from_bytes(frame.body, "little")] = Slot.of(frame.descriptor, self._layout)
                    self._up.send(SLOT, frame.body)
                elif frame.kind == PUSH:
                    tick, _, _, number, part, *_ = PUSH_BODY.unpack_from(frame.body)
                    start, stop = place_of_part(self._layout, part)
                    content = bytes(self._slots[number].memory[start:stop])
                    if int(self._slots[number].tick[0]) == tick:  # else the worker has gone on without being waited for
                        self._up.send(PUSH, frame.body, content)
                else:
                    self._up.send(frame.kind, frame.body)

    def down(self) -> None:
        """From the partition to the worker, and weights to the copy, if it is kept here."""
        with _closing(self._worker, self._up, self._down), self._closing_copy():
            while True:
                kind, length = self._down.header()
                if kind == SLOT:
                    self._begin(length)
                elif kind == BLOB:  # weights; they count once STEP says so
                    [self._arrived] = _VERSION.unpack(self._down.exactly(_VERSION.size))
                    weights = self._copy.weights
                    if self._arrived == IN_PLACE:
                        self._down.into(weights.regions[0])
                    else:
                        region = weights.region(self._arrived)
                        weights.versions[region] = WRITING
                        self._down.into(weights.regions[region])
                else:
                    frame = Frame(kind, self._down.exactly(length))
                    if kind == STEP and isinstance(self._copy, KeptCopy):
                        self._complete(self._copy, _version(frame))
                    self._tell(frame)

    def follow(self, copy: ReadCopy) -> None:
        """From whoever keeps the copy to the worker."""
        with _closing(self._worker, self._up, self._down):
            while True:
                copy.wait()
                self._tell()

    def _begin(self, length: int) -> None:
        """The partition wants this worker. Where the copy is kept, the constants come with that, once."""
        if isinstance(self._copy, KeptCopy):
            self._copy.serve()  # the portals know of it by now
            self._down.into(self._copy.segment.memory[self._copy.segment.size - length :])
            self._copy.weights.versions[:] = WRITING
            self._copy.changed()
        self._accepted = True
        self._tell()

    def _complete(self, copy: KeptCopy, version: int) -> None:
        """What has arrived counts."""
        if self._arrived == IN_PLACE:
            copy.weights.versions[:] = IN_PLACE
        elif self._arrived == version:
            copy.weights.versions[copy.weights.region(version)] = version
        copy.changed()

    def _tell(self, frame: Frame | None = None) -> None:
        """Hand a frame on to the worker; the memory and a step once what they are about is there."""
        with self._lock:
            if frame is not None and frame.kind not in (STEP, END):
                self._worker.send(frame.kind, frame.body)
                return
            self._news = frame or self._news
            weights = self._copy.weights
            if not self._accepted or weights.versions[0] == EMPTY:
                return
            if not self._given:
                self._worker.send(SLOT, descriptor=self._copy.segment.descriptor)
                self._given = True
            if (news := self._news) is not None and (news.kind == END or weights.holds(_version(news))):
                self._worker.send(news.kind, news.body)
                self._news = None

    @contextmanager
    def _closing_copy(self) -> Iterator[None]:
        try:
            yield
        finally:
            with self._lock:  # its descriptor may be on its way to the worker
                self._copy.close()


def _version(step: Frame) -> int:
    """Of the weights that a STEP is about."""
    version: int
    _, version = STEP_BODY.unpack(step.body)
    return version


# --- beside the partition --------------------------------------------------------------------------------------


class Portals:
    """Lets in workers of other machines, and stands for each of them in front of the partition of this process."""

    def __init__(self, listener: Listener, layout: PartitionLayout) -> None:
        self._listener = listener
        self._layout = layout
        self._door = Door(listener, self._let_in)
        self._waiting: dict[str, dict[str, _Stream]] = {}
        self._since_s: dict[str, float] = {}  # of those, by pair
        self._readers: dict[str, set[_Portal]] = {}  # by the number of the copy that they read
        self._lock = threading.Lock()

    def start(self) -> None:
        self._door.open()

    def close(self) -> None:
        self._door.close()
        with self._lock:
            self._hang_up_halves(before_s=math.inf)

    def _hang_up_halves(self, *, before_s: float) -> None:
        """Give up links whose second connection has not come."""
        for pair in [pair for pair, since_s in self._since_s.items() if since_s < before_s]:
            del self._since_s[pair]
            for stream in self._waiting.pop(pair).values():
                stream.socket.close()

    def _let_in(self, secured: ssl.SSLSocket) -> None:
        stream = _Stream(secured)
        _, length = stream.header()
        hello = json.loads(stream.exactly(min(length, MAX_HELLO_BYTES)))
        pair, way = str(hello["pair"]), str(hello["way"])
        copy, keeps = str(hello["copy"]), bool(hello["keeps"])
        secured.settimeout(None)
        with self._lock:
            self._hang_up_halves(before_s=time.monotonic() - HANDSHAKE_TIMEOUT_S)
            ways = self._waiting.setdefault(pair, {})
            ways[way] = stream
            if len(ways) < 2:
                self._since_s[pair] = time.monotonic()
                return
            del self._waiting[pair]
            self._since_s.pop(pair, None)
        with _closing(ways["up"], ways["down"]):
            local = connect_local(self._listener.endpoint)
            assert local is not None
            portal = _Portal(Connection(local), ways["up"], ways["down"], self._layout, keeps=keeps)
            with self._kept(copy) if keeps else self._read(copy, portal):
                start_thread("portal-down", portal.down)
                portal.up()

    @contextmanager
    def _kept(self, copy: str) -> Iterator[None]:
        """While a worker keeps a copy, others may read it. Their links end with its own: it may be halted, and neither
        take weights any more nor say so."""
        with self._lock:
            self._readers[copy] = set()
        try:
            yield
        finally:
            with self._lock:
                for reader in self._readers.pop(copy):
                    reader.hang_up()

    @contextmanager
    def _read(self, copy: str, portal: _Portal) -> Iterator[None]:
        with self._lock:
            if copy in self._readers:
                self._readers[copy].add(portal)
            else:  # it is over already
                portal.hang_up()
        try:
            yield
        finally:
            with self._lock:
                self._readers.get(copy, set()).discard(portal)


class _Portal:
    def __init__(
        self, partition: Connection, up: _Stream, down: _Stream, layout: PartitionLayout, *, keeps: bool
    ) -> None:
        self._partition = partition
        self._up = up
        self._down = down
        self._layout = layout
        self._keeps = keeps  # a copy of the weights; else it reads another's
        self._slots: dict[int, Slot] = {}
        self._sent: dict[int, int] = {}  # version of the weights that were sent last, by region

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
                    size_of_sums = length - PUSH_BODY.size - (stop - start)
                    if not 0 <= size_of_sums <= MAX_GREETING_BYTES:
                        raise LinkError(f"a push of {length} bytes was announced for part {part}")
                    sums = self._up.exactly(size_of_sums)
                    self._slots[number].begin(tick)
                    self._up.into(self._slots[number].memory[start:stop])
                    self._partition.send(PUSH, body + sums)
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
            constants = segment.memory[Weights.size(self._layout) - self._layout.constant_bytes :]
            self._down.send(SLOT, constants if self._keeps else b"")
            clocks: Frame | None = None
            while True:
                frame = self._partition.next()
                if frame.kind == CLOCKS and self._keeps:
                    clocks = frame  # they are about the weights that go with the STEP behind them, and no older ones
                elif frame.kind == STEP and self._keeps:
                    self._send_weights(weights, frame, clocks)
                else:
                    self._down.send(frame.kind, frame.body)

    def _send_weights(self, weights: Weights, frame: Frame, clocks: Frame | None) -> None:
        """Weights, unless they were sent before, and then that they count; unless they were overwritten meanwhile: the
        next are on their way then."""
        step = _version(frame)
        if not weights.holds(step):
            return
        in_place = weights.versions[0] == IN_PLACE
        number = weights.region(step)
        if in_place or step != self._sent.get(number):
            self._down.send(BLOB, _VERSION.pack(IN_PLACE if in_place else step), weights.regions[number])
            if not weights.holds(step):
                self._sent.pop(number, None)
                return
            self._sent[number] = step
        if clocks is not None:
            self._down.send(CLOCKS, clocks.body)
        self._down.send(STEP, frame.body)

    def hang_up(self) -> None:
        """End the link, from another thread."""
        with suppress(OSError):
            self._partition.socket.shutdown(socket.SHUT_RDWR)


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
        if isinstance(error, SharedMemoryError):
            logger.error("a link to another machine has ended: %s", error)
        return isinstance(error, LinkError | OSError | SharedMemoryError)


@contextmanager
def _closing_slots(slots: dict[int, Slot]) -> Iterator[None]:
    try:
        yield
    finally:
        for slot in slots.values():
            slot.close()
