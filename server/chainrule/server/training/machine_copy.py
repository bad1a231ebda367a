"""One copy of a partition's weights for all workers of another machine.

The first worker of a machine that calls the partition keeps the copy: what comes over its link goes into shared memory,
and it listens at a name that follows from what all of them know. The others get the memory there, and a word whenever
it has changed. That word only says: look again. So whoever does not take it is not waited for, and misses nothing.
"""

from __future__ import annotations

import hmac
import os
import secrets
import selectors
import socket
import threading
import time
from contextlib import suppress

from chainrule.server.training.door import start_thread
from chainrule.server.training.errors import LinkError
from chainrule.server.training.layout import PartitionLayout
from chainrule.server.training.memory import EMPTY, Segment, Weights
from chainrule.server.training.tls import Identity
from chainrule.server.training.wire import (
    ABSTRACT,
    HEADER,
    MAX_GREETING_BYTES,
    SLOT,
    STEP,
    Connection,
    Endpoint,
    Frame,
    is_of_this_user,
)

ANSWER_TIMEOUT_S = 5.0
"""How long whoever keeps the copy may take to hand it over; after that a worker keeps one of its own."""
RETRY_INTERVAL_S = 0.001
"""Time before it is asked again, if it does not listen although it has the name."""
_LOOK_AGAIN = HEADER.pack(0, STEP)


def machine_copy(
    endpoint: Endpoint, identity: Identity, layout: PartitionLayout, *, shared: bool = True
) -> KeptCopy | ReadCopy:
    """The copy of a partition's weights on this machine: one to keep, or one that another worker keeps.

    It is one to keep, and nobody else's, if Unix sockets need files here, if somebody who does not belong to the
    attempt has taken the name, and if whoever keeps the machine's copy is halted. Raises SharedMemoryError.
    """
    if not shared or not ABSTRACT:
        return KeptCopy(layout)
    words = _Words(endpoint, identity)
    until_s = time.monotonic() + ANSWER_TIMEOUT_S
    while time.monotonic() < until_s:
        if (listening := _bound(words.name)) is not None:
            return KeptCopy(layout, listening, words)
        try:
            return _asked(words, layout) or KeptCopy(layout)
        except LinkError:  # it is about to listen, or has just gone
            time.sleep(RETRY_INTERVAL_S)
    return KeptCopy(layout)


class KeptCopy:
    """A copy that this process keeps, and hands to the other workers of the machine if it listens for them."""

    def __init__(
        self, layout: PartitionLayout, listening: socket.socket | None = None, words: _Words | None = None
    ) -> None:
        self.number = secrets.token_hex(8)
        """What tells copies apart."""
        self._listening = listening
        self._words = words
        self._readers: set[Connection] = set()
        self._lock = threading.Lock()
        self._closing, self._closed = socket.socketpair()
        self._thread: threading.Thread | None = None
        try:
            self.segment = Segment.make("chainrule weights of another machine", Weights.size(layout))
        except BaseException:
            self._close_sockets()
            raise
        self.weights = Weights(self.segment, layout)
        self.weights.versions[:] = EMPTY

    def serve(self) -> None:
        """Begin to answer the other workers of this machine."""
        if self._listening is not None and self._thread is None:
            self._thread = start_thread("gateway-copy", self._serve)

    def changed(self) -> None:
        """Tell all readers to look again."""
        with self._lock:
            for reader in self._readers:
                # One whose socket is full will look again anyway. One that is gone shows in `_serve`.
                with suppress(OSError):
                    reader.socket.send(_LOOK_AGAIN, socket.MSG_DONTWAIT)

    def close(self) -> None:
        """Have the readers see that it is over, and another keep a copy."""
        self._closing.close()
        if self._thread is not None:
            self._thread.join()
        self._close_sockets()
        self.segment.close()

    def _close_sockets(self) -> None:
        for each in (self._listening, self._closing, self._closed):
            if each is not None:
                each.close()

    def _serve(self) -> None:
        assert self._listening is not None
        callers: set[Connection] = set()
        with selectors.DefaultSelector() as selector:
            selector.register(self._closed, selectors.EVENT_READ)
            selector.register(self._listening, selectors.EVENT_READ)
            while self._closed not in (ready := [key.fileobj for key, _ in selector.select()]):
                for each in ready:
                    if isinstance(each, Connection):
                        if not self._answers(each):
                            selector.unregister(each)
                            callers.discard(each)
                            self._drop(each)
                    elif (caller := self._accepted()) is not None:
                        selector.register(caller, selectors.EVENT_READ)
                        callers.add(caller)
        for caller in callers:
            self._drop(caller)

    def _accepted(self) -> Connection | None:
        assert self._listening is not None
        try:
            connected, _ = self._listening.accept()
        except OSError:  # it has gone again, or there are no descriptors for it at the moment
            return None
        if not is_of_this_user(connected):
            connected.close()
            return None
        connected.setblocking(False)
        caller = Connection(connected)
        caller.max_body_bytes = MAX_GREETING_BYTES
        return caller

    def _answers(self, caller: Connection) -> bool:
        """Hand the memory to a caller that knows the attempt's token; False if it does not, or is gone."""
        assert self._words is not None
        try:
            for frame in caller.read():
                if not self._words.are(frame.body, "read"):
                    return False
                with self._lock:
                    answer = self._words.of("keep") + b" " + self.number.encode()
                    caller.send(SLOT, answer, descriptor=self.segment.descriptor)
                    self._readers.add(caller)
        except LinkError:
            return False
        return True

    def _drop(self, caller: Connection) -> None:
        with self._lock:
            self._readers.discard(caller)
            caller.close()


class ReadCopy:
    """A copy that another worker of this machine keeps."""

    def __init__(self, connection: Connection, layout: PartitionLayout, number: str, descriptor: int) -> None:
        self.number = number
        self._connection = connection
        self.segment = Segment.of(descriptor)
        self.weights = Weights(self.segment, layout)

    def wait(self) -> None:
        """Until it may have changed. Raises LinkError once nobody keeps it any more."""
        self._connection.next()
        self._connection.pending()

    def close(self) -> None:
        with suppress(OSError):
            self._connection.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits
        self._connection.close()
        self.segment.close()


class _Words:
    """What the processes of an attempt say about a partition, and nobody else can."""

    def __init__(self, endpoint: Endpoint, identity: Identity) -> None:
        self._secret = identity.token.encode()
        self._partition = f"{endpoint.machine} {endpoint.path}"
        self.name = f"\0chainrule/copy/{self.of('name').decode()}"

    def of(self, purpose: str) -> bytes:
        return hmac.new(self._secret, f"{purpose} {self._partition}".encode(), "sha256").hexdigest().encode()

    def are(self, said: bytes, purpose: str) -> bool:
        return hmac.compare_digest(said, self.of(purpose))


def _bound(name: str) -> socket.socket | None:
    """A socket that listens at a name, unless there is one."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(name)
    except OSError:
        listening.close()
        return None
    listening.listen(128)
    listening.setblocking(False)
    return listening


def _asked(words: _Words, layout: PartitionLayout) -> ReadCopy | None:
    """The copy of whoever listens; None if it does not answer, or not as one of the attempt. Raises LinkError."""
    keeper = Connection(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    keeper.socket.settimeout(ANSWER_TIMEOUT_S)
    keeper.max_body_bytes = MAX_GREETING_BYTES
    found = None
    try:
        keeper.socket.connect(words.name)
        if is_of_this_user(keeper.socket):
            keeper.send(STEP, words.of("read"))
            found = _read(keeper, keeper.next(), words, layout)
    except (TimeoutError, BlockingIOError):  # the second if many wait already
        return None
    except OSError as error:
        raise LinkError(f"nobody listens at {words.name[1:]}: {error}") from error
    except LinkError as error:
        if not isinstance(error.__cause__, TimeoutError):
            raise
    finally:
        if found is None:
            keeper.close()
    return found


def _read(keeper: Connection, answer: Frame, words: _Words, layout: PartitionLayout) -> ReadCopy | None:
    if answer.descriptor is None:
        return None
    proof, _, number = answer.body.partition(b" ")
    if not words.are(proof, "keep"):
        os.close(answer.descriptor)
        return None
    keeper.socket.settimeout(None)
    return ReadCopy(keeper, layout, number.decode(), answer.descriptor)
