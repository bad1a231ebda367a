"""One job run to its end on fakes, as the tests of `JobRun` share it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from chainrule.server.records import Job
from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.errors import LostPartError
from chainrule.server.training.events import Finished, Started
from tests.server.jobs.service_parts import (
    CONFIG,
    FINGERPRINT,
    STEPS_PER_EPOCH,
    Course,
    FakeLauncher,
    Item,
    Parts,
    steps,
)

TOTAL = 3 * STEPS_PER_EPOCH


async def run_job(folder: Path, launcher: FakeLauncher, **config: Any) -> Job:
    parts = Parts(folder, launcher)
    try:
        name = parts.prepared(replace(CONFIG, **config))
        await parts.make_run(name).run()
        return parts.store.get_job(name)
    finally:
        parts.store.close()


def states(job: Job) -> list[str]:
    return [change.state.value for change in job.history]


def damaging(folder: Path, course: Course) -> Course:
    """A course after which the last byte of the latest checkpoint's state is another."""

    def damaged(spec: AttemptSpec) -> Iterator[Item]:
        for item in course(spec):
            if isinstance(item, Finished | Exception):
                flip_last_byte(folder, spec.job)
            yield item

    return damaged


def flip_last_byte(folder: Path, job: str) -> None:
    parts = Parts(folder, FakeLauncher())
    path = parts.blobs.path(parts.store.checkpoints(job)[0].state_digest)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    parts.store.close()


def lost_in_the_last_epoch(spec: AttemptSpec) -> Iterator[Item]:
    yield Started(spec.workers, FINGERPRINT)
    yield from steps(spec, 1, 2 * STEPS_PER_EPOCH)
    yield LostPartError("killed")
