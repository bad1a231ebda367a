"""`chainrule cluster up`, `status` and `down`: a cluster of two nodes that outlives the command that starts it."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chainrule.client import Client
from chainrule.server.cluster import LocalCluster, processes
from tests.integration.conftest import Images, ServerProcess, assert_listens_on_loopback_only, submit, without_ray

Environment = dict[str, str]


@pytest.fixture
def environment(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    """Where the clusters of this test have their folders; none is left of them in the end. pytest's own folder has been
    made before."""
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    yield without_ray(TMPDIR=str(temporary))
    for folder in temporary.iterdir():
        processes.kill_folder(folder)


def cluster(environment: Environment, *words: str, code: int = 0) -> str:
    """What a command of `chainrule cluster` prints, or says on stderr where that is all."""
    command = [sys.executable, "-m", "chainrule.client", "cluster", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout.strip() or done.stderr.strip()


def shown(environment: Environment, *words: str, code: int = 0) -> Any:
    return json.loads(cluster(environment, *words, "--name", "test", "--format", "json", code=code))


def test_a_cluster_of_two_nodes_from_up_to_down(
    environment: Environment, temporary: Path, tmp_path: Path, images: Images
) -> None:
    up = cluster(environment, "up", "--nodes", "2", "--cpus-per-node", "1", "--name", "test")
    found = LocalCluster.find("test")
    assert found is not None
    assert f'cluster "test" is up at {found.address}' in up
    assert f"chainrule serve --ray-address {found.address}" in up
    [folder] = temporary.iterdir()
    started = processes.of_folder(folder)
    assert_listens_on_loopback_only(process.pid for process in started)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o600

    again = cluster(environment, "up", "--nodes", "2", "--name", "test")
    assert f'cluster "test" is up already, at {found.address}' in again
    assert [node["pids"] for node in shown(environment, "status")["nodes"]] == [node.pids for node in found.nodes]

    _can_be_joined_without_a_service(environment)
    _trains_on_both_nodes(found, tmp_path / "data", environment, images)

    _, second = found.nodes
    second.kill()
    assert [node["alive"] for node in shown(environment, "status")["nodes"]] == [True, False]
    third = found.add_node()
    status = shown(environment, "status")
    assert [node["alive"] for node in status["nodes"]] == [True, False, True]
    assert status["nodes"][2]["node_id"] == third.node_id
    found.kill_head()
    assert shown(environment, "status", code=1)["alive"] is False

    assert cluster(environment, "down", "--name", "test") == 'cluster "test" is down'
    assert list(temporary.iterdir()) == []
    assert processes.of_folder(folder) == []
    assert {process for process in started if process.alive} == set()
    assert 'cluster "test" is not up; start it with: chainrule cluster up --name test' in cluster(
        environment, "status", "--name", "test", code=1
    )


def _can_be_joined_without_a_service(environment: Environment) -> None:
    script = (
        "from chainrule.server.cluster import LocalCluster; LocalCluster.find('test').connect()\n"
        "import ray; print(ray.cluster_resources()['CPU'])"
    )
    command = [sys.executable, "-c", script]
    joined = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert joined.stdout.strip() == "2.0", joined.stderr


def _trains_on_both_nodes(cluster: LocalCluster, data: Path, environment: Environment, images: Images) -> None:
    server = ServerProcess(data, "--ray-address", cluster.address, environment=environment)
    try:
        server.start()
        with Client.connect(server.address) as client:
            assert {node.id for node in client.nodes()} == {node.node_id for node in cluster.nodes}
            assert not client.server_info().owns_ray_cluster
            submit(client, images, workers=2).wait(timeout_s=60)  # each node has room for one
        assert server.terminate() == 0, server.log()
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["up", "--name", "No"], "error: a cluster cannot be called 'No': use lower case letters, digits and -"),
        (["down"], 'cluster "default" is not up'),
        (["status"], 'cluster "default" is not up; start it with: chainrule cluster up'),
    ],
)
def test_what_is_not_there_is_said(environment: Environment, words: list[str], message: str) -> None:
    assert message in cluster(environment, *words, code=0 if words == ["down"] else 1)
