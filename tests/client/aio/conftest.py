"""A client for asyncio of the fake server."""

from collections.abc import AsyncIterator

import pytest

from chainrule.client import AsyncClient
from tests.client.conftest import QUICK
from tests.client.fake_server import FakeServer


@pytest.fixture
async def aio(server: FakeServer) -> AsyncIterator[AsyncClient]:
    async with await AsyncClient.connect(server.address, settings=QUICK) as client:
        yield client
