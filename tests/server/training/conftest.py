"""What all tests of training need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

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


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Who was found silent at each look at partitions or workers."""
    found = []
    silent = policies.silent

    def look(*args: Any, **kwargs: Any) -> list[int]:
        found.append(silent(*args, **kwargs))
        return found[-1]

    monkeypatch.setattr(policies, "silent", look)
    return found


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[policies.Waiting]:
    """What was known at each look at a tick that is not complete."""
    found = []
    speculate = policies.speculate

    def look(waiting: policies.Waiting, workers: Sequence[policies.Sight]) -> policies.Speculate | None:
        found.append(waiting)
        return speculate(waiting, workers)

    monkeypatch.setattr(policies, "speculate", look)
    return found
