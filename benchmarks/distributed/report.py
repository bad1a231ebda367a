"""What was measured beside DDP, in figures: ratios, goals, the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.distributed.times import Side, disagreement
from benchmarks.distributed.variants import Variant
from benchmarks.distributed.works import Work
from benchmarks.layout import aligned, figures


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one work."""

    work: Work
    ours: Side | None = None
    """None: not measured, and `problems` say why."""
    single: Side | None = None
    """Our single worker at the same job, where there is a goal for scaling."""
    ddp: Mapping[Variant, Side] | None = None
    """DDP in each way it was run."""
    problems: tuple[str, ...] = ()
    """What went wrong."""

    @property
    def best(self) -> tuple[Variant, Side] | None:
        """DDP in the way that has the least median."""
        return min(self.ddp.items(), key=lambda item: item[1].median_ms) if self.ddp else None

    @property
    def ratio(self) -> float | None:
        """DDP's time over ours, of medians."""
        return None if self.ours is None or self.best is None else self.best[1].median_ms / self.ours.median_ms

    @property
    def mean_ratio(self) -> float | None:
        """DDP's time over ours, of means, each in its best way and round."""
        if self.ours is None or not self.ddp:
            return None
        return min(side.mean_ms for side in self.ddp.values()) / self.ours.mean_ms

    @property
    def scaling(self) -> float | None:
        """Our examples a second over as many times a single worker's as there are workers."""
        if self.ours is None or self.single is None:
            return None
        return self.single.median_ms / self.ours.median_ms / self.work.workers

    @property
    def met(self) -> bool | None:
        """Whether every goal is met; None: there is nothing to compare."""
        goals = ((self.ratio, self.work.goal), (self.scaling, self.work.scaling_goal))
        known = [value >= goal for value, goal in goals if value is not None and goal is not None]
        return all(known) if known else None

    @property
    def summary(self) -> str:
        """One line."""
        if self.problems:
            return f"{self.work.name}: failed"
        parts = [f"ratio {self.ratio:.2f}"] if self.ratio is not None else []
        parts += [f"scaling {self.scaling:.2f}"] if self.scaling is not None else []
        return f"{self.work.name}: {', '.join(parts)}"

    def to_json(self) -> dict[str, Any]:
        """All that was measured, and what follows from it."""
        sides = {"ours": self.ours, "single": self.single}
        sides |= {f"ddp {variant}": side for variant, side in (self.ddp or {}).items()}
        return {
            "work": self.work.name,
            "ratio": self.ratio,
            "mean_ratio": self.mean_ratio,
            "scaling": self.scaling,
            "met": self.met,
            "problems": list(self.problems),
            "sides": {name: _side(side) for name, side in sides.items() if side is not None},
        }


def gather(work: Work, *, ours: Side | None, single: Side | None, ddp: Mapping[Variant, Side]) -> Row:
    """The row of these runs, which must all have trained the same."""
    others = {f"DDP ({variant})": side for variant, side in ddp.items()}
    if single is not None:
        others["our single worker"] = single
    found = [disagreement(ours.runs[0], side.runs[0], name) for name, side in others.items()] if ours else []
    problems = [problem for problem in found if problem is not None]
    return Row(work, ours, single, ddp, tuple(problems))


# ---- The table ----

HEADER = ("work", "workers", "ours ms", "DDP ms", "ours /s", "DDP /s", "ratio", "of means", "scaling", "goal")


def table(rows: Sequence[Row]) -> str:
    """The rows, aligned; below them what went wrong, DDP in each way, and what the sides say of themselves."""
    texts = aligned(HEADER, [cells(row) for row in rows], words={"work", "goal"})
    texts += [f"{row.work.name} FAILED: {problem}" for row in rows for problem in row.problems]
    for row in rows:
        ways = ", ".join(f"{variant} {figures(side.median_ms)}" for variant, side in (row.ddp or {}).items())
        texts.append(f"{row.work.name}, DDP in ms: {ways or 'not measured'}")
    sides = [side for row in rows for side in (row.ours, *(row.ddp or {}).values()) if side]
    texts += sorted({side.runs[0].description for side in sides})
    return "\n".join(texts)


def cells(row: Row) -> tuple[str, ...]:
    """One line of the table."""
    ours, best, work = row.ours, row.best, row.work
    goal = "" if work.goal is None else f"{work.goal:.1f}"
    if work.scaling_goal is not None:
        goal += f", scaling {work.scaling_goal:.1f}"
    mark = {True: " met", False: " missed", None: ""}[row.met]
    return (
        work.title,
        f"{work.workers} × 1",
        "failed" if ours is None else figures(ours.median_ms),
        "failed" if best is None else figures(best[1].median_ms),
        "" if ours is None else f"{ours.examples_per_s:.0f}",
        "" if best is None else f"{best[1].examples_per_s:.0f}",
        _number(row.ratio),
        _number(row.mean_ratio),
        _number(row.scaling),
        goal + mark,
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _side(side: Side) -> dict[str, Any]:
    return {
        "median_ms": side.median_ms,
        "mean_ms": side.mean_ms,
        "examples_per_s": side.examples_per_s,
        "steps_ms": [run.steps_ms for run in side.runs],
    }
