"""Workers that die, halt or dawdle: others compute their shards, and the bits stay what they are."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.events import WorkersChanged
from chainrule.server.training.local import LocalPlacement
from tests.chaos.jobs import RECIPE, SLOW, assert_same_bits, cnn, disturbed, fault, gpt, validated
from tests.server.training.runs import Run

HEAD = 0xFFFF


@pytest.mark.parametrize("point", ["worker.compute", "worker.push", "worker.pushed"])
async def test_a_worker_killed_before_during_and_after_a_push(point: str, tmp_path: Path) -> None:
    job = cnn()
    found = await disturbed(job, tmp_path, fault(point, "kill", lease=2, step=4), workers=3)
    await assert_same_bits(found, job)
    assert found.attempts == 1
    [cause] = found.incidents_of("recovery")
    assert cause.startswith("worker 2 on this machine")
    assert cause.endswith("its shards went to the others")


async def test_a_worker_killed_under_the_whole_recipe(tmp_path: Path) -> None:
    job = validated(RECIPE)
    found = await disturbed(job, tmp_path, fault("worker.push", "kill", lease=2, step=4), workers=3)
    await assert_same_bits(found, job)
    assert len(found.incidents_of("recovery")) == 1


@pytest.mark.parametrize("part", [HEAD, 0])
async def test_a_worker_killed_between_the_parts_of_a_push(part: int, tmp_path: Path) -> None:
    """With three partitions, some parts are with theirs and some are not."""
    job = cnn(partitions=3)
    found = await disturbed(job, tmp_path, fault("worker.push", "kill", lease=1, step=5, part=part), workers=2)
    await assert_same_bits(found, job)
    assert len(found.incidents_of("recovery")) == 1


async def test_the_only_worker_killed(tmp_path: Path) -> None:
    job = cnn()
    found = await disturbed(job, tmp_path, fault("worker.compute", "kill", step=4))
    await assert_same_bits(found, job)
    assert [event.workers for event in found.of(WorkersChanged)] == [0, 1]


async def test_all_workers_killed_at_once(tmp_path: Path) -> None:
    job = cnn(epochs=8)

    async def kill_all(found: Run) -> None:
        await found.until_step(10)
        for process in list(found.placement.workers.values()):
            process.kill()

    found = await disturbed(job, tmp_path, SLOW, workers=4, meddle=kill_all)
    await assert_same_bits(found, job)
    assert min(event.workers for event in found.of(WorkersChanged)) == 0
    assert len(found.incidents_of("recovery")) == 4


async def test_a_job_waits_below_its_fewest_workers_and_goes_on_above(tmp_path: Path) -> None:
    job = cnn(min_workers=2)
    found = await disturbed(job, tmp_path, fault("worker.compute", "kill", lease=1, step=5), workers=2)
    await assert_same_bits(found, job)
    assert [event.workers for event in found.of(WorkersChanged)] == [1, 2]


async def test_losing_workers_over_and_over_does_not_end_a_job_that_makes_progress(tmp_path: Path) -> None:
    """Each of them computes two steps and dies."""
    job = cnn()
    kills = [fault("worker.compute", "kill", lease=lease, step=2 * lease) for lease in range(1, 5)]
    found = await disturbed(job, tmp_path, *kills)
    await assert_same_bits(found, job)
    assert len(found.incidents_of("recovery")) == 4
    assert found.steps == sorted(set(found.steps))


async def test_a_killed_worker_of_a_gpt(tmp_path: Path) -> None:
    job = gpt()
    found = await disturbed(job, tmp_path, fault("worker.push", "kill", lease=2, step=3), workers=3)
    await assert_same_bits(found, job)


# --- halted ----------------------------------------------------------------------------------------------------


async def test_a_worker_halted_past_its_lease_is_replaced(tmp_path: Path) -> None:
    job = cnn()
    halt = fault("worker.compute", "stop", lease=2, step=4)
    found = await disturbed(job, tmp_path, halt, workers=2, lease_s=1.0)
    await assert_same_bits(found, job)
    assert "gave no sign of life for 1 s" in found.incidents_of("recovery")[0]


class Unreachable(LocalPlacement):
    """Cannot end a worker, as where the network between two machines is cut."""

    def __init__(self, spec: AttemptSpec, **options: object) -> None:
        super().__init__(spec, **options)  # type: ignore[arg-type]
        self._given_up: list[int] = []

    async def end_worker(self, lease: int) -> None:
        self._given_up.append(lease)


@pytest.mark.parametrize(
    ("point", "links"),
    [
        ("worker.push", "memory"),
        pytest.param("worker.compute", "memory", marks=pytest.mark.whole),
        pytest.param("worker.push", "tls", marks=pytest.mark.whole),
        pytest.param("worker.compute", "tls", marks=pytest.mark.whole),
    ],
)
async def test_what_a_halted_worker_sends_after_its_lease_is_refused(point: str, links: str, tmp_path: Path) -> None:
    job = cnn(epochs=12)

    async def go_on_later(found: Run) -> None:
        await found.until(lambda: bool(found.incidents_of("recovery")))
        process = found.placement.workers[2]
        assert process.pid is not None
        os.kill(process.pid, signal.SIGCONT)
        await found.until(lambda: process.exitcode is not None)
        assert process.exitcode == 0  # it has seen that it is out

    found = await disturbed(
        job,
        tmp_path,
        SLOW,
        fault(point, "stop", lease=2, step=4),
        workers=2,
        meddle=go_on_later,
        lease_s=1.0,
        links=links,
        placement=Unreachable,
    )
    await assert_same_bits(found, job)
    assert found.incidents_of("corruption") == []


# --- slow ------------------------------------------------------------------------------------------------------


async def test_a_straggler_is_helped_and_named(tmp_path: Path) -> None:
    job = cnn(epochs=4)
    dawdle = fault("worker.compute", "sleep", seconds=3.0, lease=2, step=16)
    found = await disturbed(job, tmp_path, SLOW, dawdle, workers=3)
    await assert_same_bits(found, job)
    assert any(
        message.startswith("worker 2 on this machine is late with shard") and " of step 16:" in message
        for message in found.incidents_of("straggler")
    )
    assert found.incidents_of("corruption") == []


@pytest.mark.whole
async def test_a_worker_that_stays_slow_is_replaced(tmp_path: Path) -> None:
    job = cnn()
    dawdle = fault("worker.compute", "sleep", seconds=2.5, lease=2, often=True)
    found = await disturbed(job, tmp_path, dawdle, workers=2)
    await assert_same_bits(found, job)
    assert any("worker 2 on this machine was late 3 times in a row" in text for text in found.incidents_of("recovery"))


# --- more and fewer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", ["memory", pytest.param("tls", marks=pytest.mark.whole)])
async def test_scaling_from_one_to_four_to_two_within_an_epoch(links: str, tmp_path: Path) -> None:
    job = cnn(epochs=1, batch_size=1, shards=4)  # 50 steps
    steps_at: dict[int, int] = {}

    async def scale(found: Run) -> None:
        await found.until_step(5)
        for workers in (4, 2):
            await found.coordinator.scale(workers)
            await found.until_workers(workers)
            steps_at[workers] = max(found.steps)
            await found.until_step(steps_at[workers] + 1)

    found = await disturbed(job, tmp_path, SLOW, meddle=scale, links=links)
    await assert_same_bits(found, job)
    assert 0 < steps_at[4] < steps_at[2] < 50
    assert found.incidents_of("scaled") == ["from 1 to 4 workers, as asked", "from 4 to 2 workers, as asked"]
    assert found.incidents_of("recovery") == []
