"""Processes that are not of the attempt: wherever one calls, or listens in place of another, it is hung up on."""

from __future__ import annotations

import asyncio
import logging
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from chainrule.server.training import serving, switchboard, wire
from chainrule.server.training.errors import LinkError
from chainrule.server.training.switchboard import Line, Message, Switchboard
from chainrule.server.training.wire import (
    Connection,
    Listener,
    connect_local,
    connect_remote,
    is_of_this_user,
)
from tests.server.training.bench import LIMIT_S, tiny_plan, until
from tests.server.training.served import FENCE, Served, Worker
from tests.server.training.stand_ins import IDENTITY


class Caller:
    """The other end of a Unix socket, as the system describes it."""

    def __init__(self, user: int) -> None:
        self.user = user

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert struct.calcsize("3i") == size
        return struct.pack("3i", 4321, self.user, 100)


class Owner:
    """Who is told of calls."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.gone: list[Line] = []

    def heard(self, line: Line, message: Message, blob: memoryview) -> None:
        self.messages.append(message)

    def lost(self, line: Line) -> None:
        self.gone.append(line)


@pytest.fixture
def served() -> Iterator[Served]:
    found = Served(tiny_plan())
    yield found
    found.close()


# --- another user ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("user", "is_ours"), [(1234, True), (0, True), (1235, False), (65534, False)])
def test_a_process_is_ours_if_it_is_of_this_user_or_of_root(
    monkeypatch: pytest.MonkeyPatch, user: int, is_ours: bool
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    caller: Any = Caller(user)
    assert is_of_this_user(caller) is is_ours


def test_nobody_tells_the_token_to_whoever_listens_in_place_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener(IDENTITY, host="127.0.0.1", name="test/0")
    monkeypatch.setattr(wire, "is_of_this_user", lambda _: False)
    with pytest.raises(LinkError, match="somebody else listens at chainrule/test/0/"):
        connect_local(listener.endpoint)
    listener.local.settimeout(LIMIT_S)
    accepted, _ = listener.local.accept()
    with pytest.raises(LinkError, match="closed"):
        Connection(accepted).next()
    accepted.close()
    listener.close()


def test_another_user_that_calls_a_partition_is_hung_up_on(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "is_of_this_user", lambda _: False)
    connected = connect_local(served.endpoint)
    assert connected is not None
    stranger = Worker(connected, served)
    with suppress(LinkError):  # it may have been hung up on already
        stranger.connection.message(token=IDENTITY.token, fence=FENCE, lease=1)
    assert stranger.hung_up_on()  # although it knows the token
    monkeypatch.undo()
    served.worker(2).link().until_step(0, 0)


async def test_another_user_that_calls_the_coordinator_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = Owner()
    board = Switchboard(IDENTITY, owner, host="127.0.0.1", name="test/coordinator")
    await board.open()
    monkeypatch.setattr(switchboard, "is_of_this_user", lambda _: False)
    connected = connect_local(board.endpoint)
    assert connected is not None
    connected.settimeout(LIMIT_S)
    stranger = Connection(connected)
    with suppress(LinkError):  # it may have been hung up on already
        stranger.message(token=IDENTITY.token)
        stranger.message(type="ready")
    with pytest.raises(LinkError, match=r"closed the link|is gone"):
        await asyncio.to_thread(stranger.next)
    stranger.close()
    await board.close()
    assert owner.messages == []


# --- without the token -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["wrong", "\u00fc", "", None, 7, ["x"], {}])
async def test_a_wrong_token_is_no_defect_of_the_coordinator(caplog: pytest.LogCaptureFixture, token: object) -> None:
    owner = Owner()
    board = Switchboard(IDENTITY, owner, host="127.0.0.1", name="test/coordinator")
    await board.open()
    connected = connect_local(board.endpoint)
    assert connected is not None
    stranger = Connection(connected)
    stranger.message(token=token, role="worker", lease=1)
    await until(lambda: bool(owner.gone))
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    stranger.close()
    await board.close()


@pytest.mark.parametrize("hello", [b"[]", b"7", b"null", b"{}", b"???", b'{"link": 7}', b'{"way": []}'])
def test_over_tls_nonsense_is_hung_up_on(served: Served, hello: bytes) -> None:
    with connect_remote(served.endpoint, IDENTITY) as secured:
        secured.settimeout(LIMIT_S)
        secured.sendall(wire.HEADER.pack(len(hello), wire.MESSAGE) + hello)
        assert secured.recv(1) == b""
    served.worker().link().until_step(0, 0)


def test_the_job_goes_on_while_strangers_stand_in_the_door(served: Served) -> None:
    connected = [connect_local(served.endpoint) for _ in range(3)]
    strangers = [Worker(each, served) for each in connected if each is not None]
    strangers[0].connection.socket.sendall(wire.HEADER.pack(100, wire.MESSAGE))  # and nothing more
    strangers[1].connection.socket.sendall(b"\0")
    worker = served.worker().link()
    worker.until_step(0, 0)
    worker.train([0, 1, 2])
