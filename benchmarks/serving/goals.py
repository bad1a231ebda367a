"""Figures with a goal, measured several times, and their table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.layout import aligned


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure should be."""

    name: str
    """What `--only` takes; several figures may come from one measurement."""
    title: str
    """What the table says."""
    unit: str
    limit: float
    """What the median should be at most, or at least."""
    at_least: bool = False
    """Whether more is better."""

    @property
    def text(self) -> str:
        """As the table has it."""
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}{f' {self.unit}' if self.unit else ''}"

    def is_met(self, value: float) -> bool:
        """Whether a figure is as it should be."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured of a goal."""

    goal: Goal
    values: tuple[float, ...] = ()
    """One for each round."""
    details: tuple[str, ...] = ()
    """What else there is to say."""
    problem: str = ""
    """What went wrong."""

    @property
    def median(self) -> float:
        """Of the rounds; there must be one."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the median is as it should be; None: nothing was measured."""
        return self.goal.is_met(self.median) if self.values else None

    @property
    def summary(self) -> str:
        """One line."""
        found = f"{self.median:.3g} {self.goal.unit}".strip() if self.values else f"failed: {self.problem}"
        return f"{self.goal.title}: {found}"

    def to_json(self) -> dict[str, Any]:
        """All that was measured."""
        return {
            "name": self.goal.name,
            "title": self.goal.title,
            "unit": self.goal.unit,
            "goal": self.goal.text,
            "met": self.met,
            "values": list(self.values),
            "details": list(self.details),
            "problem": self.problem,
        }


HEADER = ("what", "median", "least", "most", "goal")


def table(figures: Sequence[Figure]) -> str:
    """The figures, aligned; below them what went wrong, and the details."""
    texts = aligned(HEADER, [_cells(figure) for figure in figures], words={"what", "goal"})
    texts += [f"{figure.goal.name} FAILED: {figure.problem}" for figure in figures if figure.problem]
    texts += [f"{figure.goal.name}: {detail}" for figure in figures for detail in figure.details]
    return "\n".join(texts)


def _cells(figure: Figure) -> tuple[str, ...]:
    goal = figure.goal
    if not figure.values:
        return (goal.title, "failed", "", "", goal.text)
    mark = " met" if figure.met else " missed"
    middle, least, most = figure.median, min(figure.values), max(figure.values)
    return (goal.title, f"{middle:.3g}", f"{least:.3g}", f"{most:.3g}", goal.text + mark)
