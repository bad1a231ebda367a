"""Weights come to another machine once, whoever of its workers comes and goes."""

from __future__ import annotations

import gc
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from chainrule.server.training import machine_copy as module
from chainrule.server.training.errors import LinkError
from chainrule.server.training.machine_copy import KeptCopy, ReadCopy, machine_copy
from chainrule.server.training.memory import EMPTY, Weights
from chainrule.server.training.tls import make_identity
from chainrule.server.training.wire import END, MESSAGE, SLOT, STEP, Connection, Frame
from tests.server.training.bench import LIMIT_S
from tests.server.training.machines import IDENTITY, LAYOUT, NOISE_BYTES, Member, Station, link_threads


@pytest.fixture
def station() -> Iterator[Station]:
    found = Station()
    yield found
    found.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.1)


def name_of_copy(station: Station) -> str:
    return module._Words(station.endpoint, IDENTITY).name


# --- one copy --------------------------------------------------------------------------------------------------


def test_weights_cross_to_three_workers_of_a_machine_once(station: Station) -> None:
    members = [station.join() for _ in range(3)]
    before = station.relay.down_bytes
    for step in range(4):
        station.publish(step, *members)
        for member in members:
            member.until(step, step, station.weights)
    assert len({member.inode for member in members}) == 1
    assert 4 * LAYOUT.moving_bytes < station.relay.down_bytes - before < 4 * LAYOUT.moving_bytes + NOISE_BYTES


def test_constants_cross_once_and_are_there_with_the_memory(station: Station) -> None:
    for member in (station.join(), station.join()):
        assert member.seen.constants.keys() == station.weights.constants.keys()
        for name, array in station.weights.constants.items():
            assert member.seen.constants[name].tobytes() == array.tobytes()


def test_a_late_joiner_gets_the_weights_of_the_present_step_without_another_transfer(station: Station) -> None:
    first = station.join()
    station.publish(5, first)
    first.until(5, 5, station.weights)
    before = station.relay.down_bytes
    late = station.join()
    late.announce(6, 5)
    late.until(6, 5, station.weights)
    assert station.relay.down_bytes - before < NOISE_BYTES


def test_a_step_is_told_once_its_weights_have_come(station: Station) -> None:
    keeper, reader = station.join(), station.join()
    station.publish(0, reader)
    reader.partition.message(type="behind the step")
    assert reader.worker.next().kind == MESSAGE
    keeper.announce(0, 0)
    keeper.until(0, 0, station.weights)
    reader.until(0, 0, station.weights)


def test_a_step_that_was_overtaken_before_its_weights_came_is_not_told(station: Station) -> None:
    keeper, reader = station.join(), station.join()
    station.publish(0, reader)
    station.publish(2, reader, keeper)  # in the same place
    keeper.until(2, 2, station.weights)
    reader.until(2, 2, station.weights)


def test_the_end_is_told_even_if_weights_are_waited_for(station: Station) -> None:
    _, reader = station.join(), station.join()
    station.publish(0, reader)
    reader.partition.send(END)
    assert reader.worker.next() == Frame(END, b"")


def test_one_worker_waits_for_constants_that_are_still_on_their_way_to_another(station: Station) -> None:
    keeper = station.call()
    found: list[Member] = []
    asking = threading.Thread(target=lambda: found.append(station.call()))
    asking.start()
    keeper.partition.send(SLOT, descriptor=station.segment.descriptor)
    asking.join(LIMIT_S)
    [reader] = found
    reader.partition.send(SLOT, descriptor=station.segment.descriptor)
    for member in (keeper, reader):
        member.take_memory()
        assert member.seen.versions[0] != EMPTY
    assert keeper.inode == reader.inode


def test_each_has_their_own_copy_where_it_is_not_to_be_shared(station: Station) -> None:
    members = [station.join(shared=False) for _ in range(2)]
    station.publish(0, *members)
    for member in members:
        member.until(0, 0, station.weights)
    assert len({member.inode for member in members}) == 2


def test_of_many_that_call_at_once_one_keeps_the_copy(station: Station) -> None:
    copies: list[KeptCopy | ReadCopy] = []
    together = threading.Barrier(8)

    def ask() -> None:
        together.wait(LIMIT_S)
        copy = machine_copy(station.endpoint, IDENTITY, LAYOUT)
        if isinstance(copy, KeptCopy):
            copy.serve()
        copies.append(copy)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert sorted(type(copy).__name__ for copy in copies) == ["KeptCopy", *["ReadCopy"] * 7]
    assert len({copy.number for copy in copies}) == 1
    for copy in copies:
        copy.close()


# --- coming and going ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", [lambda keeper: keeper.worker.close(), lambda keeper: keeper.partition.close()])
def test_when_the_keeper_goes_the_others_call_again_and_one_of_them_keeps_it(
    station: Station, leave: Callable[[Member], None]
) -> None:
    """It ends, or the partition revokes its lease."""
    keeper, *others = [station.join() for _ in range(3)]
    station.publish(0, keeper, *others)
    leave(keeper)
    assert all(member.is_hung_up_on() for member in others)
    again = [station.join_again() for _ in range(2)]
    assert {member.inode for member in again}.isdisjoint({keeper.inode})
    assert len({member.inode for member in again}) == 1
    station.publish(1, *again)
    for member in again:
        member.until(1, 1, station.weights)


def test_links_of_readers_end_with_that_of_a_keeper_that_is_halted_and_does_not_notice(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, reader = station.join(), station.join()
    halted: queue.Queue[KeptCopy] = queue.Queue()
    with monkeypatch.context() as patch:
        patch.setattr(KeptCopy, "close", lambda copy: halted.put(copy))
        keeper.partition.close()
        assert reader.is_hung_up_on()
        copy = halted.get(timeout=LIMIT_S)
    copy.close()


def test_a_reader_that_goes_is_nothing_to_the_others(station: Station) -> None:
    keeper, reader, other = [station.join() for _ in range(3)]
    reader.close()
    station.publish(0, keeper, other)
    keeper.until(0, 0, station.weights)
    other.until(0, 0, station.weights)


def test_a_reader_may_be_refused_alone_and_hears_why(station: Station) -> None:
    keeper, other, refused = station.join(), station.join(), station.call()
    refused.partition.message(type="rejected", reason="lease 3 is over")
    refused.partition.close()
    assert refused.worker.next().message == {"type": "rejected", "reason": "lease 3 is over"}
    assert refused.is_hung_up_on()
    station.publish(0, keeper, other)
    keeper.until(0, 0, station.weights)
    other.until(0, 0, station.weights)


def test_a_keeper_that_is_refused_leaves_it_to_the_next(station: Station) -> None:
    refused = station.call()
    refused.partition.message(type="rejected", reason="lease 1 is over")
    assert refused.worker.next().message["type"] == "rejected"
    member = station.join_again()
    station.publish(0, member)
    member.until(0, 0, station.weights)


def test_a_reader_that_takes_nothing_holds_up_nobody_and_misses_nothing(station: Station) -> None:
    keeper, reader = station.join(), station.join()
    slow = machine_copy(station.endpoint, IDENTITY, LAYOUT)
    assert isinstance(slow, ReadCopy)
    station.write(0)
    for tick in range(3000):
        keeper.announce(tick, 0)
        keeper.until(tick, 0, station.weights)
    station.publish(1, keeper, reader)
    keeper.until(1, 1, station.weights)
    reader.until(1, 1, station.weights)
    slow.wait()
    assert slow.weights.holds(1)
    slow.close()


def test_a_machine_with_three_workers_leaves_no_descriptors_and_no_threads() -> None:
    gc.collect()  # what the tests before have left
    before = len(os.listdir("/proc/self/fd"))
    station = Station()
    members = [station.join() for _ in range(3)]
    station.publish(0, *members)
    for member in members:
        member.until(0, 0, station.weights)
    name = name_of_copy(station)
    station.close()
    assert link_threads() == []
    del station, members, member
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
        late.connect(name)


# --- who is not of the attempt ---------------------------------------------------------------------------------


def test_a_caller_without_the_token_gets_nothing(station: Station) -> None:
    keeper = station.join()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(LIMIT_S)
        stranger.connect(name_of_copy(station))
        Connection(stranger).send(STEP, module._Words(station.endpoint, make_identity("other")).of("read"))
        with pytest.raises(LinkError, match="closed the link"):
            Connection(stranger).next()
    station.publish(0, keeper)
    keeper.until(0, 0, station.weights)


def test_another_attempt_has_a_copy_of_its_own(station: Station) -> None:
    first = machine_copy(station.endpoint, IDENTITY, LAYOUT)
    other = machine_copy(station.endpoint, make_identity("chainrule-machines"), LAYOUT)
    assert isinstance(other, KeptCopy)
    first.close()
    other.close()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("answer", ["nothing", "nonsense", "hang up"])
def test_a_worker_keeps_a_copy_of_its_own_if_whoever_has_the_name_does_not_share_it(
    station: Station, answer: str
) -> None:
    """It is halted, or does not belong to the attempt."""
    with socket.socket(socket.AF_UNIX) as squatter:
        squatter.bind(name_of_copy(station))
        squatter.listen()
        answering = threading.Thread(target=answer_all, args=(squatter, answer))
        answering.start()
        member = station.join()
        station.publish(0, member)
        member.until(0, 0, station.weights)
        squatter.shutdown(socket.SHUT_RDWR)
        answering.join(LIMIT_S)


def answer_all(squatter: socket.socket, answer: str) -> None:
    kept = []
    try:
        while True:
            connected, _ = squatter.accept()
            if answer == "nonsense":
                Connection(connected).send(SLOT, b"0" * 64 + b" 1", descriptor=squatter.fileno())
            if answer == "hang up":
                connected.close()
            kept.append(connected)
    except OSError:  # the test is over
        for connected in kept:
            connected.close()


def test_a_worker_keeps_a_copy_of_its_own_if_another_user_has_the_name(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = station.join()
    monkeypatch.setattr(module, "is_of_this_user", lambda _: False)
    second = station.join()
    assert first.inode != second.inode


def test_a_worker_keeps_a_copy_of_its_own_where_names_are_files(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ABSTRACT", False)
    first, second = station.join(), station.join()
    assert first.inode != second.inode


def test_nothing_is_held_before_it_has_come(station: Station) -> None:
    copy = machine_copy(station.endpoint, IDENTITY, LAYOUT)
    weights: Weights = copy.weights
    assert not any(weights.holds(step) for step in range(3))
    copy.close()
