"""One Ray cluster for the whole test session; servers are real processes that join it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.client import Client, Job
from chainrule.engine import models, nn
from chainrule.server.cluster import LocalCluster

CLUSTER_CPUS = 4
Images = tuple[np.ndarray, np.ndarray]

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0


class ServerProcess:
    """`chainrule serve` in a process of its own."""

    def __init__(self, data_dir: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self._arguments = arguments
        self._environment = environment
        self._log = data_dir.with_name(f"{data_dir.name}.log")
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""

    @property
    def pid(self) -> int:
        """Its process, and the session of all that it has started."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it is ready; fails with its log if it ends instead."""
        address_file = self.begin()
        wait_for(lambda: address_file.exists() or self.has_ended(), START_TIMEOUT_S, "the server to be ready")
        assert address_file.exists(), f"the server ended:\n{self.log()}"
        self.address = address_file.read_text().strip()

    def begin(self) -> Path:
        """Start; returns the file that is there once it is ready."""
        address_file = self.data_dir.with_name(f"{self.data_dir.name}.address")
        address_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "chainrule.client", "serve", "--port", "0", "--data-dir", str(self.data_dir)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--address-file", str(address_file), *self._arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        return address_file

    def terminate(self) -> int:
        """End with SIGTERM; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(STOP_TIMEOUT_S)

    def kill(self) -> None:
        """End with SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(STOP_TIMEOUT_S)

    def stop(self) -> None:
        """End if it still runs."""
        if self._process is not None and self._process.poll() is None:
            try:
                self.terminate()
            except subprocess.TimeoutExpired:
                self.kill()

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait until a condition in another process holds, which nothing announces."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(0.02)


def processes(title: str) -> list[int]:
    """Ids of the processes of the session's cluster whose command line begins so, for example "ray::WorkerActor"."""
    pids = [pid for cluster in _session_clusters for node in cluster.nodes for pid in node.pids]
    return [pid for pid in pids if _command(pid).startswith(title)]


_session_clusters: list[LocalCluster] = []
"""None or one."""


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
        return ""


def alive_in_session(session: int) -> dict[int, str]:
    """The processes of a session that are alive, with their command lines."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # ended meanwhile
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found[int(folder.name)] = _command(int(folder.name))
    return found


def assert_listens_on_loopback_only(processes: Iterable[int]) -> None:
    """Look at every socket that processes listen on."""
    inodes = set()
    for process in processes:
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            try:
                target = os.readlink(descriptor)
            except OSError:  # closed meanwhile
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:  # listening, and theirs
                assert fields[1].partition(":")[0] in loopback, line


def without_ray(**more: str) -> dict[str, str]:
    """This process's environment as it was before it started a cluster."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | more


def network(**config: Any) -> nn.Module:
    """A small `small_cnn`, always with the same weights."""
    return models.build("small_cnn", {"width": 4, **config}, generator=cr.Generator(1))


def submit(client: Client, images: Images, **config: Any) -> Job:
    """Submit a job that trains the network on the images."""
    inputs, targets = images
    model = client.models.create("test", network())
    dataset = client.datasets.create("test", inputs=inputs, targets=targets)
    defaults = {"epochs": 2, "batch_size": 50, "shards": 4, "optimizer": {"lr": 0.05, "momentum": 0.9}}
    return client.jobs.create(model=model, dataset=dataset, **{**defaults, **config})


@pytest.fixture(scope="session")
def local_cluster() -> Iterator[LocalCluster]:
    """The session's Ray cluster: one node. Servers that are told its address find its token."""
    with LocalCluster.start(cpus_per_node=CLUSTER_CPUS) as cluster:
        _session_clusters.append(cluster)
        yield cluster
        _session_clusters.clear()


@pytest.fixture(scope="session")
def ray_address(local_cluster: LocalCluster) -> str:
    """Address of the session's Ray cluster."""
    return local_cluster.address


@pytest.fixture
def make_server(ray_address: str, tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Makes servers on the session's cluster; they end with the test."""
    made: list[ServerProcess] = []

    def make(name: str = "data", *arguments: str) -> ServerProcess:
        server = ServerProcess(tmp_path / name, "--ray-address", ray_address, *arguments)
        made.append(server)
        return server

    yield make
    for server in made:
        server.stop()


@pytest.fixture(scope="session")
def server(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The session's server."""
    server = ServerProcess(tmp_path_factory.mktemp("server") / "data", "--ray-address", ray_address)
    server.start()
    yield server
    assert server.terminate() == 0, server.log()


@pytest.fixture
def temporary() -> Iterator[Path]:
    """An empty temporary folder with a short path: longer ones are no use to Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="cr-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    """A client of the session's server."""
    with Client.connect(server.address) as client:
        yield client


@pytest.fixture(scope="session")
def images() -> Images:
    """200 random 8×8 images of ten classes."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(200, 1, 8, 8)).astype(np.float32), rng.integers(0, 10, size=200)
