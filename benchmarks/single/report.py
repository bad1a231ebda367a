"""What was measured, in figures: medians, ratios, the table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.layout import aligned, figures
from benchmarks.single.works import Order, Work, flops

OURS, PYTORCH = "chainrule.engine", "torch"
MEGABYTE = 1e6

Process = Mapping[str, Any]
"""What one process measured, as `process.measure` says; or `unavailable` or `problem`: why it did not."""


@dataclass(frozen=True, slots=True)
class Side:
    """What the processes of one engine measured, in one memory format."""

    engine: str
    """`chainrule.engine` or `torch`."""
    memory_format: str
    """The order in memory of images and convolutions' weights."""
    processes: tuple[Process, ...]
    """One for each round."""

    @property
    def times_ms(self) -> list[float]:
        """Of all steps of all rounds."""
        return [time / 1e6 for process in self.processes for time in process["times_ns"]]

    @property
    def median_ms(self) -> float:
        """Of a step."""
        return statistics.median(self.times_ms)

    @property
    def fastest_ms(self) -> float:
        """The fastest step."""
        return min(self.times_ms)

    @property
    def loss(self) -> float:
        """Of the first step."""
        return float(self.processes[0]["loss"])

    @property
    def peak_bytes(self) -> float:
        """The peak memory of a process: the median of the rounds."""
        return statistics.median(float(process["peak_bytes"]) for process in self.processes)

    @property
    def beyond_imports_bytes(self) -> float:
        """The peak memory of a process beyond what it had once the engine was imported."""
        return statistics.median(float(run["peak_bytes"] - run["imported_bytes"]) for run in self.processes)

    def to_json(self) -> dict[str, Any]:
        """All that was measured, and what follows from it."""
        return {
            "engine": self.engine,
            "memory_format": self.memory_format,
            "median_ms": self.median_ms,
            "fastest_ms": self.fastest_ms,
            "description": self.processes[0]["description"],
            "loss": self.loss,
            "peak_bytes": self.peak_bytes,
            "beyond_imports_bytes": self.beyond_imports_bytes,
            "processes": list(self.processes),
        }


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one work."""

    work: Work
    ours: Side | None = None
    """None: not measured, and `problems` say why."""
    theirs: tuple[Side, ...] = ()
    """PyTorch's, in each memory format."""
    peak_flops: float | None = None
    """What the machine reaches on these threads; None: not known yet."""
    unavailable: str | None = None
    """Why there is no comparison, where an engine cannot do the work."""
    problems: tuple[str, ...] = field(default=())
    """What went wrong."""

    @property
    def best(self) -> Side | None:
        """PyTorch's in its better memory format."""
        return min(self.theirs, key=lambda side: side.median_ms, default=None)

    @property
    def ratio(self) -> float | None:
        """PyTorch's time over ours, of medians."""
        return None if self.ours is None or self.best is None else self.best.median_ms / self.ours.median_ms

    @property
    def fastest_ratio(self) -> float | None:
        """PyTorch's time over ours, of the fastest steps."""
        if self.ours is None or not self.theirs:
            return None
        return min(side.fastest_ms for side in self.theirs) / self.ours.fastest_ms

    @property
    def memory_ratio(self) -> float | None:
        """Our peak memory over PyTorch's, of whole processes."""
        return None if self.ours is None or self.best is None else self.ours.peak_bytes / self.best.peak_bytes

    @property
    def gflops(self) -> float | None:
        """10⁹ operations of our convolutions and products a second, over the whole step."""
        operations = flops(self.work)
        return None if self.ours is None or operations is None else operations / self.ours.median_ms / 1e6

    @property
    def peak_share(self) -> float | None:
        """`gflops` as a share of what numpy's float32 products reach."""
        return None if self.gflops is None or self.peak_flops is None else self.gflops * 1e9 / self.peak_flops

    @property
    def met(self) -> bool | None:
        """Whether every goal is met; None: there is no goal, or nothing to compare."""
        goals = []
        if self.work.goal is not None and self.ratio is not None:
            goals.append(self.ratio >= self.work.goal)
        if self.work.memory_goal is not None and self.memory_ratio is not None:
            goals.append(self.memory_ratio <= self.work.memory_goal)
        return all(goals) if goals else None

    @property
    def summary(self) -> str:
        """One line."""
        if self.ratio is None or self.fastest_ratio is None or self.problems:
            return f"{self.work.name}: {'failed' if self.problems else self.unavailable}"
        return f"{self.work.name}: ratio {self.ratio:.2f}, of the fastest steps {self.fastest_ratio:.2f}"

    def to_json(self) -> dict[str, Any]:
        """All that was measured, and what follows from it."""
        return {
            "work": self.work.to_json(),
            "ratio": self.ratio,
            "fastest_ratio": self.fastest_ratio,
            "memory_ratio": self.memory_ratio,
            "met": self.met,
            "flops": flops(self.work),
            "gflops": self.gflops,
            "peak_share": self.peak_share,
            "unavailable": self.unavailable,
            "problems": list(self.problems),
            "ours": self.ours.to_json() if self.ours else None,
            "pytorch": [side.to_json() for side in self.theirs],
        }


def gather(work: Work, orders: Sequence[Order], found: Sequence[Process]) -> Row:
    """The row of what processes found on their orders; an engine of which one failed has no side in it."""
    by_side: dict[tuple[str, str], list[Process]] = {}
    for order, process in zip(orders, found, strict=True):
        by_side.setdefault((order.engine, order.memory_format), []).append(process)
    sides, problems, unavailable = [], [], None
    for (engine, memory_format), processes in by_side.items():
        failures = [process["problem"] for process in processes if "problem" in process]
        problems += [f"{engine} ({memory_format}): {failure}" for failure in dict.fromkeys(failures)]
        refusal = next((process["unavailable"] for process in processes if "unavailable" in process), None)
        unavailable = unavailable or refusal
        if not failures and refusal is None:
            sides.append(Side(engine, memory_format, tuple(processes)))
    problems += disagreements(work, sides)
    ours = next((side for side in sides if side.engine == OURS), None)
    theirs = tuple(side for side in sides if side.engine == PYTORCH)
    return Row(work, ours, theirs, unavailable=unavailable, problems=tuple(problems))


def disagreements(work: Work, sides: Sequence[Side]) -> list[str]:
    """Where the sides did not compute the same: other parameters, or another loss in the first step."""
    if not sides:
        return []
    first, *others = sides
    tolerance = 2e-2 if work.dtype == "bfloat16" else 1e-3
    found = []
    for side in others:
        ours, theirs = (process.processes[0]["parameters"] for process in (first, side))
        if ours != theirs:
            found.append(f"{first.engine} has {ours:,} parameters, {side.engine} {theirs:,}")
        if not abs(first.loss - side.loss) <= tolerance * abs(side.loss):
            found.append(f"the first loss is {first.loss:.6g} of {first.engine}, {side.loss:.6g} of {side.engine}")
    return found


# ---- The table ----

HEADER = (
    "work",
    "threads",
    "dtype",
    "ours ms",
    "PyTorch ms",
    "ratio",
    "fastest",
    "goal",
    "GFLOP/s",
    "of peak",
    "ours MB",
    "PyTorch MB",
)


def table(rows: Sequence[Row]) -> str:
    """The rows, aligned; below them what went wrong, and what the sides say of themselves."""
    texts = aligned(HEADER, [cells(row) for row in rows], words={"work", "dtype", "goal"})
    texts += [f"{row.work.name}: {row.unavailable}" for row in rows if row.unavailable]
    texts += [f"{row.work.name} FAILED: {problem}" for row in rows for problem in row.problems]
    sides = [side for row in rows for side in (row.ours, *row.theirs) if side]
    texts += sorted({str(side.processes[0]["description"]) for side in sides})
    return "\n".join(texts)


def cells(row: Row) -> tuple[str, ...]:
    """One line of the table."""
    ours, best, work = row.ours, row.best, row.work
    layout = " nhwc" if best and best.memory_format == "channels_last" else ""
    nothing = "failed" if row.problems else "not available"
    goal = "" if work.goal is None else f"{work.goal:.2f}"
    if work.memory_goal is not None:
        goal += f", memory {work.memory_goal:.1f}"
    mark = {True: " met", False: " missed", None: ""}[row.met]
    return (
        work.title,
        str(work.threads),
        {"float32": "fp32", "bfloat16": "bf16"}[work.dtype],
        figures(ours.median_ms) if ours else nothing,
        figures(best.median_ms) + layout if best else nothing,
        _number(row.ratio, ".2f"),
        _number(row.fastest_ratio, ".2f"),
        goal + mark,
        _number(row.gflops, ".0f"),
        _number(row.peak_share, ".0%"),
        _memory(ours),
        _memory(best),
    )


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _memory(side: Side | None) -> str:
    """Megabytes of the process, in brackets those beyond its imports."""
    if side is None:
        return ""
    return f"{side.peak_bytes / MEGABYTE:.0f} (+{side.beyond_imports_bytes / MEGABYTE:.0f})"
