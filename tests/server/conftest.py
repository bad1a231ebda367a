"""The durable parts of a service, in a folder of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chainrule.server.blobs import BlobStore
from chainrule.server.errors import InvalidRequestError, Violation
from chainrule.server.store import Store
from tests.server.postgresql import emptied, postgresql, programs, temporary_folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    yield store
    store.close()


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A database of a PostgreSQL server that runs for this session."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with temporary_folder() as folder, postgresql(Path(folder)) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    return emptied(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def refusal(caught: pytest.ExceptionInfo[InvalidRequestError]) -> Violation:
    """The one thing that was wrong with a request."""
    [violation] = caught.value.violations
    return violation
