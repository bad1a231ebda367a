"""A flipped bit in one worker's gradient: found by audits and by second results, named, and not in the weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.jobs import SLOW, assert_same_bits, cnn, disturbed, fault


@pytest.mark.parametrize(("workers", "partitions"), [(2, 1), (3, 1), (3, 3)])
async def test_an_audit_finds_a_flipped_bit_and_who_it_was(workers: int, partitions: int, tmp_path: Path) -> None:
    job = cnn(audit_fraction=1.0, partitions=partitions)
    flip = fault("worker.push", "flip", lease=2, step=4)
    found = await disturbed(job, tmp_path, flip, workers=workers)
    await assert_same_bits(found, job)
    messages = found.incidents_of("corruption")
    assert "worker 2 on this machine" in messages[0]
    assert " of step 4; it is computed a third time" in messages[0]
    assert messages[1].startswith("worker 2 on this machine computed shard ")
    assert messages[1].endswith(" of step 4 wrong: two other results agree")
    assert found.incidents_of("recovery")[0].startswith("worker 2 on this machine computes wrong")


async def test_an_audit_finds_what_a_single_worker_computes_differently_twice(tmp_path: Path) -> None:
    job = cnn(audit_fraction=1.0)
    found = await disturbed(job, tmp_path, fault("worker.push", "flip", step=4))
    await assert_same_bits(found, job)
    assert found.incidents_of("corruption")


async def test_a_worker_that_is_wrong_every_time_is_put_out_every_time(tmp_path: Path) -> None:
    job = cnn(audit_fraction=1.0)
    flip = fault("worker.push", "flip", lease=1, often=True)
    found = await disturbed(job, tmp_path, flip, workers=3)
    await assert_same_bits(found, job)
    assert all("worker 1 on this machine" in message for message in found.incidents_of("corruption"))


async def test_a_late_result_that_differs_rolls_back_and_is_judged(tmp_path: Path) -> None:
    """The slow worker's result is wrong; the helper's, which was right, is in the weights."""
    job = cnn(epochs=4)
    faults = [
        fault("worker.compute", "sleep", seconds=1.5, lease=2, step=16),
        fault("worker.push", "flip", lease=2, step=16),
    ]
    found = await disturbed(job, tmp_path, SLOW, *faults, workers=2)
    await assert_same_bits(found, job)
    messages = found.incidents_of("corruption")
    assert "which may be in the weights: back to the last checkpoint" in messages[0]
    assert messages[-1].startswith("worker 2 on this machine computed shard")
    assert messages[-1].endswith(" of step 16 wrong: two other results agree")


@pytest.mark.parametrize("checkpoint_every_steps", [1, pytest.param(0, marks=pytest.mark.whole)])
async def test_a_wrong_helper_is_found_and_its_result_does_not_stay(
    checkpoint_every_steps: int, tmp_path: Path
) -> None:
    """The result that came first was wrong and is in the weights; no checkpoint keeps it."""
    job = cnn(epochs=8, shards=1, checkpoint_every_steps=checkpoint_every_steps)
    faults = [
        fault("worker.compute", "sleep", seconds=1.5, lease=1, step=16),
        fault("worker.push", "flip", lease=2, step=16),
    ]
    found = await disturbed(job, tmp_path, SLOW, *faults, workers=2)
    await assert_same_bits(found, job)
    messages = found.incidents_of("corruption")
    assert messages[-1] == "worker 2 on this machine computed shard 0 of step 16 wrong: two other results agree"
