"""Logs in the store: numbered, bounded, and read page by page."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from chainrule.server.architecture import Builtin
from chainrule.server.errors import NotFoundError
from chainrule.server.records import Dataset, LogRecord, Model
from chainrule.server.store import NewJob, Store
from chainrule.server.store.requests import NO_REQUEST
from chainrule.server.training.config import TrainingConfig
from chainrule.server.training.logs import LogEntry

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = Model("models/m", Builtin("small_cnn", {"num_classes": 10}), "a" * 64, 0, 123, NOW)
DATASET = Dataset("datasets/d", "b" * 64, 100, (8,), 10, 6400, NOW)
JOB = NewJob("jobs/j", NO_REQUEST, MODEL.name, DATASET.name, TrainingConfig(), total_steps=20)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store(url)
    store.create_model(MODEL, tenant="default")
    store.create_dataset(DATASET, tenant="default")
    yield store
    store.close()


def logged(store: Store, **asked: Any) -> list[tuple[int, str]]:
    asked = {"tenant": "default", "after_sequence": 0, "limit": 100, **asked}
    return [(found.sequence, found.message) for found in store.logs(JOB.name, **asked).entries]


def test_logs_are_numbered_and_read_from_where_one_stopped(store: Store) -> None:
    store.create_job(JOB)
    store.add_logs(JOB.name, [LogEntry(1_000_000, 20, "a", "worker 1", "n"), LogEntry(2, 30, "b", "worker 2")])
    store.next_attempt(JOB.name)
    store.add_logs(JOB.name, [LogEntry(3, 40, "c", "worker 1")])
    assert logged(store) == [(1, "a"), (2, "b"), (3, "c")]
    assert logged(store, limit=2) == [(1, "a"), (2, "b")]
    assert logged(store, after_sequence=1) == [(2, "b"), (3, "c")]
    assert logged(store, min_severity=30) == [(2, "b"), (3, "c")]
    assert logged(store, source="worker 1") == [(1, "a"), (3, "c")]
    first, *_, last = store.logs(JOB.name, tenant="default", after_sequence=0, limit=10).entries
    assert first == LogRecord(1, datetime.fromtimestamp(1, UTC), 20, "worker 1", "n", 0, "a")
    assert last.attempt == 1


def test_a_page_of_logs_says_how_far_it_goes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chainrule.server.store.logs._READ_AT_ONCE", 2)
    store.create_job(JOB)
    store.add_logs(JOB.name, [LogEntry(0, 40 if number in (2, 3, 5) else 20, "") for number in range(1, 8)])

    def page(**asked: Any) -> tuple[list[int], int, bool]:
        asked = {"after_sequence": 0, "limit": 100, "min_severity": 30, **asked}
        found = store.logs(JOB.name, tenant="default", **asked)
        return [each.sequence for each in found.entries], found.seen, found.has_more

    assert page() == ([2, 3, 5], 7, False)
    assert page(limit=2) == ([2, 3], 3, True)
    assert page(limit=3) == ([2, 3, 5], 7, False)
    assert page(after_sequence=5) == ([], 7, False)
    assert page(after_sequence=9) == ([], 9, False)
    assert page(min_severity=0) == ([1, 2, 3, 4, 5, 6, 7], 7, False)


def test_a_page_of_logs_is_bounded_in_bytes_and_has_an_entry(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chainrule.server.store.logs.MAX_PAGE_BYTES", 3 * 64 + 10)
    store.create_job(JOB)
    store.add_logs(JOB.name, [LogEntry(0, 20, message) for message in ("x" * 500, "äöü", "ä", "é", "e")])
    found, after = [], 0
    while True:
        page = store.logs(JOB.name, tenant="default", after_sequence=after, limit=100)
        found.append([each.sequence for each in page.entries])
        after = page.seen
        if not page.has_more:
            break
    assert found == [[1], [2, 3, 4], [5]]  # 500 bytes of text, 6 + 2 + 2, and 1


def test_the_latest_logs_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chainrule.server.store.logs.MAX_LOGS", 3)
    store.create_job(JOB)
    for first in (1, 3):
        store.add_logs(JOB.name, [LogEntry(0, 20, f"{number}") for number in (first, first + 1)])
    assert logged(store) == [(2, "2"), (3, "3"), (4, "4")]
    store.add_logs(JOB.name, [LogEntry(0, 20, f"{number}") for number in range(5, 10)])
    assert logged(store) == [(7, "7"), (8, "8"), (9, "9")]


def test_logs_of_a_job_that_there_is_not_are_left_out(store: Store) -> None:
    store.add_logs(JOB.name, [LogEntry(0, 20, "too late")])
    with pytest.raises(NotFoundError, match=r'there is no job "jobs/j"'):
        logged(store)
    store.create_job(JOB)
    assert logged(store) == []


def test_logs_are_their_tenants_alone(store: Store) -> None:
    store.create_job(JOB)
    with pytest.raises(NotFoundError, match=r'there is no job "jobs/j"'):
        logged(store, tenant="other")
