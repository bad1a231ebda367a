"""Our training and PyTorch's DDP side by side: `python benchmarks/training.py [--quick] [--only NAMES] [--transports]`.

Both train the same network on the same batches from the same weights, alternating, in as many processes of one thread;
DDP in several ways, of which the best counts. Also: what killed processes and checkpoints cost, and the transports.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is found

from benchmarks.distributed import limits, transports, variants
from benchmarks.distributed.costs import COSTS
from benchmarks.distributed.limits import Limited
from benchmarks.distributed.report import Row, gather, table
from benchmarks.distributed.sides import RunError, run_chainrule, run_ddp
from benchmarks.distributed.times import Side, StepTimes
from benchmarks.distributed.transports import Exchange
from benchmarks.distributed.variants import Variant
from benchmarks.distributed.works import WORKS, Work
from benchmarks.machine import describe, load

Measured = TypeVar("Measured", Row, Limited)

TORCH_REMEDY = "PyTorch is not installed, and it is what we compare with: pip install torch==2.13.0"
TITLES = {work.name: work.title for work in WORKS} | {cost.name: cost.title for cost in COSTS}
"""Of every row, by the name that `--only` takes."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long a run measures."""

    rounds: int
    """Runs of each side, for each work."""
    share: float
    """Of each work's steps."""
    all_variants: bool
    """Whether DDP runs in every way, rather than in the one that is nearly always the best."""


FULL = Effort(rounds=3, share=1.0, all_variants=True)
QUICK = Effort(rounds=1, share=0.3, all_variants=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; the exit status: 0, or 1 if anything failed."""
    parser = command_line()
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(f"{name:12} {title}" for name, title in TITLES.items()))
        return 0
    try:
        names = select(options.only)
    except ValueError as error:
        parser.error(str(error))
    if options.repeats is not None and options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}; there has to be at least 1 round")
    if options.json and not options.json.parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}; make it first")
    if importlib.util.find_spec("torch") is None:
        parser.error(TORCH_REMEDY)
    effort = QUICK if options.quick else FULL
    if options.repeats is not None:
        effort = replace(effort, rounds=options.repeats)

    machine = describe("engine", "server")
    print("\n".join(f"{name}: {text}" for name, text in machine.items()), flush=True)
    found = Found()
    if options.transports:
        found.exchanges = transports.measure(transports.SIZES)
        print(f"\none synchronous exchange, 2 workers and a parameter server\n{transports.table(found.exchanges)}")
    else:
        found.rows = [measure(shortened(work, effort), effort) for work in WORKS if work.name in names]
        found.costs = [announced(cost.run(effort.rounds)) for cost in COSTS if cost.name in names]
        print("".join(f"\n{text}\n" for text in found.tables))
    print(f"load at the end: {load()}")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, **found.to_json()}, indent=1) + "\n")
    return 1 if found.failed else 0


@dataclass(slots=True)
class Found:
    """All that was measured."""

    rows: list[Row] = field(default_factory=list)
    costs: list[Limited] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def tables(self) -> list[str]:
        """Of rows and costs, as far as there are any."""
        return [*([table(self.rows)] if self.rows else []), *([limits.table(self.costs)] if self.costs else [])]

    @property
    def failed(self) -> bool:
        """Whether anything went wrong; to miss a goal is no failure."""
        return any(row.problems for row in self.rows) or any(cost.problem for cost in self.costs)

    def to_json(self) -> dict[str, Any]:
        """As it is written."""
        return {
            "rows": [row.to_json() for row in self.rows],
            "costs": [cost.to_json() for cost in self.costs],
            "exchanges": [exchange.to_json() for exchange in self.exchanges],
        }


def command_line() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        description="Times training steps of chainrule and of PyTorch's DDP (gloo), alternating, in fresh processes.",
        epilog="ratio: DDP's median time over ours; above 1, ours is faster. of means: the same of whole runs, "
        "with steps that stall. scaling: our examples a second over those of as many single workers. The exit "
        "status is 1 if a process failed or the sides did not train the same.",
    )
    parser.add_argument("--quick", action="store_true", help="one short round, and DDP in one way: a first look")
    parser.add_argument("--only", metavar="NAME[,NAME]", help="only these rows")
    parser.add_argument(
        "--transports", action="store_true", help="the table of transports, instead of the rows: about 2 minutes"
    )
    parser.add_argument("--list", action="store_true", help="list the names of the rows, and stop")
    parser.add_argument("--repeats", type=int, metavar="N", help="rounds, each a run of every side (3, with --quick 1)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything measured there")
    return parser


def select(names: str | None) -> tuple[str, ...]:
    """The rows of these names, separated by commas, in the order of the report; all of them if None.

    Raises:
        ValueError: a name there is not.
    """
    if names is None:
        return tuple(TITLES)
    wanted = {name.strip() for name in names.split(",")}
    unknown = wanted - set(TITLES)
    if unknown:
        raise ValueError(f"no row is named {', '.join(sorted(unknown))}; --list lists them")
    return tuple(name for name in TITLES if name in wanted)


# ---- Measuring ----


def shortened(work: Work, effort: Effort) -> Work:
    """The work with as many steps as the effort allows."""
    return replace(work, steps=max(10, round(work.steps * effort.share)))


@dataclass(slots=True)
class Runs:
    """What there is of a work so far."""

    ours: list[StepTimes] = field(default_factory=list)
    single: list[StepTimes] = field(default_factory=list)
    ddp: dict[Variant, list[StepTimes]] = field(default_factory=dict)


def measure(work: Work, effort: Effort) -> Row:
    """The row of a work."""
    runs = Runs()
    ways = (variants.ALL if effort.all_variants else variants.QUICK)[work.network]
    try:
        for _ in range(effort.rounds):
            for variant in ways:
                runs.ddp.setdefault(variant, []).append(run_ddp(work, variant))
            runs.ours.append(run_chainrule(work, workers=work.workers))
            if work.scaling_goal is not None:
                runs.single.append(run_chainrule(work, workers=1))
    except RunError as error:
        problem = str(error)
        row = Row(work, problems=(problem,))
    else:
        row = gather(work, ours=_side(runs.ours), single=_side(runs.single), ddp=_sides(runs.ddp))
    return announced(row)


def announced(found: Measured) -> Measured:
    """What was found, once that has been said."""
    print(f"  {found.summary}", file=sys.stderr, flush=True)
    return found


def _side(runs: list[StepTimes]) -> Side | None:
    return Side(tuple(runs)) if runs else None


def _sides(runs: dict[Variant, list[StepTimes]]) -> dict[Any, Side]:
    return {variant: Side(tuple(times)) for variant, times in runs.items()}


if __name__ == "__main__":
    sys.exit(main())
