"""Calls that hang, as Ray's do while its head is stalled: what waits for them, and what does not."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import ray.exceptions

from chainrule.server.errors import ClusterUnreachableError
from chainrule.server.ray_calls import RayCalls, StoreFullError


class Stalled:
    """A call that returns once it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.times = 0
        self._go = threading.Event()

    def __call__(self) -> str:
        self.times += 1
        self.begun.release()
        assert self._go.wait(60)
        return "answer"

    def let_go(self) -> None:
        self._go.set()


@pytest.fixture
def stalled() -> Iterator[Stalled]:
    stalled = Stalled()
    yield stalled
    stalled.let_go()


async def test_a_question_is_put_once_and_its_answer_is_shared(stalled: Stalled) -> None:
    calls = RayCalls(threads=2)
    asking = [asyncio.create_task(calls.ask(stalled, timeout_s=30)) for _ in range(5)]
    await calls.run(stalled.begun.acquire, timeout_s=30)  # the other thread is free
    stalled.let_go()
    assert await asyncio.gather(*asking) == ["answer"] * 5
    assert stalled.times == 1
    assert await calls.ask(stalled, timeout_s=30) == "answer"
    assert stalled.times == 2


async def test_a_question_that_is_not_answered_costs_one_thread(stalled: Stalled) -> None:
    calls = RayCalls(threads=2)
    for _ in range(5):
        with pytest.raises(ClusterUnreachableError, match=r"does not answer within 0\.01 s"):
            await calls.ask(stalled, timeout_s=0.01)
    await calls.run(stalled.begun.acquire, timeout_s=30)  # the other thread is free
    assert stalled.times == 1


async def test_who_stops_asking_leaves_the_question_to_the_others(stalled: Stalled) -> None:
    calls = RayCalls(threads=1)
    first, second = (asyncio.create_task(calls.ask(stalled, timeout_s=30)) for _ in range(2))
    await asyncio.to_thread(stalled.begun.acquire)
    first.cancel()
    stalled.let_go()
    assert await second == "answer"
    assert first.cancelled()


async def test_what_comes_after_the_deadline_is_undone(stalled: Stalled) -> None:
    calls = RayCalls(threads=1)
    undone: list[str] = []
    with pytest.raises(ClusterUnreachableError):
        await calls.run(stalled, timeout_s=0.01, undo=undone.append)
    stalled.let_go()
    await calls.run(lambda: None, timeout_s=30)
    assert undone == ["answer"] * stalled.times


async def test_what_comes_after_its_caller_was_cancelled_is_undone(stalled: Stalled) -> None:
    calls = RayCalls(threads=1)
    undone: list[str] = []
    running = asyncio.create_task(calls.run(stalled, timeout_s=30, undo=undone.append))
    await asyncio.to_thread(stalled.begun.acquire)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    stalled.let_go()
    await calls.run(lambda: None, timeout_s=30)
    assert undone == ["answer"]


async def test_what_comes_while_its_caller_is_cancelled_is_undone() -> None:
    calls = RayCalls(threads=1)
    made: list[str] = []
    undone: list[str] = []
    begun = threading.Event()

    def make() -> str:
        begun.set()
        made.append("group")
        return "group"

    running = asyncio.create_task(calls.run(make, timeout_s=30, undo=undone.append))
    await asyncio.sleep(0)  # it is in the queue
    assert begun.wait(30)  # and the loop, held here, cannot learn of its result before it learns of the cancellation
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await calls.run(lambda: None, timeout_s=30)
    await calls.run(lambda: None, timeout_s=30)
    assert undone == made == ["group"]


async def test_a_call_that_has_not_begun_by_its_deadline_is_left_out(stalled: Stalled) -> None:
    calls = RayCalls(threads=1)
    made: list[str] = []
    with pytest.raises(ClusterUnreachableError):
        await calls.ask(stalled, timeout_s=0.01)
    with pytest.raises(ClusterUnreachableError):
        await calls.run(lambda: made.append("group"), timeout_s=0.01)
    stalled.let_go()
    await calls.run(lambda: None, timeout_s=30)
    assert made == []


async def test_what_must_be_done_is_done_though_nobody_waits_any_more(
    stalled: Stalled, caplog: pytest.LogCaptureFixture
) -> None:
    calls = RayCalls(threads=1)
    ended: list[str] = []
    with pytest.raises(ClusterUnreachableError):
        await calls.ask(stalled, timeout_s=0.01)
    await calls.finish("end it", lambda: ended.append("it"), timeout_s=0.01)
    assert "Ray does not answer; once it does: end it" in caplog.text
    stalled.let_go()
    await calls.run(lambda: None, timeout_s=30)
    assert ended == ["it"]


async def test_what_must_be_done_is_done_though_ray_gives_up_waiting_for_its_head() -> None:
    answers = [ray.exceptions.GetTimeoutError("a minute"), ray.exceptions.GetTimeoutError("another"), None]

    def end() -> None:
        if (error := answers.pop(0)) is not None:
            raise error

    await RayCalls(threads=1).finish("end it", end)
    assert answers == []


async def test_what_cannot_be_ended_is_logged_and_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> None:
        raise ValueError("no such group")

    await RayCalls(threads=1).finish("remove the group", refuse)
    assert "Ray refused: remove the group" in caplog.text
    assert "no such group" in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        ray.exceptions.RpcError("no head"),
        ray.exceptions.GetTimeoutError("a minute"),
        ray.exceptions.RaySystemError("broken pipe"),
        ray.exceptions.LocalRayletDiedError(),
        ray.exceptions.ActorUnavailableError("restarting", None),
        ConnectionError("reset"),
    ],
)
async def test_rays_errors_mean_that_it_does_not_answer(error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(ClusterUnreachableError, match=type(error).__name__):
        await RayCalls(threads=1).run(fail, timeout_s=30)


@pytest.mark.parametrize("full", [ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError])
async def test_a_store_without_room_is_no_outage(full: type[Exception]) -> None:
    def put() -> None:
        raise full("Failed to put object 00ff: object size is 300 bytes.\nMore lines")

    with pytest.raises(StoreFullError) as caught:
        await RayCalls(threads=1).run(put, timeout_s=30)
    message = f"Ray has no room for an object ({full.__name__}: Failed to put object 00ff: object size is 300 bytes.)"
    again = pickle.loads(pickle.dumps(caught.value))  # as it comes out of the process that calls Ray
    assert (type(again), again.message) == (StoreFullError, message)
    assert not isinstance(again, ClusterUnreachableError)


async def test_other_errors_are_those_of_the_call() -> None:
    with pytest.raises(ZeroDivisionError):
        await RayCalls(threads=1).run(lambda: 1 / 0, timeout_s=30)


def test_a_call_that_hangs_does_not_keep_the_process() -> None:
    script = (
        "import asyncio, threading\n"
        "from chainrule.server.ray_calls import RayCalls\n"
        "from chainrule.server.errors import ClusterUnreachableError\n"
        "try:\n"
        "    asyncio.run(RayCalls().ask(threading.Event().wait, timeout_s=0.01))\n"
        "except ClusterUnreachableError:\n"
        "    print('goes on')"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout == "goes on\n"
