"""Links between machines: what lies in shared memory on one side lies there on the other, bit by bit."""

from __future__ import annotations

import gc
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chainrule.server.training.contributions import HEAD, WHOLE, place_of_part
from chainrule.server.training.errors import LinkError
from chainrule.server.training.memory import IN_PLACE, WRITING, Segment, Slot, Weights
from chainrule.server.training.plan import AVERAGED
from chainrule.server.training.remote import Portals, through_gateway
from chainrule.server.training.tls import make_identity
from chainrule.server.training.wire import (
    CLOCKS,
    END,
    HEADER,
    MESSAGE,
    PUSH,
    PUSH_BODY,
    SLOT,
    STEP,
    STEP_BODY,
    Connection,
    Frame,
    Listener,
    connect_remote,
)
from tests.server.training.bench import layout_of, tiny_plan

IDENTITY = make_identity("chainrule-remote")
TIMEOUT_S = 20.0
[LAYOUT] = layout_of(tiny_plan(trainable=("*weight",), ema_decay=0.5)).partitions


class Link:
    """A gateway and a portal, with this test on both ends: as the worker and as the partition."""

    def __init__(self) -> None:
        self.listener = Listener(IDENTITY, host="127.0.0.1", name="test/0")
        self.listener.local.settimeout(TIMEOUT_S)
        self.portals = Portals(self.listener, LAYOUT)
        self.portals.start()
        self.worker = Connection(through_gateway(self.listener.endpoint, IDENTITY, LAYOUT))
        self.worker.socket.settimeout(TIMEOUT_S)
        accepted, _ = self.listener.local.accept()
        accepted.settimeout(TIMEOUT_S)
        self.partition = Connection(accepted)
        self.slots: list[Slot] = []
        self.weights: Weights
        self.seen: Weights

    def share_weights(self) -> None:
        """Begin as a partition does with a worker that it wants."""
        segment = Segment.make("test", Weights.size(LAYOUT))
        self.weights = Weights(segment, LAYOUT)
        self.weights.versions[:] = WRITING
        for name, array in self.weights.constants.items():
            array[...] = np.random.default_rng(len(name)).normal(size=array.shape)
        self.partition.send(SLOT, descriptor=segment.descriptor)
        segment.close()
        frame = self.worker.next()
        assert frame.kind == SLOT
        assert frame.descriptor is not None
        theirs = Segment.of(frame.descriptor)
        theirs.close()
        self.seen = Weights(theirs, LAYOUT)

    def write(self, step: int) -> None:
        """Weights of a step, or their average, drawn at random."""
        region = self.weights.region(step)
        self.weights.versions[region] = WRITING
        rng = np.random.default_rng(step)
        for array in self.weights.arrays(step).values():
            array[...] = rng.normal(size=array.shape)
        self.weights.versions[region] = step

    def announce(self, tick: int, step: int) -> None:
        self.partition.send(STEP, STEP_BODY.pack(tick, step))

    def push(self, number: int, part: int, *, tick: int = 0) -> bytes:
        """Send a part of a slot as a worker does."""
        body = PUSH_BODY.pack(tick, 2, 1, number, part, 0.5, 3, 4)
        self.worker.send(PUSH, body)
        return body

    def make_slot(self) -> tuple[Slot, Slot]:
        """A slot on the worker's side, and what the partition has of it."""
        ours = Slot.make("test", LAYOUT)
        self.worker.send(SLOT, len(self.slots).to_bytes(2, "little"), descriptor=ours.segment.descriptor)
        frame = self.partition.next()
        assert (frame.kind, frame.body) == (SLOT, len(self.slots).to_bytes(2, "little"))
        assert frame.descriptor is not None
        theirs = Slot.of(frame.descriptor, LAYOUT)
        ours.close()
        theirs.close()
        ours.memory[:] = os.urandom(LAYOUT.push_bytes)
        self.slots.append(ours)
        return ours, theirs

    def close(self) -> None:
        self.worker.close()
        self.partition.close()
        self.portals.close()
        for thread in threads():
            thread.join(TIMEOUT_S)
        self.listener.close()


def threads() -> list[threading.Thread]:
    """Those of all gateways and portals."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(("door", "portal", "gateway"))]


@pytest.fixture
def link() -> Iterator[Link]:
    found = Link()
    yield found
    found.close()


@pytest.fixture
def shared(link: Link) -> Link:
    link.share_weights()
    return link


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].tobytes() == array.tobytes(), name


# --- weights ---------------------------------------------------------------------------------------------------


def test_constants_come_once_with_the_memory(shared: Link) -> None:
    assert len(shared.seen.constants) > 3
    assert_same(shared.seen.constants, shared.weights.constants)
    assert shared.seen.versions.tolist() == [WRITING] * 3


def test_weights_are_there_when_a_step_is_announced(shared: Link) -> None:
    for step in range(4):
        shared.write(step)
        shared.announce(step, step)
        assert shared.worker.next() == Frame(STEP, STEP_BODY.pack(step, step))
        assert shared.seen.holds(step)
        assert_same(shared.seen.arrays(step), shared.weights.arrays(step))
    assert [step for step in range(6) if shared.seen.holds(step)] == [2, 3]


def test_weights_that_were_overtaken_are_not_announced(shared: Link) -> None:
    shared.write(0)
    shared.write(2)  # in the same place
    shared.announce(0, 0)
    shared.announce(2, 2)
    assert shared.worker.next() == Frame(STEP, STEP_BODY.pack(2, 2))
    assert_same(shared.seen.arrays(2), shared.weights.arrays(2))


def test_weights_that_are_being_written_are_not_announced(shared: Link) -> None:
    shared.write(1)
    shared.weights.versions[1] = WRITING
    shared.announce(1, 1)
    shared.partition.message(type="still here")
    assert shared.worker.next().kind == MESSAGE
    assert not shared.seen.holds(1)


def test_weights_that_are_told_again_do_not_disturb_who_reads_them(shared: Link) -> None:
    shared.write(4)
    shared.announce(4, 4)
    shared.worker.next()
    before = {name: array.copy() for name, array in shared.seen.arrays(4).items()}
    for array in shared.weights.arrays(4).values():
        array += 1  # as no partition does
    shared.announce(5, 4)
    assert shared.worker.next() == Frame(STEP, STEP_BODY.pack(5, 4))
    assert shared.seen.holds(4)
    assert_same(shared.seen.arrays(4), before)


def test_the_average_of_weights_comes_beside_them(shared: Link) -> None:
    for number, version in enumerate((3, 4, AVERAGED + 4)):
        shared.write(version)
        shared.announce(number, version)
        assert shared.worker.next() == Frame(STEP, STEP_BODY.pack(number, version))
    for version in (3, 4, AVERAGED + 4):
        assert shared.seen.holds(version)
        assert_same(shared.seen.arrays(version), shared.weights.arrays(version))


def test_weights_are_not_sent_again_after_their_average(shared: Link) -> None:
    shared.write(4)
    shared.announce(4, 4)
    shared.write(AVERAGED + 4)
    shared.announce(5, AVERAGED + 4)
    for _ in range(2):
        shared.worker.next()
    before = {name: array.copy() for name, array in shared.seen.arrays(4).items()}
    for array in shared.weights.arrays(4).values():
        array += 1  # as no partition does
    shared.announce(6, 4)
    assert shared.worker.next() == Frame(STEP, STEP_BODY.pack(6, 4))
    assert_same(shared.seen.arrays(4), before)


def test_weights_in_place_are_sent_whenever_a_step_is_announced(shared: Link) -> None:
    shared.weights.versions[:] = IN_PLACE
    for step in range(3):
        for array in shared.weights.arrays(step).values():
            array[...] = step + 1
        shared.partition.send(CLOCKS, bytes(8))
        shared.announce(step, step)
        assert shared.worker.next() == Frame(CLOCKS, bytes(8))
        assert_same(shared.seen.moving[0], shared.weights.moving[0])  # clocks say nothing that the weights do not hold
        assert shared.worker.next().kind == STEP
        assert shared.seen.versions.tolist() == [IN_PLACE] * 3
        assert_same(shared.seen.arrays(step), shared.weights.arrays(step))


def test_the_end_is_told(shared: Link) -> None:
    shared.partition.send(END)
    assert shared.worker.next() == Frame(END, b"")


def test_a_partition_may_refuse_a_worker_and_say_why(link: Link) -> None:
    link.partition.message(type="rejected", reason="fence 1 is over")
    assert link.worker.next().message == {"type": "rejected", "reason": "fence 1 is over"}


# --- pushes ----------------------------------------------------------------------------------------------------


def test_what_a_worker_says_reaches_the_partition(link: Link) -> None:
    link.worker.message(token="secret", fence=3, lease=5)
    assert link.partition.next().message == {"token": "secret", "fence": 3, "lease": 5}


@pytest.mark.parametrize("part", [HEAD, WHOLE, 0])
def test_a_push_comes_with_its_part_of_the_memory(shared: Link, part: int) -> None:
    ours, theirs = shared.make_slot()
    ours.begin(0)
    body = shared.push(0, part)
    assert shared.partition.next() == Frame(PUSH, body)
    start, stop = place_of_part(LAYOUT, part)
    expected = bytearray(LAYOUT.push_bytes)
    expected[start:stop] = ours.memory[start:stop]
    assert stop - start > 0
    assert bytes(theirs.memory) == expected
    assert int(theirs.tick[0]) == 0


def test_slots_are_kept_apart(shared: Link) -> None:
    pairs = [shared.make_slot() for _ in range(3)]
    for number in (2, 0, 1):
        pairs[number][0].begin(7)
        shared.push(number, WHOLE, tick=7)
    for number in (2, 0, 1):
        tick, start, size, slot, part, loss, right, predictions = PUSH_BODY.unpack(shared.partition.next().body)
        assert (tick, start, size, slot, part, loss, right, predictions) == (7, 2, 1, number, WHOLE, 0.5, 3, 4)
        assert pairs[number][1].memory == pairs[number][0].memory
        assert int(pairs[number][1].tick[0]) == 7


def test_a_slot_that_is_used_for_another_tick_already_is_not_sent(shared: Link) -> None:
    ours, theirs = shared.make_slot()
    ours.begin(1)
    shared.push(0, WHOLE, tick=0)
    body = shared.push(0, WHOLE, tick=1)
    assert shared.partition.next() == Frame(PUSH, body)
    assert theirs.memory == ours.memory


# --- ends ------------------------------------------------------------------------------------------------------


def test_a_worker_that_is_gone_is_gone_for_the_partition(shared: Link) -> None:
    shared.worker.close()
    with pytest.raises(LinkError, match="closed the link"):
        shared.partition.next()


def test_a_partition_that_is_gone_is_gone_for_the_worker(shared: Link) -> None:
    shared.partition.close()
    with pytest.raises(LinkError, match=r"closed the link|is gone"):
        shared.worker.next()


def test_a_link_that_has_ended_leaves_no_descriptors_and_no_threads() -> None:
    gc.collect()  # what the tests before have left
    before = len(os.listdir("/proc/self/fd"))
    link = Link()
    link.share_weights()
    ours, theirs = link.make_slot()
    ours.begin(0)
    link.push(0, WHOLE)
    link.partition.next()
    assert len(threads()) == 6
    link.close()
    assert threads() == []
    del link, ours, theirs
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


# --- who is not let in -----------------------------------------------------------------------------------------


def test_whoever_has_another_certificate_gets_no_link(link: Link) -> None:
    with pytest.raises(LinkError, match=r"cannot reach 127.0.0.1:\d+: .*certificate"):
        through_gateway(link.listener.endpoint, make_identity("chainrule-remote"), LAYOUT)


def test_callers_that_are_none_do_not_disturb_the_others(shared: Link) -> None:
    """One that says nothing, one that speaks something else, and one that says nonsense over TLS."""
    address = (shared.listener.endpoint.host, shared.listener.endpoint.port)
    with socket.create_connection(address), socket.create_connection(address) as other:
        other.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with connect_remote(shared.listener.endpoint, IDENTITY) as secured:
            secured.sendall(b"\x05\0\0\0\0\0\0\0\0hello")
            second = Connection(through_gateway(shared.listener.endpoint, IDENTITY, LAYOUT))
            second.socket.settimeout(TIMEOUT_S)
            accepted, _ = shared.listener.local.accept()
            partition = Connection(accepted)
            second.message(lease=2)
            assert partition.next().message == {"lease": 2}
            second.close()
            partition.close()
    shared.worker.message(lease=1)
    assert shared.partition.next().message == {"lease": 1}


def test_a_partition_that_does_not_listen_is_not_reached() -> None:
    listener = Listener(IDENTITY, host="127.0.0.1", name="test/0")
    endpoint = replace(listener.endpoint, machine="another")
    listener.close()
    with pytest.raises(LinkError, match=r"cannot reach 127\.0\.0\.1"):
        through_gateway(endpoint, IDENTITY, LAYOUT)


def test_half_a_link_is_not_kept(link: Link) -> None:
    hello = {"pair": "half", "way": "up", "copy": "none", "keeps": False}
    with connect_remote(link.listener.endpoint, IDENTITY) as half:
        half.settimeout(TIMEOUT_S)
        body = json.dumps(hello).encode()
        half.sendall(HEADER.pack(len(body), MESSAGE) + body)
        deadline = time.monotonic() + TIMEOUT_S
        while "half" not in link.portals._waiting:
            assert time.monotonic() < deadline
        link.portals.close()
        assert half.recv(1) == b""
