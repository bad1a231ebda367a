"""What passes between the service and its driver: everything that can be pickled, and arrays as they are."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from chainrule.server.cluster.channel import Answer, Call, Channel


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = (Channel(end) for end in socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


def test_values_arrive_in_order_and_whole(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    sent = [Call(1, "events", (0, 10.0), attempt=3), Answer(1, ["text", None, b"x" * 1000])]
    for value in sent:
        ours.send(value)
    assert [theirs.receive(), theirs.receive()] == sent


def test_large_arrays_arrive_writable_and_with_their_bits(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    arrays = {
        "a": np.random.default_rng(0).normal(size=(1000, 1000)),
        "b": np.arange(6).reshape(2, 3).T,
        "c": np.zeros(0),
    }
    sending = threading.Thread(target=ours.send, args=(Answer(7, arrays),))
    sending.start()
    received = theirs.receive().value
    sending.join()
    for name, array in arrays.items():
        assert received[name].dtype == array.dtype
        np.testing.assert_array_equal(received[name], array)
        assert received[name].flags.writeable


def test_the_end_of_the_other_side_is_noticed(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.close()
    with pytest.raises(EOFError, match="the other side has ended"):
        theirs.receive()
    with pytest.raises(OSError):
        theirs.send("anything")


def test_nothing_is_sent_of_what_cannot_be_pickled(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    with pytest.raises(TypeError):
        ours.send(threading.Lock())
    ours.send("next")
    assert theirs.receive() == "next"
