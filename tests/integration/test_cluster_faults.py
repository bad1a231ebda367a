"""What the service does while Ray does not answer, and once its cluster is gone: it goes on, and so do its jobs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from chainrule.client import Client, Job, JobCancelledError, JobState
from chainrule.server.cluster import LocalCluster
from chainrule.v1 import cluster_pb2, cluster_pb2_grpc
from tests.integration.conftest import (
    START_TIMEOUT_S,
    STOP_TIMEOUT_S,
    Images,
    ServerProcess,
    alive_in_session,
    submit,
    wait_for,
    without_ray,
)

EPOCHS = 60
"""Of jobs that something happens to: some seconds."""


def test_a_stalled_head_holds_up_nothing_that_does_not_need_it(
    own: ServerProcess, temporary: Path, images: Images
) -> None:
    with Client.connect(own.address) as client:
        job = submit(client, images, epochs=100_000)
        _runs(job)
        os.kill(_process_of(own, "gcs_server"), signal.SIGSTOP)
        _cannot_list_nodes(own, times=8)
        job.cancel()
        client.server_info()  # within the client's deadline
        with pytest.raises(JobCancelledError):
            job.wait(timeout_s=30)
    _ends_without_a_trace(own)
    assert list(temporary.iterdir()) == []


def test_a_cluster_of_its_own_that_died_is_started_anew_and_ends_with_the_server_even_if_that_is_killed(
    own: ServerProcess, images: Images
) -> None:
    with Client.connect(own.address) as client:
        for victim in ("gcs_server", "raylet"):
            job = submit(client, images, epochs=EPOCHS)
            _runs(job)
            before = client.server_info().ray_address
            os.kill(_process_of(own, victim), signal.SIGKILL)
            job.wait(timeout_s=120)
            assert JobState.RECOVERING in _states(job)
            assert client.server_info().ray_address != before
            assert len(client.nodes()) == 1
    own.kill()
    wait_for(lambda: alive_in_session(own.pid) == {}, STOP_TIMEOUT_S, "the cluster to end")


@pytest.mark.whole
def test_a_head_that_was_killed_and_started_again_gets_its_jobs_back(
    tmp_path: Path, cluster: LocalCluster, images: Images
) -> None:
    server = ServerProcess(tmp_path / "data", "--ray-address", cluster.address)
    try:
        server.start()
        with Client.connect(server.address) as client:
            undisturbed = submit(client, images, epochs=EPOCHS, workers=1)
            undisturbed.wait(timeout_s=60)
            job = submit(client, images, epochs=EPOCHS, workers=2)
            _runs(job)
            cluster.kill_head()
            wait_for(lambda: job.status().state is JobState.RECOVERING, START_TIMEOUT_S, "the loss to be seen")
            _cannot_list_nodes(server)
            assert job.status().state is JobState.RECOVERING
            cluster.restart_head()
            _runs(job)
            cluster.kill_head()
            cluster.restart_head()  # before anybody can see that it was gone
            job.wait(timeout_s=120)
            assert job.weights_digest == undisturbed.weights_digest
            assert len(client.nodes()) == 1
        _ends_without_a_trace(server)
    finally:
        server.stop()


def test_a_lost_connection_to_ray_costs_an_attempt_and_nothing_else(server: ServerProcess, images: Images) -> None:
    with Client.connect(server.address) as client:
        job = submit(client, images, epochs=EPOCHS)
        _runs(job)
        driver = _process_of(server, "chainrule.server.cluster.driver")
        os.kill(driver, signal.SIGKILL)
        job.wait(timeout_s=120)
        assert JobState.RECOVERING in _states(job)
    assert _process_of(server, "chainrule.server.cluster.driver") != driver


def test_the_service_itself_does_not_load_ray(server: ServerProcess) -> None:
    """Ray would end it with its cluster."""
    assert "_raylet" not in Path(f"/proc/{server.pid}/maps").read_text()
    driver = _process_of(server, "chainrule.server.cluster.driver")
    assert "_raylet" in Path(f"/proc/{driver}/maps").read_text()


# --- clusters and servers, and what is asked of them ------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, temporary: Path) -> Iterator[ServerProcess]:
    """A server with a cluster of its own."""
    server = ServerProcess(tmp_path / "data", environment=without_ray(TMPDIR=str(temporary)))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """A cluster whose head may be killed."""
    with LocalCluster.start(cpus_per_node=2) as cluster:
        yield cluster


def _runs(job: Job) -> None:
    wait_for(lambda: job.status().state is JobState.RUNNING, START_TIMEOUT_S, "the job to run")


def _states(job: Job) -> set[JobState]:
    return {transition.state for transition in job.status().history}


def _process_of(server: ServerProcess, name: str) -> int:
    """The one process of a server whose command begins with a program or module."""
    [found] = [
        pid
        for pid, command in alive_in_session(server.pid).items()
        if command.split(" ")[0].endswith(f"/{name}") or f"from {name} import" in command
    ]
    return found


def _ends_without_a_trace(server: ServerProcess) -> None:
    assert server.terminate() == 0, server.log()
    assert alive_in_session(server.pid) == {}


def _cannot_list_nodes(server: ServerProcess, *, times: int = 1) -> None:
    """Ask for the nodes, several times at once and without trying again."""
    with grpc.insecure_channel(server.address) as channel:
        stub = cluster_pb2_grpc.ClusterServiceStub(channel)
        for _ in range(2):
            calls = [stub.ListNodes.future(cluster_pb2.ListNodesRequest(), timeout=30) for _ in range(times)]
            codes = [call.code() for call in calls]
            if grpc.StatusCode.OK not in codes:
                break  # else they have joined a question of the service's that was answered before the head was lost
        assert codes == [grpc.StatusCode.UNAVAILABLE] * times
