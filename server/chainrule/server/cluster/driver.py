"""The driver: the process that is connected to Ray, on behalf of the service.

Ray ends a process that is connected to it where it finds the cluster gone or replaced, and blocks calls for as long as
the cluster does not answer. The service must do neither, so it keeps Ray out of its own process: a driver that ended is
replaced (`connection.py`), and what was asked of it counts as not answered. This process ends when its service does.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import pickle
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from chainrule.engine import ChainruleError
from chainrule.server.cluster import processes, settings
from chainrule.server.cluster.channel import Answer, Call, Cancel, Channel
from chainrule.server.errors import ClusterUnreachableError, StartupError
from chainrule.server.ray_calls import RayCalls
from chainrule.server.training.attempt import Attempt, Launcher

START_ATTEMPTS = 2
"""Starting Ray on a busy machine times out now and then; a second try does it."""
START_TIMEOUT_S = 120.0
"""How long all attempts to start Ray or to join it may take together."""
STOP_TIMEOUT_S = 10.0
"""How long Ray may take to end, and to finish starting before that if it is told to stop meanwhile."""
ANSWER_TIMEOUT_S = 5.0
"""How long the cluster may take to answer a question."""
GONE_S = 10.0
"""How long the head of a joined cluster may be gone before the driver ends, and another waits for the cluster."""
WATCH_INTERVAL_S = 1.0
"""How often the driver looks whether its cluster is still the one it has joined."""

T = TypeVar("T")

logger = logging.getLogger("chainrule.server.cluster")


@dataclass(frozen=True)
class DriverSettings:
    """What a driver is told at its start."""

    address: str | None
    """Cluster to join, as host:port; None: it starts one, which ends with it."""
    num_cpus: int
    """Worker places of a cluster that it starts."""
    folder: str
    """Where a cluster that it starts keeps its files."""
    log_level: int
    warm_workers: int = 0
    """For how many workers processes are kept ready."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    id: str
    address: str
    cpus: float
    memory_bytes: int


class Driver:
    """Answers the service's calls: the questions below, `launch`, and the methods of attempts that it has launched."""

    def __init__(self, channel: Channel, ray: RayConnection, make_launcher: Callable[[RayCalls], Launcher]) -> None:
        self._outbox: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._channel = channel
        self._ray = ray
        self._launcher = make_launcher(ray.calls)
        self._running: dict[int, asyncio.Task[None]] = {}
        self._stopping: set[asyncio.Task[None]] = set()
        self._attempts: dict[int, Attempt] = {}
        threading.Thread(target=self._send, name="driver-send", daemon=True).start()

    def accept(self, message: Call | Cancel) -> None:
        """Begin what the service asks for; the answer goes to it."""
        match message:
            case Call():
                task = asyncio.create_task(self._answer(message))
                self._running[message.number] = task
                task.add_done_callback(lambda _: self._running.pop(message.number, None))
            case Cancel(number):
                if (running := self._running.get(number)) is not None:
                    running.cancel()
                elif (attempt := self._attempts.pop(number, None)) is not None:  # launched, but nobody waited any more
                    stopping = asyncio.create_task(attempt.stop())
                    self._stopping.add(stopping)
                    stopping.add_done_callback(self._stopping.discard)

    async def ping(self) -> None:
        """Answers at once, whatever Ray does."""

    async def nodes(self) -> list[Node]:
        """The nodes that are alive, by id. Raises ClusterUnreachableError."""
        return await self._ask(self._ray.nodes)

    async def total_cpus(self) -> float:
        """CPUs that Ray may give to workers. Raises ClusterUnreachableError."""
        return await self._ask(self._ray.total_cpus)

    async def free_cpus(self) -> float:
        """CPUs that nobody uses at the moment. Raises ClusterUnreachableError."""
        return await self._ask(self._ray.free_cpus)

    async def _ask(self, question: Callable[[], T]) -> T:
        try:
            return await self._ray.calls.ask(question, timeout_s=ANSWER_TIMEOUT_S)
        except RuntimeError as error:  # what Ray's client raises of its own
            raise ClusterUnreachableError(f"Ray does not answer ({error})") from error

    async def _answer(self, call: Call) -> None:
        try:
            answer = Answer(call.number, await self._result(call))
        except Exception as error:  # noqa: BLE001 — it is raised where the service made the call
            answer = Answer(call.number, error=sendable(error))  # cancelled: nobody waits, or all of this ends
        self._outbox.put(answer)

    async def _result(self, call: Call) -> Any:
        if call.method == "launch":
            self._attempts[call.number] = await self._launcher.launch(*call.arguments)
            return None
        if call.attempt is None:
            return await getattr(self, call.method)(*call.arguments)
        if call.method == "stop":
            attempt = self._attempts.pop(call.attempt, None)
            return None if attempt is None else await attempt.stop()
        return await getattr(self._attempts[call.attempt], call.method)(*call.arguments)

    def _send(self) -> None:
        while True:
            answer = self._outbox.get()
            try:
                self._channel.send(answer)
            except OSError:  # the service is gone, and so is this process in a moment
                return
            except Exception as error:  # noqa: BLE001 — a value that cannot be pickled
                self._outbox.put(Answer(answer.number, error=sendable(error)))


class RayConnection:
    """This process's connection to Ray, and what can be asked of it. Methods block; `calls` has threads for them."""

    def __init__(self, order: DriverSettings) -> None:
        self.calls = RayCalls()
        self.address = order.address or ""
        self._order = order
        self._cluster_id = ""
        self._node_id = ""
        self._refused_since_s = math.inf
        self._own: list[processes.Process] = []

    def open(self) -> None:
        """Start a cluster or join one. Raises StartupError."""
        if self._order.address is None:
            self._start()
        else:
            self._join(self._order.address)
        import ray

        self._cluster_id = _cluster_id(self.address)
        self._node_id = ray.get_runtime_context().get_node_id()

    def nodes(self) -> list[Node]:
        """The nodes that are alive, by id."""
        import ray

        self._check()
        return sorted(
            (
                Node(
                    id=node["NodeID"],
                    address=node["NodeManagerAddress"],
                    cpus=float(node["Resources"].get("CPU", 0)),
                    memory_bytes=int(node["Resources"].get("memory", 0)),
                )
                for node in ray.nodes()
                if node["Alive"]
            ),
            key=lambda node: node.id,
        )

    def total_cpus(self) -> float:
        """CPUs that Ray may give to workers."""
        import ray

        self._check()
        return float(ray.cluster_resources().get("CPU", 0.0))

    def free_cpus(self) -> float:
        """CPUs that nobody uses at the moment."""
        import ray

        self._check()
        return float(ray.available_resources().get("CPU", 0.0))

    def why_lost(self) -> str | None:
        """Why the cluster, as this process knows it, will not come back; None if it is there or may do so."""
        if gone := [process.pid for process in self._own if not process.alive]:
            return f"its processes {gone} have ended"
        try:
            nodes = self.nodes()
            self._refused_since_s = math.inf
        except _ReplacedError as error:
            return str(error)
        except ConnectionRefusedError:  # its head is not slow, but not there; Ray would look for it without a pause
            self._refused_since_s = min(self._refused_since_s, time.monotonic())
            refused_s = time.monotonic() - self._refused_since_s
            return f"its head has not been there for {refused_s:.0f} s" if refused_s > GONE_S else None
        except OSError:
            return None
        if self._node_id not in {node.id for node in nodes}:
            return f"the node {self._node_id[:8]}, by which this machine takes part in it, is dead"
        return None

    def _check(self) -> None:
        """Find out that the cluster is the one that was joined, before Ray itself does: Ray would end this process with
        a stack, and blocks where nobody answers. Raises OSError."""
        host, _, port = self.address.rpartition(":")
        socket.create_connection((host, int(port)), ANSWER_TIMEOUT_S).close()
        if _cluster_id(self.address) != self._cluster_id:
            raise _ReplacedError(f"another cluster has taken its place at {self.address}")

    def _start(self) -> None:
        import ray

        logging.getLogger("ray").setLevel(logging.ERROR)
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                context = ray.init(
                    address="local",
                    num_cpus=self._order.num_cpus,
                    namespace=settings.NAMESPACE,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _temp_dir=self._order.folder,
                )
                break
            except (RuntimeError, OSError, ray.exceptions.RayError) as error:
                ray.shutdown()
                if attempt == START_ATTEMPTS:
                    raise StartupError(f"Ray did not start on this machine: {error}") from error
                logger.warning("Ray did not start (%s); trying once more", error)
        self.address = str(context.address_info["gcs_address"])
        self._own = [
            process
            for process in processes.of_folder(Path(self._order.folder))
            if process.command.split(" ")[0].endswith(("/gcs_server", "/raylet"))
        ]

    def _join(self, address: str) -> None:
        import ray

        logging.getLogger("ray").setLevel(logging.ERROR)
        try:
            ray.init(address=address, namespace=settings.NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
        except (RuntimeError, OSError, ValueError, ray.exceptions.RayError) as error:
            raise StartupError(f"cannot join the Ray cluster at {address}: {error}") from error


class _ReplacedError(OSError):
    """Another cluster answers where ours did."""


def _cluster_id(address: str) -> str:
    """What tells a cluster from another that is started at the same address later. Raises OSError."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # its stub leaves it out
    from ray.exceptions import RayError

    try:
        return str(GcsClient(address=address).cluster_id.hex())
    except (RuntimeError, RayError) as error:
        raise OSError(f"its head does not answer ({error})") from error


def sendable(error: BaseException) -> BaseException:
    """An error as another process can raise it again: itself, unless it does not survive pickling."""
    try:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 — made here
    except Exception:  # noqa: BLE001 — whatever it is that cannot be pickled
        copy = None
    if type(copy) is type(error):
        if not isinstance(error, ChainruleError):
            error.add_note("".join(traceback.format_exception(error)))
        return error
    return RuntimeError("".join(traceback.format_exception(error)))


async def serve(channel: Channel, order: DriverSettings) -> bool:
    """Connect to Ray and answer the service's calls until the service ends. Returns whether there is something on Ray
    to take leave of: not if the cluster is lost."""
    inbox: asyncio.Queue[Call | Cancel | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    threading.Thread(target=_receive, args=(channel, loop, inbox), name="driver-receive", daemon=True).start()
    ray = RayConnection(order)
    opening = asyncio.create_task(ray.calls.run(ray.open, timeout_s=START_TIMEOUT_S))
    first = asyncio.create_task(inbox.get())
    await asyncio.wait([opening, first], return_when=asyncio.FIRST_COMPLETED)
    if not opening.done():
        return True  # the service has ended: nothing else comes from it before it knows that we are ready
    try:
        await opening
    except Exception as error:  # noqa: BLE001 — it is raised where the service waits for us
        channel.send(Answer(0, error=sendable(error)))
        return True
    channel.send(Answer(0, ray.address))
    from chainrule.server.training.placement import RayLauncher  # imports Ray: not before Ray was told how to behave

    launcher = RayLauncher(ray.calls, warm_workers=order.warm_workers)
    launcher.warm_up()
    driver = Driver(channel, ray, lambda _: launcher)
    lost = asyncio.create_task(_lost(ray))
    while True:
        await asyncio.wait([lost, first], return_when=asyncio.FIRST_COMPLETED)
        if first.done():
            message = first.result()
            if message is None:
                return True
            driver.accept(message)
            first = asyncio.create_task(inbox.get())
        if lost.done():
            lost.result()
            return False


async def _lost(ray: RayConnection) -> None:
    """Wait until the cluster is lost for good."""
    while True:
        await asyncio.sleep(WATCH_INTERVAL_S)
        with suppress(ClusterUnreachableError, RuntimeError):  # no news: it may come back
            if (reason := await ray.calls.ask(ray.why_lost, timeout_s=ANSWER_TIMEOUT_S)) is not None:
                logger.warning("the Ray cluster at %s is lost: %s", ray.address, reason)
                return


def _receive(channel: Channel, loop: asyncio.AbstractEventLoop, inbox: asyncio.Queue[Call | Cancel | None]) -> None:
    while True:
        try:
            message = channel.receive()
        except EOFError:
            message = None
        with suppress(RuntimeError):  # the loop has ended, and this process with it
            loop.call_soon_threadsafe(inbox.put_nowait, message)
        if message is None:
            return


def _leave() -> None:
    """Disconnect from Ray, and end a cluster of our own, as far as that works in time."""

    def shut_down() -> None:
        if "ray" in sys.modules:  # if it has come that far
            import ray

            ray.shutdown()

    leaving = threading.Thread(target=shut_down, name="driver-leave", daemon=True)
    leaving.start()
    leaving.join(STOP_TIMEOUT_S)
    if leaving.is_alive():
        logger.warning("Ray did not end within %g s; going without it", STOP_TIMEOUT_S)


def main() -> NoReturn:
    """Serve the process at the other end of the socket whose number is the only argument."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)  # they are for the service; it tells us when to end
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    order: DriverSettings = channel.receive()
    logging.basicConfig(
        level=order.log_level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    if asyncio.run(serve(channel, order)):
        _leave()
    logging.shutdown()
    os._exit(0)  # without the parts of Ray that hang and would keep this process from ending


def _ignore(_number: int, _frame: object) -> None:
    """Not SIG_IGN, which all that is started from here would inherit."""
