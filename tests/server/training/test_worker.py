"""A worker at work, in a thread: this test is its coordinator and its partitions."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from chainrule.server.training import layout as layouts
from chainrule.server.training.audit import audited_shards
from chainrule.server.training.contributions import HEAD, WHOLE
from chainrule.server.training.errors import LinkError
from chainrule.server.training.fingerprint import fingerprint
from chainrule.server.training.memory import IN_PLACE
from chainrule.server.training.plan import Plan
from chainrule.server.training.reduction import Block, blocks_of
from chainrule.server.training.wire import END, MESSAGE, STEP, STEP_BODY, Listener
from chainrule.server.training.worker import WorkerSpec, run_worker
from tests.server.training.bench import LIMIT_S, Bench, tiny_images, tiny_plan
from tests.server.training.led import FENCE, LEASE, Led, Pushed
from tests.server.training.stand_ins import IDENTITY

Lead = Callable[..., Led]


@pytest.fixture
def lead() -> Iterator[Lead]:
    all_led: list[Led] = []

    def begin(plan: Plan | None = None, **fields: Any) -> Led:
        all_led.append(Led(plan or tiny_plan(), **fields))
        return all_led[-1]

    yield begin
    for led in all_led:
        led.close()


def begun(led: Led, *shards: int, **facts: Any) -> Led:
    """At its first tick, with these shards."""
    led.introduce(**facts)
    led.assign(*shards)
    led.announce(0, 0)
    return led


def blocks(led: Led, count: int) -> list[tuple[int, Block]]:
    """Tick and block of the next pushes."""
    found = [led.partition.pushed() for _ in range(count)]
    return [(pushed.tick, pushed.block) for pushed in found]


def begun_everywhere(bench: Bench) -> Bench:
    """With the weights of the beginning in both regions, as a `FakePartition` has them."""
    for array, other in zip(*(region.values() for region in bench.partitions[0].weights.moving), strict=True):
        other[...] = array
    return bench


def assert_is(pushed: Pushed, bench: Bench, *, tick: int = 0) -> None:
    """It has the bits that are due."""
    [expected] = bench.compute(pushed.block, tick=bench.plan.tick(tick))
    assert pushed.measured == expected.measured
    assert pushed.memory == bytes(expected.memory)


# --- beginning -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", [True, False])
def test_a_worker_says_who_it_is_and_computes_what_it_is_told(lead: Lead, local: bool) -> None:
    led = lead(local=local)
    assert led.until("hello")["lease"] == LEASE
    ready = led.until("ready")
    assert (ready["node"], ready["fingerprint"]) == ("a node", fingerprint())
    begun(led, 0, 1, 2, 3)
    pushed = led.partition.pushed()
    assert (pushed.tick, pushed.block, pushed.part) == (0, Block(0, 4), WHOLE)
    assert_is(pushed, Bench(led.plan))


def test_shards_are_computed_in_the_fewest_blocks(lead: Lead) -> None:
    led = begun(lead(), 1, 2, 3)
    found = [led.partition.pushed() for _ in range(2)]
    assert [pushed.block for pushed in found] == [Block(1), Block(2, 2)]
    assert len({pushed.slot for pushed in found}) == 2
    for pushed in found:
        assert_is(pushed, Bench(led.plan))


def test_it_goes_on_with_the_next_weights_in_the_same_memory(lead: Lead) -> None:
    led = begun(lead(), 2, 3)
    first = led.partition.pushed()
    bench = Bench(led.plan)
    bench.advance()
    for name, value in bench.partitions[0].weights.arrays(1).items():
        led.partition.weights.arrays(1)[name][...] = value
    led.announce(1, 1)
    second = led.partition.pushed()
    assert (second.tick, second.block, second.slot) == (1, Block(2, 2), first.slot)
    assert_is(second, bench, tick=1)


def test_empty_shards_are_left_out(lead: Lead) -> None:
    led = lead(tiny_plan(shards=7, batch_size=12))
    led.introduce()
    led.assign(2, 3, 4, 5, 6)
    led.announce(3, 3)  # four examples
    assert blocks(led, 1) == [(3, Block(2, 2))]
    led.announce(4, 4)
    assert blocks(led, 3) == [(4, Block(2, 2)), (4, Block(4, 2)), (4, Block(6))]


def test_an_evaluation_sends_what_was_measured_alone(lead: Lead) -> None:
    validation = tiny_images(8, seed=3)
    plan = tiny_plan(num_validation=8)
    led = lead(plan, validation=validation)
    led.introduce()
    led.assign(0, 1)
    led.announce(3, 3)
    pushed = led.partition.pushed()
    [expected] = begun_everywhere(Bench(plan, validation=validation)).compute(Block(0, 2), tick=plan.tick(3))
    assert (pushed.part, pushed.block, pushed.measured) == (HEAD, Block(0, 2), expected.measured)


def test_it_waits_for_the_weights_of_all_partitions(lead: Lead) -> None:
    led = lead(tiny_plan(partitions=2))
    led.introduce()
    led.assign(0, 1)
    first, second = led.partitions
    first.announce(0, 0)
    second.announce(0, 0)
    expected = Bench(led.plan).compute(Block(0, 2))
    for partition, result in zip(led.partitions, expected, strict=True):
        parts = [partition.pushed(), partition.pushed()]
        assert [pushed.part for pushed in parts] == [HEAD, 0]
        assert parts[0].measured == result.measured
        assert parts[1].memory == bytes(result.memory)
    first.announce(1, 1)
    first.announce(2, 2)
    second.announce(2, 2)
    assert first.pushed().tick == 2


def test_buckets_are_sent_one_by_one(lead: Lead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "BUCKET_BYTES", 300)
    led = begun(lead(), 0, 1, 2, 3)
    assert [led.partition.pushed().part for _ in range(4)] == [HEAD, 0, 1, 2]


# --- assignments -----------------------------------------------------------------------------------------------


def test_a_new_assignment_holds_for_the_running_tick(lead: Lead) -> None:
    led = begun(lead(), 0)
    assert blocks(led, 1) == [(0, Block(0))]
    led.assign(0, 1, 2, 3)
    assert blocks(led, 2) == [(0, Block(1)), (0, Block(2, 2))]
    led.assign(3)
    led.announce(1, 1)
    assert blocks(led, 1) == [(1, Block(3))]


def test_shards_of_others_are_computed_in_the_tick_that_they_are_asked_for(lead: Lead) -> None:
    led = begun(lead(), 0)
    blocks(led, 1)
    led.tell(type="compute", tick=0, shards=(0, 2, 3))
    assert blocks(led, 1) == [(0, Block(2, 2))]
    led.tell(type="compute", tick=2, shards=(1,))
    led.announce(1, 1)
    assert blocks(led, 1) == [(1, Block(0))]
    led.announce(2, 2)
    assert blocks(led, 1) == [(2, Block(0, 2))]


def test_what_was_sent_late_stays_for_another_tick(lead: Lead) -> None:
    led = begun(lead(), 0)
    first = led.partition.pushed()
    led.tell(type="late", tick=0)
    led.assign(0, 1)  # which it does once it has heard
    second = led.partition.pushed()
    led.announce(1, 1)
    third = led.partition.pushed()
    assert len({first.slot, second.slot, third.slot}) == 3
    assert int(led.partition.slots[first.slot].tick[0]) == 0
    led.announce(2, 2)
    assert led.partition.pushed().slot == first.slot


def test_after_the_end_it_computes_nothing(lead: Lead) -> None:
    led = begun(lead(), 0)
    blocks(led, 1)
    assert led.partition.link is not None
    led.partition.link.send(END)
    led.assign(0, 1, 2)
    led.leave()
    assert led.partition.has_heard_all()


# --- audits ----------------------------------------------------------------------------------------------------


def test_audited_shards_are_sent_one_by_one_and_those_of_another_are_confirmed(lead: Lead) -> None:
    plan = tiny_plan(audit_fraction=0.5, seed=3)
    audited = sorted(audited_shards(plan, plan.tick(0)))
    assert 0 < len(audited) < 4
    led = lead(plan)
    led.introduce()
    led.assign(0, 1, 2, 3, auditors=dict.fromkeys(range(4), LEASE))
    led.announce(0, 0)
    plain = blocks_of(set(range(4)) - set(audited))
    found = [led.partition.pushed() for _ in range(len(plain) + 2 * len(audited))]
    assert [pushed.block for pushed in found[: len(plain)]] == plain
    ours, others = found[len(plain) : -len(audited)], found[-len(audited) :]
    for shard, one, other in zip(audited, ours, others, strict=True):
        assert one.block == other.block == Block(shard)
        assert one.part == other.part == WHOLE
        assert one.memory == other.memory
        assert one.slot != other.slot


def test_all_of_a_suspicious_tick_is_audited(lead: Lead) -> None:
    led = lead()
    led.introduce(suspects=(1,))
    led.assign(0, 1, auditors={0: LEASE, 1: LEASE, 2: 9, 3: 9})
    led.announce(0, 0)
    assert blocks(led, 1) == [(0, Block(0, 2))]
    led.announce(1, 1)
    assert blocks(led, 4) == [(1, Block(0)), (1, Block(1)), (1, Block(0)), (1, Block(1))]


def test_a_disputed_shard_is_computed_once_more(lead: Lead) -> None:
    led = begun(lead(tiny_plan(audit_fraction=1.0)), 0)
    first = led.partition.pushed()
    for _ in range(2):
        led.tell(type="again", tick=0, shard=0)
        assert led.partition.pushed().memory == first.memory
    led.tell(type="again", tick=0, shard=3)
    assert blocks(led, 1) == [(0, Block(3))]


# --- weights that are gone -------------------------------------------------------------------------------------


def test_what_was_computed_from_overwritten_weights_is_not_sent(lead: Lead) -> None:
    led = lead()
    led.introduce()
    led.assign(0, 1, 2, 3)
    led.partition.announce(0, 0, holds=False)
    assert led.partition.next().kind == MESSAGE  # it asks which there are
    led.announce(2, 2)
    assert blocks(led, 1) == [(2, Block(0, 4))]


def test_a_worker_whose_link_breaks_says_so_and_turns_to_where_it_is_sent(lead: Lead) -> None:
    led = begun(lead(), 0, 1)
    blocks(led, 1)
    led.partition.hang_up()
    led.until("unlinked", fence=FENCE)
    led.introduce(fence=FENCE + 1)
    led.announce(0, 0)
    assert blocks(led, 1) == [(0, Block(0, 2))]


def test_a_worker_that_reaches_nobody_says_so(lead: Lead) -> None:
    led = lead()
    gone = Listener(IDENTITY, host="127.0.0.1", name="test/gone")
    gone.close()
    endpoint = {"machine": gone.endpoint.machine, "path": gone.endpoint.path, "host": "127.0.0.1", "port": 1}
    led.tell(type="partitions", fence=FENCE, endpoints=[endpoint], suspects=())
    led.until("unlinked", fence=FENCE)
    begun(led, 0)
    assert blocks(led, 1) == [(0, Block(0))]


def test_a_worker_that_is_refused_says_so(lead: Lead) -> None:
    led = lead()
    endpoint = led.partition.listener.endpoint
    facts = {"machine": endpoint.machine, "path": endpoint.path, "host": endpoint.host, "port": endpoint.port}
    led.tell(type="partitions", fence=FENCE, endpoints=[facts], suspects=())
    accepted, _ = led.partition.listener.local.accept()
    accepted.sendall(b"\x14\0\0\0\0\0\0\0\0" + b'{"type": "rejected"}')
    led.until("unlinked", fence=FENCE)
    accepted.close()


def test_another_life_of_partitions_begins_with_new_memory(lead: Lead) -> None:
    led = begun(lead(), 0, 1, 2, 3)
    first = led.partition.pushed()
    old = led.partition.link
    led.introduce(fence=FENCE + 1)
    led.announce(0, 0)
    assert led.partition.pushed().memory == first.memory
    assert old is not None
    with pytest.raises(LinkError):
        old.next()


# --- staleness -------------------------------------------------------------------------------------------------


def test_with_staleness_it_goes_ahead_of_the_slowest_but_not_too_far(lead: Lead) -> None:
    led = lead(tiny_plan(staleness=2, exact=False))
    partition = led.partition
    partition.weights.versions[:] = IN_PLACE
    led.introduce()
    led.assign(1, 3)
    clocks = [0, 0, 0, 0]
    done = []
    assert partition.link is not None
    for _ in range(6):
        partition.announce_clocks(*clocks)
        partition.weights.versions[:] = IN_PLACE
        partition.link.send(STEP, STEP_BODY.pack(0, 0))
        pushed = partition.pushed()
        assert (pushed.part, pushed.block.size) == (WHOLE, 1)
        assert pushed.tick == clocks[pushed.block.start]
        clocks[pushed.block.start] += 1
        done.append((pushed.block.start, pushed.tick))
    assert sorted(done) == [(1, 0), (1, 1), (1, 2), (3, 0), (3, 1), (3, 2)]
    partition.announce_clocks(*clocks)
    partition.link.send(STEP, STEP_BODY.pack(0, 0))
    led.leave()
    assert partition.has_heard_all()


# --- ends ------------------------------------------------------------------------------------------------------


def test_a_worker_that_is_told_to_leave_leaves(lead: Lead) -> None:
    led = begun(lead(), 0)
    led.leave()
    with pytest.raises(LinkError):
        led.until("the end")


def test_when_the_coordinator_is_gone_so_is_the_worker(lead: Lead) -> None:
    led = begun(lead(), 0)
    led.control.close()
    led.thread.join(LIMIT_S)
    assert not led.thread.is_alive()


def test_what_goes_wrong_is_told_with_the_tick(lead: Lead) -> None:
    led = begun(lead(examples=tiny_images(3)), 0, 1, 2, 3)
    failed = led.until("failed")
    assert (failed["reason"], failed["tick"]) == ("TRAINING_ERROR", 0)
    assert "out of bounds" in failed["message"]
    assert "IndexError" in failed["traceback"]
    led.thread.join(LIMIT_S)
    assert not led.thread.is_alive()


def test_where_there_is_no_coordinator_nothing_is_begun() -> None:
    gone = Listener(IDENTITY, host="127.0.0.1", name="test/gone")
    gone.close()
    run_worker(WorkerSpec("jobs/test", tiny_plan(), LEASE, IDENTITY, gone.endpoint, tiny_images()))


def test_signs_of_life_say_where_it_is(lead: Lead) -> None:
    led = begun(lead(), 0)
    led.until("beat", tick=0, working=False)
    led.announce(1, 1)
    led.until("beat", tick=1, working=False)


def test_a_worker_that_has_left_leaves_no_descriptors() -> None:
    def once() -> None:
        led = begun(Led(tiny_plan()), 0, 1, 2)
        blocks(led, 2)
        led.close()

    def left() -> int:
        for thread in threading.enumerate():
            if thread.name == "beat":
                thread.join(LIMIT_S)
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    once()
    before = left()
    once()
    assert left() == before


def test_the_weights_are_those_of_the_partition(lead: Lead) -> None:
    """Computed where they lie, without a copy."""
    led = lead()
    for arrays in led.partition.weights.moving:
        arrays["fc.bias"][...] = np.arange(10)
    begun(led, 0)
    pushed = led.partition.pushed()
    bench = Bench(led.plan)
    for arrays in bench.partitions[0].weights.moving:
        arrays["fc.bias"][...] = np.arange(10)
    assert_is(pushed, bench)
