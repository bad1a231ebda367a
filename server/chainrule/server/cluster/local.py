"""Ray clusters on this machine: several nodes that listen on loopback only, each killable like a machine of its own."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from chainrule.server.cluster import folders, processes, settings
from chainrule.server.cluster.local_node import STARTED, NodeSettings
from chainrule.server.errors import StartupError

DEFAULT_NAME = "default"
"""The lasting cluster that is meant where none is named."""
STATE = "cluster.json"
"""File in a cluster's folder that says what it consists of."""
LOG = "start.log"
"""File in a node's folder with what was printed while it was started."""
START_NODE = (sys.executable, "-c", "from chainrule.server.cluster.local_node import main; main()")
"""Command that a node is started with; its settings follow."""
START_TIMEOUT_S = 60.0
"""How long a node may take to start."""
START_ATTEMPTS = 2
"""Starting Ray on a busy machine times out now and then; a second try does it."""
PORTS = range(20_000, 30_000)
"""Where a head may listen: below what the system gives to outgoing connections, so that it finds its port again."""
OBJECT_STORE_SHARE = 0.3
"""Part of the machine's memory for the object stores of all nodes of a cluster together; what Ray takes for one."""
MIN_OBJECT_STORE_BYTES = 80 * 1024**2

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocalNode:
    """A node of a local cluster: a raylet, and for the head the cluster's directory (GCS), with all that they start."""

    node_id: str
    """Ray's name of it."""
    cpus: int
    """Worker places."""
    is_head: bool
    folder: str
    """Where its files are."""

    @property
    def pids(self) -> list[int]:
        """Its processes that are alive, workers and actors included."""
        return [process.pid for process in processes.of_folder(Path(self.folder))]

    @property
    def alive(self) -> bool:
        """Whether Ray can still use it: its raylet runs, and the head's GCS."""
        commands = [process.command.split(" ")[0] for process in processes.of_folder(Path(self.folder))]
        needed = ["/raylet", "/gcs_server"] if self.is_head else ["/raylet"]
        return all(any(command.endswith(end) for command in commands) for end in needed)

    def kill(self) -> None:
        """End all of its processes with SIGKILL, as if the machine went away. Returns once they are gone."""
        processes.kill_folder(Path(self.folder))


@dataclass(frozen=True)
class _State:
    """What of a cluster another process has to know."""

    name: str
    address: str
    cpus_per_node: int
    object_store_bytes: int | None
    nodes: tuple[LocalNode, ...] = ()
    started: int = 0
    """Nodes started so far, dead ones included."""


class LocalCluster:
    """A Ray cluster of nodes on this machine. `start` makes one and `find` a lasting one that runs already. One without
    a name belongs to this process: `stop` it in the end, or use it as a context manager."""

    def __init__(self, folder: Path, state: _State, lock: IO[str] | None) -> None:
        self._folder = folder
        self._state = state
        self._lock = lock

    @classmethod
    def start(cls, nodes: int = 1, *, cpus_per_node: int | None = None, name: str | None = None) -> Self:
        """Start a cluster; takes about 2.5 s, and 1.5 s for each node after the first. Raises StartupError.

        Args:
            nodes: how many, the head included.
            cpus_per_node: worker places of each; by default the machine's CPUs (at least 2) are shared out.
            name: keep it running when this process ends, to be found by this name; by default it ends with `stop`.
        """
        _refuse_unsuitable_machine()
        state = _State(
            name=name or "",
            address=f"127.0.0.1:{_free_port()}",
            cpus_per_node=cpus_per_node or -(-max(settings.MIN_CPUS, os.cpu_count() or 1) // nodes),
            object_store_bytes=_object_store_bytes(nodes),
        )
        if name is None:
            return cls._begin(state, nodes, *folders.passing())
        with _alone(name) as folder:
            if (running := cls._read(folder)) is not None and running.alive:
                raise StartupError(
                    f"the cluster {name!r} is up already, at {running.address}; "
                    f"end it first with: chainrule cluster down{name_option(name)}"
                )
            _empty(folder)
            return cls._begin(state, nodes, folder, None)

    @classmethod
    def find(cls, name: str) -> Self | None:
        """The lasting cluster with a name, or what is left of it; None if there is nothing. Raises StartupError if
        there can be none of that name."""
        folder = folders.lasting(name)
        return cls._read(folder) if folders.is_private(folder) else None

    @property
    def address(self) -> str:
        """Where drivers join it, as host:port. Stays the same when the head is restarted."""
        return self._state.address

    @property
    def name(self) -> str:
        """By which it is found; empty if it belongs to the process that started it."""
        return self._state.name

    @property
    def nodes(self) -> tuple[LocalNode, ...]:
        """Its nodes, the head first, dead ones included."""
        return self._state.nodes

    @property
    def alive(self) -> bool:
        """Whether its head is alive. Nodes without a head are of no use."""
        return bool(self.nodes) and self.nodes[0].alive

    @property
    def environment(self) -> dict[str, str]:
        """Variables that a process needs before it imports Ray, to join by `ray.init(address=...)`. The service finds
        them by itself."""
        return settings.of_our_own(self._folder / settings.TOKEN)

    def connect(self) -> None:
        """Make this process a driver of the cluster, until `ray.shutdown`. Where Ray is imported already, the variables
        of `environment` other than the token's path must have been set before that."""
        os.environ.update(self.environment)
        import ray

        ray.init(address=self.address, namespace=settings.NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)

    def add_node(self) -> LocalNode:
        """Start another node like the others. Raises StartupError."""
        return self._add(head_address=self.address)

    def kill_head(self) -> None:
        """End the head with SIGKILL. The other nodes stay until they notice."""
        self.nodes[0].kill()

    def restart_head(self) -> None:
        """Start a new head at the same address, and replace the other nodes that were not dead: what belonged to the
        old head is of no use to a new one. Raises StartupError."""
        others = sum(node.alive for node in self.nodes[1:])
        for node in self.nodes:
            folders.remove(Path(node.folder))
        self._write(replace(self._state, nodes=()))
        self._add(head_address=None)
        for _ in range(others):
            self.add_node()

    def stop(self) -> None:
        """End every process of the cluster with SIGKILL and remove its folder."""
        folders.remove(self._folder)
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @classmethod
    def _begin(cls, state: _State, nodes: int, folder: Path, lock: IO[str] | None) -> Self:
        settings.make_token(folder)
        cluster = cls(folder, state, lock)
        try:
            cluster._add(head_address=None)
            for _ in range(nodes - 1):
                cluster.add_node()
        except BaseException:
            cluster.stop()
            raise
        return cluster

    @classmethod
    def _read(cls, folder: Path) -> Self | None:
        try:
            fields = json.loads((folder / STATE).read_text())
        except FileNotFoundError:
            return None
        return cls(folder, _State(**{**fields, "nodes": tuple(LocalNode(**node) for node in fields["nodes"])}), None)

    def _write(self, state: _State) -> None:
        self._state = state
        made = self._folder / f"{STATE}.new"
        made.write_text(json.dumps(asdict(state)))
        made.rename(self._folder / STATE)

    def _add(self, *, head_address: str | None) -> LocalNode:
        """Start a head, or a node of the one at an address, and note it down."""
        node = self._start_node(head_address)
        self._write(replace(self._state, nodes=(*self.nodes, node)))
        return node

    def _start_node(self, head_address: str | None) -> LocalNode:
        self._write(replace(self._state, started=self._state.started + 1))
        folder = self._folder / str(self._state.started)
        order = NodeSettings(
            folder=str(folder),
            cpus=self._state.cpus_per_node,
            head_address=head_address,
            port=0 if head_address else int(self.address.rpartition(":")[2]),
            object_store_bytes=self._state.object_store_bytes,
        )
        for attempt in range(1, START_ATTEMPTS + 1):
            folder.mkdir(mode=0o700)
            if (failure := _run(order, self.environment)) is None:
                break
            folders.remove(folder)
            if attempt == START_ATTEMPTS:
                raise StartupError(f"a Ray node did not start on this machine: {failure}")
            logger.warning("a Ray node did not start (%s); trying once more", failure)
        node_id = json.loads((folder / STARTED).read_text())["node_id"]
        return LocalNode(node_id=node_id, cpus=order.cpus, is_head=head_address is None, folder=str(folder))


def token_for(address: str) -> Path | None:
    """The token of this user's local cluster at an address; None if there is none."""
    for folder in folders.present():
        cluster = LocalCluster._read(folder)
        if cluster is not None and cluster.address == address:
            return folder / settings.TOKEN
    return None


def name_option(name: str) -> str:
    """What has to follow a command line to name a cluster."""
    return "" if name == DEFAULT_NAME else f" --name {name}"


def _run(order: NodeSettings, variables: dict[str, str]) -> str | None:
    """Start a node; returns why it did not work, or None if it did."""
    environment = settings.without_token(os.environ) | variables | settings.marked(Path(order.folder))
    environment.pop("RAY_ADDRESS", None)
    log_path = Path(order.folder) / LOG
    with log_path.open("wb") as log:
        starting = subprocess.Popen(
            [*START_NODE, order.to_json()],
            env=environment,
            cwd=order.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # away from the terminal: neither its signals nor its end reach the node
        )
        try:
            code = starting.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            processes.kill_folder(Path(order.folder))
            starting.wait()
            return f"it took more than {START_TIMEOUT_S:g} s"
    if code == 0:
        return None
    lines = log_path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {code}"


@contextmanager
def _alone(name: str) -> Iterator[Path]:
    """The folder of a lasting cluster while nobody else starts it. Raises StartupError."""
    folder = folders.make_lasting(name)
    lock = folders.try_lock(folder / folders.LOCK)
    if lock is None:
        raise StartupError(f"the cluster {name!r} is being started by another command; wait for that one to end")
    try:
        yield folder
    finally:
        lock.close()


def _empty(folder: Path) -> None:
    """End and remove what is left of a cluster whose head is dead."""
    processes.kill_folder(folder)
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != folders.LOCK:
            entry.unlink()


def _refuse_unsuitable_machine() -> None:
    if not Path("/proc/self/environ").exists():
        raise StartupError(
            "a local cluster needs Linux: its processes are found and ended by what /proc says; "
            "leave out --ray-address to have `chainrule serve` start a cluster of one node"
        )


def _free_port() -> int:
    """A port that nobody listens on at the moment. Raises StartupError."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise StartupError(f"no free port was found between {PORTS.start} and {PORTS.stop}; end what listens there")


def _object_store_bytes(nodes: int) -> int | None:
    if nodes == 1:
        return None
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    shared = shutil.disk_usage("/dev/shm").free
    return max(MIN_OBJECT_STORE_BYTES, int(min(memory, shared) * OBJECT_STORE_SHARE) // nodes)
