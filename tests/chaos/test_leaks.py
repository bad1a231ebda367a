"""What jobs leave behind once they have ended, however they did: nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chainrule.client import Client, Job, JobState
from tests.chaos.service import Service, submit, wait_for

pytestmark = pytest.mark.whole

ROUNDS = 16
ACTORS = ("WorkerActor", "PartitionActor", "CoordinatorActor")
OBJECT_STORE = """
import json, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
total, free = ray.cluster_resources(), ray.available_resources()
print(json.dumps([total["object_store_memory"], free["object_store_memory"], total["CPU"], free.get("CPU", 0)]))
"""


def test_fifty_jobs_leave_no_actor_memory_descriptor_or_port(service: Service) -> None:
    with service.connect() as client:
        for _ in range(2):  # what is made once and kept is there afterwards
            one_of_each(client)
        before = held(service)
        for _ in range(ROUNDS):
            one_of_each(client)
        wait_for(lambda: held(service) == before, f"what is held to be {before} again, not {held(service)}")
        jobs = client.jobs.list(limit=100)
    assert len(jobs) == 3 * (ROUNDS + 2)
    assert {job.state for job in jobs} == {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
    wait_for(lambda: object_store(service) == 0, "the object store to be empty")


def one_of_each(client: Client) -> None:
    """A job that succeeds, one that fails, and one that is cancelled while it runs."""
    succeeds = submit(client, epochs=2, workers=2)
    fails = submit(client, epochs=2, optimizer={"lr": 1e30})
    cancelled = submit(client, epochs=100_000, workers=2)
    ended(succeeds, JobState.SUCCEEDED)
    ended(fails, JobState.FAILED)
    wait_for(lambda: cancelled.status().progress.step > 0, "the third job to run")
    cancelled.cancel()
    ended(cancelled, JobState.CANCELLED)


def ended(job: Job, state: JobState) -> None:
    wait_for(lambda: job.status().state.is_final, f"{job.name} to end")
    assert job.status().state is state


def held(service: Service) -> dict[str, int]:
    """Actors, descriptors of the service's processes, and ports they listen on."""
    pids = [service.server.pid, *children(service.server.pid)]
    return {
        **{actor: len(service.pids(actor)) for actor in ACTORS},
        "descriptors": sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
        "ports": sum(listening(pid) for pid in pids),
    }


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def listening(pid: int) -> int:
    """How many TCP ports a process listens on."""
    sockets = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    rows = [
        line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    return sum(row[3] == "0A" and f"socket:[{row[9]}]" in sockets for row in rows)


def object_store(service: Service) -> float:
    """Bytes of the cluster's object store, and CPUs, that are in use."""
    command = [sys.executable, "-c", OBJECT_STORE, service.cluster.address]
    answer = subprocess.run(
        command,
        env={**os.environ, **service.cluster.environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    total, free, cpus, free_cpus = json.loads(answer.stdout.splitlines()[-1])
    return float(total - free + cpus - free_cpus)
