"""What the chaos tests of the service share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.chaos.jobs", "tests.chaos.service", "tests.server.training.runs")

from chainrule.client import Client, Job  # noqa: E402
from chainrule.server.cluster import LocalCluster  # noqa: E402
from tests.chaos.service import Service, submit  # noqa: E402


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two nodes with two worker places each."""
    with LocalCluster.start(nodes=2, cpus_per_node=2) as cluster:
        yield cluster


@pytest.fixture
def service(cluster: LocalCluster, tmp_path: Path) -> Iterator[Service]:
    """A service on the cluster, with two nodes that are alive."""
    while sum(node.alive for node in cluster.nodes) < 2:
        cluster.add_node()
    service = Service(cluster, tmp_path)
    yield service
    service.server.stop()


@pytest.fixture(scope="module")
def other(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a service that nothing happens to, on a cluster of its own."""
    with LocalCluster.start(cpus_per_node=2) as quiet:
        service = Service(quiet, tmp_path_factory.mktemp("quiet"))
        with service.connect() as client:
            yield client
        service.server.stop()


@pytest.fixture(scope="module")
def expected(other: Client) -> Job:
    """The job of `submit` with one worker, to its end."""
    job = submit(other, workers=1)
    job.wait(timeout_s=240)
    return job
