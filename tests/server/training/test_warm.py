"""Processes that are kept ready: how many there are, who gets them, and what happens when they fail."""

from __future__ import annotations

import asyncio
import logging

import pytest

from chainrule.server.errors import ClusterUnreachableError
from chainrule.server.training import warm
from chainrule.server.training.errors import LostPartError
from chainrule.server.training.warm import Taken, WarmPool
from tests.server.training.bench import until


class FakeProcess:
    """A process of a kind."""

    def __init__(self, kind: str, answers: asyncio.Event) -> None:
        self.kind = kind
        self.answers = answers
        self.error: Exception | None = None
        self.ended = False

    async def ready(self) -> None:
        await self.answers.wait()
        if self.error is not None:
            raise self.error

    async def end(self) -> None:
        self.ended = True


class Machine:
    """Starts processes, one at a time if it is asked so."""

    def __init__(self, workers: int) -> None:
        self.started: list[FakeProcess] = []
        self.refusal: Exception | None = None
        self.gate = asyncio.Event()
        """What processes wait for before they are ready."""
        self.gate.set()
        self.pool: WarmPool[FakeProcess] = WarmPool(
            workers, start_coordinator=lambda: self.start("coordinator"), start_part=lambda: self.start("part")
        )

    async def start(self, kind: str) -> FakeProcess:
        if self.refusal is not None:
            raise self.refusal
        self.started.append(FakeProcess(kind, self.gate))
        return self.started[-1]

    async def filled(self, count: int) -> None:
        self.pool.fill()
        await until(lambda: len(self.started) >= count)
        await until(lambda: not self.pool.filling)


async def test_there_is_a_part_more_than_workers_and_a_coordinator() -> None:
    machine = Machine(2)
    await machine.filled(4)
    assert [each.kind for each in machine.started] == ["coordinator", "part", "part", "part"]
    machine.pool.fill()
    await until(lambda: not machine.pool.filling)
    assert len(machine.started) == 4


async def test_without_workers_none_are_started() -> None:
    machine = Machine(0)
    machine.pool.fill()
    await until(lambda: not machine.pool.filling)
    taken = await machine.pool.take(3)
    assert (taken.coordinator, taken.parts, machine.started) == (None, [], [])


async def test_an_attempt_gets_what_is_there_and_others_take_its_place() -> None:
    machine = Machine(2)
    await machine.filled(4)
    first = await machine.pool.take(2)
    assert first.coordinator is machine.started[0]
    assert [each.kind for each in first.parts] == ["part", "part"]
    second = await machine.pool.take(2)
    assert second.coordinator is None
    assert len(second.parts) == 1
    assert not {id(each) for each in first.parts} & {id(each) for each in second.parts}
    await machine.filled(8)
    third = await machine.pool.take(9)
    assert third.coordinator is not None
    assert len(third.parts) == 3


async def test_a_process_is_started_once_the_one_before_is_ready() -> None:
    machine = Machine(1)
    gate = asyncio.Event()
    machine.gate = gate
    machine.pool.fill()
    machine.pool.fill()
    await until(lambda: bool(machine.started))
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(machine.started) == 1
    gate.set()
    await machine.filled(3)
    assert len(machine.started) == 3


async def test_a_process_that_is_not_ready_in_time_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "READY_TIMEOUT_S", 0.01)
    machine = Machine(1)
    machine.gate = asyncio.Event()
    await machine.filled(1)
    assert machine.started[0].ended
    assert (await machine.pool.take(1)).coordinator is None


async def test_one_that_has_died_is_not_given_to_anybody(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine(1)
    await machine.filled(3)
    machine.started[-1].error = LostPartError("the actor died")
    taken = await machine.pool.take(2)
    assert taken.parts == [machine.started[1]]
    assert machine.started[-1].ended
    assert "a process that was kept ready is not there any more: the actor died" in caplog.text


async def test_one_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "ANSWER_TIMEOUT_S", 0.01)
    machine = Machine(1)
    await machine.filled(3)
    machine.gate.clear()
    taken = await machine.pool.take(0)
    assert taken.coordinator is None
    assert machine.started[0].ended


async def test_where_none_can_be_started_jobs_begin_without(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    machine = Machine(1)
    machine.refusal = ClusterUnreachableError("Ray does not answer")
    machine.pool.fill()
    await until(lambda: "no process could be kept ready for jobs: Ray does not answer" in caplog.text)
    machine.refusal = None
    await machine.filled(3)
    assert (await machine.pool.take(1)).coordinator is machine.started[0]


async def test_what_was_taken_in_vain_is_ended() -> None:
    machine = Machine(1)
    await machine.filled(3)
    taken = await machine.pool.take(1)
    await taken.end()
    assert [each.ended for each in machine.started] == [True, False, True]


async def test_who_is_cancelled_while_taking_costs_none() -> None:
    machine = Machine(2)
    await machine.filled(4)
    silent = machine.started[1]
    silent.answers = asyncio.Event()
    taking = asyncio.create_task(machine.pool.take(3))
    await until(lambda: len(machine.pool._parts) == 0)  # the last of them is being asked
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    silent.answers.set()
    taken = await machine.pool.take(3)
    assert taken.coordinator is machine.started[0]
    assert {id(each) for each in taken.parts} == {id(each) for each in machine.started[1:]}
    assert not any(each.ended for each in machine.started)


async def test_what_was_taken_while_others_are_started_is_replaced() -> None:
    machine = Machine(1)
    machine.gate.clear()
    machine.pool.fill()
    await until(lambda: len(machine.started) == 1)
    of_coordinator, machine.gate = machine.gate, asyncio.Event()
    of_coordinator.set()
    await until(lambda: len(machine.started) == 2)  # a part, which is not ready
    assert (await machine.pool.take(0)).coordinator is machine.started[0]
    machine.pool.fill()
    machine.gate.set()
    await until(lambda: not machine.pool.filling)
    assert [each.kind for each in machine.started] == ["coordinator", "part", "part", "coordinator"]


async def test_those_who_end_all_and_are_cancelled_end_all() -> None:
    ended = asyncio.Event()

    class Slow(FakeProcess):
        async def end(self) -> None:
            await ended.wait()
            await super().end()

    processes = [Slow("part", ended) for _ in range(3)]
    ending = asyncio.create_task(Taken(None, processes).end())
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)
    ended.set()
    await until(lambda: all(each.ended for each in processes))
