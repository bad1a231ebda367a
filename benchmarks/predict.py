"""Predictions, measured from outside: `python benchmarks/predict.py [--quick]`.

What a prediction of a small network costs beside its bare forward pass and a bare call, both measured in the same run,
and whether many clients at once lose any. Server and clients share the machine, as all sides of the comparison do.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is found

from benchmarks.machine import describe, load
from benchmarks.service import FULL, QUICK, Measurement, measured
from benchmarks.serving import predictions
from benchmarks.serving.goals import table

MEASUREMENT = Measurement(
    predictions.GOALS,
    lambda server, effort: predictions.measure(server, rounds=effort.rounds, seconds=effort.seconds),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; the exit status: 0, or 1 if anything failed."""
    parser = argparse.ArgumentParser(
        description="Measures predictions of a small network: the time of one, and 200 clients at once.",
        epilog="The exit status is 1 if a measurement failed; to miss a goal is no failure.",
    )
    parser.add_argument("--quick", action="store_true", help="few and short rounds: a first look")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything measured there")
    options = parser.parse_args(arguments)
    if options.json and not options.json.parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}; make it first")
    machine = describe("engine", "server", "client")
    print("\n".join(f"{name}: {text}" for name, text in machine.items()), flush=True)
    figures = measured(MEASUREMENT, QUICK if options.quick else FULL)
    print(f"\n{table(figures)}\nload at the end: {load()}")
    if options.json:
        found = {"machine": machine, "figures": [figure.to_json() for figure in figures]}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if any(figure.problem for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
