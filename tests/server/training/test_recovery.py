"""What is lost, late or wrong while an attempt runs: how it goes on, and when it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from chainrule.server.training import coordinator, policies
from chainrule.server.training.errors import LinkError, LostPartError, PlacementError
from chainrule.server.training.events import (
    NO_ROOM,
    Failed,
    Incident,
    WorkersChanged,
)
from tests.server.training.bench import LIMIT_S, tiny_plan, until
from tests.server.training.scripted import Clock, Scripted, hangs_up, running, state_at
from tests.server.training.stand_ins import OTHER, FakeLine

pytestmark = pytest.mark.usefixtures("often")

# --- partitions that are lost ----------------------------------------------------------------------------------


def ends(run: Scripted) -> None:
    run.placement.callbacks["partition 0"]("signal 9")


def both(run: Scripted) -> None:
    hangs_up(run)
    ends(run)


@pytest.mark.parametrize(
    ("dies", "cause"),
    [
        (hangs_up, "parameter server 0 is gone"),
        (ends, "parameter server 0 ended: signal 9"),
        (both, "parameter server 0 is gone"),
    ],
)
async def test_all_begin_again_from_the_last_checkpoint(dies: Callable[[Scripted], None], cause: str) -> None:
    async with running(tiny_plan(partitions=2)) as run:
        for index in (0, 1):
            run.snapshot(3, index=index)
        run.progress(4, 5)
        old, before = dict(run.partitions), run.fence
        dies(run)
        await run.asked_for(lives=2)
        assert not any(line.open for line in old.values())
        assert run.placement.ends_of_partitions == 1
        assert [(spec.index, spec.state.step) for spec in run.placement.partitions[2:]] == [(0, 3), (1, 3)]
        assert run.fence > before
        for index in (0, 1):
            run.start_partition(index)
        for lease, line in run.workers.items():
            assert line.last("partitions")["fence"] == run.fence
            run.join(lease)
            assert line.last("assign")["shards"]
        run.progress(4, 5, 6)
        assert await run.incidents("recovery") == [f"{cause}; back from step 5 to 3"]
        changes = [(event.workers, event.enough) for event in run.of(WorkersChanged)]
        assert changes[1:] == [(0, False), (1, True), (2, True)]
        assert run.placement.workers == [1, 2]


async def test_nothing_of_an_old_life_counts() -> None:
    async with running() as run:
        run.progress(1)
        old = run.partitions[0]
        hangs_up(run)
        await run.asked_for(lives=2)
        run.start_partition(0)
        await run.events()
        stray = FakeLine(role="partition", index=0, fence=old.who["fence"])
        for message in ({"type": "failed", "reason": "X", "message": "", "traceback": ""}, {"type": "ready"}):
            run.coordinator.heard(stray, message, memoryview(b""))
            assert not stray.open
        run.coordinator.lost(old)
        run.worker_says(1, type="joined", fence=old.who["fence"])
        assert await run.incidents("recovery") == []
        assert run.workers[1].heard("assign") == 2  # of the first life
        assert len(run.placement.partitions) == 2


async def test_what_a_partition_said_last_counts_although_it_has_ended() -> None:
    """It may be heard after the end of its process is."""
    async with running() as run:
        ends(run)
        run.says(type="failed", reason="NON_FINITE", message="the loss is nan", traceback="")
        assert await run.end() == Failed("NON_FINITE", "the loss is nan", "", lost=False)
        assert len(run.placement.partitions) == 1


async def test_what_a_worker_said_last_counts_although_it_has_ended() -> None:
    async with running(workers=3) as run:
        for lease in (1, 2):
            run.placement.callbacks[f"worker {lease}"]("it returned")
            run.worker_says(lease, type="failed", reason="TRAINING_ERROR", message="shapes", traceback="", tick=0)
        end = await run.end()
        assert isinstance(end, Failed)
        assert end.message == "two workers failed in the same way: shapes"


async def test_without_a_checkpoint_it_begins_where_the_attempt_began() -> None:
    plan = tiny_plan()
    async with running(plan, state=state_at(plan, 2)) as run:
        run.progress(3)
        hangs_up(run)
        await run.asked_for(lives=2)
        assert run.placement.partitions[1].state.digest() == state_at(plan, 2).digest()


async def test_a_partition_without_a_sign_of_life_is_lost() -> None:
    async with running(lease_s=0.05, workers=1) as run:
        await until(lambda: len(run.placement.partitions) == 2)
        run.start_partition(0)
        run.start_worker(max(run.placement.workers))
        run.progress(1)
        assert (await run.incidents("recovery"))[0].startswith("parameter server 0 gave no sign of life for 0.05 s")


async def test_a_partition_that_says_anything_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, looks: list[list[int]]
) -> None:
    clock = Clock(monkeypatch)
    async with running(lease_s=5.0) as run:
        for _ in range(3):
            clock.passes(4.0)
            run.says(type="beat")
            for lease in run.workers:
                run.worker_says(lease, type="beat", tick=-1, working=False)
            before = len(looks)
            await until(lambda before=before: len(looks) > before + 2)  # type: ignore[misc]
        assert run.partitions[0].open
        clock.passes(4.0)
        for lease in run.workers:
            run.worker_says(lease, type="beat", tick=-1, working=False)
        clock.passes(2.0)
        await until(lambda: len(run.placement.partitions) == 2)
        assert not run.partitions[0].open
        assert run.placement.workers == [1, 2]


async def test_a_process_that_was_held_up_blames_nobody(
    monkeypatch: pytest.MonkeyPatch, looks: list[list[int]]
) -> None:
    monkeypatch.setattr(coordinator, "AWAY_S", -1.0)  # every look comes late
    async with running(lease_s=0.01) as run:
        await until(lambda: len(looks) > 60)
        assert not any(looks)
        assert len(run.placement.partitions) == 1


async def test_partitions_that_do_not_start_end_the_attempt_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "START_TIMEOUT_S", 0.05)
    async with running(start=False) as run:
        end = await run.end()
        assert isinstance(end, Failed)
        assert (end.reason, end.lost) == ("PART_LOST", True)
        assert end.message == "the parameter server did not start within 0 s"


async def test_what_fails_in_a_partition_ends_the_attempt() -> None:
    async with running() as run:
        run.says(type="failed", reason="NON_FINITE", message="the loss is nan", traceback="Traceback ...")
        assert await run.end() == Failed("NON_FINITE", "the loss is nan", "Traceback ...", lost=False)


# --- workers that are lost -------------------------------------------------------------------------------------


async def test_a_lost_workers_shards_are_computed_by_the_others_and_the_history_tells() -> None:
    async with running() as run:
        run.progress(1)
        run.coordinator.lost(run.workers[1])
        assert run.partitions[0].last("revoke") == {"lease": 1}
        assert run.workers[2].last("assign")["shards"] == (0, 1, 2, 3)
        await until(lambda: run.placement.workers == [1, 2, 3])
        run.progress(2)
        await run.events()
        [incident] = run.of(Incident)
        assert (incident.kind, incident.step) == ("recovery", 1)
        assert incident.message == "worker 1 on here is gone; its shards went to the others"
        assert incident.seconds_lost > 0
        assert len(run.placement.partitions) == 1


async def test_too_many_losses_without_a_step_end_the_attempt_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "TOGETHER_S", 0.0)
    async with running(workers=1) as run:
        for lease in range(1, policies.MAX_LOSSES + 1):
            run.coordinator.lost(run.workers[lease])
            await until(lambda lease=lease: run.placement.workers[-1] == lease + 1)  # type: ignore[misc]
            run.start_worker(lease + 1)
        assert not run.running.done()
        run.coordinator.lost(run.workers[policies.MAX_LOSSES + 1])
        end = await run.end()
        assert isinstance(end, Failed)
        assert (end.reason, end.lost) == ("PART_LOST", True)
        assert end.message.startswith("11 processes were lost without a step in between; the last: worker 11 on here")


async def test_a_step_in_between_makes_good_for_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "TOGETHER_S", 0.0)
    async with running(tiny_plan(epochs=20), workers=1) as run:
        for lease in range(1, 2 * policies.MAX_LOSSES):
            run.progress(lease)
            run.coordinator.lost(run.workers[lease])
            await until(lambda lease=lease: run.placement.workers[-1] == lease + 1)  # type: ignore[misc]
            run.start_worker(lease + 1)
        assert not run.running.done()


async def test_to_compute_a_step_again_makes_good_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "TOGETHER_S", 0.0)
    async with running() as run:
        for life in range(1, policies.MAX_LOSSES + 2):
            run.progress(1)
            hangs_up(run)
            if life <= policies.MAX_LOSSES:
                await run.asked_for(lives=life + 1)
                run.start_partition(0)
        end = await run.end()
        assert isinstance(end, Failed)
        assert end.reason == "PART_LOST"


async def test_what_is_lost_at_once_is_one_loss() -> None:
    """As when the machine is that all are on."""
    many = policies.MAX_LOSSES + 2
    async with running(tiny_plan(max_workers=many), workers=many) as run:
        for lease in range(1, many + 1):
            run.coordinator.lost(run.workers[lease])
        hangs_up(run)
        await until(lambda: len(run.placement.workers) == 2 * many)
        assert not run.running.done()


async def test_a_refused_worker_is_asked_for_again_after_its_pause(
    monkeypatch: pytest.MonkeyPatch, looks: list[list[int]]
) -> None:
    for pause_s, asked in ((1e6, [1, 2]), (0.0, [1, 2, 3])):
        monkeypatch.setattr(policies, "after_refusal", lambda _, pause_s=pause_s: pause_s)
        async with running(start=False) as run:
            await run.asked_for()
            run.start_partition(0)
            run.start_worker(1)
            refused = FakeLine(role="worker", lease=2)
            ready = {"type": "ready", "node": "there", "fingerprint": OTHER}
            run.coordinator.heard(refused, ready, memoryview(b""))
            await until(lambda run=run, asked=asked: run.placement.workers == asked)  # type: ignore[misc]
            before = len(looks)
            await until(lambda before=before: len(looks) > before + 20)  # type: ignore[misc]
            assert run.placement.workers == asked


async def test_a_worker_that_ends_again_and_again_does_not_go_on_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """However quickly it does."""
    monkeypatch.setattr(coordinator, "TOGETHER_S", 0.05)
    async with running(workers=1, start=False) as run:
        await run.asked_for()
        run.start_partition(0)

        async def end_all() -> None:
            seen = 0
            while not run.running.done():
                for lease in run.placement.workers[seen:]:
                    seen += 1
                    run.placement.callbacks[f"worker {lease}"]("exit code 1")
                await asyncio.sleep(0)

        async with asyncio.timeout(LIMIT_S):
            await end_all()
        end = await run.end()
        assert isinstance(end, Failed)
        assert (end.reason, end.lost) == ("PART_LOST", True)


@pytest.mark.parametrize(
    ("refusal", "reason", "lost"),
    [
        (PlacementError("no room"), NO_ROOM, False),
        (LostPartError("Ray does not answer"), "PART_LOST", True),
        (LinkError("gone"), "PART_LOST", True),
        (RuntimeError("a mistake"), "TRAINING_ERROR", False),
    ],
)
async def test_what_cannot_be_started_ends_the_attempt(refusal: Exception, reason: str, lost: bool) -> None:
    run = Scripted(tiny_plan())
    run.placement.refusal = refusal
    end = await run.end()
    assert isinstance(end, Failed)
    assert (end.reason, end.message, end.lost) == (reason, str(refusal), lost)
    assert type(refusal).__name__ in end.traceback
    assert run.placement.stopped


async def test_a_partition_that_only_gives_signs_of_life_is_missed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(policies, "STUCK_S", 0.05)
    async with running() as run:
        run.progress(1)
        beating = True

        def beats() -> None:
            if beating and 0 in run.partitions and len(run.placement.partitions) == 1:
                run.says(type="beat")
                asyncio.get_running_loop().call_soon(beats)

        beats()
        await run.asked_for(lives=2)
        beating = False
        assert "parameter server 0 stands still: no report for 0.05 s" in caplog.text
