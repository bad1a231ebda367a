"""Parts as Ray actors, with something in place of Ray: what it refuses or loses, and who is told."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import ray.exceptions

from chainrule.engine import io
from chainrule.engine.models import outline_of
from chainrule.server.architecture import RUNS_CODE, CodeArchitecture
from chainrule.server.ray_calls import RayCalls, StoreFullError
from chainrule.server.training import placement
from chainrule.server.training.errors import DatasetError, LinkError, LostPartError, NonFiniteError
from chainrule.server.training.events import Paused
from chainrule.server.training.placement import RayAttempt, RayLauncher, RayPlacement, call
from chainrule.server.training.plan import Plan
from chainrule.server.training.serving import PartitionSpec
from chainrule.server.training.wire import Endpoint
from tests.server.training.bench import tiny_plan, until
from tests.server.training.runs import initial_state
from tests.server.training.stand_ins import IDENTITY, attempt

PLAN = tiny_plan()
ENDPOINT = Endpoint("here", "coordinator", "127.0.0.1", 1)
PARTITION = PartitionSpec("jobs/test", PLAN, 0, initial_state(PLAN), 7, IDENTITY, "127.0.0.1", ENDPOINT)
AWAY = [
    ray.exceptions.GetTimeoutError("a minute"),
    ray.exceptions.RaySystemError("broken pipe"),
    ray.exceptions.RpcError("no head"),
    ConnectionError("reset"),
]
"""What Ray raises while its head is away."""


class Method:
    """A method of an actor: its calls, and what they lead to."""

    def __init__(self, results: list[Any] | None = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.results = results

    def remote(self, *arguments: Any) -> Any:
        self.calls.append(arguments)
        return None if self.results is None else _result(self.results.pop(0))


async def _result(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return await value if isinstance(value, asyncio.Future) else value


class Actor:
    """An actor that does not run."""

    def __init__(self, running: asyncio.Future[None] | None = None) -> None:
        self.running = running
        self.run = Method(None if running is None else [running])
        self.events = Method([])
        self.pause = Method([])


class FakeRay:
    """What is used of Ray."""

    util = SimpleNamespace(get_node_ip_address=lambda: "127.0.0.1")

    def __init__(self) -> None:
        self.actors: list[Actor] = []
        self.killed: list[Actor] = []
        self.stored: list[Any] = []
        self.options: list[dict[str, Any]] = []
        """Of each actor that was asked for."""
        self.error: Exception | None = None
        """What it raises, whatever is asked of it."""
        self.ended: list[Any] = []
        """What `wait` finds done."""

    def remote(self, **options: Any) -> Any:
        self.options.append(options)
        return lambda _: SimpleNamespace(remote=self._make)

    def put(self, value: Any) -> str:
        self._try()
        self.stored.append(value)
        return f"reference {len(self.stored)}"

    def kill(self, actor: Actor) -> None:
        self.killed.append(actor)
        self._try()

    def wait(self, references: list[Any], *, timeout: float) -> tuple[list[Any], list[Any]]:
        return [r for r in references if r in self.ended], [r for r in references if r not in self.ended]

    def _make(self) -> Actor:
        self._try()
        self.actors.append(Actor(asyncio.get_running_loop().create_future()))
        return self.actors[-1]

    def _try(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    found = FakeRay()
    monkeypatch.setattr(placement, "ray", found)
    return found


class Placed:
    """A placement, and who was told that processes have ended."""

    def __init__(self) -> None:
        self.placement = RayPlacement(attempt(PLAN), ["examples", None])
        self.ends: list[str] = []

    async def start(self, lease: int | None = None) -> None:
        """A worker with this lease, or a partition."""
        if lease is None:
            await self.placement.start_partition(PARTITION, self.ends.append)
        else:
            await self.placement.start_worker(lease, IDENTITY, ENDPOINT, self.ends.append)


@pytest.fixture
async def placed(fake: FakeRay) -> AsyncIterator[Placed]:
    found = Placed()
    yield found
    fake.error = None
    await found.placement.stop()


# --- starting --------------------------------------------------------------------------------------------------


async def test_a_worker_is_handed_references_to_the_examples_and_not_these(fake: FakeRay, placed: Placed) -> None:
    await placed.start(3)
    [[spec, examples, validation]] = fake.actors[0].run.calls
    assert (spec.lease, len(spec.examples), examples, validation) == (3, 0, "examples", None)


@pytest.mark.parametrize("lease", [None, 1])
@pytest.mark.parametrize("away", AWAY, ids=lambda error: type(error).__name__)
async def test_what_ray_cannot_start_at_the_moment_another_attempt_may(
    fake: FakeRay, placed: Placed, lease: int | None, away: Exception
) -> None:
    fake.error = away
    with pytest.raises(LostPartError, match=f"Ray cannot start a process: {away}"):
        await placed.start(lease)
    assert placed.ends == []


CODE = b"from chainrule.engine.models import small_cnn as build"


def code_plan() -> Plan:
    """A plan whose network is code."""
    found = CodeArchitecture(io.digest(CODE), config={}, content=CODE)
    return replace(PLAN, architecture=replace(found, declared=outline_of(found.source.build())))


async def test_code_gets_processes_with_an_environment_of_their_own_and_none_that_waits(fake: FakeRay) -> None:
    plan = code_plan()
    waiting = [Actor(), Actor()]
    tested = RayPlacement(attempt(PLAN), ["examples", None], [*waiting])
    tested._spec = replace(tested._spec, plan=plan)
    for lease in (1, 2):
        await tested.start_worker(lease, IDENTITY, ENDPOINT, lambda _: None)
    environment = {"env_vars": {RUNS_CODE: io.digest(CODE), "PYTHONHASHSEED": "0"}}
    assert fake.options == [{"num_cpus": 1, "runtime_env": environment}] * 2
    assert tested._warm == waiting
    await asyncio.sleep(0)  # they are watched
    await tested.stop()


async def test_a_mistake_in_starting_is_none_of_rays(fake: FakeRay, placed: Placed) -> None:
    fake.error = AttributeError("a mistake")
    with pytest.raises(AttributeError):
        await placed.start(1)


# --- ending ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("away", [*AWAY, RuntimeError("GCS is not there")], ids=lambda error: type(error).__name__)
async def test_while_ray_is_away_all_are_ended_as_far_as_it_goes(
    fake: FakeRay, placed: Placed, caplog: pytest.LogCaptureFixture, away: Exception
) -> None:
    for lease in (None, None, 1, 2, 3):
        await placed.start(lease)
    fake.error = away
    with caplog.at_level(logging.WARNING):
        await placed.placement.end_worker(2)
        assert fake.killed == [fake.actors[3]]
        await placed.placement.end_partitions()
        assert set(fake.killed[1:]) == set(fake.actors[:2])
        await placed.placement.stop()
    assert len(fake.killed) == 5
    assert set(fake.killed) == set(fake.actors)
    assert [record.message for record in caplog.records] == [f"Ray did not end a process: {away}"] * 5


async def test_what_has_been_ended_is_not_ended_again(fake: FakeRay, placed: Placed) -> None:
    await placed.start(1)
    await placed.start()
    for _ in range(2):
        await placed.placement.end_worker(1)
        await placed.placement.end_partitions()
    await placed.placement.end_worker(9)
    assert fake.killed == fake.actors


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (None, "it returned"),
        (ray.exceptions.ActorDiedError(), "The actor died unexpectedly before finishing this task."),
        (ray.exceptions.NodeDiedError("the node\nis gone"), "the node"),
    ],
)
async def test_that_a_process_has_ended_is_told_with_its_cause(
    fake: FakeRay, placed: Placed, end: Exception | None, cause: str
) -> None:
    await placed.start(1)
    running = fake.actors[0].running
    assert running is not None
    if end is None:
        running.set_result(None)
    else:
        running.set_exception(end)
    await until(lambda: placed.ends == [cause])


async def test_when_all_are_stopped_nobody_is_told(fake: FakeRay, placed: Placed) -> None:
    await placed.start(1)
    await asyncio.sleep(0)
    await placed.placement.stop()
    running = fake.actors[0].running
    assert running is not None
    assert running.cancelled()
    assert placed.ends == []


# --- calls -----------------------------------------------------------------------------------------------------


def crossed(error: BaseException, *, actors: int = 1) -> ray.exceptions.RayTaskError:
    """An error that was raised in an actor which another had called."""
    for _ in range(actors):
        error = ray.exceptions.RayTaskError("run", "Traceback ...", error)
    assert isinstance(error, ray.exceptions.RayTaskError)
    return error


async def test_what_a_method_raises_is_raised_however_many_actors_it_has_crossed() -> None:
    for actors in (1, 2, 3):
        with pytest.raises(NonFiniteError, match="the loss is nan"):
            await call(_result(crossed(NonFiniteError("the loss is nan"), actors=actors)))


@pytest.mark.parametrize(
    "gone",
    [
        ray.exceptions.ActorDiedError(),
        ray.exceptions.ActorUnavailableError("restarting", None),
        ray.exceptions.RpcError("no head"),
        crossed(ray.exceptions.NodeDiedError("the node is gone"), actors=2),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_process_that_is_gone_is_a_lost_part(gone: Exception) -> None:
    with pytest.raises(LostPartError):
        await call(_result(gone))


# --- attempts --------------------------------------------------------------------------------------------------


def made(fake: FakeRay, actor: Any) -> RayAttempt:
    actor.run = SimpleNamespace(remote=lambda: "running")
    return RayAttempt(RayCalls(threads=1), "jobs/test", actor, [])


async def test_a_coordinator_without_news_is_asked_again(fake: FakeRay) -> None:
    actor = Actor()
    actor.events.results = [[], [Paused()]]
    tested = made(fake, actor)
    assert await tested.events(0, 10.0) == []
    assert await tested.events(0, 10.0) == [Paused()]
    assert actor.events.calls == [(0, 10.0)] * 2


async def test_the_last_word_of_a_coordinator_is_heard_although_it_has_ended(fake: FakeRay) -> None:
    actor = Actor()
    actor.events.results = [[], [Paused()]]
    fake.ended = ["running"]
    assert await made(fake, actor).events(4, 10.0) == [Paused()]
    assert actor.events.calls == [(4, 10.0), (4, 0.0)]


async def test_a_coordinator_that_has_ended_without_a_last_word_is_lost(fake: FakeRay) -> None:
    actor = Actor()
    actor.events.results = [[], []]
    fake.ended = ["running"]
    with pytest.raises(LostPartError, match="the coordinator of jobs/test has ended without a last word"):
        await made(fake, actor).events(4, 10.0)


async def test_a_coordinator_that_does_not_answer_in_time_is_lost(
    fake: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "CALL_TIMEOUT_S", 0.01)
    actor = Actor()
    actor.pause.results = [asyncio.get_running_loop().create_future()]
    with pytest.raises(LostPartError, match=r"the coordinator of jobs/test does not answer in 0\.01 s"):
        await made(fake, actor).pause()


async def test_a_launch_without_room_for_the_examples_is_no_outage(fake: FakeRay) -> None:
    fake.error = ray.exceptions.ObjectStoreFullError("Object size is 300 bytes.")
    with pytest.raises(StoreFullError, match="Object size is 300 bytes"):
        await RayLauncher(RayCalls(threads=1)).launch(attempt(PLAN))


async def test_ray_that_does_not_say_who_is_there_costs_an_attempt(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    actor = Actor()
    actor.events.results = [[]]

    def wait(*_: Any, **__: Any) -> Any:
        raise ray.exceptions.RpcError("no head")

    monkeypatch.setattr(fake, "wait", wait)
    with pytest.raises(LostPartError, match=r"does not say whether the coordinator of .* is there: no head"):
        await made(fake, actor).events(4, 10.0)


async def test_that_a_process_could_not_begin_is_told(fake: Any, placed: Any) -> None:
    await placed.start(1)
    fake.actors[0].running.set_exception(crossed(MemoryError("too much")))
    await until(lambda: bool(placed.ends))
    assert "too much" in str(placed.ends)


# --- processes that are kept ready -----------------------------------------------------------------------------


async def test_parts_are_processes_that_are_ready_before_others_are_started(fake: FakeRay) -> None:
    ready: list[Any] = [fake._make(), fake._make()]
    for actor in ready:
        actor.run_partition = actor.run_worker = actor.run
    placed = RayPlacement(attempt(PLAN), ["examples", None], ready)
    ends: list[str] = []
    await placed.start_partition(PARTITION, ends.append)
    await placed.start_worker(3, IDENTITY, ENDPOINT, ends.append)
    assert len(fake.actors) == 2
    [[spec, examples, validation]] = ready[0].run.calls
    assert (spec.lease, examples, validation) == (3, "examples", None)
    await placed.start_worker(4, IDENTITY, ENDPOINT, ends.append)
    assert len(fake.actors) == 3
    await placed.end_worker(3)
    assert fake.killed == [ready[0]]
    await placed.stop()


async def test_what_an_attempt_was_given_ends_with_it(fake: FakeRay) -> None:
    coordinator, part = fake._make(), fake._make()
    coordinator.run = SimpleNamespace(remote=lambda: "running")  # type: ignore[assignment]
    over: list[bool] = []
    tested = RayAttempt(
        RayCalls(threads=1), "jobs/test", coordinator, [], parts=[part], when_over=lambda: over.append(True)
    )
    await tested.stop()
    assert fake.killed == [coordinator, part]
    assert over == [True]


async def test_the_parts_of_an_attempt_end_although_ray_does_not_end_its_coordinator(fake: FakeRay) -> None:
    coordinator, part = Actor(), Actor()
    tested = RayAttempt(RayCalls(threads=1), "jobs/test", coordinator, [], parts=[part])
    fake.error = RuntimeError("GCS is not there")
    await tested.stop()
    assert fake.killed == [coordinator, part]


async def test_an_attempt_is_over_although_who_stops_it_is_cancelled(
    fake: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def kill(actor: Actor) -> None:
        asked.set()
        assert go_on.wait(60)
        fake.killed.append(actor)

    monkeypatch.setattr(fake, "kill", kill)
    coordinator: Any = Actor()
    over: list[bool] = []
    tested = RayAttempt(RayCalls(threads=1), "jobs/test", coordinator, [], when_over=lambda: over.append(True))
    stopping = asyncio.create_task(tested.stop())
    assert await asyncio.to_thread(asked.wait, 60)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    assert over == [True]
    go_on.set()
    await until(lambda: fake.killed == [coordinator])


class WarmRay(FakeRay):
    """Starts processes that are ready at once, from any thread."""

    def _make(self) -> Actor:
        self._try()
        actor: Any = Actor()
        actor.ready = Method([None] * 9)
        self.actors.append(actor)
        return self.actors[-1]


@pytest.fixture
async def warm(monkeypatch: pytest.MonkeyPatch) -> tuple[WarmRay, RayLauncher]:
    """A launcher for which a coordinator and two parts are ready, the coordinator first."""
    fake = WarmRay()
    monkeypatch.setattr(placement, "ray", fake)
    launcher = RayLauncher(RayCalls(threads=1), warm_workers=1)
    launcher.warm_up()
    await until(lambda: len(fake.actors) == 3 and not launcher._pool.filling)
    return fake, launcher


async def test_an_attempt_takes_what_is_ready_and_others_take_its_place(warm: tuple[WarmRay, RayLauncher]) -> None:
    fake, launcher = warm
    attempt_ = await launcher.launch(attempt(PLAN))
    coordinator, *parts = fake.actors
    [(spec, examples, given)] = coordinator.run.calls
    assert (spec.job, len(spec.examples), examples) == ("jobs/test", 0, ["reference 1", None])
    assert {id(each) for each in given} == {id(each) for each in parts}
    assert len(fake.actors) == 3
    await attempt_.stop()
    await until(lambda: len(fake.actors) == 6 and not launcher._pool.filling)
    assert fake.killed == [coordinator, *given]


async def test_code_takes_a_process_for_its_partition_only(
    warm: tuple[WarmRay, RayLauncher], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, launcher = warm
    asked: list[int] = []
    take = launcher._pool.take

    async def counted(parts: int) -> Any:
        asked.append(parts)
        return await take(parts)

    monkeypatch.setattr(launcher._pool, "take", counted)
    await launcher.launch(replace(attempt(PLAN, workers=3), plan=code_plan()))
    assert asked == [1]


async def test_a_launch_that_is_cancelled_while_it_takes_leaves_them_ready(warm: tuple[WarmRay, RayLauncher]) -> None:
    fake, launcher = warm
    silent: Any = fake.actors[1]
    silent.ready = Method([asyncio.get_running_loop().create_future(), *[None] * 9])
    launching = asyncio.create_task(launcher.launch(attempt(PLAN)))
    await until(lambda: bool(silent.ready.calls))
    launching.cancel()
    await asyncio.gather(launching, return_exceptions=True)
    await launcher.launch(attempt(PLAN))
    assert (len(fake.actors), fake.killed) == (3, [])
    [(_, _, given)] = fake.actors[0].run.calls
    assert {id(each) for each in given} == {id(each) for each in fake.actors[1:]}


async def test_a_launch_that_fails_ends_what_it_had_taken_and_has_others_started(
    warm: tuple[WarmRay, RayLauncher],
) -> None:
    fake, launcher = warm
    first = list(fake.actors)
    fake.put = Mock(side_effect=ray.exceptions.ObjectStoreFullError("full"))  # type: ignore[method-assign]
    with pytest.raises(StoreFullError):
        await launcher.launch(attempt(PLAN))
    assert {id(each) for each in fake.killed} == {id(each) for each in first}
    await until(lambda: len(fake.actors) == 6 and not launcher._pool.filling)


# --- chunks of datasets ------------------------------------------------------------------------------------------


def task_error(cause: Exception) -> ray.exceptions.RayTaskError:
    return ray.exceptions.RayTaskError("read", "traceback", cause)


@pytest.mark.parametrize(
    ("raised", "expected", "text"),
    [
        (task_error(ConnectionError("the folder is gone")), LinkError, "the folder is gone"),
        (task_error(FileNotFoundError("no such file")), DatasetError, "chunk abc .* cannot be read: no such file"),
        (ray.exceptions.GetTimeoutError("a minute"), LinkError, "chunk abc of the dataset does not come: a minute"),
        (ray.exceptions.ActorDiedError(), LinkError, "does not come"),
    ],
)
def test_a_chunk_that_does_not_come_is_waited_for_unless_it_is_not_there(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, expected: type[Exception], text: str
) -> None:
    reader = SimpleNamespace(read=Method())
    monkeypatch.setattr(ray, "get", Mock(side_effect=raised))
    with pytest.raises(expected, match=text):
        placement._fetch(reader, "abc")
    assert reader.read.calls == [("abc",)]


def test_chunks_are_read_where_the_service_is(tmp_path: Path) -> None:
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / "abc").write_bytes(b"rows")
    assert placement.ChunkActor(str(tmp_path)).read("abc") == b"rows"
    with pytest.raises(FileNotFoundError):
        placement.ChunkActor(str(tmp_path)).read("xyz")
    with pytest.raises(ConnectionError, match=r"the folder of all blobs, .* is not there"):
        placement.ChunkActor(str(tmp_path / "none")).read("abc")
