"""Both sides, run in fresh processes: `run_chainrule` and `run_ddp`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.distributed import data
from benchmarks.distributed.orders import Order
from benchmarks.distributed.times import StepTimes, mean_losses
from benchmarks.distributed.variants import Variant
from benchmarks.distributed.works import Work
from benchmarks.single.host import ROOT, environment

TIME_LIMIT_S = 600.0
"""How long one run may take."""


class RunError(Exception):
    """A run failed; the text is the end of what it complained of."""


def run_ddp(work: Work, variant: Variant) -> StepTimes:
    """PyTorch's DDP on this machine, a process for each worker. Raises RunError."""
    with tempfile.TemporaryDirectory() as folder:
        store, batches = Path(folder, "store"), Path(folder, "batches.npz")
        inputs, targets = data.examples(work)
        np.savez(batches, inputs=inputs, targets=targets, shards=data.shards(work))
        arguments = [str(store), str(batches), work.to_json(), variant.to_json()]
        commands = [["benchmarks.distributed.ddp", str(rank), *arguments] for rank in range(work.workers)]
        found = run_all(commands, {"GLOO_SOCKET_IFNAME": "lo"})
    return StepTimes(
        batch=work.batch,
        warmup_steps=work.warmup_steps,
        times_s=tuple(found[0]["times_s"]),
        losses=mean_losses([process["losses"] for process in found]),
        parameters=found[0]["parameters"],
        description=found[0]["description"],
    )


def run_chainrule(work: Work, *, workers: int) -> StepTimes:
    """Our training on this machine, on so many workers, which share the batch in as many shards as the work says.
    Raises RunError."""
    found = run_order(work, Order(workers=workers))
    return StepTimes(
        batch=work.batch,
        warmup_steps=work.warmup_steps,
        times_s=tuple(found["times_s"]),
        losses=tuple(found["losses"]),
        parameters=found["parameters"],
        description=found["description"],
    )


def run_order(work: Work, order: Order) -> dict[str, Any]:
    """What `ours.measure` measures of our training. Raises RunError."""
    [found] = run_all([["benchmarks.distributed.ours", work.to_json(), order.to_json()]], {})
    return found


def run_all(commands: Sequence[Sequence[str]], variables: dict[str, str]) -> list[dict[str, Any]]:
    """What these modules answer, each in a process of its own on one thread, all at the same time. Raises RunError."""
    with tempfile.TemporaryFile("w+") as complaints:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env=environment(1) | variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
            )
            for command in commands
        ]
        try:
            answers = [process.communicate(timeout=TIME_LIMIT_S)[0] for process in processes]
        except subprocess.TimeoutExpired as error:
            raise RunError(f"{commands[0][0]} took more than {TIME_LIMIT_S:g} s") from error
        finally:
            for process in processes:
                process.kill()  # one that has failed would leave the others waiting for it
                process.wait()
        if any(process.returncode for process in processes):
            complaints.seek(0)
            words = [line.strip() for line in complaints.read().splitlines() if line.strip()]
            raise RunError(" | ".join(words[-3:]) or f"{commands[0][0]} ended without a complaint")
    return [json.loads(answer.splitlines()[-1]) for answer in answers]
