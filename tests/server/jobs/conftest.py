"""What the tests of jobs share."""

from __future__ import annotations

import asyncio

import pytest

from chainrule.server.blobs import BlobStore
from chainrule.server.jobs import policies
from chainrule.server.records import Job
from chainrule.server.store import Store
from tests.server.jobs.running import run_job
from tests.server.jobs.service_parts import FakeLauncher
from tests.server.jobs.submitting import Catalogs


@pytest.fixture
def catalogs(store: Store, blobs: BlobStore) -> Catalogs:
    return Catalogs(store, blobs)


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of an undisturbed run."""

    async def run() -> Job:
        return await run_job(tmp_path_factory.mktemp("expected"), FakeLauncher())

    return asyncio.run(run()).weights_digest


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that was lost tries again at once."""
    monkeypatch.setattr(policies, "FIRST_DELAY_S", 0.001)
