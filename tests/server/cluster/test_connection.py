"""The service's side of Ray, with drivers that are not connected to anything: what is lost with one and what is not."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from chainrule.server.cluster import RayCluster, connection
from chainrule.server.errors import ClusterUnreachableError, StartupError

DRIVER = """
import os, socket, sys, time
from chainrule.server.cluster.channel import Answer, Call, Cancel, Channel
from chainrule.server.errors import StartupError
channel = Channel(socket.socket(fileno=int(sys.argv[1])))
order = channel.receive()
with open(LOG, "a") as log:
    print("start", os.getpid(), file=log, flush=True)
    if FAIL and os.path.exists(FAIL):
        channel.send(Answer(0, error=StartupError("Ray did not start")))
        sys.exit()
    channel.send(Answer(0, f"127.0.0.1:{os.getpid()}"))
    while True:
        try:
            message = channel.receive()
        except EOFError:
            print("end", file=log)
            break
        print(message.method if isinstance(message, Call) else f"cancel {message.number}", file=log, flush=True)
        match message:
            case Call(method="ping") if os.path.exists(MUTE):
                pass
            case Call(method="total_cpus"):
                channel.send(Answer(message.number, 3.0))
            case Call(method="ping" | "launch" | "stop"):
                channel.send(Answer(message.number))
"""


SPEC: Any = "spec"
"""These drivers do not look at it."""


class Stand:
    """Clusters with such drivers, and what those have written down."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.fail = folder / "fail"
        self.mute = folder / "mute"
        names = f"LOG, FAIL, MUTE = {str(self.log)!r}, {str(self.fail)!r}, {str(self.mute)!r}\n"
        self.cluster = RayCluster(driver=(sys.executable, "-c", names + DRIVER))

    @property
    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    @property
    def pids(self) -> list[int]:
        return [int(line.split()[1]) for line in self.lines if line.startswith("start")]


@pytest.fixture
async def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stand]:
    with tempfile.TemporaryDirectory(prefix="cr-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        stand = Stand(tmp_path)
        yield stand
        await stand.cluster.stop()
        assert os.listdir(folder) == []  # every folder of a cluster has been removed


async def until(condition: Callable[[], bool]) -> None:
    """Wait until what another process does shows."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 — nothing announces it
            await asyncio.sleep(0.01)


async def test_a_driver_answers_until_it_is_told_to_end(stand: Stand) -> None:
    await stand.cluster.start()
    assert stand.cluster.address == f"127.0.0.1:{stand.pids[0]}"
    assert await stand.cluster.total_cpus() == 3.0
    await stand.cluster.stop()
    assert stand.lines[-1] == "end"


async def test_what_a_driver_had_not_answered_when_it_ended_was_not_answered(stand: Stand) -> None:
    await stand.cluster.start()
    asking = [asyncio.create_task(stand.cluster.free_cpus()), asyncio.create_task(stand.cluster.nodes())]
    await until(lambda: "nodes" in stand.lines)
    os.kill(stand.pids[0], signal.SIGKILL)
    for question in asking:
        with pytest.raises(ClusterUnreachableError, match="the connection to Ray was lost"):
            await question


async def test_a_driver_that_ended_is_replaced_and_attempts_wait_for_that(stand: Stand) -> None:
    await stand.cluster.start()
    attempt = await stand.cluster.launch(SPEC)
    os.kill(stand.pids[0], signal.SIGKILL)
    with pytest.raises(ClusterUnreachableError):
        await attempt.events(0, 60.0)
    await attempt.stop()  # nothing to stop
    again = await stand.cluster.launch(SPEC)
    assert len(stand.pids) == 2
    assert stand.cluster.address == f"127.0.0.1:{stand.pids[1]}"
    await again.stop()
    assert stand.lines[-1] == "stop"


async def test_a_driver_that_cannot_connect_is_tried_again_and_that_is_told_once(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "FIRST_DELAY_S", 0.01)
    await stand.cluster.start()
    stand.fail.touch()
    os.kill(stand.pids[0], signal.SIGKILL)
    await until(lambda: len(stand.pids) == 4)
    with pytest.raises(ClusterUnreachableError):
        await stand.cluster.total_cpus()
    stand.fail.unlink()
    await (await stand.cluster.launch(SPEC)).stop()
    assert await stand.cluster.total_cpus() == 3.0
    told = [record.message for record in caplog.records if record.message.startswith("Ray did not start")]
    assert told == ["Ray did not start; trying on"]


async def test_a_driver_that_does_nothing_any_more_is_replaced(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PING_INTERVAL_S", 0.01)
    monkeypatch.setattr(connection, "PING_TIMEOUT_S", 1.0)
    await stand.cluster.start()
    stand.mute.touch()
    await until(lambda: len(stand.pids) > 1)
    stand.mute.unlink()


async def test_a_question_that_nobody_waits_for_is_taken_back(stand: Stand) -> None:
    await stand.cluster.start()
    asking = asyncio.create_task(stand.cluster.nodes())
    await until(lambda: "nodes" in stand.lines)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: "cancel 1" in stand.lines)


async def test_a_call_that_cannot_be_sent_is_refused_and_the_next_is_sent(stand: Stand) -> None:
    await stand.cluster.start()
    unsendable: Any = asyncio.get_running_loop()
    with pytest.raises(TypeError, match="pickle"):
        await stand.cluster.launch(unsendable)
    assert await stand.cluster.total_cpus() == 3.0


async def test_a_cluster_that_does_not_start_says_why(stand: Stand) -> None:
    stand.fail.touch()
    with pytest.raises(StartupError, match="Ray did not start"):
        await stand.cluster.start()


@pytest.mark.parametrize("address", ["nonsense", ":1", "host:x"])
async def test_an_address_that_is_none_is_refused(address: str) -> None:
    cluster = RayCluster(address)
    with pytest.raises(StartupError, match="is not host:port"):
        await cluster.start()
    await cluster.stop()
