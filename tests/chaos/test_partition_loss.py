"""Partitions of the parameter server that die or halt: all begin again at the last checkpoint, and come to the same
bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.jobs import RECIPE, SLOW, assert_same_bits, cnn, disturbed, fault, validated
from tests.server.training.runs import Run


@pytest.mark.parametrize(
    ("point", "partitions"),
    [
        ("partition.push", 1),
        ("partition.update", 1),
        ("partition.updated", 1),
        ("partition.update", 3),
        pytest.param("partition.push", 3, marks=pytest.mark.whole),
        pytest.param("partition.updated", 3, marks=pytest.mark.whole),
    ],
)
async def test_a_partition_killed_before_during_and_after_an_update(
    point: str, partitions: int, tmp_path: Path
) -> None:
    job = cnn(partitions=partitions)
    kill = fault(point, "kill", index=partitions - 1, step=8)
    found = await disturbed(job, tmp_path, kill, workers=2)
    await assert_same_bits(found, job)
    assert found.attempts == 1
    assert found.incidents_of("recovery")[0].startswith(f"parameter server {partitions - 1} ")


async def test_a_partition_killed_under_the_whole_recipe(tmp_path: Path) -> None:
    """The average of the weights comes back from the checkpoint too, and what is evaluated with it."""
    job = validated({**RECIPE, "clip_norm": 0.0, "partitions": 2})
    kill = fault("partition.update", "kill", index=1, step=6)
    found = await disturbed(job, tmp_path, kill, workers=2)
    await assert_same_bits(found, job)
    assert found.incidents_of("recovery")[0].startswith("parameter server 1 ")


async def test_what_was_lost_is_said_with_the_steps_that_are_computed_again(tmp_path: Path) -> None:
    job = cnn(epochs=4)
    found = await disturbed(job, tmp_path, SLOW, fault("partition.push", "kill", index=0, step=15), workers=2)
    await assert_same_bits(found, job)
    [message] = found.incidents_of("recovery")
    assert "; back from step 1" in message
    assert len(found.steps) > len(set(found.steps))


async def test_all_partitions_and_all_workers_killed_at_once(tmp_path: Path) -> None:
    job = cnn(epochs=4, partitions=3)

    async def kill(found: Run) -> None:
        await found.until_step(8)
        for process in [*found.placement.partitions.values(), *found.placement.workers.values()]:
            process.kill()

    found = await disturbed(job, tmp_path, SLOW, workers=2, meddle=kill)
    await assert_same_bits(found, job)


@pytest.mark.whole
async def test_a_partition_killed_while_the_others_begin_again(tmp_path: Path) -> None:
    """The second set of partitions loses one before the workers are linked to it, and another in its first step."""
    job = cnn(epochs=4, partitions=3)
    kills = [fault("partition.push", "kill", index=index, step=step) for index, step in ((2, 8), (1, 7), (0, 7))]

    async def kill(found: Run) -> None:
        await found.until_step(5)
        first = found.placement.partitions[1]
        await found.until(lambda: found.workers == 0)
        while found.placement.partitions.get(1) in (None, first):
            await found.news()
        found.placement.partitions[1].kill()

    found = await disturbed(job, tmp_path, SLOW, *kills, workers=2, meddle=kill)
    await assert_same_bits(found, job)


@pytest.mark.parametrize("links", ["memory", pytest.param("tls", marks=pytest.mark.whole)])
async def test_a_partition_halted_past_its_lease_is_replaced(links: str, tmp_path: Path) -> None:
    job = cnn()
    halt = fault("partition.push", "stop", step=7)
    found = await disturbed(job, tmp_path, halt, workers=2, lease_s=1.0, links=links)
    await assert_same_bits(found, job)
    assert "parameter server 0 gave no sign of life for 1 s" in found.incidents_of("recovery")[0]


@pytest.mark.whole
async def test_partitions_killed_over_and_over_do_not_end_a_job_that_makes_progress(tmp_path: Path) -> None:
    job = cnn(epochs=4)
    kills = [fault("partition.updated", "kill", step=step) for step in range(2, 20, 3)]
    found = await disturbed(job, tmp_path, *kills, workers=2)
    await assert_same_bits(found, job)
    assert len(found.incidents_of("recovery")) == len(kills)
