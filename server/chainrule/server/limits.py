"""How much one caller may ask for: decisions as values, by a clock that is given."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

MAX_KEYS = 10_000
"""Callers that are remembered; of more, those are forgotten that have asked for nothing for the longest."""


@dataclass(frozen=True)
class Rate:
    """How often something may happen."""

    per_s: float
    """Times a second, in the long run."""
    burst: float
    """Times at once, after a time without any."""


class RateLimit:
    """A token bucket for each of many callers: full at first, one less for each time, refilled at the rate."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # level, and when it was that

    def take(self, key: str, *, now_s: float) -> float:
        """Count one time; 0 if it is allowed, else in how many seconds one will be.

        Args:
            now_s: seconds from any origin, never going back.
        """
        level, since_s = self._buckets.pop(key, (self._rate.burst, now_s))
        level = min(self._rate.burst, level + (now_s - since_s) * self._rate.per_s)
        is_allowed = level >= 1
        self._buckets[key] = (level - 1 if is_allowed else level, now_s)
        if len(self._buckets) > MAX_KEYS:
            self._buckets.popitem(last=False)
        return 0.0 if is_allowed else (1 - level) / self._rate.per_s


class Places:
    """So many things at a time for each of many callers."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken: dict[str, int] = {}

    def take(self, key: str) -> bool:
        """Take a place, if there is one."""
        taken = self._taken.get(key, 0)
        if taken >= self.most:
            return False
        self._taken[key] = taken + 1
        return True

    def give_back(self, key: str) -> None:
        """Give back a place that was taken."""
        left = self._taken[key] - 1
        if left:
            self._taken[key] = left
        else:
            del self._taken[key]
