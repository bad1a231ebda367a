"""What reading a large dataset costs a step of ResNet-18: `python benchmarks/input.py [--gigabytes N]`.

The same network is trained by turns, with a worker in a process of its own: on examples that are ready in its memory,
and on a dataset in chunks on the disk, of which each step reads a batch at random places, to be cropped and mirrored.
Prints the ratio of their steps, and the most memory that the worker has taken.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is found

from benchmarks.distributed.orders import Order
from benchmarks.distributed.ours import JOB, Run, initial_state
from benchmarks.machine import describe, load
from chainrule.engine import io
from chainrule.engine.io.chunked import Chunk, Column, Manifest, rows_per_chunk
from chainrule.server.architecture import Builtin
from chainrule.server.blobs import BlobStore
from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.augmentation import Augmentation, RandomCrop, RandomFlip
from chainrule.server.training.chunk_files import ChunkedExamples
from chainrule.server.training.config import Sgd, TrainingConfig
from chainrule.server.training.examples import Examples, ExampleSource
from chainrule.server.training.local import LocalPlacement
from chainrule.server.training.plan import Plan

SIDE = 64
"""Pixels of an image's side."""
CLASSES = 10
BATCH = 32
COLUMNS = (Column("inputs", "uint8", (3, SIDE, SIDE)), Column("targets", "int64", ()))
PREPARED = Augmentation((RandomCrop(SIDE, SIDE, padding=4), RandomFlip()))
GOAL = 1.05


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="What reading a large dataset costs a step of ResNet-18.")
    parser.add_argument("--gigabytes", type=float, default=3.0, help="size of the dataset (default 3)")
    parser.add_argument("--steps", type=int, default=40, help="steps of a round (default 40)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of both sides (default 3)")
    parser.add_argument("--quick", action="store_true", help="0.1 GB, few steps: whether it works")
    options = parser.parse_args()
    if options.quick:
        options.gigabytes, options.steps, options.rounds = 0.1, 6, 1
    print("\n".join(f"{name}: {text}" for name, text in describe("engine", "server").items()), flush=True)
    with tempfile.TemporaryDirectory(prefix="chainrule-bench-") as folder:
        compare(Path(folder), options.gigabytes, options.steps, options.rounds)
    print(f"load at the end: {load()}")


def compare(folder: Path, gigabytes: float, steps: int, rounds: int) -> None:
    """Alternate rounds of both sides, and print what they took."""
    on_disk = write(folder, rows=int(gigabytes * 1e9) // (3 * SIDE * SIDE + 8))
    few = BATCH * steps
    in_memory = Examples(*ready(few))
    print(
        f"dataset: {len(on_disk):,} images of 3 x {SIDE} x {SIDE}, {gigabytes:g} GB in "
        f"{len(on_disk.manifest.chunks)} chunks"
    )
    ratios = []
    for number in range(rounds):
        memory_s, _ = asyncio.run(trained(folder / f"memory{number}", in_memory, few, steps))
        disk_s, peak_mb = asyncio.run(trained(folder / f"disk{number}", on_disk, len(on_disk), steps))
        ratios.append(disk_s / memory_s)
        print(
            f"round {number + 1}: a step takes {1e3 * memory_s:.1f} ms from memory, {1e3 * disk_s:.1f} ms from disk: "
            f"{ratios[-1]:.3f} times as long; the worker's memory reached {peak_mb:,.0f} MB",
            flush=True,
        )
    found = statistics.median(ratios)
    print(f"median: {found:.3f} times as long (goal: at most {GOAL}){'' if found <= GOAL else ' missed'}")


async def trained(folder: Path, examples: ExampleSource, num_examples: int, steps: int) -> tuple[float, float]:
    """Train for so many steps; the median seconds of one, and the worker's peak resident memory in MB."""
    config = TrainingConfig(
        batch_size=BATCH,
        optimizer=Sgd(lr=0.01, momentum=0.9),
        augmentation=Augmentation() if examples.in_memory else PREPARED,
        receipt_every_steps=0,
    )
    plan = Plan(Builtin("resnet18", {"num_classes": CLASSES}), num_examples, 0, config)
    spec = AttemptSpec(JOB, plan, initial_state(plan), examples, None, fence=1, workers=1)
    run = Run(spec, LocalPlacement(spec), Order(workers=1), BlobStore(folder))
    following = asyncio.create_task(run.follow())
    peak_kb = 0
    while len(run.metrics) < steps and not following.done():
        await asyncio.sleep(0.05)
        for process in run.placement.workers.values():
            peak_kb = max(peak_kb, *high_water_kb(process.pid), 0)
    if following.done():
        await following
    else:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    times = [metric.time_s for metric in run.metrics[:steps]]
    return statistics.median(np.diff(times[2:]).tolist()), peak_kb / 1e3


def high_water_kb(pid: int | None) -> Iterator[int]:
    """Most resident memory that a process has had, in kB; nothing if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return
    yield from (int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def write(folder: Path, *, rows: int) -> ChunkedExamples:
    """A dataset in chunks, as the service keeps it."""
    blobs, chunks = BlobStore(folder / "blobs"), []
    size = rows_per_chunk(sum(column.row_bytes for column in COLUMNS))
    began_s = time.perf_counter()
    for start in range(0, rows, size):
        inputs, targets = images(min(size, rows - start), seed=start)
        chunks.append(Chunk(blobs.put(io.save({"inputs": inputs, "targets": targets})), len(inputs)))
    print(f"written in {time.perf_counter() - began_s:.0f} s", flush=True)
    return ChunkedExamples(Manifest(COLUMNS, tuple(chunks)), str(folder / "blobs"))


def ready(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images as the network takes them, and labels."""
    inputs, targets = images(count, seed=0)
    return inputs.astype(np.float32) / np.float32(255), targets


def images(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images and labels."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3, SIDE, SIDE), np.uint8), rng.integers(0, CLASSES, count)


if __name__ == "__main__":
    main()
