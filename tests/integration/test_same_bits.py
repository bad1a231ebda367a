"""The promise, on real Ray: one digest for any number of workers and whatever is killed on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.client import Client, Job
from chainrule.engine import nn, optim
from tests.integration.conftest import Images, ServerProcess, network, processes, submit, wait_for

LONG: dict[str, Any] = {"epochs": 16, "batch_size": 4}
"""A job of 800 steps that is long enough, a few seconds, to be disturbed."""


def finished(job: Job) -> str:
    """The digest of the weights, once the job has succeeded."""
    digest = job.wait(timeout_s=120).weights_digest
    assert digest is not None
    return digest


@pytest.fixture(scope="module")
def expected(server: ServerProcess, images: Images) -> str:
    """What one worker produces when nothing happens."""
    with Client.connect(server.address) as client:
        return finished(submit(client, images, workers=1, **LONG))


def test_one_to_four_workers_give_one_digest(client: Client, images: Images) -> None:
    digests = {finished(submit(client, images, workers=n)) for n in (1, 2, 3, 4)}
    assert len(digests) == 1


def test_so_they_do_with_a_whole_recipe(client: Client, images: Images) -> None:
    recipe: dict[str, Any] = {
        "optimizer": {"name": "adamw", "lr": 0.01},
        "schedule": {"decay": "cosine", "warmup_steps": 2},
        "clip_norm": 0.5,
        "parameter_groups": [{"patterns": ["*.bias"], "weight_decay": 0}],
        "accumulate": 2,
        "ema_decay": 0.9,
        "precision": "bfloat16",
        "validation": {"fraction": 0.2},
    }
    jobs = [submit(client, images, workers=n, **recipe) for n in (1, 2, 3)]
    assert len({finished(job) for job in jobs}) == 1
    [first, *others] = [[(e.loss, e.accuracy) for e in job.status().evaluations] for job in jobs]
    assert len(first) == 2
    assert others == [first, first]
    status = jobs[0].status()
    assert status.config.parameter_groups[0].patterns == ("*.bias",)
    model = network().eval()  # with the average of the weights, which is what was evaluated, and is the result
    model.load_state_dict({name: cr.from_numpy(array) for name, array in jobs[0].weights().items()})
    inputs, targets = (cr.from_numpy(array[-40:]) for array in images)
    with cr.no_grad():
        logits = model(inputs)
    assert first[-1][0] == pytest.approx(float(nn.CrossEntropyLoss()(logits, targets).item()), rel=1e-5)
    assert first[-1][1] == float(np.mean(logits.data.argmax(axis=1) == targets.data))


def test_a_job_of_one_shard_has_the_bits_of_local_training(client: Client, images: Images) -> None:
    inputs, targets = images
    job = submit(client, images, shards=1, seed=5)
    job.wait(timeout_s=120)
    trained = job.weights()

    cr.set_num_threads(1)
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(2):
        order = cr.data.epoch_order(len(inputs), seed=5, epoch=epoch)
        for start in range(0, len(inputs), 50):
            batch = order[start : start + 50]
            optimizer.zero_grad()
            loss = nn.CrossEntropyLoss()(model(cr.from_numpy(inputs[batch])), cr.from_numpy(targets[batch]))
            loss.backward()
            optimizer.step()

    local = {name: value.data for name, value in model.state_dict().items()}
    assert set(trained) == set(local)
    for name, value in local.items():
        np.testing.assert_array_equal(trained[name], value, err_msg=name)


def test_a_killed_worker_changes_nothing(client: Client, images: Images, expected: str) -> None:
    job = submit(client, images, workers=3, **LONG)
    wait_for(lambda: job.status().running_workers == 3, 60, "all workers to be there")
    os.kill(processes("ray::WorkerActor")[0], signal.SIGKILL)
    snapshot = job.wait(timeout_s=120)
    assert snapshot.weights_digest == expected
    assert [event.kind for event in snapshot.events] == ["recovery"]
    assert "RECOVERING" not in [change.state for change in snapshot.history]


def test_a_killed_coordinator_changes_nothing(client: Client, images: Images, expected: str) -> None:
    job = submit(client, images, workers=2, **LONG)
    wait_for(lambda: job.status().progress.epoch >= 2, 60, "the second epoch")
    os.kill(processes("ray::CoordinatorActor")[0], signal.SIGKILL)
    assert finished(job) == expected
    assert "RECOVERING" in [change.state for change in job.status().history]


def test_a_service_killed_in_the_middle_of_a_job_goes_on_with_it(
    make_server: Callable[..., ServerProcess], images: Images, expected: str
) -> None:
    server = make_server()
    server.start()
    with Client.connect(server.address) as client:
        job = submit(client, images, workers=2, **LONG)
        wait_for(lambda: job.status().progress.epoch >= 2, 60, "the second epoch")
    server.kill()
    server.start()
    with Client.connect(server.address) as client:
        snapshot = client.jobs.get(job.name).wait(timeout_s=120)
    assert snapshot.weights_digest == expected
    assert "the service was restarted" in [change.reason for change in snapshot.history]
