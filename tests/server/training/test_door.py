"""Calls from other machines: who is let in, and bytes that travel over TLS as if they did not."""

from __future__ import annotations

import os
import resource
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from chainrule.server.training import door
from chainrule.server.training.door import Door, pumped
from chainrule.server.training.errors import LinkError
from chainrule.server.training.tls import client_context, server_context
from chainrule.server.training.wire import Listener, connect_remote
from tests.server.training.bench import LIMIT_S
from tests.server.training.stand_ins import IDENTITY, Exhausted

MUCH = 4_000_000
"""More bytes than lie in sockets."""


@dataclass
class Entrance:
    """A door, and what it does with those whom it lets in."""

    listener: Listener = field(default_factory=lambda: Listener(IDENTITY, host="127.0.0.1", name="test/door"))
    guests: list[ssl.SSLSocket] = field(default_factory=list)
    error: Exception | None = None
    """What to raise when somebody has been let in."""

    def let_in(self, secured: ssl.SSLSocket) -> None:
        self.guests.append(secured)
        if self.error is not None:
            raise self.error
        secured.sendall(b"welcome")

    def call(self) -> ssl.SSLSocket:
        secured = connect_remote(self.listener.endpoint, IDENTITY)
        secured.settimeout(LIMIT_S)
        return secured


@pytest.fixture
def entrance() -> Iterator[Entrance]:
    found = Entrance()
    door = Door(found.listener, found.let_in)
    door.open()
    yield found
    door.close()
    found.listener.close()
    for guest in found.guests:
        guest.close()


def secured_pair() -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    """Two ends of a TLS connection."""
    near, far = socket.socketpair()
    found: list[ssl.SSLSocket] = []
    serving = threading.Thread(target=lambda: found.append(server_context(IDENTITY).wrap_socket(far, server_side=True)))
    serving.start()
    client = client_context(IDENTITY).wrap_socket(near, server_hostname=IDENTITY.name)
    serving.join()
    return client, found[0]


class Pumped:
    """A connection over TLS whose ends are plain sockets."""

    def __init__(self) -> None:
        self.ends = [pumped(secured) for secured in secured_pair()]
        for end in self.ends:
            end.settimeout(LIMIT_S)

    def close(self) -> None:
        for end in self.ends:
            end.close()
        for thread in threading.enumerate():
            if thread.name == "pump":
                thread.join(LIMIT_S)


@pytest.fixture
def line() -> Iterator[Pumped]:
    found = Pumped()
    yield found
    found.close()


def exactly(connected: socket.socket, count: int) -> bytes:
    content = bytearray()
    while len(content) < count:
        piece = connected.recv(count - len(content))
        assert piece, "the other side has closed"
        content += piece
    return bytes(content)


# --- the door --------------------------------------------------------------------------------------------------


def test_whoever_belongs_to_the_attempt_is_let_in(entrance: Entrance) -> None:
    with entrance.call() as secured:
        assert exactly(secured, 7) == b"welcome"


def test_both_sides_notice_a_machine_that_is_gone_without_a_word(entrance: Entrance) -> None:
    with entrance.call() as secured:
        exactly(secured, 7)
        for end in (secured, *entrance.guests):
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000


@pytest.mark.parametrize(
    "error", [LinkError("no link"), OSError("gone"), ValueError("no JSON"), KeyError("pair"), TypeError("no object")]
)
def test_whoever_says_nonsense_is_hung_up_on_and_the_next_is_let_in(entrance: Entrance, error: Exception) -> None:
    entrance.error = error
    with entrance.call() as secured:
        assert secured.recv(1) == b""
    entrance.error = None
    with entrance.call() as secured:
        assert exactly(secured, 7) == b"welcome"


def test_callers_wait_while_there_are_no_descriptors_for_them() -> None:
    entrance = Entrance()
    exhausted = entrance.listener.remote = Exhausted(fileno=entrance.listener.remote.detach())
    door = Door(entrance.listener, entrance.let_in)
    door.open()
    with entrance.call() as secured:
        assert exactly(secured, 7) == b"welcome"
    assert exhausted.left == 0
    door.close()
    entrance.listener.close()
    entrance.guests[0].close()


# --- pumps -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1])
def test_either_side_may_speak_first(line: Pumped, first: int) -> None:
    for text in (b"one", b"another"):
        line.ends[first].sendall(text)
        assert exactly(line.ends[1 - first], len(text)) == text


def test_much_arrives_whole(line: Pumped) -> None:
    content = os.urandom(MUCH)
    sending = threading.Thread(target=line.ends[0].sendall, args=(content,))
    sending.start()
    assert exactly(line.ends[1], MUCH) == content
    sending.join(LIMIT_S)


def test_an_end_that_says_much_before_it_listens_hears_what_was_said(line: Pumped) -> None:
    """What comes in may not keep what goes out from going, nor the other way round."""
    content = os.urandom(MUCH)
    line.ends[1].sendall(b"a word")
    sending = threading.Thread(target=line.ends[0].sendall, args=(content,))
    sending.start()
    assert exactly(line.ends[1], MUCH) == content
    sending.join(LIMIT_S)
    assert exactly(line.ends[0], 6) == b"a word"


@pytest.mark.parametrize("end", [0, 1])
def test_when_one_end_closes_so_does_the_other_after_what_was_said(line: Pumped, end: int) -> None:
    line.ends[end].sendall(b"the last")
    line.ends[end].close()
    assert exactly(line.ends[1 - end], 8) == b"the last"
    assert line.ends[1 - end].recv(1) == b""


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """More than 1024 are in use, where what is opened next would be too much for select."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip(f"a process may have {hard} descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    held = [os.open(os.devnull, os.O_RDONLY)]
    while held[-1] < 1100:
        held.append(os.dup(held[0]))
    yield
    for descriptor in held:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_descriptors_may_have_large_numbers() -> None:
    entrance = Entrance()
    door = Door(entrance.listener, entrance.let_in)
    door.open()
    with entrance.call() as secured:
        assert secured.fileno() > 1024
        assert exactly(secured, 7) == b"welcome"
    door.close()
    entrance.listener.close()
    entrance.guests[0].close()
    line = Pumped()
    line.ends[0].sendall(b"hello")
    assert exactly(line.ends[1], 5) == b"hello"
    line.close()


def test_who_calls_while_too_many_prove_themselves_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_GUESTS", 2)
    found = Entrance()
    opened = Door(found.listener, found.let_in)
    opened.open()
    try:
        silent = [
            socket.create_connection((found.listener.endpoint.host, found.listener.endpoint.port)) for _ in range(3)
        ]
        silent[2].settimeout(LIMIT_S)
        assert silent[2].recv(1) == b""
        for stranger in silent:
            stranger.close()
        while True:  # the places are free again in a moment
            try:
                with found.call() as secured:
                    assert exactly(secured, 7) == b"welcome"
                break
            except LinkError:
                continue
    finally:
        opened.close()
        found.listener.close()
        for guest in found.guests:
            guest.close()


def test_a_system_without_threads_for_the_moment_lets_in_later(
    entrance: Entrance, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refusals = door.start_thread, [RuntimeError("can't start new thread")]

    def refusing(name: str, work: Callable[[], None]) -> threading.Thread:
        if refusals:
            raise refusals.pop()
        return start(name, work)

    monkeypatch.setattr(door, "start_thread", refusing)
    with pytest.raises(LinkError):
        entrance.call()
    with entrance.call() as secured:
        assert exactly(secured, 7) == b"welcome"
