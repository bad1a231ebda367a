"""Jobs through the SDK: followed, cancelled, queued, and still there after the service was killed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chainrule.client import Client, JobCancelledError, JobState
from chainrule.engine import io
from tests.integration.conftest import Images, ServerProcess, processes, submit, wait_for

LONG: dict[str, Any] = {"epochs": 20, "batch_size": 4}
"""A job of 1,000 steps that is long enough, a few seconds, to be disturbed."""
LONG_STEPS = 1000


def test_a_job_tells_its_story(client: Client, images: Images) -> None:
    job = submit(client, images, workers=2)
    status = job.wait(timeout_s=60)
    assert [change.state for change in status.history] == [
        "QUEUED",
        "PREPARING",
        "RUNNING",
        "FINALIZING",
        "SUCCEEDED",
    ]
    assert (status.progress.step, status.progress.total_steps, status.progress.epoch) == (8, 8, 2)
    metrics = job.metrics()
    assert [metric.sequence for metric in metrics] == list(range(1, 9))
    assert [metric.epoch for metric in metrics] == [1] * 4 + [2] * 4
    assert metrics[-1].loss == status.progress.loss
    assert job.metrics(after=6) == metrics[6:]
    assert tuple(job.stream_metrics()) == metrics
    assert io.digest(job.weights_file()) == status.weights_digest


def test_metrics_stream_while_the_job_runs_without_gaps(client: Client, images: Images) -> None:
    job = submit(client, images, epochs=10, workers=2)
    assert [metric.sequence for metric in job.stream_metrics(timeout_s=60)] == list(range(1, 41))
    assert job.status().state.is_final


def test_cancel_stops_the_workers_and_frees_their_place(client: Client, images: Images) -> None:
    job = submit(client, images, epochs=100_000, workers=4)
    wait_for(lambda: job.status().running_workers == 4, 60, "all workers to be there")
    assert len(processes("ray::WorkerActor")) == 4
    job.cancel()
    with pytest.raises(JobCancelledError):
        job.wait(timeout_s=60)
    wait_for(lambda: not processes("ray::WorkerActor"), 30, "the workers to end")
    wait_for(lambda: not processes("ray::PartitionActor"), 30, "the parameter server to end")
    assert submit(client, images, workers=4).wait(timeout_s=60).state is JobState.SUCCEEDED


def test_a_job_waits_in_the_queue_until_there_is_room(client: Client, images: Images) -> None:
    first = submit(client, images, epochs=100_000, workers=3)
    second = submit(client, images, workers=2, min_workers=2)
    wait_for(lambda: first.status().state is JobState.RUNNING, 60, "the first job to run")
    assert second.status().state is JobState.QUEUED
    first.cancel()
    status = second.wait(timeout_s=60)
    assert status.state is JobState.SUCCEEDED
    assert first.status().end_time is not None
    assert status.start_time is not None
    assert status.start_time > first.status().end_time  # type: ignore[operator]


def test_a_job_stands_and_goes_on_at_the_same_step(client: Client, images: Images) -> None:
    job = submit(client, images, workers=2, **LONG)
    wait_for(lambda: job.status().progress.step >= 50, 60, "the job to be on its way")
    job.pause()
    wait_for(lambda: job.status().state is JobState.PAUSED, 60, "the job to stand")
    paused = job.status()
    assert 50 <= paused.progress.step < LONG_STEPS
    wait_for(lambda: not processes("ray::WorkerActor"), 30, "the workers to end")
    job.resume()
    status = job.wait(timeout_s=120)
    steps = [metric.sequence for metric in job.metrics()]
    assert steps == list(range(1, LONG_STEPS + 1))
    undisturbed = submit(client, images, **LONG)
    undisturbed.wait(timeout_s=120)
    assert status.weights_digest == undisturbed.weights_digest
    assert job.verify(undisturbed).agree


def test_a_running_job_is_given_other_numbers_of_workers(client: Client, images: Images) -> None:
    job = submit(client, images, epochs=100_000, workers=1)
    for workers in (3, 1):
        wait_for(lambda: job.status().progress.step > 0, 60, "the job to run")
        job.scale(workers)
        wait_for(lambda n=workers: job.status().running_workers == n, 60, f"{workers} workers")  # type: ignore[misc]
    job.cancel()
    with pytest.raises(JobCancelledError):
        job.wait(timeout_s=60)
    assert [event.kind for event in job.status().events].count("scaled") == 2


def test_a_job_in_the_queue_can_be_cancelled(client: Client, images: Images) -> None:
    first = submit(client, images, epochs=100_000, workers=4, min_workers=4)
    second = submit(client, images, workers=4, min_workers=4)
    second.cancel()
    with pytest.raises(JobCancelledError):
        second.wait(timeout_s=60)
    assert [change.state for change in second.status().history] == ["QUEUED", "CANCELLING", "CANCELLED"]
    first.cancel()
    with pytest.raises(JobCancelledError):
        first.wait(timeout_s=60)


def test_what_a_killed_server_has_acknowledged_is_there_again(
    make_server: Callable[..., ServerProcess], images: Images
) -> None:
    server = make_server()
    server.start()
    with Client.connect(server.address) as client:
        job = submit(client, images, workers=2)
        status = job.wait(timeout_s=60)
        metrics, weights = job.metrics(), job.weights_file()
    server.kill()
    server.start()
    with Client.connect(server.address) as client:
        again = client.jobs.get(job.name)
        assert again.status() == status
        assert again.metrics() == metrics
        assert again.weights_file() == weights
        assert client.jobs.list()[0].name == job.name
        assert client.models.get("test").family == "small_cnn"
        assert client.datasets.get("test").num_examples == 200


def test_a_server_told_to_stop_goes_on_with_its_jobs_at_the_next_start(
    make_server: Callable[..., ServerProcess], images: Images
) -> None:
    server = make_server()
    server.start()
    with Client.connect(server.address) as client:
        job = submit(client, images, workers=2, **LONG)
        wait_for(lambda: job.status().progress.epoch >= 2, 60, "the second epoch")
    assert server.terminate() == 0, server.log()
    wait_for(lambda: not processes("ray::WorkerActor"), 30, "the workers to end")
    server.start()
    with Client.connect(server.address) as client:
        status = client.jobs.get(job.name).wait(timeout_s=120)
    assert status.progress.step == LONG_STEPS
    assert [change.state for change in status.history].count(JobState.RECOVERING) == 1
