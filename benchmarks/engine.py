"""The engine and PyTorch side by side, in time and memory: `python benchmarks/engine.py [--quick] [--only NAMES]`.

Both take the same steps on the same data from the same weights, alternating, each in a fresh process on as many
threads; PyTorch in both memory formats where there are images, of which its better one counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is found

from benchmarks.training.report import Row, Side, disagreements, table
from benchmarks.training.works import WORKS, Order, Work, select

ROOT = Path(__file__).parents[1]
OURS, PYTORCH = "chainrule.engine", "torch"
TORCH_REMEDY = "PyTorch is not installed, and it is what we compare with: pip install torch==2.13.0"
DISTURBING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Settings that make numpy's products slower than they are for users: unset in every process."""


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


FULL = Effort(rounds=3, seconds=3.0, min_steps=5, warmup_s=0.5)
QUICK = Effort(rounds=1, seconds=0.3, min_steps=2, warmup_s=0.05)


class ProcessError(Exception):
    """A process that measures failed; its message is the end of what it wrote."""


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
    if importlib.util.find_spec(PYTORCH) is None:
        parser.error(TORCH_REMEDY)
    effort = QUICK if options.quick else FULL
    if options.repeats is not None:
        effort = Effort(options.repeats, effort.seconds, effort.min_steps, effort.warmup_s)

    machine = describe()
    print("\n".join(f"{name}: {text}" for name, text in machine.items()))
    peaks = {threads: peak(threads) for threads in sorted({work.threads for work in works})}
    for threads, reached in peaks.items():
        print(f"machine peak, numpy float32 products, {threads} thread(s): {reached / 1e9:.0f} GFLOP/s")
    rows = []
    for work in works:
        rows.append(compare(work, effort, peaks[work.threads]))
        print(f"  {progress(rows[-1])}", file=sys.stderr, flush=True)
    print(f"\n{table(rows)}")
    if options.json:
        measured = {"machine": machine, "peak_flops": peaks, "rows": [row.to_json() for row in rows]}
        options.json.write_text(json.dumps(measured, indent=1) + "\n")
    return 1 if any(row.problems for row in rows) else 0


def command_line() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        description="Times training steps of chainrule's engine and of PyTorch, alternating, in fresh processes.",
        epilog="ratio: PyTorch's median time over ours; above 1, ours is faster. fastest: the same of the fastest "
        "steps, which others on the machine disturb least. nhwc: channels_last was PyTorch's better format. GFLOP/s "
        "and of peak are of our convolutions and matrix products over the whole step, against the best of numpy's "
        "float32 products on as many threads. MB is the peak of the whole process, in brackets beyond what it has "
        "after its imports. The exit status is 1 if a process failed or the engines computed different losses.",
    )
    parser.add_argument("--quick", action="store_true", help="under a minute, one round of few steps")
    parser.add_argument("--only", metavar="NAME[,NAME]", help="only these works")
    parser.add_argument("--list", action="store_true", help="list the names of the works, and stop")
    parser.add_argument("--repeats", type=int, metavar="N", help="rounds for each work (3, with --quick 1)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything measured there")
    return parser


def progress(row: Row) -> str:
    """One line on a work that is done."""
    if row.problems or row.unavailable:
        return f"{row.work.name}: {'failed' if row.problems else row.unavailable}"
    return f"{row.work.name}: ratio {row.ratio:.2f}, of the fastest steps {row.fastest_ratio:.2f}"


def describe() -> dict[str, str]:
    """The machine and the settings."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    settings = ", ".join(f"{name}={os.environ[name]}" for name in DISTURBING if name in os.environ)
    return {
        "commit": commit.stdout.strip() or "none",
        "machine": f"{cpu()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "settings": f"{' and '.join(DISTURBING)} unset for both" + (f" (here: {settings})" if settings else ""),
    }


def cpu() -> str:
    """The processor's name, where Linux tells it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


# ---- Measuring ----


def compare(work: Work, effort: Effort, peak_flops: float) -> Row:
    """Rounds of ours and PyTorch's, alternating; a process that fails ends the work, not the run."""
    sides = [(OURS, "contiguous_format"), (PYTORCH, "contiguous_format")]
    if work.has_images:
        sides.append((PYTORCH, "channels_last"))
    measured: dict[tuple[str, str], list[dict[str, Any]]] = {side: [] for side in sides}
    unavailable: str | None = None
    problems: list[str] = []
    for _ in range(effort.rounds):
        for side in list(measured):
            try:
                found = run(order(work, side, effort))
            except ProcessError as error:
                problems.append(f"{side[0]} ({side[1]}): {error}")
                del measured[side]
                continue
            if "unavailable" in found:
                unavailable = found["unavailable"]
                del measured[side]
                continue
            measured[side].append(found)
    done = [Side(engine, form, tuple(processes)) for (engine, form), processes in measured.items()]
    problems += disagreements(work, done)
    ours = next((side for side in done if side.engine == OURS), None)
    theirs = tuple(side for side in done if side.engine == PYTORCH)
    return Row(work, ours, theirs, peak_flops, unavailable, tuple(problems))


def order(work: Work, side: tuple[str, str], effort: Effort) -> Order:
    """What a process is to measure."""
    return Order(
        engine=side[0],
        memory_format=side[1],
        work=work,
        warmup_s=effort.warmup_s,
        seconds=effort.seconds,
        min_steps=effort.min_steps,
    )


def peak(threads: int) -> float:
    """The floating-point operations a second that numpy reaches on so many threads."""
    anything = Work(name="peak", title="peak", network="peak", batch=1, shape=(), threads=threads)
    return float(run(Order(engine="numpy", work=anything, seconds=0.5))["flops"])


def run(order: Order) -> dict[str, Any]:
    """What a fresh process measures.

    Raises:
        ProcessError: it failed.
    """
    environment = {name: value for name, value in os.environ.items() if name not in DISTURBING}
    threads = str(order.work.threads)
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "engine")))
    command = [sys.executable, "-m", "benchmarks.training.process", order.to_json()]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-3:]
        raise ProcessError(" | ".join(last) or f"exit status {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    sys.exit(main())
