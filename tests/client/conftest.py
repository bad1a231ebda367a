"""Fixtures of the client's tests: a fake server, and a client of it that does not wait long."""

from collections.abc import Iterator

import pytest

from chainrule.client import Client, RetryPolicy, Settings
from tests.client.fake_server import FakeServer

QUICK = Settings(retry=RetryPolicy(window_s=5.0, first_delay_s=0.01, max_delay_s=0.05))


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def client(server: FakeServer) -> Iterator[Client]:
    with Client.connect(server.address, settings=QUICK) as client:
        yield client
