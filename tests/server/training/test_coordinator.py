"""The coordinator: from the beginning of an attempt to its end, with checkpoints, pauses and early stops."""

from __future__ import annotations

import asyncio

import pytest

from chainrule.server.training import checkpoint
from chainrule.server.training.config import Validation
from chainrule.server.training.errors import LinkError
from chainrule.server.training.events import (
    CheckpointTaken,
    Evaluated,
    Finished,
    Paused,
    ReceiptTaken,
    Started,
    StepsDone,
)
from chainrule.server.training.state import TrainingState
from chainrule.server.training.wire import Connection, connect_local
from tests.server.training.bench import LIMIT_S, tiny_plan, until
from tests.server.training.scripted import evaluation, hangs_up, running, state_at

pytestmark = pytest.mark.usefixtures("often")

# --- from the beginning to the end -----------------------------------------------------------------------------


async def test_an_attempt_from_its_beginning_to_its_end() -> None:
    async with running(workers=1) as run:
        run.progress(1, 2, 3)
        first = run.snapshot(3)
        run.progress(4, 5, 6)
        run.says(type="receipt", step=6, updates=6, digests=state_at(run.plan, 6).array_digests())
        last = run.snapshot(6)
        run.says(type="done", step=6)
        assert await run.end() == Finished(6)
        assert [type(event) for event in run.found_but_logs] == [
            Started, StepsDone, CheckpointTaken, StepsDone, ReceiptTaken, CheckpointTaken, Finished,
        ]  # fmt: skip
        assert run.of(CheckpointTaken) == [CheckpointTaken(3, 1, first), CheckpointTaken(6, 2, last)]
        assert run.of(ReceiptTaken) == [ReceiptTaken(6, state_at(run.plan, 6).digest())]
        assert [m.step for event in run.of(StepsDone) for m in event.metrics] == [1, 2, 3, 4, 5, 6]
        assert run.placement.stopped


async def test_partitions_are_started_with_the_state_and_workers_with_them() -> None:
    begun = (evaluation(1, 0.5), evaluation(2, 0.4))
    plan = tiny_plan(partitions=3)
    async with running(plan, state=state_at(plan, 5), evaluations=begun, start=False) as run:
        await run.asked_for()
        assert [(spec.index, spec.state.step, spec.fence) for spec in run.placement.partitions] == [
            (index, 5, (3 << 16) + 1) for index in range(3)
        ]
        assert run.placement.partitions[0].evaluations == begun[:1]  # the other comes again
        assert run.placement.partitions[0].identity.token == run.coordinator.identity.token
        assert run.placement.workers == [1, 2]


async def test_workers_are_told_of_the_partitions_once_all_are_there() -> None:
    async with running(tiny_plan(partitions=3), start=False) as run:
        await run.asked_for()
        line = run.start_worker(1)
        for index in (2, 0):
            run.start_partition(index)
            assert line.heard("partitions") == 0
        run.start_partition(1)
        told = line.last("partitions")
        assert told["fence"] == run.fence
        assert [endpoint["path"] for endpoint in told["endpoints"]] == ["partition 0", "partition 1", "partition 2"]


async def test_an_attempt_at_a_job_that_is_done_starts_nothing() -> None:
    plan = tiny_plan()
    async with running(plan, state=state_at(plan, 6), start=False) as run:
        assert await run.end() == Finished(6)
        assert run.placement.partitions == []
        assert run.placement.workers == []


async def test_the_end_waits_for_the_checkpoint_with_the_result() -> None:
    async with running() as run:
        run.progress(1, 2, 3, 4, 5, 6)
        run.says(type="done", step=6)
        await run.events()
        assert not run.running.done()
        run.snapshot(6)
        assert await run.end() == Finished(6)


async def test_with_several_partitions_all_have_to_contribute_and_to_be_done() -> None:
    plan = tiny_plan(partitions=2)
    async with running(plan) as run:
        run.progress(1, 2, 3, 4, 5, 6)
        whole = state_at(plan, 6)
        names = sorted(whole.parameters)
        for index, share in ((1, names[::2]), (0, names[1::2])):
            state = TrainingState(
                6,
                {name: whole.parameters[name] for name in share},
                whole.buffers if index == 0 else {},
                {"momentum_buffer": {name: whole.slots["momentum_buffer"][name] for name in share}},
                6,
            )
            run.says(index, type="receipt", step=6, updates=6, digests=state.array_digests())
            run.says(index, type="snapshot", step=6, blob=checkpoint.pack(state))
            run.says(index, type="done", step=6)
            await run.events()
            assert bool(run.of(CheckpointTaken)) is (index == 0)
        assert await run.end() == Finished(6)
        [taken] = run.of(CheckpointTaken)
        assert checkpoint.unpacked(taken.content.memory).digest() == whole.digest()
        assert run.of(ReceiptTaken) == [ReceiptTaken(6, whole.digest())]


async def test_after_the_end_nobody_listens() -> None:
    async with running(tiny_plan()) as run:
        connected = connect_local(run.coordinator.endpoint)
        assert connected is not None
        connected.settimeout(LIMIT_S)
        run.says(type="failed", reason="NON_FINITE", message="the loss is nan", traceback="")
        await run.end()
        connection = Connection(connected)
        with pytest.raises(LinkError):
            await asyncio.to_thread(connection.next)
        connection.close()
        with pytest.raises(LinkError, match="nothing listens"):
            connect_local(run.coordinator.endpoint)


async def test_how_it_ends_is_told_although_its_parts_cannot_be_ended(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as run:
        run.placement.stop_error = RuntimeError("the head is away")
        run.progress(1, 2, 3, 4, 5, 6)
        run.snapshot(6)
        run.says(type="done", step=6)
        assert await run.end() == Finished(6)
    assert "jobs/test: could not end all parts" in caplog.text
    assert "the head is away" in caplog.text


# --- checkpoints that wait -------------------------------------------------------------------------------------


async def test_another_checkpoint_is_wanted_once_the_last_has_been_dealt_with() -> None:
    async with running() as run:
        run.progress(1, 2, 3)
        run.snapshot(3)
        await run.events()
        assert run.partitions[0].heard("credit") == 0
        await run.events()  # whoever asks again has stored it
        assert run.partitions[0].last("credit") == {"step": 3}
        await run.events()
        assert run.partitions[0].heard("credit") == 1


# --- pauses, early stops and scaling ---------------------------------------------------------------------------


async def test_a_pause_ends_the_attempt_with_the_checkpoint_of_its_step() -> None:
    async with running() as run:
        run.progress(1)
        await run.coordinator.pause()
        assert run.partitions[0].heard("pause") == 1
        run.progress(2)
        content = run.snapshot(2)
        run.says(type="held", step=2)
        assert await run.end() == Paused()
        assert run.of(CheckpointTaken) == [CheckpointTaken(2, 0, content)]


async def test_a_pause_before_the_partitions_are_there_is_not_forgotten() -> None:
    async with running(start=False) as run:
        await run.asked_for()
        await run.coordinator.pause()
        run.start()
        assert run.partitions[0].heard("pause") == 1
        run.says(type="held", step=0)
        assert await run.end() == Paused()


async def test_the_others_stop_after_the_same_step_as_the_first() -> None:
    async with running(tiny_plan(partitions=2)) as run:
        await run.coordinator.pause()
        assert (run.partitions[0].heard("pause"), run.partitions[1].heard("pause")) == (1, 0)
        run.progress(1, 2)
        run.snapshot(2)
        run.says(type="held", step=2)
        assert run.partitions[1].last("snapshot") == {"step": 2}
        await run.events()
        assert not run.running.done()
        run.snapshot(2, index=1)
        run.says(1, type="held", step=2)
        assert await run.end() == Paused()


async def test_a_pause_outlives_a_lost_partition() -> None:
    async with running() as run:
        await run.coordinator.pause()
        hangs_up(run)
        await run.asked_for(lives=2)
        run.start_partition(0)
        assert run.partitions[0].heard("pause") == 1


async def test_an_early_stop_ends_the_attempt_with_the_last_or_the_best_weights() -> None:
    for restore_best, step in ((False, 9), (True, 3)):
        validation = Validation(fraction=0.2, patience=2, restore_best=restore_best)
        plan = tiny_plan(10, epochs=5, validation=validation)
        async with running(plan, evaluations=(evaluation(1, 0.5),), state=state_at(plan, 5)) as run:
            run.progress(6, evaluations=[evaluation(2, 0.6)])
            run.snapshot(6)
            run.progress(7, 8, 9, evaluations=[evaluation(3, 0.7)])
            run.snapshot(9)
            run.says(type="early_stop", epoch=3, step=9)
            assert await run.end() == Finished(step)
            assert [event.metric.epoch for event in run.of(Evaluated)] == [2, 3]
            assert await run.incidents("early_stop") == [
                "after epoch 3: none since epoch 1 has had a validation loss below 0.5"
            ]


async def test_the_best_weights_are_the_result_if_the_job_says_so() -> None:
    plan = tiny_plan(10, epochs=2, validation=Validation(fraction=0.2, restore_best=True))
    async with running(plan) as run:
        run.progress(1, 2, 3, evaluations=[evaluation(1, 0.5)])
        run.progress(4, 5, 6, evaluations=[evaluation(2, 0.9)])
        run.snapshot(3)
        run.snapshot(6)
        run.says(type="done", step=6)
        assert await run.end() == Finished(3)


async def test_more_workers_are_asked_for_while_it_runs_and_none_after_the_end() -> None:
    async with running() as run:
        await run.coordinator.scale(3)
        await until(lambda: run.placement.workers == [1, 2, 3])
        assert await run.incidents("scaled") == ["from 2 to 3 workers, as asked"]
        run.says(type="failed", reason="NON_FINITE", message="", traceback="")
        await run.end()
        await run.coordinator.scale(5)
        await run.coordinator.pause()
        assert run.placement.workers == [1, 2, 3]


async def test_steps_that_were_left_out_are_told() -> None:
    async with running() as run:
        run.says(type="progress", tick=1, step=1, metrics=[], evaluations=[], skipped=["the loss is nan"], missing=[])
        assert await run.incidents("skipped") == ["the loss is nan"]
