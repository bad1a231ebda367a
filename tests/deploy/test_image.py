"""The image: its Dockerfile, and the scripts in it, run as they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from chainrule.server.certificates import make_certificates
from tests.deploy.files import DEPLOY, ROOT, check

IMAGE = DEPLOY / "image"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def test_the_dockerfile_has_no_findings() -> None:
    check("hadolint", DEPLOY / "Dockerfile")


def test_what_the_dockerfile_copies_is_there_and_sent_to_the_builder() -> None:
    copies = re.findall(r"^COPY (?!--from)(?:--\S+ )*(.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    sources = {source for line in copies for source in line.split()}
    assert {"pyproject.toml", "server", "deploy/image/serve-on-ray"} <= sources
    let_in = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    for source in sources:
        assert (ROOT / source).exists()
        assert source in let_in or str(Path(source).parent) in let_in


def test_the_image_runs_as_a_user_without_rights() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:10001"]


def test_every_script_of_the_image_can_be_executed() -> None:
    assert {path.name: os.access(path, os.X_OK) for path in IMAGE.iterdir()} == {
        "check-health": True,
        "first-token": True,
        "serve-on-ray": True,
    }


# --- check-health ------------------------------------------------------------------------------------------------


@contextmanager
def answering(status: int, credentials: grpc.ServerCredentials | None = None) -> Iterator[str]:
    """A server that says how it is; yields its address."""
    server = grpc.server(ThreadPoolExecutor(1))
    servicer = health.HealthServicer()
    servicer.set("", status)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    address = "localhost:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield f"localhost:{port}"
    finally:
        server.stop(None).wait()


def asked(address: str, **variables: str) -> tuple[int, str]:
    environment = os.environ | variables | {"CHAINRULE_HEALTH_ADDRESS": address}
    command = [sys.executable, str(IMAGE / "check-health")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return ran.returncode, ran.stderr.strip()


def test_a_service_that_serves_is_healthy() -> None:
    with answering(SERVING) as address:
        assert asked(address) == (0, "")


def test_a_service_that_drains_is_not_healthy() -> None:
    with answering(NOT_SERVING) as address:
        assert asked(address) == (1, "the service is NOT_SERVING")


def test_a_service_that_is_not_there_is_not_healthy() -> None:
    with answering(SERVING) as address:
        pass
    code, said = asked(address)
    assert (code, said.startswith("the service does not answer: UNAVAILABLE: ")) == (1, True)


def test_a_service_that_asks_for_certificates_is_asked_with_one(tmp_path: Path) -> None:
    make_certificates(tmp_path, hosts=["localhost"], days=1)
    key, cert, ca = ((tmp_path / name).read_bytes() for name in ("server.key", "server.pem", "ca.pem"))
    credentials = grpc.ssl_server_credentials([(key, cert)], ca, require_client_auth=True)
    files = {"CA": "ca.pem", "CERT": "client.pem", "KEY": "client.key"}
    variables = {f"CHAINRULE_TLS_{name}": str(tmp_path / file) for name, file in files.items()}
    with answering(SERVING, credentials) as address:
        assert asked(address, **variables) == (0, "")
        assert asked(address, CHAINRULE_TLS_CA=variables["CHAINRULE_TLS_CA"])[0] == 1


# --- scripts around the service ----------------------------------------------------------------------------------


def fake(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def run(script: str, *arguments: str, path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{path}:/usr/bin:/bin", **variables}
    command = [str(IMAGE / script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_node_that_ends_joins_again_while_the_service_goes_on(tmp_path: Path) -> None:
    """The service here is one that ends when a node has joined for the second time."""
    os.mkfifo(tmp_path / "joined")
    fake(tmp_path, "ray", f'echo "$@" >> {tmp_path}/nodes; echo joined > {tmp_path}/joined')
    fake(tmp_path, "chainrule", f'echo "$@"; exec 3<> {tmp_path}/joined; read first <&3; read second <&3')
    variables = {"CHAINRULE_RAY_ADDRESS": "head:6379", "CHAINRULE_REJOIN_DELAY_S": "0.01"}
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **variables}
    with subprocess.Popen(
        [IMAGE / "serve-on-ray", "--host", "0.0.0.0"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as serving:
        try:
            assert serving.wait(60) == 0
        finally:
            os.killpg(serving.pid, 9)  # what tini does in the image: the node ends with the service
        assert serving.stdout is not None
        assert serving.stdout.read() == "serve --ray-address head:6379 --host 0.0.0.0\n"
    joins = (tmp_path / "nodes").read_text().splitlines()
    assert joins[:2] == ["start --address=head:6379 --num-cpus=0 --block --disable-usage-stats"] * 2


def test_without_a_cluster_to_join_nothing_is_started(tmp_path: Path) -> None:
    ran = run("serve-on-ray", path=tmp_path)
    assert ran.returncode != 0
    assert "CHAINRULE_RAY_ADDRESS: name the cluster as HOST:PORT" in ran.stderr


@pytest.mark.parametrize(("present", "made"), [("[]", True), ('[{"name": "tokens/first"}]', False)])
def test_a_token_is_made_where_there_is_none(present: str, made: bool, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of a first attempt that broke off")
    fake(tmp_path, "chainrule", f"[ $2 = token-ls ] && echo '{present}' || echo \"$@\" > {tmp_path}/asked")
    assert run("first-token", str(secret), path=tmp_path).returncode == 0
    assert (tmp_path / "asked").exists() == made
    assert secret.exists() == (not made)
    if made:
        assert (tmp_path / "asked").read_text() == f"admin token-create first --scope admin --out {secret}\n"


def test_the_first_token_is_made_once_by_the_commands_that_there_are(tmp_path: Path) -> None:
    secret, data = tmp_path / "secret", tmp_path / "data"
    fake(tmp_path, "chainrule", f'exec {Path(sys.executable).parent / "chainrule"} "$@"')
    variables = {"CHAINRULE_DATA_DIR": str(data), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    first = run("first-token", str(secret), path=tmp_path, **variables)
    assert first.returncode == 0, first.stderr
    kept = secret.read_text()
    assert kept.startswith("chainrule_")
    again = run("first-token", str(secret), path=tmp_path, **variables)
    assert (again.returncode, secret.read_text()) == (0, kept), again.stderr
