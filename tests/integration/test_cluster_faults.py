"""What the service does while Ray does not answer, and once it is gone: it goes on, and it ends when told to."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from chainrule.client import Client, JobCancelledError, JobState
from chainrule.server.ray_calls import RayCalls
from chainrule.server.training.coordinator import PlacementError
from chainrule.v1 import cluster_pb2, cluster_pb2_grpc
from tests.integration.conftest import (
    CLUSTER_CPUS,
    START_TIMEOUT_S,
    Images,
    ServerProcess,
    alive_in_session,
    submit,
    wait_for,
    without_ray,
)


def test_a_stalled_head_holds_up_nothing_that_does_not_need_it(tmp_path: Path, temporary: Path, images: Images) -> None:
    server = ServerProcess(tmp_path / "data", environment=without_ray(TMPDIR=str(temporary)))
    try:
        server.start()
        with Client.connect(server.address) as client:
            job = submit(client, images, epochs=100_000)
            wait_for(lambda: job.status().state is JobState.RUNNING, START_TIMEOUT_S, "the job to run")
            [head] = [
                pid for pid, command in alive_in_session(server.pid).items() if "gcs_server" in command.split()[0]
            ]
            os.kill(head, signal.SIGSTOP)
            _cannot_list_nodes(server, times=8)
            job.cancel()
            client.server_info()  # within the client's deadline
            with pytest.raises(JobCancelledError):
                job.wait(timeout_s=30)
        assert server.terminate() == 0, server.log()
        assert alive_in_session(server.pid) == {}
        assert list(temporary.iterdir()) == []
    finally:
        server.stop()


def _cannot_list_nodes(server: ServerProcess, *, times: int = 1) -> None:
    """Ask for the nodes, several times at once and without trying again."""
    with grpc.insecure_channel(server.address) as channel:
        stub = cluster_pb2_grpc.ClusterServiceStub(channel)
        calls = [stub.ListNodes.future(cluster_pb2.ListNodesRequest(), timeout=30) for _ in range(times)]
        assert [call.code() for call in calls] == [grpc.StatusCode.UNAVAILABLE] * times


class Head:
    """`ray start --head` in processes of its own, as somebody else would run it."""

    def __init__(self, folder: Path) -> None:
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self.environment = without_ray(
            RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token), RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0"
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--port", str(port)]
        options = ["--num-cpus", "2", "--include-dashboard=false", "--disable-usage-stats", "--temp-dir", str(folder)]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *options],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for(lambda: b"Ray runtime started" in (folder / "log").read_bytes(), START_TIMEOUT_S, "Ray to start")

    def kill(self) -> None:
        """End all of its processes at once."""
        for pid in alive_in_session(self._process.pid):
            os.kill(pid, signal.SIGKILL)
        self._process.wait(30)


@pytest.fixture
def head(temporary: Path) -> Iterator[Head]:
    head = Head(temporary)
    yield head
    head.kill()


def test_jobs_of_a_joined_cluster_that_is_gone_wait_for_it(tmp_path: Path, head: Head, images: Images) -> None:
    server = ServerProcess(tmp_path / "data", "--ray-address", head.address, environment=head.environment)
    try:
        server.start()
        with Client.connect(server.address) as client:
            job = submit(client, images, epochs=100_000)
            wait_for(lambda: job.status().state is JobState.RUNNING, START_TIMEOUT_S, "the job to run")
            head.kill()
            wait_for(lambda: job.status().state is JobState.RECOVERING, START_TIMEOUT_S, "the loss to be seen")
            _cannot_list_nodes(server)
            assert job.status().state is JobState.RECOVERING
        assert server.terminate() == 0, server.log()
        assert alive_in_session(server.pid) == {}
    finally:
        server.stop()


async def test_a_job_without_room_leaves_no_claim_on_the_cluster(
    ray_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.util import placement_group_table

    from chainrule.server.training import placement  # here: Ray's settings are in place once there is a cluster

    monkeypatch.setattr(placement, "PLACEMENT_TIMEOUT_S", 0.5)
    plan: Any = SimpleNamespace(config=SimpleNamespace(workers=CLUSTER_CPUS + 1))
    unused: Any = None
    with pytest.raises(PlacementError, match=f"jobs/large waited .* for {CLUSTER_CPUS + 1} CPUs; free are"):
        await placement.RayLauncher(RayCalls()).launch("jobs/large", plan, unused, unused, fence=1)
    groups = [group for group in placement_group_table().values() if group["name"] == "jobs/large"]
    assert [group["state"] for group in groups] == ["REMOVED"]
