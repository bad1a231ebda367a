"""The service, measured from outside: `python benchmarks/service.py [--quick] [--only NAMES]`.

How fast a job begins, what calls, followers and downloads cost beside the bare stack of gRPC, and how much memory an
idle server takes. Server and clients share the machine, as both sides of each comparison do.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is found

from benchmarks.machine import describe, load
from benchmarks.serving import calls, downloads, first_step, memory, watchers
from benchmarks.serving.goals import Figure, Goal, table
from benchmarks.serving.servers import Server, ServerError, service


@dataclass(frozen=True, slots=True)
class Effort:
    """How long a run measures."""

    rounds: int
    """Of each measurement."""
    seconds: float
    """Of a window of calls or steps."""


FULL = Effort(rounds=5, seconds=5.0)
QUICK = Effort(rounds=2, seconds=2.0)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one name of `--only` stands for; each has a service of its own."""

    goals: tuple[Goal, ...]
    measure: Callable[[Server, Effort], list[Figure]]

    @property
    def name(self) -> str:
        """What `--only` takes."""
        return self.goals[0].name


MEASUREMENTS = (
    Measurement(memory.GOALS, lambda server, _: memory.measure(server)),
    Measurement(first_step.GOALS, lambda server, effort: first_step.measure(server, rounds=effort.rounds)),
    Measurement(
        calls.GOALS, lambda server, effort: calls.measure(server, rounds=effort.rounds, seconds=effort.seconds)
    ),
    Measurement(
        watchers.GOALS, lambda server, effort: watchers.measure(server, rounds=effort.rounds, seconds=effort.seconds)
    ),
    Measurement(downloads.GOALS, lambda server, effort: downloads.measure(server, rounds=effort.rounds)),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; the exit status: 0, or 1 if anything failed."""
    parser = command_line()
    options = parser.parse_args(arguments)
    if options.list:
        for each in MEASUREMENTS:
            print(f"{each.name:12} {'; '.join(goal.title for goal in each.goals)}")
        return 0
    try:
        chosen = select(options.only)
    except ValueError as error:
        parser.error(str(error))
    if options.json and not options.json.parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}; make it first")
    machine = describe("engine", "server", "client")
    print("\n".join(f"{name}: {text}" for name, text in machine.items()), flush=True)
    effort = QUICK if options.quick else FULL
    figures = [figure for each in chosen for figure in measured(each, effort)]
    print(f"\n{table(figures)}\nload at the end: {load()}")
    if options.json:
        found = {"machine": machine, "figures": [figure.to_json() for figure in figures]}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if any(figure.problem for figure in figures) else 0


def command_line() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        description="Measures the service: how fast a job begins, calls, followers, downloads, memory.",
        epilog="rates and speeds are ratios to a bare grpc.aio server in the same run. The exit status is 1 if a "
        "measurement failed; to miss a goal is no failure.",
    )
    parser.add_argument("--quick", action="store_true", help="few and short rounds: a first look")
    parser.add_argument("--only", metavar="NAME[,NAME]", help="only these measurements")
    parser.add_argument("--list", action="store_true", help="list the names of the measurements, and stop")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything measured there")
    return parser


def select(names: str | None) -> tuple[Measurement, ...]:
    """The measurements of these names, separated by commas, in the order of the report; all of them if None.

    Raises:
        ValueError: a name there is not.
    """
    if names is None:
        return MEASUREMENTS
    wanted = {name.strip() for name in names.split(",")}
    if unknown := wanted - {each.name for each in MEASUREMENTS}:
        raise ValueError(f"no measurement is named {', '.join(sorted(unknown))}; --list lists them")
    return tuple(each for each in MEASUREMENTS if each.name in wanted)


def measured(measurement: Measurement, effort: Effort) -> list[Figure]:
    """The figures of a measurement, with what went wrong if anything did."""
    before = load()
    try:
        with service() as server:
            figures = measurement.measure(server, effort)
    except ServerError as error:
        figures = [Figure(goal, problem=str(error)) for goal in measurement.goals]
    except Exception as error:  # noqa: BLE001 — whatever it was, the other measurements go on
        figures = [Figure(goal, problem=f"{type(error).__name__}: {error}") for goal in measurement.goals]
    for figure in figures:
        print(f"  {figure.summary} (load before: {before})", file=sys.stderr, flush=True)
    return figures


if __name__ == "__main__":
    sys.exit(main())
