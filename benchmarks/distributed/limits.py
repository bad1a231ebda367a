"""What should cost little: figures with a limit, measured several times, and their table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.layout import aligned


@dataclass(frozen=True, slots=True)
class Limited:
    """A cost."""

    name: str
    """What `--only` takes."""
    title: str
    """What the table says."""
    unit: str
    """Of the figures and the limit."""
    limit: float
    """What the median should be at most."""
    values: tuple[float, ...] = ()
    """One for each round."""
    details: tuple[str, ...] = ()
    """What else there is to say of each round."""
    problem: str = ""
    """What went wrong."""

    @property
    def median(self) -> float:
        """Of the rounds; there must be one."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the median is within the limit; None: nothing was measured."""
        return self.median <= self.limit if self.values else None

    @property
    def summary(self) -> str:
        """One line."""
        return f"{self.name}: {f'{self.median:.2f} {self.unit}' if self.values else 'failed'}"

    def to_json(self) -> dict[str, Any]:
        """All that was measured."""
        return {
            "name": self.name,
            "unit": self.unit,
            "limit": self.limit,
            "met": self.met,
            "values": list(self.values),
            "details": list(self.details),
            "problem": self.problem,
        }


HEADER = ("what it costs", "median", "most", "limit")


def table(costs: Sequence[Limited]) -> str:
    """The costs, aligned; below them what went wrong, and the details."""
    texts = aligned(HEADER, [_cells(cost) for cost in costs], words={"what it costs", "limit"})
    texts += [f"{cost.name} FAILED: {cost.problem}" for cost in costs if cost.problem]
    texts += [f"{cost.name}: {detail}" for cost in costs for detail in cost.details]
    return "\n".join(texts)


def _cells(cost: Limited) -> tuple[str, ...]:
    limit = f"{cost.limit:g} {cost.unit}"
    if not cost.values:
        return (cost.title, "failed", "", limit)
    mark = " met" if cost.met else " missed"
    return (cost.title, f"{cost.median:.2f}", f"{max(cost.values):.2f}", limit + mark)
