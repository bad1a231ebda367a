"""Whole attempts within this process: the real parts in threads, and one digest, however they are put together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from chainrule.server.architecture import Builtin
from chainrule.server.training import faults, policies
from chainrule.server.training.config import Adam, Validation
from chainrule.server.training.events import Failed, Finished, Paused, WorkersChanged
from chainrule.server.training.examples import Examples
from chainrule.server.training.local import LocalPlacement
from chainrule.server.training.parts import Ended
from chainrule.server.training.plan import Plan
from chainrule.server.training.serving import PartitionSpec, run_partition
from chainrule.server.training.tls import Identity
from chainrule.server.training.wire import Endpoint
from chainrule.server.training.worker import WorkerSpec, run_worker
from tests.server.training.bench import LIMIT_S, TINY, Bench, tiny_images, tiny_plan
from tests.server.training.runs import Run, run, train


class Threads(LocalPlacement):
    """Each part in a thread; whoever is hung up on ends."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.threads: list[threading.Thread] = []

    async def start_partition(self, spec: PartitionSpec, ended: Ended) -> None:
        self._begin(lambda: run_partition(spec), ended)

    async def start_worker(self, lease: int, identity: Identity, coordinator: Endpoint, ended: Ended) -> None:
        spec = WorkerSpec(
            job=self.spec.job,
            plan=self.spec.plan,
            lease=lease,
            identity=identity,
            coordinator=coordinator,
            examples=self.spec.examples,
            validation=self.spec.validation,
            node="here",
            local=self.links == "memory",
        )
        self._begin(lambda: run_worker(spec), ended)

    def _begin(self, work: Callable[[], None], ended: Ended) -> None:
        loop = asyncio.get_running_loop()

        def run_it() -> None:
            work()
            if not loop.is_closed():
                loop.call_soon_threadsafe(ended, "it returned")

        self.threads.append(threading.Thread(target=run_it))
        self.threads[-1].start()

    async def stop(self) -> None:
        for thread in self.threads:
            await asyncio.to_thread(thread.join, LIMIT_S)
            assert not thread.is_alive()


IN_THREADS: dict[str, Any] = {"placement": Threads, "timeout_s": 60.0}


def plan_of(num_validation: int = 0, **config: Any) -> Plan:
    """The tiny model with BatchNorm and dropout, a receipt of every step."""
    plan = tiny_plan(num_validation, **{"receipt_every_steps": 1, "max_workers": 7, "shards": 8, **config})
    return replace(plan, architecture=Builtin("small_cnn", {**TINY, "dropout": 0.25}))


def data(plan: Plan) -> Examples:
    return tiny_images(plan.num_examples)


@cache
def by_hand(**config: Any) -> str:
    """The digest that a partition and a computation give side by side."""
    plan = plan_of(**config)
    return Bench(plan, examples=data(plan)).run().digest()


# --- same bits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
async def test_any_number_of_workers_has_the_same_bits(workers: int) -> None:
    plan = plan_of()
    found = await run(plan, data=data(plan), workers=workers, **IN_THREADS)
    assert found.last == Finished(6)
    assert found.digest == by_hand()
    assert found.steps == [1, 2, 3, 4, 5, 6]
    assert sorted(found.receipts) == [1, 2, 3, 4, 5, 6]
    assert found.incidents == []


@pytest.mark.parametrize("partitions", [2, 3])
@pytest.mark.parametrize("links", ["memory", "tls"])
async def test_partitions_and_links_do_not_matter(links: str, partitions: int) -> None:
    plan = plan_of(partitions=partitions)
    found = await run(plan, data=data(plan), workers=2, links=links, **IN_THREADS)
    assert found.digest == by_hand()


@pytest.mark.parametrize(
    "config",
    [{"optimizer": Adam(lr=0.01)}, {"clip_norm": 0.1}, {"non_finite": "skip"}, {"trainable": ("fc.*", "bn2.*")}],
    ids=str,
)
async def test_so_it_is_with_other_settings(config: dict[str, Any]) -> None:
    plan = plan_of(**config)
    found = await run(plan, data=data(plan), workers=3, **IN_THREADS)
    assert found.digest == by_hand(**config)


async def test_audits_change_nothing() -> None:
    plan = plan_of(audit_fraction=0.5)
    found = await run(plan, data=data(plan), workers=3, **IN_THREADS)
    assert found.digest == by_hand()
    assert found.incidents == []


async def test_evaluations_are_the_same_for_any_number_of_workers() -> None:
    plan = plan_of(10, validation=Validation(fraction=0.2))
    validation = tiny_images(10, seed=9)
    found = [await run(plan, data=data(plan), validation=validation, workers=n, **IN_THREADS) for n in (1, 3)]
    assert found[0].evaluations == found[1].evaluations
    assert sorted(found[0].evaluations) == [1, 2]
    assert found[0].digest == found[1].digest == by_hand()


# --- coming and going ------------------------------------------------------------------------------------------


async def test_workers_come_and_go_while_it_runs() -> None:
    plan = plan_of(epochs=40, receipt_every_steps=0)

    async def scale(found: Run) -> None:
        for step, workers in ((1, 4), (20, 2), (40, 3)):
            await found.until(lambda step=step: bool(found.steps) and found.steps[-1] >= step)  # type: ignore[misc]
            await found.coordinator.scale(workers)

    found = await run(plan, data=data(plan), workers=1, meddle=scale, **IN_THREADS)
    assert found.digest == by_hand(epochs=40)
    assert len(found.incidents_of("scaled")) == 3


async def test_a_job_goes_on_after_a_pause_with_the_same_bits() -> None:
    plan = plan_of(epochs=40)

    async def pause(found: Run) -> None:
        await found.until_step(3)
        await found.coordinator.pause()

    found = await train(plan, data=data(plan), workers=2, meddle=pause, **IN_THREADS)
    assert found.attempts == 2
    assert len(found.of(Paused)) == 1
    assert found.digest == by_hand(epochs=40)
    assert found.steps == list(range(1, 121))


# --- faults ----------------------------------------------------------------------------------------------------


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Faults to be put in."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(faults, "_faults", found)
    return found


async def test_what_fails_once_is_computed_by_another(faulty: list[dict[str, Any]]) -> None:
    faulty.append({"point": "worker.compute", "lease": 1, "step": 3, "action": "raise"})
    plan = plan_of()
    found = await run(plan, data=data(plan), workers=2, **IN_THREADS)
    assert found.digest == by_hand()
    [cause] = found.incidents_of("recovery")
    assert cause.startswith("worker 1 on here failed: a fault on purpose")


async def test_what_fails_always_fails_the_job(faulty: list[dict[str, Any]]) -> None:
    faulty.append({"point": "worker.compute", "step": 3, "action": "raise"})
    plan = plan_of()
    found = await run(plan, data=data(plan), workers=2, **IN_THREADS)
    assert isinstance(found.last, Failed)
    assert (found.last.reason, found.last.lost) == ("TRAINING_ERROR", False)
    assert found.last.message == "two workers failed in the same way: a fault on purpose"
    assert "ArithmeticError" in found.last.traceback


async def test_a_bit_that_flips_is_caught_by_an_audit(faulty: list[dict[str, Any]]) -> None:
    faulty.append({"point": "worker.push", "lease": 2, "step": 4, "action": "flip"})
    plan = plan_of(audit_fraction=1.0)
    found = await run(plan, data=data(plan), workers=3, **IN_THREADS)
    assert found.digest == by_hand()
    assert any(note.startswith("worker 2 on here computed shard") for note in found.incidents_of("corruption"))


async def test_a_partition_that_fails_ends_the_job(faulty: list[dict[str, Any]]) -> None:
    faulty.append({"point": "partition.update", "step": 2, "action": "raise"})
    plan = plan_of()
    found = await run(plan, data=data(plan), workers=2, **IN_THREADS)
    assert isinstance(found.last, Failed)
    assert found.last.message == "a fault on purpose"
    assert found.steps == [1]


async def test_a_lost_worker_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "FIRST_DELAY_S", 0.0)
    plan = plan_of(epochs=40, receipt_every_steps=0)

    async def hang_up(found: Run) -> None:
        await found.until_step(2)
        found.coordinator._crew.lost(1)
        await found.until(lambda: found.workers == 2)

    found = await run(plan, data=data(plan), workers=2, meddle=hang_up, **IN_THREADS)
    assert found.digest == by_hand(epochs=40)
    assert 1 in [event.workers for event in found.of(WorkersChanged)]


async def test_with_staleness_every_step_is_done() -> None:
    plan = plan_of(staleness=2, exact=False, epochs=3)
    found = await run(plan, data=data(plan), workers=3, **IN_THREADS)
    assert found.last == Finished(9)
    assert found.steps == list(range(1, 10))
    assert found.receipts == {}
    assert found.state.updates == 3 * 3 * 8
