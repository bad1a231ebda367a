"""Results that come twice: agreement counts, a bit that differs is told, and a third result decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from chainrule.server.training import layout as layouts
from chainrule.server.training.audit import audited_shards
from chainrule.server.training.contributions import HEAD, Dispute, Measured, Push, Verdict
from chainrule.server.training.errors import CorruptionError, NonFiniteError
from chainrule.server.training.memory import Slot
from chainrule.server.training.partition import REMEMBERED_TICKS, Partition
from chainrule.server.training.reduction import Block
from tests.server.training.bench import Result, make_partition, push_memory, random_results, tiny_plan

SECOND = Block(1)


def audited(fraction: float = 1.0, *, seed: int = 0) -> Partition:
    return make_partition(tiny_plan(audit_fraction=fraction, seed=seed))


def flipped(result: Result, *, byte: int = 100, bit: int = 0x10) -> Result:
    """The same with one bit that is not."""
    memory = memoryview(bytearray(result.memory))
    memory[byte] ^= bit
    return replace(result, memory=memory)


def plain_digest(results: list[Result]) -> str:
    """Of the state after a step that nobody looks at."""
    partition = make_partition(tiny_plan())
    for result in results:
        result.push(partition)
    return partition.state_now().digest()


# --- audits ----------------------------------------------------------------------------------------------------


def test_a_shard_counts_once_two_results_agree() -> None:
    partition = audited()
    results = random_results(partition.layout, 4)
    for result in results:
        assert not result.push(partition, worker=1)
    assert partition.missing == [0, 1, 2, 3]
    for result in results[:3]:
        assert not result.push(partition, worker=2)
    assert partition.missing == [3]
    assert results[3].push(partition, worker=2)
    assert partition.disputes == []
    assert partition.state_now().digest() == plain_digest(results)


def test_shards_that_were_not_drawn_count_at_once() -> None:
    plan = tiny_plan(audit_fraction=0.5, seed=3)
    drawn = sorted(audited_shards(plan, plan.tick(0)))
    assert 0 < len(drawn) < 4
    partition = make_partition(plan)
    results = random_results(partition.layout, 4)
    for result in results:
        assert not result.push(partition, worker=1)
    assert partition.missing == drawn
    done = [results[shard].push(partition, worker=2) for shard in drawn]
    assert done == [False] * (len(drawn) - 1) + [True]


@pytest.mark.parametrize("first", [0, 1])
def test_a_flipped_bit_is_decided_by_a_third_result(first: int) -> None:
    """Whichever of the two came first."""
    partition = audited()
    results = random_results(partition.layout, 4)
    for result in (results[0], results[1], results[3]):
        result.push(partition, worker=1)
        result.push(partition, worker=2)
    pair = [(results[2], 1), (flipped(results[2]), 2)]
    for result, worker in (pair[first], pair[1 - first]):
        assert not result.push(partition, worker=worker)
    workers = (1, 2) if first == 0 else (2, 1)
    assert partition.disputes == [Dispute(0, 1, Block(2), workers)]
    assert results[2].push(partition, worker=3)
    assert partition.disputes[1:] == [Dispute(0, 1, Block(2), (2,), resolved=True)]
    assert partition.state_now().digest() == plain_digest(results)


def test_what_was_measured_is_compared_too() -> None:
    partition = audited()
    result = random_results(partition.layout, 1)[0]
    result.push(partition, worker=1)
    replace(result, measured=replace(result.measured, num_correct=3)).push(partition, worker=2)
    assert partition.disputes == [Dispute(0, 1, Block(0), (1, 2))]


def test_three_different_results_are_nobodys_truth() -> None:
    partition = audited()
    result = random_results(partition.layout, 1)[0]
    result.push(partition, worker=1)
    flipped(result).push(partition, worker=2)
    with pytest.raises(
        CorruptionError, match=r"shard 0 of step 1 \(epoch 1\) was computed 3 times, by the workers 1, 2, 7, and no two"
    ):
        flipped(result, byte=8).push(partition, worker=7)


def test_a_lone_worker_audits_itself() -> None:
    partition = audited()
    results = random_results(partition.layout, 4)
    done = [result.push(partition, worker=1) for result in results for _ in range(2)]
    assert done == [False] * 7 + [True]


def test_a_further_result_of_a_settled_shard_may_still_be_wrong() -> None:
    partition = audited()
    result = random_results(partition.layout, 1)[0]
    for worker in (1, 2):
        result.push(partition, worker=worker)
    flipped(result).push(partition, worker=3)
    assert partition.missing == [1, 2, 3]
    assert [(d.workers, d.resolved) for d in partition.disputes] == [((3,), True)]


def test_two_losses_that_are_no_numbers_agree_and_are_refused_as_such() -> None:
    partition = audited()
    for result in random_results(partition.layout, 3):
        result.push(partition, worker=1)
        result.push(partition, worker=2)
    last = Result(Block(3), push_memory(partition.layout), Measured(float("nan"), 0, 4))
    last.push(partition, worker=1)
    again = replace(last, measured=Measured(float("nan") * 1.0, 0, 4))
    with pytest.raises(NonFiniteError, match="the loss is nan at step 1"):
        again.push(partition, worker=2)


def test_numbers_that_are_equal_but_not_the_same_bits_are_told_apart() -> None:
    partition = audited()
    layout = partition.layout
    zeros = Result(Block(0), push_memory(layout))
    minus = Result(Block(0), push_memory(layout, {"fc.bias": np.full(10, -0.0, np.float32)}))
    zeros.push(partition, worker=1)
    minus.push(partition, worker=2)
    assert partition.disputes == [Dispute(0, 1, Block(0), (1, 2))]


# --- two results within a tick ---------------------------------------------------------------------------------


def test_a_second_result_that_differs_is_told_while_the_step_runs() -> None:
    partition = make_partition(tiny_plan())
    results = random_results(partition.layout, 4)
    results[1].push(partition, worker=1)
    flipped(results[1]).push(partition, worker=2)
    [dispute] = partition.disputes
    assert (dispute.tick, dispute.step, dispute.block, dispute.workers) == (0, 1, Block(1), (1, 2))
    assert (dispute.late, dispute.resolved, dispute.bucket) == (True, False, 0)
    assert len(set(dispute.digests)) == 2


def test_a_sum_that_comes_when_its_shards_are_in_the_weights_is_compared_with_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A helper has computed shards one by one, and the straggler's block of them comes within the same tick."""
    monkeypatch.setattr(layouts, "BUCKET_BYTES", 300)
    partition = make_partition(tiny_plan())
    layout = partition.layout
    results = random_results(layout, 4)
    wrong = flipped(results[0], byte=layout.buckets[0].offset)
    for result in (wrong, *results[1:]):
        for part in (HEAD, 0):  # the first bucket is applied then, but not the others
            result.push(partition, part=part, worker=2)
    total = np.frombuffer(results[0].memory, np.float32) + np.frombuffer(results[1].memory, np.float32)
    Result(Block(0, 2), memoryview(total.tobytes())).push(partition, part=0, worker=1)
    [dispute] = partition.disputes
    assert (dispute.tick, dispute.step, dispute.block, dispute.workers) == (0, 1, Block(0, 2), (2, 1))
    assert (dispute.late, dispute.bucket) == (True, 0)


def test_what_came_within_a_larger_block_is_not_compared() -> None:
    """Its bits are those of a sum."""
    partition = make_partition(tiny_plan())
    results = random_results(partition.layout, 2)
    Result(Block(0, 2), results[0].memory).push(partition)
    results[1].push(partition, worker=2)
    assert partition.disputes == []


# --- late results ----------------------------------------------------------------------------------------------


def waited_for(watched: Block = SECOND) -> tuple[Partition, list[Result]]:
    """A partition whose first step is over, with one block computed by worker 2 in place of worker 1."""
    partition = make_partition(tiny_plan())
    results = random_results(partition.layout, 4)
    partition.watch(0, [watched])
    for result in results:
        result.push(partition, worker=2 if result.block in watched else 3)
    assert partition.step == 1
    return partition, results


def test_the_same_result_that_comes_late_says_nothing() -> None:
    partition, results = waited_for()
    assert not results[1].push(partition, worker=1, tick=0)
    assert partition.disputes == []


def test_a_late_result_that_differs_is_told_with_both_digests() -> None:
    partition, results = waited_for()
    assert not flipped(results[1]).push(partition, worker=1, tick=0)
    [dispute] = partition.disputes
    assert (dispute.tick, dispute.step, dispute.block, dispute.workers) == (0, 1, Block(1), (2, 1))
    assert (dispute.late, dispute.resolved, dispute.bucket) == (True, False, 0)
    assert len(set(dispute.digests)) == 2
    assert partition.metrics[0].step == 1


def test_a_late_result_is_compared_once() -> None:
    partition, results = waited_for()
    for _ in range(2):
        flipped(results[1]).push(partition, worker=1, tick=0)
    assert len(partition.disputes) == 1


def test_what_nobody_watched_is_not_compared() -> None:
    partition, results = waited_for()
    flipped(results[0]).push(partition, worker=1, tick=0)
    assert partition.disputes == []


def test_a_watched_block_is_compared_with_the_sum_of_its_parts() -> None:
    """It was computed shard by shard by others, and comes late as one."""
    partition, results = waited_for(Block(0, 2))
    total = np.frombuffer(results[0].memory, np.float32) + np.frombuffer(results[1].memory, np.float32)
    together = Result(Block(0, 2), memoryview(bytearray(total.tobytes())))
    together.push(partition, worker=1, tick=0)
    assert partition.disputes == []
    partition, _ = waited_for(Block(0, 2))
    flipped(together).push(partition, worker=1, tick=0)
    assert [dispute.workers for dispute in partition.disputes] == [(2, 1)]


def test_each_bucket_that_comes_late_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "BUCKET_BYTES", 300)
    partition, results = waited_for()
    wrong = flipped(results[1], byte=partition.layout.buckets[2].offset)
    for part in (HEAD, 0, 1, 2):
        wrong.push(partition, worker=1, part=part, tick=0)
    assert [dispute.bucket for dispute in partition.disputes] == [2]


def test_memory_that_was_used_again_is_no_result() -> None:
    """A worker that nobody waited for goes on, and overwrites what it has sent."""
    partition, results = waited_for()
    slot = Slot.make("test", partition.layout)
    slot.memory[:] = flipped(results[1]).memory
    for tick, disputes in ((1, 0), (0, 1)):
        slot.begin(tick)
        partition.push(Push(0, 1, Block(1), 0, results[1].measured, slot.memory, slot))
        assert len(partition.disputes) == disputes, tick
        partition, results = waited_for()
    slot.close()


def test_digests_are_forgotten_after_many_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chainrule.server.training.partition.REMEMBERED_TICKS", 1)
    assert REMEMBERED_TICKS > 100
    partition, results = waited_for()
    for number in (1, 2):
        partition.watch(number, [Block(0)])
        for result in random_results(partition.layout, 4, seed=number):
            result.push(partition)
    flipped(results[1]).push(partition, worker=1, tick=0)
    assert partition.disputes == []


# --- verdicts --------------------------------------------------------------------------------------------------


def test_a_block_that_was_disputed_is_computed_again_by_two_who_agree() -> None:
    partition, results = waited_for()
    flipped(results[1]).push(partition, worker=1, tick=0)
    [dispute] = partition.disputes
    again = make_partition(tiny_plan())
    again.watch(0, [Block(1)], report=True)
    for result in results:
        assert not result.push(again, worker=3)
    assert again.missing == [0, 1, 2, 3]
    done = [result.push(again, worker=4) for result in results]
    assert done == [False, False, False, True]
    assert again.verdicts == [Verdict(0, Block(1), 0, dispute.digests[0])]
    assert again.state_now().digest() == plain_digest(results)


def test_there_is_a_verdict_for_each_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "BUCKET_BYTES", 300)
    partition = make_partition(tiny_plan())
    partition.watch(0, [Block(0, 2)], report=True)
    for worker in (1, 2):
        for result in random_results(partition.layout, 4):
            result.push(partition, worker=worker)
    assert [(verdict.block, verdict.bucket) for verdict in partition.verdicts] == [(Block(0, 2), b) for b in range(3)]
    assert len({verdict.digest for verdict in partition.verdicts}) == 3


def test_who_only_watches_gives_no_verdict() -> None:
    partition, _ = waited_for()
    assert partition.verdicts == []


def test_a_sum_that_comes_after_its_parts_is_compared_with_theirs() -> None:
    """Also before they are in the weights."""
    partition = make_partition(tiny_plan())
    results = random_results(partition.layout, 4)
    flipped(results[0]).push(partition, worker=2)
    results[1].push(partition, worker=2)
    total = np.frombuffer(results[0].memory, np.float32) + np.frombuffer(results[1].memory, np.float32)
    Result(Block(0, 2), memoryview(total.tobytes())).push(partition, worker=1)
    assert [dispute.workers for dispute in partition.disputes] == [(2, 1)]
