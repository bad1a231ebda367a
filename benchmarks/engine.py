"""The engine and PyTorch side by side, in time and memory: `python benchmarks/engine.py [--quick] [--only NAMES]`.

Both take the same steps on the same data from the same weights, alternating, each in a fresh process on as many
threads; PyTorch in both memory formats where there are images, of which its better one counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is found

from benchmarks.machine import describe
from benchmarks.single.host import Hosts
from benchmarks.single.report import OURS, PYTORCH, Row, gather, table
from benchmarks.single.works import WORKS, Order, Work, select

TORCH_REMEDY = "PyTorch is not installed, and it is what we compare with: pip install torch==2.13.0"


@dataclass(frozen=True, slots=True)
class Effort:
    """How long a run measures."""

    rounds: int
    """Processes of each engine, for each work and memory format."""
    seconds: float
    """Of timed steps in a process, at least."""
    min_steps: int
    """Timed steps in a process, at least."""
    warmup_s: float
    """Seconds of warming up before, at least."""
    warmup_steps: int
    """Steps of warming up, at least."""
    both_formats: bool
    """Whether PyTorch also takes NCHW images, rather than channels_last alone, nearly always its better one."""


FULL = Effort(rounds=3, seconds=3.0, min_steps=5, warmup_s=0.5, warmup_steps=3, both_formats=True)
QUICK = Effort(rounds=1, seconds=0.3, min_steps=1, warmup_s=0.1, warmup_steps=1, both_formats=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; the exit status: 0, or 1 if anything failed."""
    parser = command_line()
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(f"{work.name:18} {work.title}, {work.threads} thread(s), {work.dtype}" for work in WORKS))
        return 0
    try:
        works = select(options.only)
    except ValueError as error:
        parser.error(str(error))
    if options.repeats is not None and options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}; there has to be at least 1 round")
    if options.json and not options.json.parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}; make it first")
    if importlib.util.find_spec(PYTORCH) is None:
        parser.error(TORCH_REMEDY)
    effort = QUICK if options.quick else FULL
    if options.repeats is not None:
        effort = replace(effort, rounds=options.repeats)

    machine = describe("engine")
    print("\n".join(f"{name}: {text}" for name, text in machine.items()))
    peaks = measure_peaks(works)
    rows = measure(works, effort, fork=options.quick)
    if not options.quick:
        again = measure_peaks(works)  # the better of two, as others on the machine may have disturbed one
        peaks = {threads: max(reached, again[threads]) for threads, reached in peaks.items()}
    rows = [replace(row, peak_flops=peaks[row.work.threads]) for row in rows]
    print(f"\n{table(rows)}")
    if options.json:
        measured = {"machine": machine, "peak_flops": peaks, "rows": [row.to_json() for row in rows]}
        options.json.write_text(json.dumps(measured, indent=1) + "\n")
    return 1 if any(row.problems for row in rows) else 0


def measure_peaks(works: Sequence[Work]) -> dict[int, float]:
    """For each number of threads, the floating-point operations a second that numpy reaches."""
    peaks = {}
    for threads in sorted({work.threads for work in works}):
        found = Hosts(fork=False).measure(peak_order(threads))
        if "problem" in found:
            raise SystemExit(f"measuring the machine's peak failed: {found['problem']}")
        peaks[threads] = float(found["flops"])
        print(f"peak of numpy's float32 products, {threads} thread(s): {peaks[threads] / 1e9:.0f} GFLOP/s")
    return peaks


def measure(works: Sequence[Work], effort: Effort, *, fork: bool) -> list[Row]:
    """The rows, without the machine's peak; each is announced once it is there."""
    rows = []
    with Hosts(fork=fork) as hosts:
        for work in works:
            orders = orders_of(work, effort)
            rows.append(gather(work, orders, [hosts.measure(order) for order in orders]))
            print(f"  {rows[-1].summary}", file=sys.stderr, flush=True)
    return rows


def command_line() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        description="Times training steps of chainrule's engine and of PyTorch, alternating, in fresh processes.",
        epilog="ratio: PyTorch's median time over ours; above 1, ours is faster. fastest: the same of the fastest "
        "steps, which others on the machine disturb least. nhwc: channels_last was PyTorch's better format. GFLOP/s "
        "and of peak are of our convolutions and matrix products over the whole step, against the best of numpy's "
        "float32 products on as many threads. MB is the peak of the whole process, in brackets beyond what it has "
        "after its imports; with --quick a little less, but where memory has a goal. The exit status is 1 if a process "
        "failed or the engines computed different losses.",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="under a minute: one round of few steps, in forks of processes that have imported, PyTorch with "
        "channels_last images alone",
    )
    parser.add_argument("--only", metavar="NAME[,NAME]", help="only these works")
    parser.add_argument("--list", action="store_true", help="list the names of the works, and stop")
    parser.add_argument(
        "--repeats",
        type=int,
        metavar="N",
        help="rounds, each a process of ours and of PyTorch's for every format (3, with --quick 1)",
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything measured there")
    return parser


# ---- Measuring ----


def orders_of(work: Work, effort: Effort) -> list[Order]:
    """What is measured for a work, in turn: rounds of ours and PyTorch's."""
    sides = [(OURS, "contiguous_format")]
    if effort.both_formats or not work.has_images:
        sides.append((PYTORCH, "contiguous_format"))
    if work.has_images:
        sides.append((PYTORCH, "channels_last"))
    made = [
        Order(
            engine=engine,
            memory_format=memory_format,
            work=work,
            warmup_steps=effort.warmup_steps,
            warmup_s=effort.warmup_s,
            seconds=effort.seconds,
            min_steps=effort.min_steps,
        )
        for engine, memory_format in sides
    ]
    return made * effort.rounds


def peak_order(threads: int) -> Order:
    """The machine's peak on so many threads."""
    anything = Work(name="peak", title="the machine's peak", network="peak", batch=1, shape=(), threads=threads)
    return Order(engine="numpy", work=anything, seconds=0.3)


if __name__ == "__main__":
    sys.exit(main())
