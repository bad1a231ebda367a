"""The durable parts of a service, in a folder of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chainrule.server.blobs import BlobStore
from chainrule.server.errors import InvalidRequestError, Violation
from chainrule.server.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    yield store
    store.close()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def refusal(caught: pytest.ExceptionInfo[InvalidRequestError]) -> Violation:
    """The one thing that was wrong with a request."""
    [violation] = caught.value.violations
    return violation
