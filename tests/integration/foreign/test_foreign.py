"""Clients that know nothing but what the server says of itself train a network and fetch its weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chainrule.client import Client
from chainrule.engine import io
from tests.integration.conftest import Images, ServerProcess, network

HERE = Path(__file__).parent
BUF = Path(sys.executable).with_name("buf")
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ENETUNREACH", "ETIMEDOUT", "E403", "E407")
"""What npm says where its registry cannot be reached, or not without leave."""


@pytest.fixture
def files(tmp_path: Path, images: Images) -> tuple[Path, Path]:
    """Weights and examples, as safetensors files."""
    weights, examples = tmp_path / "weights.safetensors", tmp_path / "examples.safetensors"
    weights.write_bytes(io.save({name: value.data for name, value in network().state_dict().items()}))
    inputs, targets = images
    examples.write_bytes(io.save({"inputs": inputs, "targets": targets}))
    return weights, examples


@pytest.fixture(scope="module")
def node_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client for Node and what it needs."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node or npm is not installed: apt-get install nodejs npm")
    folder = tmp_path_factory.mktemp("foreign") / "node"
    shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    installed = subprocess.run(
        [*command, "--cache", str(folder.with_name("cache"))],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if installed.returncode and any(code in installed.stderr for code in UNREACHABLE):
        pytest.skip(f"npm's registry cannot be reached: {installed.stderr.strip().splitlines()[0]}")
    assert installed.returncode == 0, installed.stderr
    return folder


def trained(*command: str | Path) -> dict[str, Any]:
    """What a client says of the job it has seen through."""
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def assert_as_the_sdk_has_it(client: Client, told: dict[str, Any]) -> None:
    """The job is one that the SDK sees as well, with the very weights that the foreign client has fetched."""
    status = client.jobs.get(told["job"]).status()
    assert status.state == "SUCCEEDED"
    assert told["weights_digest"] == told["sha256"] == status.weights_digest
    assert io.digest(client.blobs.download(told["sha256"])) == told["sha256"]


def test_node_trains_a_network_by_reflection_alone(
    server: ServerProcess, client: Client, node_client: Path, files: tuple[Path, Path]
) -> None:
    told = trained("node", node_client / "train.mjs", server.address, *files)
    assert_as_the_sdk_has_it(client, told)
    assert told["states"][-1] == "STATE_SUCCEEDED"
    assert "STATE_RUNNING" in told["states"]


def test_a_shell_trains_a_network_by_reflection_alone(
    server: ServerProcess, client: Client, files: tuple[Path, Path]
) -> None:
    told = trained("bash", HERE / "train.sh", BUF, server.address, *files)
    assert_as_the_sdk_has_it(client, told)
    assert told["states"].split()[-1] == "STATE_SUCCEEDED"


def test_both_get_the_same_bits(server: ServerProcess, node_client: Path, files: tuple[Path, Path]) -> None:
    by_node = trained("node", node_client / "train.mjs", server.address, *files)
    by_shell = trained("bash", HERE / "train.sh", BUF, server.address, *files)
    assert by_node["job"] != by_shell["job"]
    assert by_node["sha256"] == by_shell["sha256"]
