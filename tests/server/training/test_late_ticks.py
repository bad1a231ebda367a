"""Ticks that wait for somebody: who computes what is missing, and what is not reported meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

import pytest

from chainrule.server.training import coordinator, policies
from chainrule.server.training.contributions import Dispute
from chainrule.server.training.events import (
    CheckpointTaken,
    Evaluated,
    Finished,
    StepsDone,
)
from chainrule.server.training.reduction import Block
from tests.server.training.bench import LIMIT_S, tiny_plan, until
from tests.server.training.scripted import Clock, Scripted, evaluation, running

pytestmark = pytest.mark.usefixtures("often")

# --- stragglers ------------------------------------------------------------------------------------------------


async def test_what_is_waited_for_too_long_is_computed_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "FIRST_PATIENCE_S", 0.01)
    async with running() as run:
        run.worker_says(1, type="beat", tick=0, working=True)
        run.worker_says(2, type="beat", tick=0, working=False)
        run.progress(missing=[0, 1])
        await until(lambda: bool(run.workers[2].heard("compute")))
        assert run.workers[2].last("compute") == {"tick": 0, "shards": (0, 1)}
        assert run.partitions[0].last("watch") == {"tick": 0, "blocks": [{"start": 0, "size": 2}], "report": False}
        assert len(await run.incidents("straggler")) == 1


async def test_a_worker_that_was_slow_from_the_start_is_late_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "MIN_PATIENCE_S", 0.01)
    async with running() as run:
        run.worker_says(1, type="beat", tick=0, working=True)
        run.worker_says(2, type="beat", tick=0, working=True)
        run.progress(missing=[0, 1, 2, 3])
        run.worker_says(2, type="beat", tick=0, working=False)
        run.progress(missing=[0, 1])
        await until(lambda: bool(run.workers[2].heard("compute")))
        assert run.workers[2].last("compute") == {"tick": 0, "shards": (0, 1)}


def stands(run: Scripted, *, tick: int, step: int) -> None:
    """The first partition waits for a shard."""
    facts: dict[str, Any] = {"metrics": [], "evaluations": [], "skipped": [], "missing": [0]}
    run.says(type="progress", tick=tick, step=step, **facts)


async def test_evaluations_are_late_beside_evaluations_and_steps_beside_steps(
    monkeypatch: pytest.MonkeyPatch, waits: list[policies.Waiting]
) -> None:
    clock = Clock(monkeypatch)
    usual: dict[int, float] = {}
    async with running(tiny_plan(num_validation=8)) as run:
        for step in range(1, 7):
            run.progress(step)
            if step in (3, 4, 6):
                tick = run.plan.tick_after(step)
                stands(run, tick=tick, step=step)
                await until(lambda tick=tick: any(waiting.tick == tick for waiting in waits))  # type: ignore[misc]
                usual[tick] = waits[-1].usual_s
            if step == 3:
                clock.passes(8.0)
                run.says(type="progress", tick=4, step=3, metrics=[], evaluations=[], skipped=[], missing=[])
            clock.passes(0.5)
    assert usual == {3: 0.0, 5: 0.5, 7: 8.0}


async def test_while_it_was_held_up_no_tick_was_late(
    monkeypatch: pytest.MonkeyPatch, waits: list[policies.Waiting]
) -> None:
    monkeypatch.setattr(coordinator, "AWAY_S", -1.0)  # every look comes late
    monkeypatch.setattr(policies, "FIRST_PATIENCE_S", 0.001)
    async with running() as run:
        run.worker_says(1, type="beat", tick=0, working=True)
        run.progress(missing=[0, 1])
        await until(lambda: len(waits) > 20)
        assert {waiting.seconds for waiting in waits} == {0.0}
        assert await run.incidents("straggler") == []


# --- what may still be refuted ---------------------------------------------------------------------------------


async def test_what_may_still_be_refuted_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "FIRST_PATIENCE_S", 0.01)
    monkeypatch.setattr("chainrule.server.training.crew.GRACE_S", 0.01)
    async with running() as run:
        run.worker_says(1, type="beat", tick=0, working=True)
        run.progress(missing=[0, 1])
        await until(lambda: bool(run.workers[2].heard("compute")))
        run.progress(1)
        run.snapshot(1)
        run.progress(2)
        await run.events()
        assert run.of(StepsDone) == []
        assert run.of(CheckpointTaken) == []
        run.worker_says(1, type="beat", tick=1, working=True)
        async with asyncio.timeout(LIMIT_S):
            while not run.of(CheckpointTaken):
                await run.events()
        assert [type(event) for event in run.found[-3:]] == [StepsDone, CheckpointTaken, StepsDone]


async def test_the_end_waits_for_what_may_still_be_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last evaluation, say, when the last checkpoint is there."""
    monkeypatch.setattr(policies, "FIRST_PATIENCE_S", 0.01)
    monkeypatch.setattr("chainrule.server.training.crew.GRACE_S", 0.0)
    async with running(tiny_plan(num_validation=8, epochs=1)) as run:
        run.progress(3)
        run.snapshot(3)
        run.worker_says(1, type="beat", tick=3, working=True)
        stands(run, tick=3, step=3)
        await until(lambda: bool(run.workers[2].heard("compute")))
        run.says(
            type="progress",
            tick=4,
            step=3,
            metrics=[],
            evaluations=[asdict(evaluation(1, 0.5))],
            skipped=[],
            missing=[],
        )
        run.says(type="done", step=3)
        await run.events()
        assert run.of(Finished) == []
        run.worker_says(1, type="beat", tick=4, working=False)
        assert await run.end() == Finished(3)
        assert [type(event) for event in run.found_but_logs[-2:]] == [Evaluated, Finished]


async def test_a_result_that_was_refuted_takes_back_what_was_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "FIRST_PATIENCE_S", 0.01)
    async with running() as run:
        run.worker_says(1, type="beat", tick=0, working=True)
        run.progress(missing=[0, 1])
        await until(lambda: bool(run.workers[2].heard("compute")))
        run.progress(1)
        run.snapshot(1)
        dispute = Dispute(0, 1, Block(0, 2), (2, 1), late=True, digests=("aa", "bb"))
        run.says(type="dispute", dispute=asdict(dispute))
        await run.asked_for(lives=2)
        assert run.placement.partitions[1].state.step == 0
        run.start_partition(0)
        assert run.partitions[0].last("watch") == {"tick": 0, "blocks": [{"start": 0, "size": 2}], "report": True}
        assert run.workers[1].last("partitions")["suspects"] == [0]
        verdict = {"tick": 0, "block": {"start": 0, "size": 2}, "bucket": 0, "digest": "aa"}
        run.says(type="verdict", verdict=verdict)
        assert (await run.incidents("corruption"))[-1] == (
            "worker 1 on here computed shards 0 to 1 of step 1 wrong: two other results agree"
        )
        assert run.of(CheckpointTaken) == []


async def test_what_was_refuted_is_not_reported_while_others_are_started(
    monkeypatch: pytest.MonkeyPatch, looks: list[list[int]]
) -> None:
    monkeypatch.setattr(policies, "FIRST_PATIENCE_S", 0.01)
    monkeypatch.setattr("chainrule.server.training.crew.GRACE_S", 0.0)
    async with running() as run:
        run.worker_says(1, type="beat", tick=0, working=True)
        run.progress(missing=[0, 1])
        await until(lambda: bool(run.workers[2].heard("compute")))
        run.progress(1)
        run.snapshot(1)
        run.placement.gate = asyncio.Event()
        dispute = Dispute(0, 1, Block(0, 2), (2, 1), late=True, digests=("aa", "bb"))
        run.says(type="dispute", dispute=asdict(dispute))
        run.worker_says(1, type="beat", tick=1, working=False)  # no second result is awaited any more
        before = len(looks)
        await until(lambda: len(looks) > before + 20)
        run.placement.gate.set()
        await run.asked_for(lives=2)
        assert run.placement.partitions[1].state.step == 0
        await run.events()
        assert run.of(CheckpointTaken) == []
        assert run.of(StepsDone) == []


async def test_a_tick_that_stands_for_very_long_is_given_to_other_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "HANGS_S", 0.01)
    async with running() as run:
        for lease in (1, 2):
            run.worker_says(lease, type="beat", tick=0, working=True)
        run.progress(missing=[3])
        await until(lambda: not run.workers[2].open)
        assert run.workers[1].open
        run.progress(1)
        [cause] = await run.incidents("recovery")
        assert cause.startswith("worker 2 on here hangs: nothing has come of step 1 for 0 s")
