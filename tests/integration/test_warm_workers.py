"""Jobs whose processes are there before them: the same weights, and nothing left of them.

Two servers with clusters of their own take long; tests/server/training/test_placement.py has the same without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from chainrule.client import Client
from tests.integration.conftest import (
    Images,
    ServerProcess,
    alive_in_session,
    submit,
    wait_for,
    without_ray,
)


def titles(server: ServerProcess, beginning: str) -> list[int]:
    """Processes of the server's own cluster whose titles begin so."""
    return [pid for pid, title in alive_in_session(server.pid).items() if title.startswith(beginning)]


@pytest.mark.whole
def test_jobs_take_processes_that_are_ready_and_have_the_same_weights(tmp_path: Path, images: Images) -> None:
    digests = []
    for name, warm in (("warm", "2"), ("cold", "0")):
        server = ServerProcess(tmp_path / name, "--num-cpus", "2", "--warm-workers", warm, environment=without_ray())
        server.start()
        try:
            if name == "warm":
                wait_for(lambda s=server: len(titles(s, "ray::WarmActor")) == 3, 120, "processes to be ready")  # type: ignore[misc]
            ready = set(titles(server, "ray::WarmActor"))
            with Client.connect(server.address) as client:
                job = submit(client, images, epochs=400, workers=2)
                wait_for(lambda j=job: j.status().running_workers == 2, 120, "both workers to be there")  # type: ignore[misc]
                working = set(titles(server, "ray::WorkerActor"))
                assert len(working) == 2
                # all but the last that was started has also imported what it needs
                assert bool(working & ready) == (name == "warm")
                status = job.wait(timeout_s=120)
            digests.append(status.weights_digest)
            if name == "warm":
                wait_for(lambda s=server: len(titles(s, "ray::WarmActor")) == 3, 120, "others to be ready")  # type: ignore[misc]
                assert not working & set(titles(server, "ray::WarmActor"))
        finally:
            server.stop()
        assert not alive_in_session(server.pid)
    assert digests[0] == digests[1]
