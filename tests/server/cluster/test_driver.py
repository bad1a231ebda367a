"""How a driver answers, without Ray: attempts, cancellations and errors."""

from __future__ import annotations

import asyncio
import pickle
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from chainrule.server.cluster.channel import Answer, Call, Cancel, Channel
from chainrule.server.cluster.driver import Driver, sendable
from chainrule.server.errors import ClusterUnreachableError
from chainrule.server.ray_calls import RayCalls
from chainrule.server.training.errors import LostPartError


class FakeAttempt:
    def __init__(self) -> None:
        self.stopped = asyncio.Event()

    async def events(self, after: int, timeout_s: float) -> list[int]:
        if after > 2:
            raise LostPartError("the coordinator is gone")
        return [after + 1]

    async def pause(self) -> Any:
        return threading.Lock()  # cannot be pickled

    async def stop(self) -> None:
        self.stopped.set()


class FakeLauncher:
    def __init__(self) -> None:
        self.attempt = FakeAttempt()
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def launch(self, spec: str) -> FakeAttempt:
        assert spec == "spec"
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return self.attempt


LAUNCH = Call(1, "launch", ("spec",))


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = (Channel(end) for end in socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


def driver(channel: Channel, launcher: Any, **ray: Any) -> Driver:
    connection: Any = SimpleNamespace(calls=RayCalls(threads=1), **ray)
    return Driver(channel, connection, lambda calls: launcher)


async def answer(channel: Channel) -> Answer:
    received: Answer = await asyncio.to_thread(channel.receive)
    return received


async def test_an_attempt_is_called_by_the_number_of_its_launch(ends: tuple[Channel, Channel]) -> None:
    service, ours = ends
    launcher = FakeLauncher()
    launcher.go.set()
    tested = driver(ours, launcher)
    tested.accept(LAUNCH)
    assert await answer(service) == Answer(1)
    tested.accept(Call(2, "events", (1, 5.0), attempt=1))
    assert await answer(service) == Answer(2, [2])
    tested.accept(Call(3, "events", (3, 5.0), attempt=1))
    lost = await answer(service)
    assert isinstance(lost.error, LostPartError)
    tested.accept(Call(4, "stop", attempt=1))
    assert await answer(service) == Answer(4)
    assert launcher.attempt.stopped.is_set()
    tested.accept(Call(5, "stop", attempt=1))
    assert await answer(service) == Answer(5)  # once more is nothing


async def test_a_launch_that_is_cancelled_is_cancelled_where_it_happens(ends: tuple[Channel, Channel]) -> None:
    launcher = FakeLauncher()
    tested = driver(ends[1], launcher)
    tested.accept(LAUNCH)
    await launcher.begun.wait()
    tested.accept(Cancel(1))
    async with asyncio.timeout(10):
        await launcher.cancelled.wait()


async def test_an_attempt_that_nobody_waited_for_any_more_is_stopped(ends: tuple[Channel, Channel]) -> None:
    service, ours = ends
    launcher = FakeLauncher()
    launcher.go.set()
    tested = driver(ours, launcher)
    tested.accept(LAUNCH)
    assert await answer(service) == Answer(1)
    tested.accept(Cancel(1))  # it crossed the answer
    async with asyncio.timeout(10):
        await launcher.attempt.stopped.wait()


async def test_an_answer_that_cannot_be_sent_is_an_error_and_the_next_is_sent(ends: tuple[Channel, Channel]) -> None:
    service, ours = ends
    launcher = FakeLauncher()
    launcher.go.set()
    tested = driver(ours, launcher)
    tested.accept(LAUNCH)
    assert await answer(service) == Answer(1)
    tested.accept(Call(2, "pause", attempt=1))
    refused = await answer(service)
    assert isinstance(refused.error, TypeError)
    tested.accept(Call(3, "ping"))
    assert await answer(service) == Answer(3)


async def test_what_ray_raises_of_its_own_means_that_it_does_not_answer(ends: tuple[Channel, Channel]) -> None:
    service, ours = ends

    def nodes() -> list[Any]:
        raise RuntimeError("GCS is not there")

    driver(ours, FakeLauncher(), nodes=nodes).accept(Call(1, "nodes"))
    refused = await answer(service)
    assert isinstance(refused.error, ClusterUnreachableError)
    assert str(refused.error) == "Ray does not answer (GCS is not there)"


class OddError(Exception):
    """An error that pickle takes apart but cannot put together."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


def _raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:  # noqa: BLE001 — it is what is tested
        return caught


def test_errors_of_the_project_travel_as_they_are() -> None:
    error = ClusterUnreachableError("Ray does not answer", address="127.0.0.1:1")
    copy = pickle.loads(pickle.dumps(sendable(error)))
    assert (type(copy), str(copy), copy.metadata) == (ClusterUnreachableError, str(error), {"address": "127.0.0.1:1"})


def test_other_errors_tell_where_they_came_from() -> None:
    copy = pickle.loads(pickle.dumps(sendable(_raised(ValueError("wrong")))))
    assert isinstance(copy, ValueError)
    assert "in _raised" in copy.__notes__[0]


def test_an_error_that_does_not_survive_the_journey_is_told_as_text() -> None:
    copy = pickle.loads(pickle.dumps(sendable(_raised(OddError("this", "that")))))
    assert isinstance(copy, RuntimeError)
    assert "OddError: thisthat" in str(copy)
