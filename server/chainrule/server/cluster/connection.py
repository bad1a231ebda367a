"""The service's side of Ray: a cluster of its own or one it joins, through a driver that is replaced when it ends."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from chainrule.server.cluster import folders, settings
from chainrule.server.cluster.channel import Answer, Call, Cancel, Channel
from chainrule.server.cluster.driver import ANSWER_TIMEOUT_S, START_TIMEOUT_S, STOP_TIMEOUT_S, DriverSettings, Node
from chainrule.server.cluster.local import token_for
from chainrule.server.errors import ClusterUnreachableError, StartupError
from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.events import Event

CONNECT_TIMEOUT_S = 5.0
"""How long a cluster to join may take to accept a connection."""
MARGIN_S = 5.0
"""How much longer than the driver itself the service waits for it."""
FIRST_DELAY_S = 0.5
"""Pause before another driver is started where one has just failed; doubled up to the longest."""
MAX_DELAY_S = 5.0
"""Longest pause. A joined cluster that comes back is found again after at most that."""
LAUNCH_PATIENCE_S = 30.0
"""How long an attempt waits for a connection that was lost before it counts as an outage."""
PING_INTERVAL_S = 10.0
"""How often a driver is asked whether it is well."""
PING_TIMEOUT_S = 60.0
"""How long it may take to say so before it is replaced. The driver does nothing but wait."""
MAX_WARM_WORKERS = 4
"""For how many workers processes are kept ready unless told otherwise: each takes about 100 MB."""
DRIVER = (sys.executable, "-c", "from chainrule.server.cluster.driver import main; main()")
"""Command that a driver is started with; the number of its socket follows. Not -m, which would rename the module."""

logger = logging.getLogger(__name__)


class RayCluster:
    """A connection to Ray: to the cluster at an address, as host:port, or to one of its own. `start` it before use, and
    `stop` it in the end, whether or not it has started.

    A cluster that does not answer is waited for. Where Ray gives up, or another cluster has been started at the
    address, it is joined anew; a cluster of its own that died is started anew. What was asked meanwhile, attempts
    included, raises ClusterUnreachableError.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        num_cpus: int | None = None,
        warm_workers: int | None = None,
        driver: Sequence[str] = DRIVER,
    ) -> None:
        self.address = address or ""
        """Where the cluster is, as host:port, once started. One of its own may move."""
        self.owned = address is None
        """Whether the cluster starts and ends with this connection."""
        self._num_cpus = num_cpus or max(settings.MIN_CPUS, os.cpu_count() or 1)
        most = min(self._num_cpus, MAX_WARM_WORKERS) if warm_workers is None else warm_workers
        self._warm_workers = most if self.owned else 0
        self._command = driver
        self._driver: _DriverProcess | None = None
        self._starting: _DriverProcess | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._folder: Path | None = None
        self._lock: IO[str] | None = None
        self._answers = True
        self._connected = asyncio.Event()

    async def start(self) -> None:
        """Start a cluster that listens on loopback only, asks for a token, and keeps its files in a private folder that
        `stop` removes; or join the one at `address`. Takes some seconds. Raises StartupError."""
        await self._connect()
        self._keeping = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Disconnect, and end the cluster if it is our own: every process of it, within STOP_TIMEOUT_S if Ray hangs."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        await self._disconnect()

    async def nodes(self) -> list[Node]:
        """The nodes that are alive, by id. Raises ClusterUnreachableError."""
        nodes: list[Node] = await self._ask("nodes")
        return nodes

    async def total_cpus(self) -> float:
        """CPUs that Ray may give to workers. Raises ClusterUnreachableError."""
        cpus: float = await self._ask("total_cpus")
        return cpus

    async def free_cpus(self) -> float:
        """CPUs that nobody uses at the moment. Raises ClusterUnreachableError."""
        cpus: float = await self._ask("free_cpus")
        return cpus

    async def launch(self, spec: AttemptSpec) -> RemoteAttempt:
        """Start an attempt at a job, as `training.attempt.Launcher` says. If the connection is lost, wait for it."""
        try:
            async with asyncio.timeout(LAUNCH_PATIENCE_S):
                await self._connected.wait()
        except TimeoutError as error:
            raise self._unreachable(f"there was no connection to it for {LAUNCH_PATIENCE_S:g} s") from error
        assert self._driver is not None
        return RemoteAttempt(self._driver, await self._driver.launch(spec))

    async def _ask(self, question: str) -> Any:
        try:
            if self._driver is None:
                raise ClusterUnreachableError("there is no connection to it")
            answer = await self._driver.ask(question, timeout_s=ANSWER_TIMEOUT_S + MARGIN_S)
        except ClusterUnreachableError as error:
            if self._answers:
                logger.warning("the Ray cluster at %s does not answer any more (%s); jobs wait", self.address, error)
            self._answers = False
            raise self._unreachable(str(error)) from error
        if not self._answers:
            logger.info("the Ray cluster at %s answers again", self.address)
        self._answers = True
        return answer

    def _unreachable(self, reason: str) -> ClusterUnreachableError:
        message = f"the Ray cluster at {self.address} does not answer ({reason})"
        return ClusterUnreachableError(message, address=self.address)

    async def _keep(self) -> None:
        """Replace the driver whenever it has ended."""
        while True:
            assert self._driver is not None
            await self._driver.end()
            logger.warning("the connection to the Ray cluster at %s has ended; connecting anew", self.address)
            await self._reconnect()

    async def _reconnect(self) -> None:
        delay_s = FIRST_DELAY_S
        told = ""
        while True:
            await self._disconnect()
            try:
                await self._connect()
            except (StartupError, ClusterUnreachableError, OSError) as error:
                if str(error) != told:
                    logger.warning("%s; trying on", error)
                told = str(error)
            else:
                return
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, MAX_DELAY_S)

    async def _connect(self) -> None:
        """Start a driver and wait until it is connected."""
        if self.owned:
            self._folder, self._lock = folders.passing()
            variables = settings.of_our_own(settings.make_token(self._folder)) | settings.marked(self._folder)
            environment = settings.without_token(os.environ) | variables
        else:
            await self._probe()
            environment = dict(os.environ)
            if not settings.has_token(environment) and (token := token_for(self.address)) is not None:
                environment |= settings.of_our_own(token)
        # Without it Ray ends the driver a minute after the cluster went away.
        environment.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(settings.RECONNECT_TIMEOUT_S))
        order = DriverSettings(
            address=None if self.owned else self.address,
            num_cpus=self._num_cpus,
            folder=str(self._folder or ""),
            log_level=logging.getLogger().level,
            warm_workers=self._warm_workers,
        )
        self._starting = _DriverProcess(self._command, environment, order, when_lost=self._connected.clear)
        self.address = await self._starting.ready()
        self._driver, self._starting = self._starting, None  # from now on it can be asked
        self._connected.set()
        if self.owned:
            logger.info("started a Ray cluster at %s with %d CPUs", self.address, self._num_cpus)
        else:
            logger.info("joined the Ray cluster at %s", self.address)

    async def _probe(self) -> None:
        """Find out at once if nobody listens where a cluster should be joined. Raises StartupError."""
        remedy = "start one with `chainrule cluster up`, or leave out --ray-address to have one started here"
        host, _, port = self.address.rpartition(":")
        if not host or not port.isdigit():
            raise StartupError(f"--ray-address {self.address!r} is not host:port, for example 10.0.0.1:6379")
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
        except OSError as error:
            raise StartupError(f"no Ray cluster answers at {self.address} ({error}); {remedy}") from error

    async def _disconnect(self) -> None:
        self._connected.clear()
        for driver in (self._driver, self._starting):
            if driver is not None:
                await asyncio.to_thread(driver.close)
        if self._folder is not None:
            await asyncio.to_thread(folders.remove, self._folder)
        if self._lock is not None:
            self._lock.close()
        self._driver = self._starting = self._folder = self._lock = None


class RemoteAttempt:
    """An attempt in the hands of a driver. What goes wrong with the attempt is raised as `training.attempt` says; where
    the driver has ended, all but `stop` raise ClusterUnreachableError."""

    def __init__(self, driver: _DriverProcess, number: int) -> None:
        self._driver = driver
        self._number = number

    async def events(self, after: int, timeout_s: float) -> list[Event]:
        """Events number `after` + 1 and on, waiting up to `timeout_s` seconds for one."""
        events: list[Event] = await self._driver.call("events", (after, timeout_s), attempt=self._number)
        return events

    async def scale(self, workers: int) -> None:
        """Go on with that many workers, as far as the cluster has room."""
        await self._driver.call("scale", (workers,), attempt=self._number)

    async def pause(self) -> None:
        """Stop after the running step, take a checkpoint, and report Paused."""
        await self._driver.call("pause", attempt=self._number)

    async def stop(self) -> None:
        """End the coordinator and its parts. If the driver has ended, they have ended with it or will do so."""
        if not self._driver.has_ended:
            try:
                await self._driver.call("stop", attempt=self._number)
            except ClusterUnreachableError as error:
                logger.info("an attempt ends with the connection that it came by (%s)", error)


class _DriverProcess:
    """A driver in a process of its own (`driver.py`), and the calls that it has not answered yet."""

    def __init__(
        self,
        command: Sequence[str],
        environment: dict[str, str],
        order: DriverSettings,
        *,
        when_lost: Callable[[], None],
    ) -> None:
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        self._outbox: queue.SimpleQueue[Call | Cancel | DriverSettings | None] = queue.SimpleQueue()
        self._numbers = itertools.count(1)
        self._loop = asyncio.get_running_loop()
        self._open: dict[int, asyncio.Future[Any]] = {0: self._loop.create_future()}  # 0: that it is connected
        self._ended = asyncio.Event()
        self._when_lost = when_lost
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # with our log; ours is for people
                process_group=0,  # Ctrl-C is for the service alone
            )
        self._outbox.put(order)
        for work in (self._send, self._receive):
            threading.Thread(target=work, name=f"driver-{work.__name__}", daemon=True).start()

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone, and with it everything it was asked for."""
        return self._ended.is_set()

    async def ready(self) -> str:
        """Wait until it is connected; returns the cluster's address. Raises StartupError."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S + MARGIN_S):
                address: str = await self._open[0]
        except ClusterUnreachableError as error:
            raise StartupError(str(error)) from error
        except TimeoutError as error:
            raise StartupError(f"Ray was not ready within {START_TIMEOUT_S:g} s; is the machine very busy?") from error
        return address

    async def ask(self, question: str, *, timeout_s: float) -> Any:
        """The answer to a question. Raises ClusterUnreachableError."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self.call(question)
        except TimeoutError as error:
            raise ClusterUnreachableError(f"no answer within {timeout_s:g} s") from error

    async def launch(self, spec: AttemptSpec) -> int:
        """Launch an attempt; returns its number."""
        number = next(self._numbers)
        await self._make(Call(number, "launch", (spec,)))
        return number

    async def call(self, method: str, arguments: tuple[Any, ...] = (), *, attempt: int | None = None) -> Any:
        """What a method of the driver, or of an attempt, returns or raises. Raises ClusterUnreachableError if the
        driver ends first."""
        return await self._make(Call(next(self._numbers), method, arguments, attempt=attempt))

    async def end(self) -> None:
        """Wait until it has ended, and see to it that it does if it is not well."""
        while not self._ended.is_set():
            waiting = asyncio.create_task(self._ended.wait())
            await asyncio.wait([waiting], timeout=PING_INTERVAL_S)
            waiting.cancel()
            try:
                await self.ask("ping", timeout_s=PING_TIMEOUT_S)
            except ClusterUnreachableError as error:
                if not self._ended.is_set():
                    logger.warning("the process that is connected to Ray is not well (%s); it is replaced", error)
                    self._process.kill()
                    await self._ended.wait()

    def close(self) -> None:
        """Have it take leave of Ray and end, or end it. Blocks for a second or two, for STOP_TIMEOUT_S if Ray hangs."""
        self._outbox.put(None)
        self._channel.close()
        try:
            self._process.wait(STOP_TIMEOUT_S + MARGIN_S)
        except subprocess.TimeoutExpired:
            logger.warning("the process that is connected to Ray does not end; killing it")
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    async def _make(self, call: Call) -> Any:
        if self._ended.is_set():
            raise _gone()
        answer = self._open[call.number] = self._loop.create_future()
        self._outbox.put(call)
        try:
            return await answer
        except asyncio.CancelledError:
            self._outbox.put(Cancel(call.number))
            raise
        finally:
            self._open.pop(call.number, None)

    def _send(self) -> None:
        while (message := self._outbox.get()) is not None:
            try:
                self._channel.send(message)
            except OSError:  # it has ended, as `_receive` finds out too
                return
            except Exception as error:  # noqa: BLE001 — an argument that cannot be pickled; raised where the call was made
                assert isinstance(message, Call)
                self._tell(self._take, Answer(message.number, error=error))

    def _receive(self) -> None:
        while True:
            try:
                answer: Answer = self._channel.receive()
            except EOFError:
                break
            except Exception:
                logger.exception("what the process that is connected to Ray says cannot be read; it is replaced")
                self._process.kill()
                break
            self._tell(self._take, answer)
        self._process.wait()
        self._tell(self._give_up)

    def _tell(self, function: Any, *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    def _take(self, answer: Answer) -> None:
        future = self._open.get(answer.number)
        if future is None or future.done():
            return
        if answer.error is None:
            future.set_result(answer.value)
        else:
            future.set_exception(answer.error)

    def _give_up(self) -> None:
        self._ended.set()
        self._when_lost()
        for future in self._open.values():
            if not future.done():
                future.set_exception(_gone())
                future.exception()  # that of `ready` may never be asked for


def _gone() -> ClusterUnreachableError:
    return ClusterUnreachableError("the connection to Ray was lost")
