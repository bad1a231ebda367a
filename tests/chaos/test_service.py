"""The whole service, on a cluster of two nodes: whatever of it is killed, a job comes to the same bits."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chainrule.client import Client, Job, JobState
from tests.chaos.service import Service, assert_same_bits, reaches, submit, wait_for

pytestmark = pytest.mark.whole


def states(job: Job) -> list[JobState]:
    return [change.state for change in job.status().history]


@pytest.mark.parametrize("actor", ["WorkerActor", "PartitionActor", "CoordinatorActor"])
@pytest.mark.parametrize("partitions", [1, 3])
def test_an_actor_killed(actor: str, partitions: int, service: Service, expected: Job) -> None:
    with service.connect() as client:
        job = submit(client, workers=3, partitions=partitions)
        for step in (100, 400):
            reaches(job, step)
            service.kill(actor, which=step // 100)
        assert_same_bits(job, expected)


def test_all_actors_killed_at_once(service: Service, expected: Job) -> None:
    with service.connect() as client:
        job = submit(client, workers=4)
        reaches(job, 200)
        for actor in ("WorkerActor", "PartitionActor", "CoordinatorActor"):
            for pid in service.pids(actor):
                os.kill(pid, signal.SIGKILL)
        assert_same_bits(job, expected)


def test_a_worker_halted_past_its_lease_and_continued(service: Service, expected: Job) -> None:
    with service.connect() as client:
        job = submit(client, workers=3)
        reaches(job, 100)
        [halted, *_] = service.pids("WorkerActor")
        os.kill(halted, signal.SIGSTOP)
        wait_for(lambda: halted not in service.pids("WorkerActor"), "the halted worker to be replaced")
        assert_same_bits(job, expected)


def test_the_service_killed_and_restarted(service: Service, expected: Job) -> None:
    with service.connect() as client:
        job = submit(client, workers=3)
        reaches(job, 100)
    for step in (300, 500):
        service.restart()
        with service.connect() as client:
            reaches(client.jobs.get(job.name), step)
    service.restart()
    with service.connect() as client:
        assert_same_bits(client.jobs.get(job.name), expected)


def test_the_service_killed_while_it_writes_a_checkpoint(service: Service, other: Client) -> None:
    """Of 21 MB: the file is there for a while before it has its name."""
    config: dict[str, Any] = {"epochs": 4, "checkpoint_every_steps": 5, "receipt_every_steps": 10}
    quiet = submit(other, model="mlp", workers=1, **config)
    quiet.wait(timeout_s=240)
    incoming = service.server.data_dir / "blobs" / "incoming"
    with service.connect() as client:
        job = submit(client, model="mlp", workers=2, **config)
        reaches(job, 1)
    for _ in range(3):
        while not any(incoming.iterdir()):  # for some milliseconds: no pause between two looks
            pass
        service.restart()
    with service.connect() as client:
        assert_same_bits(client.jobs.get(job.name), quiet)


def test_a_flipped_byte_in_the_last_checkpoint(service: Service, expected: Job) -> None:
    with service.connect() as client:
        job = submit(client, workers=2)
        reaches(job, 200)
        job.pause()
        wait_for(lambda: job.status().state is JobState.PAUSED, "the pause")
        newest, before, *_ = job.checkpoints()
        damage(service.server.data_dir, newest.step)
        job.resume()
        assert_same_bits(job, expected)
        [warning] = [event for event in job.status().events if event.kind == "warning"]
        assert warning.message.startswith(f"the checkpoint of step {newest.step} is damaged, and one before it is used")
        assert before.step < newest.step


def damage(data_dir: Path, step: int) -> None:
    """Flip a bit of the state of a checkpoint."""
    for blob in (data_dir / "blobs").glob("[0-9a-f][0-9a-f]/*"):
        content = blob.read_bytes()
        if content.startswith(b"{") and (manifest := json.loads(content)).get("step") == step:
            state = data_dir / "blobs" / manifest["state_digest"][:2] / manifest["state_digest"]
            changed = bytearray(state.read_bytes())
            changed[-1] ^= 1
            state.chmod(0o600)
            state.write_bytes(changed)
            return
    raise AssertionError(f"no manifest of step {step}")


def test_paused_and_resumed_and_scaled(service: Service, expected: Job) -> None:
    with service.connect() as client:
        job = submit(client, workers=1)
        reaches(job, 100)
        job.scale(4)
        wait_for(lambda: job.status().running_workers == 4, "four workers")
        job.pause()
        wait_for(lambda: job.status().state is JobState.PAUSED, "the pause")
        wait_for(lambda: service.pids("WorkerActor") == [], "the end of the workers, which Ray has been told of")
        job.resume()
        reaches(job, 400)
        job.scale(2)
        wait_for(lambda: job.status().running_workers == 2, "two workers")
        assert_same_bits(job, expected)


# --- nodes -----------------------------------------------------------------------------------------------------


def test_a_node_killed_and_another_added(service: Service, expected: Job) -> None:
    with service.connect() as client:
        job = submit(client, workers=4, partitions=2)
        reaches(job, 200)
        next(node for node in service.cluster.nodes[1:] if node.alive).kill()
        reaches(job, 400)
        service.cluster.add_node()
        assert_same_bits(job, expected)


def test_the_head_killed_and_restarted(service: Service, expected: Job) -> None:
    with service.connect() as client:
        job = submit(client, workers=3)
        reaches(job, 200)
        service.cluster.kill_head()
        service.cluster.restart_head()
    wait_for(lambda: alive(service), "the service")
    with service.connect() as client:
        assert_same_bits(client.jobs.get(job.name), expected)


def alive(service: Service) -> bool:
    """Whether the service runs; it is started again where Ray has ended its process."""
    if service.server.has_ended():
        service.server.start()
    return True


def test_the_whole_cluster_killed_and_restarted(service: Service, expected: Job) -> None:
    with service.connect() as client:
        job = submit(client, workers=3)
        reaches(job, 200)
        for node in service.cluster.nodes:
            node.kill()
        service.cluster.restart_head()
        service.cluster.add_node()
    wait_for(lambda: alive(service), "the service")
    with service.connect() as client:
        assert_same_bits(client.jobs.get(job.name), expected)


# --- over and over ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_random_schedule(seed: int, service: Service, expected: Job) -> None:
    draw = random.Random(seed)
    kills: dict[str, Callable[[], None]] = {
        "worker": lambda: service.kill("WorkerActor", which=draw.randrange(4)),
        "partition": lambda: service.kill("PartitionActor", which=draw.randrange(4)),
        "coordinator": lambda: service.kill("CoordinatorActor"),
        "service": service.restart,
    }
    with service.connect() as client:
        job = submit(client, workers=4, partitions=draw.choice((1, 3)), max_failures=100)
    for step in range(60, 720, 60):
        with service.connect() as client:
            reaches(client.jobs.get(job.name), step)
        kills[draw.choice(list(kills))]()
    with service.connect() as client:
        assert_same_bits(client.jobs.get(job.name), expected)
