"""Calls between machines: a process is let in over TLS, and what it says is read as within the machine."""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from chainrule.server.training.errors import LinkError
from chainrule.server.training.tls import server_context
from chainrule.server.training.wire import Listener, set_up

HANDSHAKE_TIMEOUT_S = 10.0
"""How long whoever calls may take to prove that it belongs to the attempt, and to say what it wants."""
MAX_GUESTS = 64
"""How many may be proving at a time that they belong to the attempt; whoever calls then is hung up on."""
PAUSE_S = 0.1
"""How long nobody is let in where the system has no room for another."""
_PIECE = 1 << 16


class Door:
    """Lets in processes of other machines, each in a thread of its own.

    Args:
        let_in: Called in that thread with the connection of a process that has proven that it belongs to the attempt;
            reading from it times out. What it raises, if nobody of the job called, ends the connection.
    """

    def __init__(self, listener: Listener, let_in: Callable[[ssl.SSLSocket], None]) -> None:
        self._listening = listener.remote
        self._context = server_context(listener.identity)
        self._let_in = let_in
        self._closing, self._closed = socket.socketpair()
        self._over = threading.Event()
        self._guests = threading.BoundedSemaphore(MAX_GUESTS)
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._listening, selectors.EVENT_READ)
        selector.register(self._closed, selectors.EVENT_READ)
        self._thread = start_thread("door", partial(self._accept, selector))

    def close(self) -> None:
        self._over.set()
        self._closing.close()
        if self._thread is not None:
            self._thread.join()

    def _accept(self, selector: selectors.BaseSelector) -> None:
        with selector, self._closed:
            while self._closed not in [key.fileobj for key, _ in selector.select()]:
                try:
                    self._answer(self._listening.accept()[0])
                except BlockingIOError:  # it has gone again
                    continue
                except (OSError, RuntimeError):  # no descriptors or threads at the moment
                    self._over.wait(PAUSE_S)

    def _answer(self, connected: socket.socket) -> None:
        if not self._guests.acquire(blocking=False):
            connected.close()
            return
        try:
            start_thread("door-guest", partial(self._shake_hands, connected))
        except RuntimeError:
            self._guests.release()
            connected.close()
            raise

    def _shake_hands(self, plain: socket.socket) -> None:
        try:
            secured = self._secured(plain)
        finally:
            self._guests.release()
        if secured is None:
            return
        try:
            self._let_in(secured)
        except (OSError, LinkError, ValueError, KeyError, TypeError):
            secured.close()

    def _secured(self, plain: socket.socket) -> ssl.SSLSocket | None:
        """The connection, once who called has proven itself; None if it has not."""
        try:
            plain.settimeout(HANDSHAKE_TIMEOUT_S)
            set_up(plain)
            return self._context.wrap_socket(plain, server_side=True)
        except OSError:  # nobody of this attempt
            plain.close()
            return None


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

    start_thread("pump", work)
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


def start_thread(name: str, work: Callable[[], None]) -> threading.Thread:
    """Do something in a thread that does not keep the process from ending."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread
