"""What partitions contribute is put together once all have."""

from __future__ import annotations

from typing import Any

from chainrule.server.training import checkpoint
from chainrule.server.training.checkpoint import Packed
from chainrule.server.training.collecting import Collector
from tests.server.training.bench import Bench, tiny_plan


def trained(partitions: int) -> Bench:
    bench = Bench(tiny_plan(partitions=partitions))
    bench.advance()
    return bench


def snapshot(collector: Collector, bench: Bench, index: int, *, step: int = 1) -> Packed | None:
    content = memoryview(checkpoint.pack(bench.partitions[index].state_now()))
    return collector.snapshot({"step": step, "index": index}, content, len(bench.partitions))


def receipt(bench: Bench, index: int) -> dict[str, Any]:
    state = bench.partitions[index].state_now()
    return {"step": state.step, "updates": state.updates, "index": index, "digests": state.array_digests()}


def test_the_only_partitions_snapshot_is_the_checkpoint() -> None:
    bench = trained(1)
    content = memoryview(checkpoint.pack(bench.state))
    found = Collector().snapshot({"step": 1, "index": 0}, content, 1)
    assert found is not None
    assert found.memory.obj is content.obj


def test_a_checkpoint_is_there_with_the_last_share_whatever_the_order() -> None:
    bench, collector = trained(3), Collector()
    assert snapshot(collector, bench, 2) is None
    assert snapshot(collector, bench, 0) is None
    content = snapshot(collector, bench, 1)
    assert content is not None
    assert checkpoint.unpacked(content.memory).digest() == bench.state.digest() == trained(1).state.digest()


def test_shares_of_several_steps_are_kept_apart() -> None:
    bench, collector = trained(2), Collector()
    assert snapshot(collector, bench, 0, step=1) is None
    assert snapshot(collector, bench, 1, step=2) is None
    assert snapshot(collector, bench, 0, step=2) is not None
    assert snapshot(collector, bench, 1, step=1) is not None


def test_the_digest_of_a_step_is_that_of_the_whole_state() -> None:
    for partitions in (1, 3):
        bench, collector = trained(partitions), Collector()
        found = [collector.receipt(receipt(bench, index), partitions) for index in reversed(range(partitions))]
        assert found == [None] * (partitions - 1) + [bench.state.digest()]


def test_all_have_to_be_done() -> None:
    collector = Collector()
    assert [collector.done(index, 3) for index in (1, 1, 0, 2)] == [False, False, False, True]
