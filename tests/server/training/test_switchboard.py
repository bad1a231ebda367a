"""Lines between parts and their coordinator: who is let in, what is heard, and that an end is told once."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest

from chainrule.server.training import control, switchboard
from chainrule.server.training.control import Control, connect_control, describe_failure
from chainrule.server.training.errors import CorruptionError, LinkError, NonFiniteError
from chainrule.server.training.memory import Segment
from chainrule.server.training.switchboard import Line, Message, Switchboard
from chainrule.server.training.tls import make_identity
from chainrule.server.training.wire import (
    BLOB,
    HEADER,
    MAX_GREETING_BYTES,
    MESSAGE,
    SLOT,
    Connection,
    Frame,
    Listener,
    connect_local,
)
from tests.server.training.bench import until
from tests.server.training.stand_ins import Exhausted

IDENTITY = make_identity("chainrule-lines")
TIMEOUT_S = 20.0


class Owner:
    """Who is told."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.blobs: list[bytes] = []
        self.shared: list[memoryview] = []
        self.lines: list[Line] = []
        self.gone: list[Line] = []

    def heard(self, line: Line, message: Message, blob: memoryview) -> None:
        if message["type"] == "beyond me":
            raise RuntimeError("on purpose")
        self.lines.append(line)
        self.messages.append(message)
        self.blobs.append(bytes(blob))
        self.shared.append(blob)

    def lost(self, line: Line) -> None:
        self.gone.append(line)


class Board:
    """A switchboard, its owner, and how to call it."""

    def __init__(self) -> None:
        self.owner = Owner()
        self.board = Switchboard(IDENTITY, self.owner, host="127.0.0.1", name="test/coordinator")

    async def call(self, *, local: bool = True, identity: Any = IDENTITY, **hello: Any) -> Control:
        found = await asyncio.to_thread(connect_control, self.board.endpoint, identity, local=local, **hello)
        found.connection.socket.settimeout(TIMEOUT_S)
        return found

    def plain(self) -> Connection:
        """A connection on which nothing has been said."""
        connected = connect_local(self.board.endpoint)
        assert connected is not None
        connected.settimeout(TIMEOUT_S)
        return Connection(connected)

    async def heard(self, count: int) -> list[Message]:
        await until(lambda: len(self.owner.messages) >= count)
        return self.owner.messages


def memory_of(content: bytes) -> Segment:
    """Shared memory that begins with this."""
    memory = Segment.make("test", len(content) + 10)
    memory.memory[: len(content)] = content
    return memory


async def read(connection: Connection) -> Frame:
    return await asyncio.to_thread(connection.next)


async def assert_hung_up(connection: Connection) -> None:
    with pytest.raises(LinkError, match=r"closed the link|is gone"):
        await read(connection)


@pytest.fixture
async def board() -> AsyncIterator[Board]:
    found = Board()
    await found.board.open()
    yield found
    await found.board.close()


# --- talking ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", [True, False])
async def test_both_sides_hear_each_other(board: Board, local: bool) -> None:
    part = await board.call(local=local, role="worker", lease=3)
    part.message(type="ready", node="here")
    part.message(type="beat", tick=1)
    assert await board.heard(2) == [{"type": "ready", "node": "here"}, {"type": "beat", "tick": 1}]
    [line, again] = board.owner.lines
    assert line is again
    assert line.who == {"type": "hello", "token": IDENTITY.token, "role": "worker", "lease": 3}
    line.send(type="assign", shards=(1, 2))
    assert (await read(part.connection)).message == {"type": "assign", "shards": [1, 2]}
    part.close()


async def test_lines_are_kept_apart(board: Board) -> None:
    parts = [await board.call(lease=lease) for lease in range(3)]
    for part in parts:
        part.message(type="ready")
    await board.heard(3)
    for line in board.owner.lines:
        line.send(lease=line.who["lease"])
    assert [(await read(part.connection)).message for part in parts] == [{"lease": 0}, {"lease": 1}, {"lease": 2}]
    for part in parts:
        part.close()


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 250_000])
async def test_bytes_come_whole_with_their_message(
    board: Board, local: bool, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "PIECE_BYTES", 100 if size < 1000 else 60_000)
    part = await board.call(local=local)
    content = os.urandom(size)
    await asyncio.to_thread(part.message_with, memory_of(content), size, type="snapshot", step=7)
    part.message(type="beat")
    assert await board.heard(2) == [{"type": "snapshot", "step": 7}, {"type": "beat"}]
    assert board.owner.blobs == [content, b""]
    part.close()


async def test_memory_of_this_machine_is_shared(board: Board) -> None:
    part = await board.call()
    memory = memory_of(b"content")
    part.message_with(memory, 7, type="snapshot")
    await board.heard(1)
    memory.memory[:7] = b"changed"
    assert board.owner.shared == [b"changed"]
    memory.close()
    part.close()


@pytest.mark.parametrize("local", [True, False])
async def test_more_comes_at_once_than_a_stranger_may_say(board: Board, local: bool) -> None:
    part = await board.call(local=local)
    part.message(type="long", text="x" * (2 * MAX_GREETING_BYTES))
    [message] = await board.heard(1)
    assert len(message["text"]) == 2 * MAX_GREETING_BYTES
    part.close()


async def test_a_part_that_does_not_read_holds_nobody_up(board: Board) -> None:
    part = await board.call()
    part.message(type="ready")
    await board.heard(1)
    [line] = board.owner.lines
    texts = [f"{number} " + "x" * 50_000 for number in range(50)]
    for text in texts:  # more than the socket takes
        line.send(text=text)
    assert [(await read(part.connection)).message["text"] for _ in texts] == texts
    part.close()


async def test_whoever_sends_much_gives_signs_of_life_itself(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other thread may not get its turn."""
    monkeypatch.setattr(control, "PIECE_BYTES", 100)
    monkeypatch.setattr(control, "BEAT_INTERVAL_S", 1e6)
    part = await board.call(local=False)
    part.beat(lambda: {"tick": 3})
    monkeypatch.setattr(control, "BEAT_INTERVAL_S", 0.0)
    memory = memory_of(bytes(1000))
    await asyncio.to_thread(part.message_with, memory, 1000, type="snapshot")
    messages = await board.heard(11)
    assert [message["type"] for message in messages] == ["beat"] * 9 + ["snapshot", "beat"]
    memory.close()
    part.close()


async def test_signs_of_life_go_between_the_pieces(board: Board) -> None:
    part = await board.call()
    part.message(type="snapshot", blob_bytes=4)
    part.connection.send(BLOB, b"ab")
    part.message(type="beat")
    part.connection.send(BLOB, b"cd")
    assert await board.heard(2) == [{"type": "beat"}, {"type": "snapshot"}]
    assert board.owner.blobs == [b"", b"abcd"]
    part.close()


# --- who is not let in -----------------------------------------------------------------------------------------


async def test_a_process_without_the_token_is_hung_up_on(board: Board) -> None:
    part = await board.call(identity=make_identity("chainrule-lines"))
    with suppress(LinkError):  # it may have been hung up on already
        part.message(type="ready")
    await assert_hung_up(part.connection)
    await until(lambda: bool(board.owner.gone))
    assert board.owner.messages == []
    assert [line.who for line in board.owner.gone] == [{}]


async def test_a_process_without_the_certificate_does_not_come_so_far(board: Board) -> None:
    with pytest.raises(LinkError, match="certificate"):
        await board.call(local=False, identity=make_identity("chainrule-lines"))
    assert board.owner.gone == []


@pytest.mark.parametrize(
    "content",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        HEADER.pack(5, BLOB) + b"hello",
        HEADER.pack(5, MESSAGE) + b"hello",
        HEADER.pack(2, MESSAGE) + b"[]",
        HEADER.pack(2, MESSAGE) + b"{}",
        HEADER.pack(1 << 39, MESSAGE),
        *(HEADER.pack(len(body), MESSAGE) + body for body in [json.dumps({"token": "ü"}).encode(), b'{"token": 7}']),
    ],
)
async def test_whoever_says_something_else_first_is_hung_up_on(board: Board, content: bytes) -> None:
    stranger = board.plain()
    stranger.socket.sendall(content)
    await assert_hung_up(stranger)
    await until(lambda: bool(board.owner.gone))
    assert board.owner.messages == []
    stranger.close()


async def test_strangers_do_not_disturb_the_others(board: Board) -> None:
    silent, rude = board.plain(), board.plain()
    rude.socket.sendall(b"\xff" * 100)
    part = await board.call()
    part.message(type="ready")
    await board.heard(1)
    for connection in (silent, rude, part):
        connection.close()


async def test_callers_wait_while_there_are_no_descriptors_for_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    listener = Listener(IDENTITY, host="127.0.0.1", name="test/coordinator")
    exhausted = listener.local = Exhausted(fileno=listener.local.detach())
    exhausted.setblocking(False)
    monkeypatch.setattr(switchboard, "Listener", lambda *_, **__: listener)
    board = Board()
    await board.board.open()
    part = await board.call()
    part.message(type="ready")
    await board.heard(1)
    assert exhausted.left == 0
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []  # it is no defect
    part.close()
    await board.board.close()


# --- ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", [True, False])
async def test_a_part_that_is_gone_is_told_once(board: Board, local: bool) -> None:
    part = await board.call(local=local, lease=4)
    part.message(type="ready")
    await board.heard(1)
    part.close()
    await until(lambda: bool(board.owner.gone))
    [line] = board.owner.lines
    assert board.owner.gone == [line]
    assert not line.open
    line.send(type="assign")
    line.close()
    await board.board.close()
    await asyncio.sleep(0)
    assert board.owner.gone == [line]


async def test_to_hang_up_is_told_once_to_both_sides(board: Board) -> None:
    part = await board.call()
    part.message(type="ready")
    await board.heard(1)
    [line] = board.owner.lines
    line.close()
    await assert_hung_up(part.connection)
    await until(lambda: bool(board.owner.gone))
    assert board.owner.gone == [line]


@pytest.mark.parametrize(
    "content",
    [
        HEADER.pack(3, BLOB) + b"abc",
        HEADER.pack(15, MESSAGE) + b'{"blob_bytes":2' + HEADER.pack(0, MESSAGE),
        HEADER.pack(30, MESSAGE) + b'{"type":"snap","blob_bytes":2}' + HEADER.pack(3, BLOB) + b"abc",
        HEADER.pack(21, MESSAGE) + b'{"type": "beyond me"}',
        HEADER.pack(0, SLOT),
        HEADER.pack(30, MESSAGE) + b'{"type":"snap","blob_bytes":2}' + HEADER.pack(0, SLOT),
    ],
)
async def test_a_part_that_talks_nonsense_is_hung_up_on(board: Board, content: bytes) -> None:
    part = await board.call()
    part.connection.socket.sendall(content)
    await assert_hung_up(part.connection)
    await until(lambda: bool(board.owner.gone))
    assert board.owner.messages == []


async def test_when_it_closes_all_parts_are_told() -> None:
    board = Board()
    await board.board.open()
    parts = [await board.call(local=local) for local in (True, False)]
    for part in parts:
        part.message(type="ready")
    await board.heard(2)
    await board.board.close()
    for part in parts:
        await assert_hung_up(part.connection)
    await until(lambda: len(board.owner.gone) == 2)
    with pytest.raises(LinkError, match="nothing listens at"):
        board.plain()


async def test_lines_leave_no_descriptors() -> None:
    async def once() -> None:
        board = Board()
        await board.board.open()
        part = await board.call()
        memory = memory_of(b"content")
        part.message_with(memory, 7, type="snapshot")
        memory.close()
        await board.heard(1)
        part.close()
        await until(lambda: bool(board.owner.gone))
        await board.board.close()

    await once()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        await once()
    gc.collect()
    await until(lambda: len(os.listdir("/proc/self/fd")) == before)


# --- a part's side ---------------------------------------------------------------------------------------------


async def test_signs_of_life_come_until_the_part_closes(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "BEAT_INTERVAL_S", 0.001)
    part = await board.call()
    part.beat(lambda: {"tick": len(board.owner.messages)})
    found = await board.heard(3)
    assert all(message["type"] == "beat" for message in found)
    assert found[2]["tick"] > 0
    part.close()
    await until(lambda: bool(board.owner.gone))
    await until(lambda: not [thread for thread in threading.enumerate() if thread.name == "beat"])


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as found:  # noqa: BLE001 — whatever it is
        return found


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (NonFiniteError("the loss is nan"), "NON_FINITE", "the loss is nan"),
        (CorruptionError("no two agree"), "SILENT_CORRUPTION", "no two agree"),
        (ValueError("shapes"), "TRAINING_ERROR", "shapes"),
        (AssertionError(), "TRAINING_ERROR", "AssertionError"),
    ],
)
async def test_a_failure_is_told_with_its_traceback(board: Board, error: Exception, reason: str, message: str) -> None:
    part = await board.call()
    part.failed(raised(error), tick=5)
    [found] = await board.heard(1)
    assert found["traceback"].startswith("Traceback (most recent call last)")
    assert "in raised" in found["traceback"]
    assert {**found, "traceback": ""} == {
        "type": "failed",
        "reason": reason,
        "message": message,
        "traceback": "",
        "tick": 5,
    }
    part.close()


async def test_who_fails_when_the_coordinator_is_gone_says_nothing(board: Board) -> None:
    part = await board.call()
    part.message(type="ready")
    await board.heard(1)
    await board.board.close()
    await assert_hung_up(part.connection)
    part.failed(ValueError("nobody hears it"))
    with pytest.raises(LinkError):
        part.message(type="beat")


def test_a_failure_without_a_text_has_the_name_of_its_kind() -> None:
    found: Callable[[BaseException], dict[str, str]] = describe_failure
    assert found(KeyError())["message"] == "KeyError"


# --- what is logged --------------------------------------------------------------------------------------------


async def test_what_a_part_logs_is_told_with_its_signs_of_life_and_in_the_end(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "BEAT_INTERVAL_S", 0.001)
    part = await board.call(role="worker", lease=1)
    with part.telling("jobs/a", "node-1"):
        logging.getLogger("chainrule.test").info("jobs/a: begins")
        part.beat(lambda: {"tick": 4})
        await until(lambda: any(message["type"] == "beat" for message in board.owner.messages))
        logging.getLogger("chainrule.test").warning("ends")
    await until(lambda: len(_logged(board)) == 2)
    part.close()
    assert _logged(board) == [("node-1", logging.INFO, "begins"), ("node-1", logging.WARNING, "ends")]


async def test_why_a_part_fails_is_logged_before_it_is_told(board: Board) -> None:
    part = await board.call(role="worker", lease=1)
    with part.telling("jobs/a", "node-1"):
        part.failed(NonFiniteError("the loss is nan"))
    messages = await board.heard(2)
    assert [message["type"] for message in messages] == ["logs", "failed"]
    [(_, severity, text)] = _logged(board)
    assert severity == logging.ERROR
    assert text.endswith("NonFiniteError: the loss is nan")
    part.close()


async def test_a_part_whose_coordinator_is_gone_ends_all_the_same(board: Board) -> None:
    part = await board.call(role="worker", lease=1)
    await until(lambda: bool(board.board._lines))
    await board.board.close()
    with part.telling("jobs/a", ""):
        for _ in range(3):
            logging.getLogger("chainrule.test").info("nobody hears it")
    part.close()


def _logged(board: Board) -> list[tuple[str, int, str]]:
    found = [message for message in board.owner.messages if message["type"] == "logs"]
    return [(message["node"], severity, text) for message in found for _, severity, text in message["entries"]]
