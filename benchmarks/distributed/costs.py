"""What should cost little, measured: killed processes and checkpoints while a ResNet-18 is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.distributed.checkpoints import cost
from benchmarks.distributed.limits import Limited
from benchmarks.distributed.orders import Order
from benchmarks.distributed.recovery import loss
from benchmarks.distributed.sides import RunError, run_order
from benchmarks.distributed.works import WORKS

RESNET = WORKS[0]
KILL_AFTER_STEPS = 60
STEPS_AFTER_KILL = 120
"""Long enough for the pace of before: about 12 s."""
CHECKPOINT_STEPS = 25
"""Steps from one checkpoint to the next where one is needed: the parameter server begins again from there."""
COST_STEPS = 50
"""Steps from one checkpoint to the next where their cost is measured: about 5 s."""
PERIODS = 5
"""How many of those are measured in a round."""


@dataclass(frozen=True, slots=True)
class Costly:
    """Something that has a limit."""

    name: str
    """What `--only` takes."""
    title: str
    """What the table says."""
    unit: str
    """Of the limit."""
    limit: float
    """What the median should be at most."""
    measure: Callable[[], tuple[float, str]]
    """The value of one round, and what else there is to say of it. Raises RunError, ValueError."""

    def run(self, rounds: int) -> Limited:
        """What so many rounds found."""
        found: list[tuple[float, str]] = []
        problem = ""
        try:
            found.extend(self.measure() for _ in range(rounds))  # what was measured before a failure is kept
        except (RunError, ValueError) as error:
            problem = str(error)
        return Limited(
            self.name,
            self.title,
            self.unit,
            self.limit,
            values=tuple(value for value, _ in found),
            details=tuple(detail for _, detail in found),
            problem=problem,
        )


def after_kill(killed: str) -> tuple[float, str]:
    """Seconds of progress that a kill of this part costs, but for those of steps that are computed again."""
    work = replace(RESNET, steps=KILL_AFTER_STEPS + STEPS_AFTER_KILL - RESNET.warmup_steps)
    every = CHECKPOINT_STEPS if killed == "partition" else 0
    order = Order(workers=work.workers, checkpoint_every_steps=every, kill=killed, kill_after_steps=KILL_AFTER_STEPS)
    found = run_order(work, order)
    done = list(zip(found["steps"], found["times_s"], strict=True))
    lost = loss(done, found["kill_s"], warmup_steps=work.warmup_steps)
    detail = f"the next step after {lost.resumed_s:.2f} s, steps of {lost.step_s * 1e3:.0f} ms"
    if killed == "partition":
        detail += f", {lost.recomputed_s:.2f} s for {round(lost.recomputed_s / lost.step_s)} steps computed again"
    return lost.beyond_recomputing_s, detail


def of_checkpoints() -> tuple[float, str]:
    """Percent of the time of the steps that checkpoints cost."""
    work = replace(RESNET, steps=COST_STEPS * (PERIODS + 1) - RESNET.warmup_steps)
    found = run_order(work, Order(workers=work.workers, checkpoint_every_steps=COST_STEPS))
    paid = cost(found["times_s"], COST_STEPS)
    detail = f"{paid.checkpoint_ms:.0f} ms for one every {COST_STEPS} steps of {paid.step_ms:.0f} ms"
    return paid.share * 100, detail


COSTS = (
    Costly("worker-kill", "a killed worker: progress lost", "s", 3.0, lambda: after_kill("worker")),
    Costly(
        "server-kill",
        "a killed parameter server: progress lost but for steps computed again",
        "s",
        10.0,
        lambda: after_kill("partition"),
    ),
    Costly("checkpoints", "checkpoints: time of the steps", "%", 3.0, of_checkpoints),
)
