"""Frames over sockets: whole, in order, with what belongs to them, or not at all."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.server.training import wire
from chainrule.server.training.errors import LinkError
from chainrule.server.training.memory import Segment
from chainrule.server.training.tls import make_identity
from chainrule.server.training.wire import (
    BLOB,
    END,
    HEADER,
    MAX_BODY_BYTES,
    MESSAGE,
    PUSH,
    PUSH_BODY,
    SLOT,
    STEP,
    STEP_BODY,
    Connection,
    Frame,
    Listener,
    connect_local,
    connect_remote,
    is_of_this_user,
    machine,
)

IDENTITY = make_identity("chainrule-wire")


class Pair:
    """Both ends of a connection within this process."""

    def __init__(self) -> None:
        near, far = socket.socketpair()
        self.near, self.far = Connection(near), Connection(far)
        self.raw = near

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    found = Pair()
    yield found
    found.close()


# --- frames ----------------------------------------------------------------------------------------------------


def test_a_frame_comes_as_it_was_sent(pair: Pair) -> None:
    pair.near.send(STEP, STEP_BODY.pack(7, 6))
    pair.near.send(END)
    pair.near.message(type="hello", shards=[1, 2], note="ü")
    assert pair.far.next() == Frame(STEP, STEP_BODY.pack(7, 6))
    assert pair.far.next() == Frame(END, b"")
    assert pair.far.next().message == {"type": "hello", "shards": [1, 2], "note": "ü"}


def test_parts_are_one_body(pair: Pair) -> None:
    pair.near.send(BLOB, b"ab", memoryview(b"cd"), b"")
    assert pair.far.next() == Frame(BLOB, b"abcd")


def test_frames_that_come_together_are_taken_apart(pair: Pair) -> None:
    for number in range(5):
        pair.near.send(BLOB, bytes(number))
    assert pair.far.read() == [Frame(BLOB, bytes(number)) for number in range(5)]


def test_what_came_with_the_first_is_not_lost(pair: Pair) -> None:
    for number in range(3):
        pair.near.send(BLOB, bytes([number]))
    assert pair.far.next().body == b"\0"
    assert [frame.body for frame in pair.far.pending()] == [b"\1", b"\2"]
    assert pair.far.pending() == []
    pair.near.send(END)
    assert pair.far.next() == Frame(END, b"")


def test_a_frame_that_comes_byte_by_byte_is_given_once_it_is_whole(pair: Pair) -> None:
    content = HEADER.pack(5, BLOB) + b"hello" + HEADER.pack(0, END) + HEADER.pack(1, BLOB) + b"!"
    found: list[list[Frame]] = []
    for place in range(len(content)):
        pair.raw.sendall(content[place : place + 1])
        found.append(pair.far.read())
    arrived = {place: frames for place, frames in enumerate(found) if frames}
    assert arrived == {
        HEADER.size + 4: [Frame(BLOB, b"hello")],
        2 * HEADER.size + 4: [Frame(END, b"")],
        3 * HEADER.size + 5: [Frame(BLOB, b"!")],
    }


@given(st.lists(st.tuples(st.sampled_from([MESSAGE, PUSH, STEP, BLOB]), st.binary(max_size=40)), max_size=6), st.data())
def test_however_a_stream_is_cut_the_frames_are_the_same(frames: list[tuple[int, bytes]], data: st.DataObject) -> None:
    content = b"".join(HEADER.pack(len(body), kind) + body for kind, body in frames)
    pair, found = Pair(), []
    while content:
        size = data.draw(st.integers(1, len(content)))
        pair.raw.sendall(content[:size])
        content = content[size:]
        found += pair.far.read()
    pair.close()
    assert [(frame.kind, frame.body) for frame in found] == frames


def test_large_bodies_arrive_whole(pair: Pair) -> None:
    content = os.urandom(3_000_000)
    sending = threading.Thread(target=pair.near.send, args=(BLOB, content[:1_000_000], memoryview(content[1_000_000:])))
    sending.start()
    frame = pair.far.next()
    sending.join()
    assert frame.body == content


def test_a_push_has_room_for_the_largest_numbers() -> None:
    fields = ((1 << 63), (1 << 32) - 1, 1 << 31, 0xFFFE, 0xFFFF, -1.5e300, 1 << 62, 1 << 62)
    assert PUSH_BODY.unpack(PUSH_BODY.pack(*fields)) == fields


# --- descriptors -----------------------------------------------------------------------------------------------


def test_memory_comes_with_its_slot(pair: Pair) -> None:
    segments = [Segment.make(f"test {number}", 8) for number in range(3)]
    for number, segment in enumerate(segments):
        segment.memory[0] = number
        pair.near.send(SLOT, bytes([number]), descriptor=segment.descriptor)
        pair.near.send(BLOB, b"between")
        segment.close()
    found = [pair.far.next() for _ in range(6)]
    assert [frame.kind for frame in found] == [SLOT, BLOB] * 3
    for number, frame in enumerate(found[::2]):
        assert frame.body == bytes([number])
        assert frame.descriptor is not None
        there = Segment.of(frame.descriptor)
        assert there.memory[0] == number
        there.close()


def test_descriptors_that_nobody_took_are_closed() -> None:
    before = len(os.listdir("/proc/self/fd"))
    pair = Pair()
    segment = Segment.make("test", 8)
    pair.near.send(BLOB, b"", descriptor=segment.descriptor)  # a kind that has none
    assert pair.far.next() == Frame(BLOB, b"")
    segment.close()
    pair.close()
    del segment
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_slot_without_memory_is_no_link_of_ours(pair: Pair) -> None:
    pair.near.send(SLOT, b"\0\0")
    with pytest.raises(LinkError, match="without its memory"):
        pair.far.next()


# --- what is no frame ------------------------------------------------------------------------------------------


def test_an_absurd_length_is_refused_before_it_is_waited_for(pair: Pair) -> None:
    pair.raw.sendall(HEADER.pack(MAX_BODY_BYTES + 1, BLOB))
    with pytest.raises(LinkError, match=f"a frame of {MAX_BODY_BYTES + 1} bytes was announced; this is no link"):
        pair.far.read()


def test_another_protocol_is_refused(pair: Pair) -> None:
    pair.raw.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with pytest.raises(LinkError, match="this is no link of chainrule"):
        pair.far.next()


# --- ends ------------------------------------------------------------------------------------------------------


def test_a_closed_end_is_noticed_after_what_was_sent_before(pair: Pair) -> None:
    pair.near.send(BLOB, b"last words")
    pair.near.close()
    assert pair.far.next() == Frame(BLOB, b"last words")
    with pytest.raises(LinkError, match="the other side has closed the link"):
        pair.far.next()


def test_half_a_frame_is_none(pair: Pair) -> None:
    pair.raw.sendall(HEADER.pack(5, BLOB) + b"hel")
    pair.near.close()
    with pytest.raises(LinkError, match="the other side has closed the link"):
        pair.far.next()


def test_to_send_to_a_closed_end_is_an_error(pair: Pair) -> None:
    pair.far.close()
    with pytest.raises(LinkError, match="the other side of a link is gone"):
        pair.near.send(BLOB, b"hello?")
    segment = Segment.make("test", 8)
    with pytest.raises(LinkError, match="the other side of a link is gone"):
        pair.near.send(SLOT, descriptor=segment.descriptor)
    segment.close()


def test_who_waits_too_long_is_told(pair: Pair) -> None:
    pair.far.socket.settimeout(0.001)
    with pytest.raises(LinkError, match="timed out"):
        pair.far.next()


def test_nothing_there_is_no_frames(pair: Pair) -> None:
    pair.far.socket.setblocking(False)
    assert pair.far.read() == []


# --- listening -------------------------------------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[Listener]:
    found = Listener(IDENTITY, host="127.0.0.1", name="jobs/test/1/0")
    yield found
    found.close()


def test_a_process_of_this_machine_is_reached_without_a_network(listener: Listener) -> None:
    connected = connect_local(listener.endpoint)
    assert connected is not None
    listener.local.setblocking(True)
    accepted, _ = listener.local.accept()
    assert is_of_this_user(accepted)
    Connection(connected).send(BLOB, b"hello")
    assert Connection(accepted).next() == Frame(BLOB, b"hello")
    connected.close()
    accepted.close()


def test_two_listeners_of_one_name_are_apart(listener: Listener) -> None:
    other = Listener(IDENTITY, host="127.0.0.1", name="jobs/test/1/0")
    assert other.endpoint.path != listener.endpoint.path
    assert other.endpoint.port != listener.endpoint.port
    other.close()


def test_an_endpoint_of_another_machine_is_not_looked_for_here(listener: Listener) -> None:
    assert connect_local(replace(listener.endpoint, machine="another")) is None
    assert listener.endpoint.machine == machine()


def test_where_nobody_listens_any_more_there_is_no_connection() -> None:
    gone = Listener(IDENTITY, host="127.0.0.1", name="jobs/test/1/0")
    gone.close()
    with pytest.raises(LinkError, match="nothing listens at chainrule/jobs/test/1/0/"):
        connect_local(gone.endpoint)
    with pytest.raises(LinkError, match=rf"cannot reach 127.0.0.1:{gone.endpoint.port}: "):
        connect_remote(gone.endpoint, IDENTITY)


def test_sockets_leave_no_files(listener: Listener) -> None:
    assert wire.ABSTRACT
    assert not os.path.exists(listener.endpoint.path)
    assert listener.local.getsockname() == f"\0{listener.endpoint.path}".encode()


def test_without_abstract_names_a_private_folder_has_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "ABSTRACT", False)
    found = Listener(IDENTITY, host="127.0.0.1", name="jobs/test/1/0")
    path = found.endpoint.path
    assert os.stat(os.path.dirname(path)).st_mode & 0o077 == 0
    connected = connect_local(found.endpoint)
    assert connected is not None
    connected.close()
    found.close()
    assert not os.path.exists(os.path.dirname(path))
