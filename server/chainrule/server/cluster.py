"""The Ray cluster behind the service: one of its own, started and stopped with it, or one it joins."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

# Read when Ray and gRPC are first imported, so they are set before that.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # its fork handlers deadlock beside Ray's
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from chainrule.server.errors import ClusterUnreachableError, StartupError

NAMESPACE = "chainrule"
CONNECT_TIMEOUT_S = 5.0
"""How long a cluster to join may take to accept a connection."""
MIN_LOCAL_CPUS = 2
"""A cluster of its own offers at least this many worker places, even on a smaller machine."""
FOLDER_PREFIX = "cr-ray-"
"""What the names of our clusters' folders begin with. Short: Ray's sockets lie far below."""
MAX_TEMPORARY_PATH = 20
"""Longest path of a temporary folder that Ray's sockets fit under: a socket's whole path has 104 bytes at most."""
START_ATTEMPTS = 2
"""Starting Ray on a busy machine times out now and then; a second try does it."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    id: str
    address: str
    cpus: float
    memory_bytes: int


class RayCluster:
    """A connection to Ray. Make one with `start_local` or `join`, and `stop` it in the end."""

    def __init__(self, address: str, *, folder: Path | None = None, lock: IO[str] | None = None) -> None:
        self.address = address
        self.owned = folder is not None
        self._folder = folder
        self._lock = lock

    @classmethod
    def start_local(cls, num_cpus: int | None = None) -> RayCluster:
        """Start a cluster on this machine: it listens on loopback only, asks for a token, and keeps its files in a
        private folder that `stop` removes. Blocks for some seconds. Raises StartupError."""
        folder, lock = _private_folder()
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
        # On Linux too this is what makes Ray take 127.0.0.1 for its address and listen nowhere else.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        import ray

        cpus = num_cpus or max(MIN_LOCAL_CPUS, os.cpu_count() or 1)
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
                    shutil.rmtree(folder, ignore_errors=True)
                    raise StartupError(f"Ray did not start on this machine: {error}") from error
                logger.warning("Ray did not start (%s); trying once more", error)
        address = str(context.address_info["gcs_address"])
        logger.info("started a Ray cluster at %s with %d CPUs", address, cpus)
        return cls(address, folder=folder, lock=lock)

    @classmethod
    def join(cls, address: str) -> RayCluster:
        """Connect to a cluster at host:port. Raises StartupError if nothing answers there or it refuses."""
        remedy = "start one with `ray start --head`, or leave out --ray-address to have one started here"
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise StartupError(f"--ray-address {address!r} is not host:port, for example 10.0.0.1:6379")
        try:
            socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()
        except OSError as error:
            raise StartupError(f"no Ray cluster answers at {address} ({error}); {remedy}") from error
        import ray

        try:
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
        except (RuntimeError, OSError, ValueError, ray.exceptions.RayError) as error:
            raise StartupError(f"cannot join the Ray cluster at {address}: {error}") from error
        logger.info("joined the Ray cluster at %s", address)
        return cls(address)

    def stop(self) -> None:
        """Disconnect, and end the cluster if it is our own. Blocks for a second or two."""
        import ray

        ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()

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

    async def _ask(self, question: Callable[[], Any]) -> Any:
        import ray

        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return await asyncio.to_thread(question)
        except (OSError, RuntimeError, ray.exceptions.RayError) as error:
            raise ClusterUnreachableError(
                f"the Ray cluster at {self.address} does not answer ({type(error).__name__}: {error})",
                address=self.address,
            ) from error


def _private_folder() -> tuple[Path, IO[str]]:
    """A new folder that only this user can read, at a path short enough for Ray's sockets, and the lock that says it is
    in use. Folders that a killed server has left, whose locks nobody holds, are removed."""
    temporary = Path(tempfile.gettempdir())
    if len(str(temporary)) > MAX_TEMPORARY_PATH:  # as on macOS
        temporary = Path("/tmp")
    for leftover in temporary.glob(f"{FOLDER_PREFIX}*"):
        if leftover.stat().st_uid == os.getuid() and (lock := _try_lock(leftover)) is not None:
            logger.info("removing %s, which a server that was killed has left", leftover)
            shutil.rmtree(leftover, ignore_errors=True)
            lock.close()
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=temporary))
    lock = _try_lock(folder)
    assert lock is not None  # nobody else knows of it yet
    return folder, lock


def _try_lock(folder: Path) -> IO[str] | None:
    """Hold a folder's lock until the file is closed or this process ends; None if another process holds it."""
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock
