"""What jobs leave behind once they are over: nothing."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from chainrule.client import Client, Job, JobState
from chainrule.server.training.events import Failed, Finished
from tests.chaos.jobs import SLOW, cnn, disturbed, fault
from tests.chaos.service import TERMINAL, Service, submit, wait_for
from tests.server.training.runs import Run


async def one_of_each(folder: Path, links: str) -> None:
    """A job that finishes, one that loses its processes, one that fails, and one that is paused and resumed."""

    async def kill(found: Run) -> None:
        await found.until_step(6)
        for process in [*found.placement.partitions.values(), *found.placement.workers.values()]:
            process.kill()

    async def pause(found: Run) -> None:
        await found.until_step(6)
        await found.coordinator.pause()

    folders = [folder / name for name in ("finished", "killed", "failed", "paused")]
    for each in folders:
        each.mkdir(parents=True)
    finished, killed, failed, paused = folders
    assert isinstance((await disturbed(cnn(), finished, workers=2, links=links)).last, Finished)
    assert isinstance((await disturbed(cnn(), killed, SLOW, workers=2, meddle=kill, links=links)).last, Finished)
    wrong = fault("worker.compute", "raise", step=4, often=True)
    assert isinstance((await disturbed(cnn(), failed, wrong, workers=2, links=links)).last, Failed)
    assert isinstance((await disturbed(cnn(), paused, SLOW, workers=2, meddle=pause, links=links)).last, Finished)


@pytest.mark.parametrize("links", ["memory", pytest.param("tls", marks=pytest.mark.whole)])
async def test_a_coordinator_leaves_no_process_no_descriptor_and_no_thread(links: str, tmp_path: Path) -> None:
    await one_of_each(tmp_path / "first", links)  # what is made once and kept
    files, threads = open_files(os.getpid()), own_threads()
    await one_of_each(tmp_path / "second", links)
    assert multiprocessing.active_children() == []
    gc.collect()  # a mapping of a checkpoint's memory has a descriptor, and goes with whoever holds it
    assert open_files(os.getpid()) - files == Counter()
    assert own_threads() == threads


@pytest.mark.whole
def test_after_fifty_jobs_nothing_is_left(service: Service) -> None:
    with service.connect() as client:
        for outcome in ("finished", "failed", "cancelled"):
            end(client, outcome)
        settle(service)
        before = census(service)
        for number in range(50):
            end(client, ("finished", "failed", "cancelled")[number % 3])
        settle(service)
        after = census(service)
    for name, counted in before.items():
        assert after[name] - counted == Counter(), name
    wait_for(lambda: in_use(service) == {"object_store_memory": 0.0, "CPU": 0.0}, "the object store to be empty")


def end(client: Client, outcome: str) -> Job:
    """Run a job to an outcome."""
    configs: dict[str, dict[str, Any]] = {
        "finished": {"epochs": 2},
        "failed": {"optimizer": {"lr": 1e30}},
        "cancelled": {"epochs": 10_000},
    }
    job = submit(client, workers=2, **configs[outcome])
    if outcome == "cancelled":
        wait_for(lambda: job.status().progress.step > 0, "the first step")
        job.cancel()
    wait_for(lambda: job.status().state in TERMINAL, "the end")
    ended = {"finished": JobState.SUCCEEDED, "failed": JobState.FAILED, "cancelled": JobState.CANCELLED}
    assert job.status().state is ended[outcome], job.status().error
    return job


def settle(service: Service) -> None:
    """Wait until the actors have ended, which a job does not wait for."""
    kinds = ("WorkerActor", "PartitionActor", "CoordinatorActor")
    wait_for(lambda: not any(service.pids(kind) for kind in kinds), "the actors to end")


def census(service: Service) -> dict[str, Counter[str]]:
    """What there is of what could be left: descriptors of the service, listening sockets, files in shared memory."""
    pids = [service.server.pid, *(pid for node in service.cluster.nodes for pid in node.pids)]
    descriptors = open_files(service.server.pid)
    pooled = [name for name in descriptors if "chainrule.db" in name]  # as many connections as were needed at once
    return {
        "descriptors of the service": descriptors - Counter({name: descriptors[name] for name in pooled}),
        "shared memory": Counter(str(path) for path in Path("/dev/shm").iterdir()),
        "listening": Counter({"sockets": sum(listening(pid) for pid in pids)}),
    }


IN_USE = """
import json, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
total, free = ray.cluster_resources(), ray.available_resources()
print(json.dumps({name: total[name] - free.get(name, 0.0) for name in ("object_store_memory", "CPU")}))
"""


def in_use(service: Service) -> dict[str, float]:
    """What of the cluster is in use: bytes of its object store, and worker places."""
    command = [sys.executable, "-c", IN_USE, service.cluster.address]
    environment = {**os.environ, **service.cluster.environment}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


def open_files(pid: int) -> Counter[str]:
    """The descriptors of a process by kind, files by name."""
    found: Counter[str] = Counter()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except FileNotFoundError:  # the one that lists them
            continue
        found[target.partition(":[")[0]] += 1
    return found


def own_threads() -> list[str]:
    """The threads of this process by name, but for those that asyncio keeps for later."""
    return sorted(thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_"))


def listening(pid: int) -> int:
    """How many sockets a process listens on, Unix sockets with a name included."""
    inodes = set()
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(descriptor)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    except OSError:  # it has ended
        return 0
    found = 0
    for table, state, inode in (("tcp", 3, 9), ("tcp6", 3, 9)):
        lines = [line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
        found += sum(fields[state] == "0A" and fields[inode] in inodes for fields in lines)
    unix = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return found + sum(fields[3] == "00010000" and fields[6] in inodes for fields in unix)
