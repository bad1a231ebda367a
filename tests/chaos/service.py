"""A service on a Ray cluster of two nodes, for tests that kill parts of either."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.client import Client, Job, JobState, JobStatus, Unavailable
from chainrule.engine import models
from chainrule.server.cluster import LocalCluster
from tests.integration.conftest import ServerProcess

WAIT_S = 240.0
"""How long a job may take, recoveries included."""
TERMINAL = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
SETTINGS: dict[str, Any] = {
    "epochs": 40,
    "batch_size": 10,
    "shards": 8,
    "seed": 3,
    "optimizer": {"lr": 0.05, "momentum": 0.9},
    "checkpoint_every_steps": 35,
    "receipt_every_steps": 20,
}
"""Of a job of 800 steps: some seconds."""


class Service:
    """A server process on a cluster, and its jobs."""

    def __init__(self, cluster: LocalCluster, folder: Path) -> None:
        self.cluster = cluster
        self.server = ServerProcess(folder / "data", "--ray-address", cluster.address)
        self.server.start()
        with self.connect() as client:
            wait_for(lambda: num_nodes(client) == sum(node.alive for node in cluster.nodes), "the nodes")

    def connect(self) -> Client:
        """A client of the server as it runs now."""
        return Client.connect(self.server.address)

    def restart(self) -> None:
        """End the server with SIGKILL and start it again."""
        self.server.kill()
        self.server.start()

    def pids(self, actor: str) -> list[int]:
        """The processes of a kind of actor, on all nodes."""
        return [pid for node in self.cluster.nodes for pid in node.pids if title(pid).startswith(f"ray::{actor}")]

    def kill(self, actor: str, *, which: int = 0) -> None:
        """End one of the actors of a kind with SIGKILL, once there is one."""
        wait_for(lambda: bool(self.pids(actor)), f"a {actor}")
        pids = self.pids(actor)
        os.kill(pids[which % len(pids)], signal.SIGKILL)


def num_nodes(client: Client) -> int:
    """How many nodes the service sees; none while it has no connection to the cluster."""
    try:
        return len(client.nodes())
    except Unavailable:
        return 0


def title(pid: int) -> str:
    """What a process calls itself; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def submit(client: Client, *, model: str = "small_cnn", **config: Any) -> Job:
    """Submit a job that trains a `small_cnn` with dropout, or an MLP of 2.6 M parameters, on random images."""
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(200, 1, 8, 8)).astype(np.float32), rng.integers(0, 10, size=200)
    families: dict[str, dict[str, Any]] = {
        "small_cnn": {"width": 4, "dropout": 0.25},
        "mlp": {"in_features": 64, "hidden": [1600, 1500]},
    }
    network = models.build(model, families[model], generator=cr.Generator(1))
    return client.jobs.create(
        model=client.models.create(model.replace("_", "-"), network),
        dataset=client.datasets.create("noise", inputs=inputs, targets=targets),
        **{**SETTINGS, **config},
    )


def reaches(job: Job, step: int) -> None:
    """Wait until a job has done so many steps. Fails if it ends before."""

    def there() -> bool:
        status = job.status()
        assert status.state not in TERMINAL, f"{status.state} at step {status.progress.step}, before step {step}"
        return status.progress.step >= step

    wait_for(there, f"step {step} of {job.name}")


def assert_same_bits(job: Job, expected: Job) -> JobStatus:
    """Wait for a job; its weights, its states at all receipts and its losses at all steps are those of another."""
    status = job.wait(timeout_s=WAIT_S)
    found = job.verify(expected)
    assert found.agree, found.message
    assert (found.weights_compared, found.states_compared) == (True, len(expected.receipts()))
    assert found.losses_compared == status.progress.total_steps
    assert status.weights_digest == expected.status().weights_digest
    return status


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition in other processes holds, which nothing announces."""
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline_s:
            pytest.fail(f"waited {WAIT_S:g} s for {what}")
        time.sleep(0.02)
