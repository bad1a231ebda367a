"""A partition at work, in a thread: this test is its coordinator and its workers."""

from __future__ import annotations

import gc
import json
import os
import resource
import threading
from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from chainrule.server.training import checkpoint, control, serving
from chainrule.server.training.config import Validation
from chainrule.server.training.contributions import WHOLE, Measured
from chainrule.server.training.limits import allow_descriptors
from chainrule.server.training.plan import Plan
from chainrule.server.training.reduction import Block
from chainrule.server.training.remote import through_gateway
from chainrule.server.training.serving import PartitionSpec, run_partition
from chainrule.server.training.state import EvaluationMetric, TrainingState
from chainrule.server.training.wire import (
    CLOCKS,
    END,
    HEADER,
    MESSAGE,
    PUSH,
    PUSH_BODY,
    SLOT,
    Frame,
    Listener,
    connect_local,
)
from tests.server.training.bench import (
    LIMIT_S,
    NOW_S,
    Result,
    make_partition,
    push_memory,
    random_results,
    tiny_plan,
)
from tests.server.training.runs import initial_state
from tests.server.training.served import FENCE, Served, Worker
from tests.server.training.stand_ins import IDENTITY, Exhausted


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "REPORT_INTERVAL_S", 0.005)


def state_after(plan: Plan, steps: int) -> TrainingState:
    partition = make_partition(plan)
    for step in range(steps):
        for result in random_results(partition.layout, 4, seed=step):
            result.push(partition)
    return partition.state_now()


Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    all_served: list[Served] = []

    def begin(plan: Plan | None = None, **fields: Any) -> Served:
        all_served.append(Served(plan or tiny_plan(), **fields))
        return all_served[-1]

    yield begin
    for served in all_served:
        served.close()


# --- steps -----------------------------------------------------------------------------------------------------


def test_a_worker_is_given_memory_and_the_weights_there_are(serve: Serve) -> None:
    served = serve()
    worker = served.worker().link()
    worker.until_step(0, 0)
    for name, value in initial_state(served.plan).parameters.items():
        np.testing.assert_array_equal(worker.weights.arrays(0)[name], value)


def test_steps_are_announced_to_all_workers_with_the_bits_of_the_partition_itself(serve: Serve) -> None:
    served = serve()
    workers = [served.worker(lease).link() for lease in (1, 2)]
    for worker in workers:
        worker.until_step(0, 0)
    for step in range(3):
        results = random_results(served.layout, 4, seed=step)
        for worker, shards in zip(workers, (results[::2], results[1::2]), strict=True):
            for result in shards:
                worker.push(result, tick=step)
        for worker in workers:
            worker.until_step(step + 1, step + 1)
    expected = state_after(served.plan, 3)
    for name, value in expected.parameters.items():
        assert workers[0].weights.arrays(3)[name].tobytes() == value.tobytes()
    snapshot = served.until("snapshot", step=3)
    assert checkpoint.unpacked(snapshot["blob"]).digest() == expected.digest()
    steps = [metric["step"] for message in served.heard("progress") for metric in message["metrics"]]
    assert steps == [1, 2, 3]


def test_what_a_worker_sends_too_late_has_it_told_where_the_others_are(serve: Serve) -> None:
    served = serve()
    worker = served.worker().link()
    worker.until_step(0, 0)
    worker.train([0, 1])
    worker.push(random_results(served.layout, 1)[0], tick=0)
    worker.until_step(2, 2)


def test_a_worker_may_ask_where_the_others_are(serve: Serve) -> None:
    worker = serve().worker().link()
    worker.until_step(0, 0)
    worker.connection.message(type="tick")
    worker.until_step(0, 0)


def test_it_reports_which_shards_it_waits_for(serve: Serve) -> None:
    served = serve()
    worker = served.worker().link()
    worker.push(random_results(served.layout, 2)[1], tick=0)
    assert served.until("progress", missing=[0, 2, 3])["tick"] == 0


def test_an_evaluation_is_an_exchange_like_a_step(serve: Serve) -> None:
    served = serve(tiny_plan(num_validation=8))
    worker = served.worker().link()
    worker.until_step(0, 0)
    worker.train([0, 1, 2])
    for shard in range(4):
        worker.push(Result(Block(shard), push_memory(served.layout), Measured(0.5, 1, 2)), tick=3)
    worker.until_step(4, 3)
    while not any(message["evaluations"] for message in served.heard("progress")):
        served.until("progress")
    [evaluation] = [e for message in served.heard("progress") for e in message["evaluations"]]
    assert (evaluation["epoch"], evaluation["step"], evaluation["loss"], evaluation["accuracy"]) == (1, 3, 2.0, 0.5)


def test_over_tls_it_is_the_same(serve: Serve) -> None:
    served = serve()
    worker = Worker(through_gateway(served.endpoint, IDENTITY, served.layout), served)
    worker.connection.message(token=IDENTITY.token, fence=FENCE, lease=1)
    worker.link().until_step(0, 0)
    worker.train([0, 1, 2])
    for name, value in state_after(served.plan, 3).parameters.items():
        assert worker.weights.arrays(3)[name].tobytes() == value.tobytes()


def test_its_coordinator_may_be_on_another_machine(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is heard without having been spoken to, and hears what it is told."""
    monkeypatch.setattr(control, "PIECE_BYTES", 100)
    served = serve(local=False)
    worker = served.worker().link()
    worker.until_step(0, 0)
    worker.train([0, 1, 2])
    snapshot = served.until("snapshot", step=3)
    assert checkpoint.unpacked(snapshot["blob"]).digest() == state_after(served.plan, 3).digest()
    served.tell(type="pause")
    assert served.until("held")["step"] == 3
    served.stop()


def test_with_staleness_every_contribution_is_answered_with_where_the_shards_are(serve: Serve) -> None:
    served = serve(tiny_plan(staleness=2, exact=False))
    worker = served.worker().link()
    result = random_results(served.layout, 1)[0]
    for expected in ([0, 0, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0]):
        frame = worker.next()
        assert (frame.kind, list(array("Q", frame.body))) == (CLOCKS, expected)
        worker.until_step(0, 0)
        worker.push(result, tick=expected[0])


# --- who is let in ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hello", [{"token": "wrong"}, {"token": "ü"}, {"token": None}])
def test_whoever_does_not_know_the_token_is_hung_up_on(serve: Serve, hello: dict[str, Any]) -> None:
    assert serve().worker(**hello).hung_up_on()


def test_a_worker_of_another_life_is_told_so(serve: Serve) -> None:
    worker = serve().worker(fence=FENCE - 1)
    assert worker.next().message == {"type": "rejected", "reason": "fence 8 lease 1 is over; now 9"}
    assert worker.hung_up_on()


def test_a_worker_that_was_given_up_is_hung_up_on_and_not_let_in_again(serve: Serve) -> None:
    served = serve()
    given_up, other = served.worker(1).link(), served.worker(2).link()
    served.tell(type="revoke", lease=1)
    assert given_up.hung_up_on()
    assert served.worker(1).next().message["type"] == "rejected"
    other.until_step(0, 0)
    other.train([0])


@pytest.mark.parametrize(
    "content",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        HEADER.pack(PUSH_BODY.size, PUSH) + bytes(PUSH_BODY.size),
        HEADER.pack(2, SLOT) + b"\0\0",
        HEADER.pack(3, MESSAGE) + b"???",
        HEADER.pack(2, MESSAGE) + b"[]",
        HEADER.pack(2, MESSAGE) + b"{}",
        HEADER.pack(1 << 30, MESSAGE),
    ],
)
def test_whoever_talks_nonsense_is_hung_up_on_and_disturbs_nobody(serve: Serve, content: bytes) -> None:
    served = serve()
    worker = served.worker().link()
    connected = connect_local(served.endpoint)
    assert connected is not None
    stranger = Worker(connected, served)
    connected.sendall(content)
    assert stranger.hung_up_on()
    worker.until_step(0, 0)
    worker.train([0])


@pytest.mark.parametrize(
    ("kind", "body"), [(PUSH, b"short"), (PUSH, PUSH_BODY.pack(0, 0, 1, 77, WHOLE, 0.0, 0, 1)), (END, b"")]
)
def test_a_worker_that_talks_nonsense_is_hung_up_on(serve: Serve, kind: int, body: bytes) -> None:
    served = serve()
    worker = served.worker().link()
    worker.connection.send(kind, body)
    assert worker.hung_up_on()
    served.worker(2).link().until_step(0, 0)


# --- what it keeps ---------------------------------------------------------------------------------------------


def test_a_checkpoint_and_a_receipt_are_of_the_same_state(serve: Serve) -> None:
    served = serve(tiny_plan(checkpoint_every_steps=2, receipt_every_steps=2))
    worker = served.worker().link()
    worker.until_step(0, 0)
    worker.train([0, 1])
    expected = state_after(served.plan, 2)
    receipt = served.until("receipt")
    assert receipt == {"type": "receipt", "index": 0, "step": 2, "updates": 2, "digests": expected.array_digests()}
    snapshot = served.until("snapshot")
    assert (snapshot["step"], snapshot["index"]) == (2, 0)
    assert checkpoint.unpacked(snapshot["blob"]).digest() == expected.digest()


def test_a_checkpoint_that_comes_before_the_last_is_dealt_with_is_left_out(serve: Serve) -> None:
    served = serve(tiny_plan(checkpoint_every_steps=1, receipt_every_steps=1))
    worker = served.worker().link()
    worker.until_step(0, 0)
    worker.train([0, 1, 2])
    served.tell(type="credit", step=1)
    served.heard_all()
    worker.train([3])
    served.until("snapshot", step=4)
    assert [message["step"] for message in served.heard("snapshot")] == [1, 4]
    assert [message["step"] for message in served.heard("receipt")] == [1, 2, 3, 4]


def test_the_last_checkpoint_is_waited_for(serve: Serve) -> None:
    served = serve(tiny_plan(epochs=1, checkpoint_every_steps=1))
    worker = served.worker().link()
    worker.until_step(0, 0)
    worker.train([0, 1])
    for result in random_results(served.layout, 4, seed=2):
        worker.push(result, tick=2)
    served.until("progress", step=3)
    assert served.heard("done") == []
    served.tell(type="credit", step=1)
    assert worker.next() == Frame(END, b"")
    served.until("done", step=3)
    assert [message["step"] for message in served.heard("snapshot")] == [1, 3]


def test_partitions_keep_the_same_steps(serve: Serve) -> None:
    """So each waits for the credit of a checkpoint that is due."""
    served = serve(tiny_plan(partitions=2, checkpoint_every_steps=1), index=1)
    worker = served.worker().link()
    worker.until_step(0, 0)
    worker.train([0])
    for result in random_results(served.layout, 4, seed=1):
        worker.push(result, tick=1)
    served.until("progress", step=2)
    served.tell(type="credit", step=1)
    worker.until_step(2, 2)
    served.until("snapshot", step=2)


def test_who_begins_from_a_checkpoint_goes_on_with_the_same_bits(serve: Serve) -> None:
    plan = tiny_plan()
    served = serve(plan, state=state_after(plan, 2))
    worker = served.worker().link()
    worker.until_step(2, 2)
    worker.train([2])
    snapshot = served.until("snapshot", step=3)
    assert checkpoint.unpacked(snapshot["blob"]).digest() == state_after(plan, 3).digest()


# --- pauses and ends -------------------------------------------------------------------------------------------


def test_a_pause_between_two_steps_stands_at_once(serve: Serve) -> None:
    served = serve()
    worker = served.worker().link()
    worker.until_step(0, 0)
    worker.train([0])
    served.tell(type="pause")
    assert served.until("held")["step"] == 1
    [snapshot] = served.heard("snapshot")
    assert checkpoint.unpacked(snapshot["blob"]).digest() == state_after(served.plan, 1).digest()
    for result in random_results(served.layout, 4, seed=1):
        worker.push(result, tick=1)
    served.stop()
    assert [metric["step"] for message in served.heard("progress") for metric in message["metrics"]] == [1]


def test_with_several_partitions_the_first_stands_after_its_step(serve: Serve) -> None:
    served = serve(tiny_plan(partitions=2))
    worker = served.worker().link()
    worker.until_step(0, 0)
    served.tell(type="pause")
    served.heard_all()
    for result in random_results(served.layout, 4):
        worker.push(result, tick=0)
    assert served.until("held")["step"] == 1
    assert [message["step"] for message in served.heard("snapshot")] == [1]


@pytest.mark.parametrize("behind", [True, False])
def test_the_others_stand_after_the_same_step(serve: Serve, behind: bool) -> None:
    served = serve(tiny_plan(partitions=2), index=1)
    worker = served.worker().link()
    worker.until_step(0, 0)
    if not behind:
        worker.train([0])
    served.tell(type="snapshot", step=1)
    if behind:
        for result in random_results(served.layout, 4):
            worker.push(result, tick=0)
    assert served.until("held")["step"] == 1
    assert [message["step"] for message in served.heard("snapshot")] == [1]


def test_no_better_loss_ends_the_job_early(serve: Serve) -> None:
    plan = tiny_plan(num_validation=8, epochs=9, validation=Validation(fraction=0.2, patience=1))
    state = replace(initial_state(plan), step=3)
    served = serve(plan, state=state, evaluations=(EvaluationMetric(0, 0, 0.25, 0.5, 8, NOW_S),))
    worker = served.worker().link()
    worker.until_step(3, 3)
    for shard in range(4):
        worker.push(Result(Block(shard), push_memory(served.layout), Measured(0.5, 1, 2)), tick=3)
    assert worker.next() == Frame(END, b"")
    assert served.until("early_stop") == {"type": "early_stop", "epoch": 1, "step": 3}
    served.worker(2).link()


def test_what_is_done_already_is_told_at_once(serve: Serve) -> None:
    plan = tiny_plan()
    served = serve(plan, state=replace(initial_state(plan), step=6))
    assert served.until("done")["step"] == 6
    worker = served.worker().link()
    assert worker.next() == Frame(END, b"")


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_what_goes_wrong_is_told_after_what_was_measured(serve: Serve, loss: float) -> None:
    served = serve()
    worker = served.worker().link()
    worker.until_step(0, 0)
    worker.train([0])
    worker.push(Result(Block(0, 4), push_memory(served.layout), Measured(loss, 0, 16)), tick=1)
    failed = served.until("failed")
    assert failed["reason"] == "NON_FINITE"
    assert failed["message"].startswith(f"the loss is {loss} at step 2 (epoch 1)")
    assert "NonFiniteError" in failed["traceback"]
    assert [metric["step"] for message in served.heard("progress") for metric in message["metrics"]] == [1]
    assert worker.hung_up_on()
    served.thread.join(LIMIT_S)
    assert not served.thread.is_alive()


def test_when_the_coordinator_is_gone_so_is_the_partition(serve: Serve) -> None:
    served = serve()
    worker = served.worker().link()
    served.control.close()
    assert worker.hung_up_on()
    served.thread.join(LIMIT_S)
    assert not served.thread.is_alive()


def test_where_there_is_no_coordinator_nothing_is_begun() -> None:
    listener = Listener(IDENTITY, host="127.0.0.1", name="test/coordinator")
    listener.close()
    plan = tiny_plan()
    spec = PartitionSpec("jobs/test", plan, 0, initial_state(plan), FENCE, IDENTITY, "127.0.0.1", listener.endpoint)
    run_partition(spec)


def test_a_partition_that_has_ended_leaves_no_descriptors_and_no_threads() -> None:
    def once() -> None:
        served = Served(tiny_plan())
        worker = served.worker().link()
        worker.until_step(0, 0)
        worker.train([0, 1, 2])
        served.close()

    def left() -> tuple[int, int]:
        for thread in threading.enumerate():
            if thread.name.startswith(("beat", "archive", "portal")):
                thread.join(LIMIT_S)
        gc.collect()
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    once()
    before = left()
    once()
    assert left() == before


# --- results that come twice -----------------------------------------------------------------------------------


def test_disputes_and_verdicts_are_told(serve: Serve) -> None:
    served = serve()
    worker = served.worker().link()
    worker.until_step(0, 0)
    served.tell(type="watch", tick=0, blocks=[asdict(Block(1))], report=False)
    served.heard_all()
    worker.train([0])
    wrong = random_results(served.layout, 2)[1]
    wrong.memory[5] ^= 1
    worker.push(wrong, tick=0)
    dispute = served.until("dispute")["dispute"]
    assert (dispute["tick"], dispute["step"], dispute["block"], dispute["late"]) == (
        0,
        1,
        {"start": 1, "size": 1},
        True,
    )
    again = serve()
    again.tell(type="watch", tick=0, blocks=[asdict(Block(1))], report=True)
    again.heard_all()
    workers = [again.worker(lease).link() for lease in (1, 2)]
    for each in workers:
        for result in random_results(again.layout, 4):
            each.push(result, tick=0)
    verdict = again.until("verdict")["verdict"]
    assert verdict == {"tick": 0, "block": {"start": 1, "size": 1}, "bucket": 0, "digest": dispute["digests"][0]}
    assert json.dumps(verdict)


def test_a_partition_without_descriptors_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(Listener):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.local = Exhausted(fileno=self.local.detach())
            self.local.setblocking(False)

    monkeypatch.setattr(serving, "Listener", Refusing)
    served = Served(tiny_plan())
    try:
        served.worker().link().until_step(0, 0)
    finally:
        served.close()


def test_a_partition_may_have_all_descriptors_that_the_system_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, before[1]))
    try:
        allow_descriptors()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 1000
        found = resource.getrlimit(resource.RLIMIT_NOFILE)
        allow_descriptors()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == found
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
