"""How much one caller may ask for, by a clock of the test's."""

from __future__ import annotations

import pytest

from chainrule.server import limits
from chainrule.server.limits import Places, Rate, RateLimit


def test_a_burst_is_allowed_and_then_the_rate() -> None:
    limit = RateLimit(Rate(per_s=2, burst=3))
    assert [limit.take("a", now_s=10) for _ in range(4)] == [0, 0, 0, 0.5]
    assert limit.take("a", now_s=10.25) == 0.25
    assert limit.take("a", now_s=10.5) == 0
    assert limit.take("a", now_s=10.5) == 0.5


def test_what_is_refused_costs_nothing() -> None:
    limit = RateLimit(Rate(per_s=1, burst=1))
    limit.take("a", now_s=0)
    for _ in range(100):
        assert limit.take("a", now_s=0.5) == 0.5
    assert limit.take("a", now_s=1) == 0


def test_a_bucket_does_not_hold_more_than_its_burst() -> None:
    limit = RateLimit(Rate(per_s=10, burst=2))
    limit.take("a", now_s=0)
    assert [limit.take("a", now_s=1000) for _ in range(3)] == [0, 0, 0.1]


def test_callers_are_counted_apart() -> None:
    limit = RateLimit(Rate(per_s=1, burst=1))
    assert limit.take("a", now_s=0) == limit.take("b", now_s=0) == 0
    assert limit.take("a", now_s=0) == limit.take("b", now_s=0) == 1


def test_of_too_many_callers_the_longest_silent_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_KEYS", 2)
    limit = RateLimit(Rate(per_s=1, burst=1))
    for key in ("a", "b", "a", "c"):
        limit.take(key, now_s=0)
    assert limit.take("a", now_s=0) == 1
    assert limit.take("b", now_s=0) == 0


def test_places_are_given_back() -> None:
    places = Places(2)
    assert [places.take("a") for _ in range(3)] == [True, True, False]
    assert places.take("b")
    places.give_back("a")
    assert places.take("a")
    assert not places.take("a")
