"""What all tests of training need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import chainrule.engine as cr
from chainrule.server.training import coordinator, crew, policies


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Workers and partitions compute on one thread each; so do their tests."""
    before = cr.get_num_threads()
    cr.set_num_threads(1)
    yield
    cr.set_num_threads(before)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at leases and stragglers all the time, and replace at once what is lost."""
    monkeypatch.setattr(coordinator, "CHECK_INTERVAL_S", 0.001)
    monkeypatch.setattr(policies, "FIRST_DELAY_S", 0.0)
    monkeypatch.setattr(coordinator, "LAST_WORDS_S", 0.01)
    monkeypatch.setattr(crew, "LAST_WORDS_S", 0.01)
