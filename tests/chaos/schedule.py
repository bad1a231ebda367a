"""Schedules of kills, halts, pauses and changes of size, drawn from a seed; and jobs that run under them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

from chainrule.server.training.events import Failed, Finished, Paused
from tests.chaos.jobs import RECIPE, SLOW, Job, assert_same_bits, cnn, disturbed, gpt, validated, with_config
from tests.server.training.runs import Run

LEASE_S = 1.0
BLINK_S = 0.3
"""How long a process is halted that is to go on within its lease."""
WEIGHTS = {
    "kill worker": 9,
    "kill partition": 4,
    "kill all workers": 2,
    "kill everything": 1,
    "halt worker": 1,
    "halt partition": 1,
    "blink worker": 2,
    "scale": 2,
    "pause": 2,
}
Kind = Literal[
    "kill worker",
    "kill partition",
    "kill all workers",
    "kill everything",
    "halt worker",
    "halt partition",
    "blink worker",
    "scale",
    "pause",
]


JOBS: dict[str, Callable[[], Job]] = {
    "small_cnn": lambda: cnn(epochs=16),
    "validated": lambda: with_config(validated(restore_best=True), epochs=16),
    "clipped": lambda: cnn(epochs=16, clip_norm=0.5),
    "recipe": lambda: with_config(validated(RECIPE, restore_best=True), epochs=30),
    "frozen": lambda: cnn(epochs=16, trainable=("fc.*",)),
    "gpt": lambda: with_config(gpt(), epochs=20),
}
"""Of 60 to 80 steps."""


@dataclass(frozen=True)
class Action:
    """Something that is done to a running job."""

    kind: Kind
    which: int
    """Of the processes that are there, counted round and round; or the number of workers to scale to."""
    after_s: float
    """When, since the one before or since the progress that it waited for."""
    waits: bool
    """Whether it waits for progress first; else it comes while the job recovers, if the one before was a kill."""


@dataclass(frozen=True)
class Round:
    """A job and what is done to it: a function of seed and number."""

    seed: int
    number: int
    model: str
    workers: int
    partitions: int
    links: str
    audit_fraction: float
    checkpoint_every_steps: int
    actions: tuple[Action, ...]

    @property
    def job(self) -> Job:
        return with_config(
            JOBS[self.model](),
            partitions=self.partitions,
            audit_fraction=self.audit_fraction,
            checkpoint_every_steps=self.checkpoint_every_steps,
        )

    @property
    def expected(self) -> Job:
        """The same job without what cannot change its bits."""
        return with_config(self.job, partitions=0, audit_fraction=0.0, checkpoint_every_steps=0)


def make_round(seed: int, number: int, *, actions: int = 12) -> Round:
    """Round `number` of a seed."""
    draw = random.Random(f"{seed}/{number}")
    return Round(
        seed=seed,
        number=number,
        model=draw.choice(list(JOBS)),
        workers=draw.randint(1, 4),
        partitions=draw.choice((1, 1, 3)),
        links=draw.choice(("memory", "memory", "tls")),
        audit_fraction=draw.choice((0.0, 0.0, 0.3)),
        checkpoint_every_steps=draw.choice((2, 7, 0)),
        actions=tuple(
            Action(
                kind=draw.choices(list(WEIGHTS), list(WEIGHTS.values()))[0],  # type: ignore[arg-type]
                which=draw.randrange(1, 5),
                after_s=round(draw.uniform(0.0, 0.4), 3),
                waits=draw.random() < 0.8,
            )
            for _ in range(actions)
        ),
    )


@dataclass
class Tally:
    """What was done."""

    kills: int = 0
    done: list[str] = field(default_factory=list)


async def play(of: Round) -> Tally:
    """Run a round's job under its schedule. Raises AssertionError if it comes to other bits than without faults."""
    tally = Tally()

    async def meddle(found: Run) -> None:
        for action in of.actions:
            if action.waits:
                await found.until(partial(has_progressed, found, len(found.steps)))
            await asyncio.sleep(action.after_s)
            if is_over(found):
                return
            await act(action, found, tally)

    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        found = await disturbed(
            of.job,
            Path(folder),
            SLOW,
            workers=of.workers,
            meddle=meddle,
            links=of.links,
            lease_s=LEASE_S,
            timeout_s=180.0,
        )
    await assert_same_bits(found, of.expected)
    return tally


def has_progressed(found: Run, steps: int) -> bool:
    """Whether more steps than these were done, or the job has ended."""
    return is_over(found) or len(found.steps) > steps


def is_over(found: Run) -> bool:
    """Whether the job has come to its end."""
    return bool(found.events) and (
        isinstance(found.last, Finished) or (isinstance(found.last, Failed) and not found.last.lost)
    )


async def act(action: Action, found: Run, tally: Tally) -> None:
    """Do it to the processes that are there now."""
    workers, partitions = list(found.placement.workers.values()), list(found.placement.partitions.values())
    victims: Sequence[BaseProcess] = ()
    match action.kind:
        case "kill worker" | "halt worker" | "blink worker" if workers:
            victims = [workers[action.which % len(workers)]]
        case "kill partition" | "halt partition" if partitions:
            victims = [partitions[action.which % len(partitions)]]
        case "kill all workers":
            victims = workers
        case "kill everything":
            victims = [*workers, *partitions]
        case "scale":
            await found.coordinator.scale(action.which)
        case "pause" if not isinstance(found.last, Paused):
            await found.coordinator.pause()
    how = signal.SIGKILL if action.kind.startswith("kill") else signal.SIGSTOP
    sent = [victim for victim in victims if send(victim, how)]
    tally.kills += len(sent) if how is signal.SIGKILL else 0
    tally.done.append(f"{action.kind}: {len(sent)} processes" if victims else action.kind)
    if action.kind == "blink worker":
        await asyncio.sleep(BLINK_S)
        for victim in sent:
            send(victim, signal.SIGCONT)


def send(process: BaseProcess, what: signal.Signals) -> bool:
    """Send a signal to a process, unless it has ended."""
    if process.pid is None or process.exitcode is not None:
        return False
    os.kill(process.pid, what)
    return True
