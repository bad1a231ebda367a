"""A job that is paused within an epoch goes on at the exact example, in other processes and with another fence."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from chainrule.server.training.events import CheckpointTaken, Paused
from tests.chaos.jobs import SLOW, assert_same_bits, cnn, disturbed, gpt, validated
from tests.server.training.runs import Run


@pytest.mark.parametrize(
    ("partitions", "links"),
    [
        (3, "memory"),
        pytest.param(1, "memory", marks=pytest.mark.whole),
        pytest.param(1, "tls", marks=pytest.mark.whole),
    ],
)
async def test_paused_within_an_epoch_and_resumed(partitions: int, links: str, tmp_path: Path) -> None:
    job = cnn(epochs=4, partitions=partitions, checkpoint_every_steps=0)

    async def pause(found: Run) -> None:
        await found.until_step(7)
        await found.coordinator.pause()

    found = await disturbed(job, tmp_path, SLOW, workers=2, meddle=pause, links=links)
    await assert_same_bits(found, job)
    assert found.attempts == 2
    place = next(place for place, event in enumerate(found.events) if isinstance(event, Paused))
    taken = [event.step for event in found.events[:place] if isinstance(event, CheckpointTaken)]
    assert taken[-1] % job.plan.steps_per_epoch != 0 or taken[-1] >= 7
    assert found.steps == sorted(set(found.steps))  # none is computed twice


@pytest.mark.parametrize("kind", [pytest.param("validated", marks=pytest.mark.whole), "gpt"])
async def test_paused_over_and_over(kind: str, tmp_path: Path) -> None:
    job = validated() if kind == "validated" else gpt()

    async def pause(found: Run) -> None:
        for attempt, step in ((0, 1), (1, 2), (2, 4)):
            await found.until(partial(has_reached, found, attempt, step))
            await found.coordinator.pause()

    found = await disturbed(job, tmp_path, SLOW, workers=2, meddle=pause)
    await assert_same_bits(found, job)
    assert found.attempts == 4


def has_reached(found: Run, attempt: int, step: int) -> bool:
    return found.attempts == attempt and step in found.steps


async def test_paused_before_anything_has_begun(tmp_path: Path) -> None:
    job = cnn()

    async def pause(found: Run) -> None:
        await found.coordinator.pause()

    found = await disturbed(job, tmp_path, meddle=pause, together=False)
    await assert_same_bits(found, job)
    assert found.attempts == 2
    assert found.steps[0] == 1


async def test_paused_while_the_partitions_begin_again(tmp_path: Path) -> None:
    job = cnn(epochs=4)

    async def pause(found: Run) -> None:
        await found.until_step(7)
        found.placement.partitions[0].kill()
        await found.until(lambda: found.workers == 0)
        await found.coordinator.pause()

    found = await disturbed(job, tmp_path, SLOW, workers=2, meddle=pause)
    await assert_same_bits(found, job)
    assert found.attempts == 2
