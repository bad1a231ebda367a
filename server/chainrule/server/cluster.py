"""The Ray cluster behind the service: one of its own, started and stopped with it, or one it joins."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

# Read when Ray and gRPC are first imported, so they are set before that.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # its fork handlers deadlock beside Ray's
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from chainrule.server.errors import ClusterUnreachableError, StartupError
from chainrule.server.ray_calls import RayCalls

NAMESPACE = "chainrule"
CONNECT_TIMEOUT_S = 5.0
"""How long a cluster to join may take to accept a connection, and a question to be answered."""
START_TIMEOUT_S = 120.0
"""How long all attempts to start Ray or to join it may take together."""
STOP_TIMEOUT_S = 10.0
"""How long Ray may take to end, and to finish starting before that if it is told to stop meanwhile."""
KILL_TIMEOUT_S = 5.0
"""How long killed processes may take to be gone."""
RECONNECT_TIMEOUT_S = 1_000_000
"""How long Ray looks for a joined cluster that has gone away before it ends this process: in effect, for ever."""
MIN_LOCAL_CPUS = 2
"""A cluster of its own offers at least this many worker places, even on a smaller machine."""
FOLDER_PREFIX = "cr-ray-"
"""What the names of our clusters' folders begin with. Short: Ray's sockets lie far below."""
LOCK = "lock"
"""File in such a folder that its server holds locked."""
MAX_TEMPORARY_PATH = 20
"""Longest path of a temporary folder that Ray's sockets fit under: a socket's whole path has 104 bytes at most."""
START_ATTEMPTS = 2
"""Starting Ray on a busy machine times out now and then; a second try does it."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    id: str
    address: str
    cpus: float
    memory_bytes: int


class RayCluster:
    """A connection to Ray: to the cluster at an address, as host:port, or to one of its own. `start` it before use, and
    `stop` it in the end, whether or not it has started."""

    def __init__(self, address: str | None = None, *, num_cpus: int | None = None) -> None:
        self.address = address or ""
        """Where the cluster is, as host:port, once started."""
        self.owned = address is None
        """Whether the cluster starts and ends with this connection."""
        self.calls = RayCalls()
        """Threads for whatever is asked of this cluster."""
        self._num_cpus = num_cpus
        self._connection = RayCalls(threads=1)  # starting and stopping never overlap
        self._folder: Path | None = None
        self._lock: IO[str] | None = None
        self._used = False
        self._answers = True

    async def start(self) -> None:
        """Start a cluster that listens on loopback only, asks for a token, and keeps its files in a private folder that
        `stop` removes; or join the one at `address`. Takes some seconds. Raises StartupError."""
        self._used = True
        if not self.owned:
            await self._connection.run(self._join, timeout_s=START_TIMEOUT_S)
            return
        self._folder, self._lock = _private_folder()
        await self._connection.run(partial(self._start_local, self._folder), timeout_s=START_TIMEOUT_S)

    def stop(self) -> bool:
        """Disconnect, and end the cluster if it is our own. Blocks for a second or two, or for STOP_TIMEOUT_S if Ray
        hangs. Returns False then: what it has left in this process ends with the process only, at once or never."""
        if not self._used:
            return True
        started = _started_below(self._folder)
        try:
            self._connection.wait(_shut_down, timeout_s=STOP_TIMEOUT_S)
            ended = True
        except TimeoutError:
            logger.warning("Ray did not end within %g s; going without it", STOP_TIMEOUT_S)
            ended = False
        _kill(started | _started_below(self._folder))
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
        return ended

    @property
    def _end(self) -> str:
        """What becomes of the service if the cluster does not come back."""
        if self.owned:
            return "if that lasts, Ray ends this service: start it again, and its jobs go on"
        return "jobs wait for it; should another be started in its place, Ray ends this service: start it again then"

    def _start_local(self, folder: Path) -> None:
        if "ray" in sys.modules and os.environ.get("RAY_AUTH_MODE") != "token":
            raise StartupError(
                "Ray was imported before its cluster was configured, and reads RAY_AUTH_MODE at import; "
                'start the cluster before anything imports ray, or set RAY_AUTH_MODE="token" before that'
            )
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
        # On Linux too this is what makes Ray take 127.0.0.1 for its address and listen nowhere else.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        import ray

        logging.getLogger("ray").setLevel(logging.ERROR)
        cpus = self._num_cpus or max(MIN_LOCAL_CPUS, os.cpu_count() or 1)
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                context = ray.init(
                    address="local",
                    num_cpus=cpus,
                    namespace=NAMESPACE,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _temp_dir=str(folder),
                )
                break
            except (RuntimeError, OSError, ray.exceptions.RayError) as error:
                ray.shutdown()
                if attempt == START_ATTEMPTS:
                    raise StartupError(f"Ray did not start on this machine: {error}") from error
                logger.warning("Ray did not start (%s); trying once more", error)
        self.address = str(context.address_info["gcs_address"])
        logger.info("started a Ray cluster at %s with %d CPUs", self.address, cpus)

    def _join(self) -> None:
        address = self.address
        remedy = "start one with `ray start --head`, or leave out --ray-address to have one started here"
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise StartupError(f"--ray-address {address!r} is not host:port, for example 10.0.0.1:6379")
        try:
            socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()
        except OSError as error:
            raise StartupError(f"no Ray cluster answers at {address} ({error}); {remedy}") from error
        # Without it Ray ends this process a minute after the cluster went away.
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(RECONNECT_TIMEOUT_S))
        import ray

        logging.getLogger("ray").setLevel(logging.ERROR)
        try:
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
        except (RuntimeError, OSError, ValueError, ray.exceptions.RayError) as error:
            raise StartupError(f"cannot join the Ray cluster at {address}: {error}") from error
        logger.info("joined the Ray cluster at %s", address)

    async def nodes(self) -> list[Node]:
        """The nodes that are alive, by id. Raises ClusterUnreachableError."""
        import ray

        return sorted(
            (
                Node(
                    id=node["NodeID"],
                    address=node["NodeManagerAddress"],
                    cpus=float(node["Resources"].get("CPU", 0)),
                    memory_bytes=int(node["Resources"].get("memory", 0)),
                )
                for node in await self._ask(ray.nodes)
                if node["Alive"]
            ),
            key=lambda node: node.id,
        )

    async def total_cpus(self) -> float:
        """CPUs that Ray may give to workers. Raises ClusterUnreachableError."""
        import ray

        resources: dict[str, float] = await self._ask(ray.cluster_resources)
        return resources.get("CPU", 0.0)

    async def free_cpus(self) -> float:
        """CPUs that nobody uses at the moment. Raises ClusterUnreachableError."""
        import ray

        resources: dict[str, float] = await self._ask(ray.available_resources)
        return resources.get("CPU", 0.0)

    async def _ask(self, question: Callable[[], T]) -> T:
        try:
            answer = await self.calls.ask(question, timeout_s=CONNECT_TIMEOUT_S)
        except (ClusterUnreachableError, RuntimeError) as error:  # RuntimeError: what Ray's client raises of its own
            if self._answers:
                logger.warning(
                    "the Ray cluster at %s does not answer any more (%s); %s", self.address, error, self._end
                )
            self._answers = False
            raise ClusterUnreachableError(
                f"the Ray cluster at {self.address} does not answer ({error})", address=self.address
            ) from error
        if not self._answers:
            logger.info("the Ray cluster at %s answers again", self.address)
        self._answers = True
        return answer


def _private_folder() -> tuple[Path, IO[str]]:
    """A new folder that only this user can read, at a path short enough for Ray's sockets, and the lock that says it is
    in use. Folders that a killed server has left, whose locks nobody holds, are removed."""
    temporary = Path(tempfile.gettempdir())
    if len(str(temporary)) > MAX_TEMPORARY_PATH:  # as on macOS
        temporary = Path("/tmp")
    for leftover in temporary.glob(f"{FOLDER_PREFIX}*/{LOCK}"):
        if leftover.stat().st_uid == os.getuid() and (lock := _try_lock(leftover)) is not None:
            logger.info("removing %s, which a server that was killed has left", leftover.parent)
            shutil.rmtree(leftover.parent, ignore_errors=True)
            lock.close()
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=temporary))
    made = folder / f"{LOCK}.new"
    lock = _try_lock(made)
    assert lock is not None  # nobody else looks at a file of this name
    made.rename(folder / LOCK)  # it appears locked: another server that starts now does not take it for left behind
    return folder, lock


def _try_lock(path: Path) -> IO[str] | None:
    """Hold a file's lock until it is closed or this process ends; None if another process holds it."""
    lock = path.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _shut_down() -> None:
    if "ray" in sys.modules:  # if it has come that far
        import ray

        ray.shutdown()


# --- the processes of a cluster of our own ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Process:
    """A process, told apart from a later one with the same number by when it started."""

    pid: int
    started: int


def _started_below(folder: Path | None) -> set[_Process]:
    """Processes that Ray has started for the cluster in a folder: children of ours that are told of the folder, and
    whatever they have started. Empty where there is no /proc; there they end with this process by other means."""
    if folder is None:
        return set()
    children: dict[int, list[int]] = {}
    started: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        if (fields := _stat(int(entry.name))) is not None:
            started[int(entry.name)] = int(fields[19])
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: set[_Process] = set()
    ours = [pid for pid in children.get(os.getpid(), []) if str(folder) in _command(pid)]
    while ours:
        pid = ours.pop()
        found.add(_Process(pid, started[pid]))
        ours += children.get(pid, [])
    return found


def _kill(processes: set[_Process]) -> None:
    """Kill those that are still there, and wait until they are gone."""
    for process in filter(_alive, processes):
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while left := [process.pid for process in processes if _alive(process)]:
        if time.monotonic() > deadline:
            logger.warning("processes of Ray that were killed are still there: %s", left)
            return
        time.sleep(0.02)  # nothing announces the end of a process that is not a child


def _alive(process: _Process) -> bool:
    fields = _stat(process.pid)
    return fields is not None and int(fields[19]) == process.started and fields[0] not in "ZX"


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name, beginning with the state; None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
