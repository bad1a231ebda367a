"""A partition at work where workers may be ahead of the slowest: what comes while it waits to take a checkpoint."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import pytest

from chainrule.server.training import checkpoint, serving
from chainrule.server.training.config import Validation
from chainrule.server.training.contributions import Measured
from chainrule.server.training.reduction import Block
from chainrule.server.training.wire import CLOCKS, STEP
from tests.server.training.bench import Result, push_memory, random_results, tiny_plan
from tests.server.training.served import Served, Worker

PLAN = tiny_plan(8, staleness=2, exact=False, checkpoint_every_steps=2, validation=Validation(fraction=0.2))
"""An evaluation is tick 3, and the checkpoint before it waits until that of step 2 has been dealt with."""


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(serving, "REPORT_INTERVAL_S", 0.005)
    found = Served(PLAN)
    yield found
    found.close()


def until_clocks(worker: Worker, *clocks: int) -> None:
    """Until shards are at these ticks."""
    while (frame := worker.next()).kind != CLOCKS or list(array("Q", frame.body)) != list(clocks):
        assert frame.kind in (CLOCKS, STEP)


def contribute(worker: Worker, tick: int) -> None:
    """Of all shards, to a tick."""
    for result in random_results(worker.layout, 4, seed=tick):
        worker.push(result, tick=tick)


def evaluate(worker: Worker, tick: int) -> None:
    for shard in range(4):
        worker.push(Result(Block(shard), push_memory(worker.layout), Measured(0.5, 1, 2)), tick=tick)


def held_at_the_end_of_an_epoch(served: Served) -> Worker:
    """A worker that has contributed to all of it."""
    worker = served.worker().link()
    for tick in range(3):
        contribute(worker, tick)
    served.until("snapshot", step=2)
    served.until("progress", step=3)
    return worker


def test_what_comes_while_it_waits_counts_after_the_checkpoint(served: Served) -> None:
    worker = held_at_the_end_of_an_epoch(served)
    evaluate(worker, 3)
    contribute(worker, 4)
    served.heard_all()
    assert [message["step"] for message in served.heard("snapshot")] == [2]
    served.tell(type="credit", step=2)
    snapshot = served.until("snapshot", step=3)
    assert checkpoint.unpacked(snapshot["blob"]).step == 3
    until_clocks(worker, 5, 5, 5, 5)
    while not any(message["evaluations"] for message in served.heard("progress")):
        served.until("progress")
    [evaluation] = [found for message in served.heard("progress") for found in message["evaluations"]]
    assert (evaluation["epoch"], evaluation["step"], evaluation["loss"]) == (1, 3, 2.0)
    served.until("progress", step=4)


def test_the_checkpoint_is_of_the_step_that_it_is_taken_after(served: Served) -> None:
    """Not with contributions that came later, though weights are changed in place."""
    worker = held_at_the_end_of_an_epoch(served)
    before = {name: worker.weights.arrays(0)[name].tobytes() for name in worker.layout.parameters}
    evaluate(worker, 3)
    contribute(worker, 4)
    served.heard_all()
    served.tell(type="credit", step=2)
    state = checkpoint.unpacked(served.until("snapshot", step=3)["blob"])
    assert {name: state.parameters[name].tobytes() for name in before} == before


def test_a_job_ends_after_all_that_came_while_it_waited(served: Served) -> None:
    worker = held_at_the_end_of_an_epoch(served)
    served.tell(type="credit", step=2)
    served.until("snapshot", step=3)
    evaluate(worker, 3)
    contribute(worker, 4)  # whose checkpoint is left out
    contribute(worker, 5)
    contribute(worker, 6)
    served.until("progress", step=6)
    evaluate(worker, 7)
    served.heard_all()
    assert served.heard("done") == []
    served.tell(type="credit", step=3)
    served.until("snapshot", step=6)
    served.until("done", step=6)


def test_a_tick_that_was_complete_while_it_waited_is_done_without_another_push() -> None:
    plan = tiny_plan(
        2, staleness=2, exact=False, checkpoint_every_steps=2, epochs=1, validation=Validation(fraction=0.2)
    )
    served = Served(plan)
    try:
        worker = served.worker().link()
        contribute(worker, 0)
        contribute(worker, 1)
        served.until("snapshot", step=2)
        results = random_results(worker.layout, 4, seed=2)
        for result in results[:3]:
            worker.push(result, tick=2)
        for shard in range(2):
            worker.push(Result(Block(shard), push_memory(served.layout), Measured(0.5, 1, 1)), tick=3)
        worker.push(results[3], tick=2)
        served.until("progress", step=3)
        served.tell(type="credit", step=2)
        served.until("snapshot", step=3)
        served.until("done", step=3)
    finally:
        served.close()
