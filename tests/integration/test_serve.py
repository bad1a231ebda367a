"""`chainrule serve` as a process: how it starts, what it refuses to start with, how it ends."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chainrule.client import Client
from tests.integration.conftest import (
    START_TIMEOUT_S,
    Images,
    ServerProcess,
    alive_in_session,
    assert_listens_on_loopback_only,
    submit,
    wait_for,
    without_ray,
)

SERVE = [sys.executable, "-m", "chainrule.client", "serve"]


def refused(*arguments: str) -> str:
    """What a server that cannot start says on stderr."""
    result = subprocess.run([*SERVE, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_port_in_use_is_named(server: ServerProcess, ray_address: str, tmp_path: Path) -> None:
    port = server.address.rpartition(":")[2]
    message = refused("--port", port, "--ray-address", ray_address, "--data-dir", str(tmp_path / "d"))
    assert message == (
        f"error: cannot listen on 127.0.0.1:{port}: address already in use; "
        "end what listens there, or choose another port with --port (0: any free one)"
    )


def test_ray_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    message = refused("--ray-address", address, "--data-dir", str(tmp_path / "d"))
    assert message.startswith(f"error: no Ray cluster answers at {address}")
    assert "start one with `chainrule cluster up`" in message
    assert not (tmp_path / "d").exists()


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    message = refused("--ray-address", "nonsense", "--data-dir", str(tmp_path / "d"))
    assert message == "error: --ray-address 'nonsense' is not host:port, for example 10.0.0.1:6379"


def test_a_data_folder_in_use_is_named(server: ServerProcess, ray_address: str) -> None:
    message = refused("--port", "0", "--ray-address", ray_address, "--data-dir", str(server.data_dir))
    assert f"--data-dir {server.data_dir} is in use by another server" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data-dir", "/proc/x"], "--data-dir /proc/x cannot be used: no such file or directory; choose a folder"),
        (["--data-dir", "/dev/null"], "--data-dir /dev/null cannot be used: file exists; choose a folder"),
        (["--address-file", "/nowhere/a"], "--address-file /nowhere/a: there is no folder /nowhere; make it first"),
    ],
)
def test_what_cannot_work_is_refused_before_ray_is_started(tmp_path: Path, arguments: list[str], message: str) -> None:
    data = [] if "--data-dir" in arguments else ["--data-dir", str(tmp_path / "d")]
    assert message in refused("--port", "0", *data, *arguments)


def test_a_public_address_is_refused(ray_address: str, tmp_path: Path) -> None:
    message = refused("--host", "0.0.0.0", "--ray-address", ray_address, "--data-dir", str(tmp_path / "d"))
    assert "--host 0.0.0.0 is not a loopback address, and anybody who reaches it could use the service" in message
    assert not (tmp_path / "d").exists()


def test_a_server_with_its_own_cluster_leaves_nothing_behind(tmp_path: Path, temporary: Path) -> None:
    server = ServerProcess(tmp_path / "data", environment=without_ray(TMPDIR=str(temporary)))
    try:
        server.start()
        with Client.connect(server.address) as client:
            assert client.server_info().owns_ray_cluster
        processes = alive_in_session(server.pid)
        assert len(processes) > 2  # the server, Ray's head and more
        assert_listens_on_loopback_only(processes)
        assert server.terminate() == 0
        assert "SIGTERM" not in server.log()  # Ray would print a stack
        _assert_nothing_is_left(server, temporary)
    finally:
        server.stop()


def test_a_server_stopped_while_ray_starts_leaves_nothing_behind(tmp_path: Path, temporary: Path) -> None:
    server = ServerProcess(tmp_path / "data", environment=without_ray(TMPDIR=str(temporary)))
    try:
        ready = server.begin()
        wait_for(
            lambda: any("gcs_server" in command for command in alive_in_session(server.pid).values()),
            START_TIMEOUT_S,
            "Ray to begin to start",
        )
        assert server.terminate() == 0
        assert not ready.exists()
        assert "Traceback" not in server.log()
        _assert_nothing_is_left(server, temporary)
    finally:
        server.stop()


def _assert_nothing_is_left(server: ServerProcess, temporary: Path) -> None:
    assert alive_in_session(server.pid) == {}
    assert list(temporary.iterdir()) == []


def buf(address: str, method: str, data: str) -> str:
    tool = shutil.which("buf", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert tool, "buf is part of chainrule[dev]"
    url = f"http://{address}/{method}"
    command = [tool, "curl", "--reflect", "--http2-prior-knowledge", "--protocol", "grpc", "--data", data, url]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_foreign_client_finds_its_way_by_reflection(server: ServerProcess, client: Client) -> None:
    tool = shutil.which("buf", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert tool
    command = [tool, "curl", "--list-methods", "--http2-prior-knowledge", "--protocol", "grpc"]
    listed = subprocess.run(
        [*command, f"http://{server.address}"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    for service in ("ModelService", "DatasetService", "BlobService", "JobService", "ClusterService"):
        assert f"chainrule.v1.{service}/" in listed
    info = json.loads(buf(server.address, "chainrule.v1.ClusterService/GetServerInfo", "{}"))
    assert info["version"] == client.server_info().version
    health = json.loads(buf(server.address, "grpc.health.v1.Health/Check", '{"service": "chainrule.v1.JobService"}'))
    assert health == {"status": "SERVING"}


def test_a_foreign_client_reads_a_job(server: ServerProcess, client: Client, images: Images) -> None:
    job = submit(client, images)
    job.wait(timeout_s=60)
    read = json.loads(buf(server.address, "chainrule.v1.JobService/GetJob", f'{{"name": "{job.name}"}}'))
    assert read["name"] == job.name
    assert read["state"] == "STATE_SUCCEEDED"
    assert read["weightsDigest"] == job.weights_digest
    listed = json.loads(buf(server.address, "chainrule.v1.JobService/ListJobs", '{"pageSize": 1}'))
    left_out = {"events", "evaluations"}
    for told_while_it_runs in ("examplesPerSecond", "eta"):
        read["progress"].pop(told_while_it_runs, None)
    assert listed["jobs"] == [{key: value for key, value in read.items() if key not in left_out}]


def test_two_servers_of_one_cluster_do_not_meet(
    make_server: Callable[..., ServerProcess], server: ServerProcess
) -> None:
    other = make_server("other")
    other.start()
    with Client.connect(other.address) as client:
        assert client.jobs.list() == ()
    assert other.terminate() == 0, other.log()
