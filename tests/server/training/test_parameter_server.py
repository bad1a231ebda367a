"""A partition refuses what does not belong to its step, and tells everybody who waits why it cannot go on."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from chainrule.server.training.link import Push
from chainrule.server.training.parameter_server import (
    NonFiniteError,
    Partition,
    PartitionServer,
    Report,
    StalePushError,
)
from chainrule.server.training.plan import Plan, Sgd
from chainrule.server.training.reduction import Block, ReductionError
from chainrule.server.training.state import Contribution
from chainrule.server.training.worker import Worker
from tests.server.training.in_process import LocalLink, examples, initial_state, make_partition, small_plan


@pytest.fixture
def plan() -> Plan:
    return small_plan(shards=2, workers=2, epochs=1)


@pytest.fixture
def partition(plan: Plan) -> Partition:
    return make_partition(plan, initial_state(plan))


def push_of(plan: Plan, partition: Partition, shard: int) -> Push:
    worker = Worker(plan, examples(), LocalLink(partition), index=shard, shards=range(shard, shard + 1), fence=1)
    worker.load(partition.weights().parameters)
    return Push(fence=1, step=partition.step, worker=shard, blocks=tuple(worker.compute(partition.step)))


def with_gradient(push: Push, name: str, value: float) -> Push:
    [(block, contribution)] = push.blocks
    gradients = {**contribution.gradients, name: np.full_like(contribution.gradients[name], value)}
    return replace(push, blocks=((block, replace(contribution, gradients=gradients)),))


def test_weights_move_once_all_shards_have_come(plan: Plan, partition: Partition) -> None:
    first, second = push_of(plan, partition, 0), push_of(plan, partition, 1)
    before = {name: array.copy() for name, array in partition.state.parameters.items()}
    assert not partition.push(second)
    np.testing.assert_array_equal(partition.state.parameters["fc.weight"], before["fc.weight"])
    assert partition.push(first)
    assert partition.step == 1
    assert (partition.state.parameters["fc.weight"] != before["fc.weight"]).any()


def test_a_push_of_another_attempt_is_refused(plan: Plan, partition: Partition) -> None:
    push = replace(push_of(plan, partition, 0), fence=0)
    with pytest.raises(StalePushError, match=r"worker 0 pushed step 0 of attempt 0; .* at step 0 of attempt 1"):
        partition.push(push)


def test_a_push_of_a_step_that_is_over_is_refused(plan: Plan, partition: Partition) -> None:
    pushes = [push_of(plan, partition, shard) for shard in (0, 1)]
    for push in pushes:
        partition.push(push)
    with pytest.raises(StalePushError, match=r"pushed step 0 of attempt 1; .* at step 1"):
        partition.push(pushes[0])


def test_the_same_shard_twice_is_refused(plan: Plan, partition: Partition) -> None:
    push = push_of(plan, partition, 0)
    partition.push(push)
    with pytest.raises(ReductionError, match="came twice"):
        partition.push(push)


def test_a_gradient_that_is_not_finite_names_the_parameter_and_changes_nothing(
    plan: Plan, partition: Partition
) -> None:
    before = partition.state.parameters["fc.weight"].copy()
    partition.push(push_of(plan, partition, 0))
    with pytest.raises(NonFiniteError, match=r"the gradient of fc.weight is not finite at step 1 \(epoch 1\)"):
        partition.push(with_gradient(push_of(plan, partition, 1), "fc.weight", np.nan))
    np.testing.assert_array_equal(partition.state.parameters["fc.weight"], before)


def test_a_loss_that_is_not_finite_is_refused(plan: Plan, partition: Partition) -> None:
    push = push_of(plan, partition, 1)
    [(block, contribution)] = push.blocks
    partition.push(push_of(plan, partition, 0))
    with pytest.raises(NonFiniteError, match="the loss is inf at step 1"):
        partition.push(replace(push, blocks=((block, replace(contribution, loss=np.inf)),)))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of the overflow that is the point
def test_parameters_that_the_last_update_blew_up_are_refused(plan: Plan) -> None:
    """No loss follows the last update to show it."""
    plan = replace(plan, config=replace(plan.config, batch_size=50, optimizer=Sgd(lr=1e300)))
    partition = make_partition(plan, initial_state(plan))
    partition.push(push_of(plan, partition, 0))
    with pytest.raises(NonFiniteError, match=r"fc\.bias, fc\.weight is not finite after step 1"):
        partition.push(push_of(plan, partition, 1))
    assert partition.snapshot is None


async def test_snapshots_do_not_pile_up(plan: Plan) -> None:
    plan = replace(plan, config=replace(plan.config, batch_size=50, epochs=3))
    partition = make_partition(plan, initial_state(plan))
    server = PartitionServer(partition)
    for _ in range(3):  # an epoch each
        await asyncio.gather(*(server.exchange(push_of(plan, partition, shard)) for shard in (0, 1)))
    without = await server.report(0, timeout_s=1.0, with_snapshot=False)
    assert ([metric.step for metric in without.metrics], without.snapshot) == ([1, 2, 3], None)
    report = await server.report(2, timeout_s=1.0, with_snapshot=True)
    assert report.snapshot is not None
    assert ([metric.step for metric in report.metrics], report.snapshot.step) == ([3], 3)
    assert await server.report(3, timeout_s=0.01, with_snapshot=True) == Report((), None)


async def test_whoever_waits_learns_why_the_step_cannot_be_done(plan: Plan, partition: Partition) -> None:
    server = PartitionServer(partition)
    waiting = asyncio.create_task(server.exchange(push_of(plan, partition, 0)))
    await asyncio.sleep(0)
    with pytest.raises(NonFiniteError):
        await server.exchange(with_gradient(push_of(plan, partition, 1), "fc.bias", np.inf))
    with pytest.raises(NonFiniteError):
        await waiting
    with pytest.raises(NonFiniteError):
        await server.report(0, timeout_s=1.0, with_snapshot=True)


async def test_a_report_waits_for_news_and_says_so_if_there_is_none(plan: Plan, partition: Partition) -> None:
    server = PartitionServer(partition)
    empty = await server.report(0, timeout_s=0.01, with_snapshot=True)
    assert empty == Report((), None)
    report = asyncio.create_task(server.report(0, timeout_s=30.0, with_snapshot=True))
    await asyncio.gather(*(server.exchange(push_of(plan, partition, shard)) for shard in (0, 1)))
    assert [metric.step for metric in (await report).metrics] == [1]


def test_empty_contributions_add_nothing() -> None:
    some = Contribution({"w": np.array([-0.0, 1.0], np.float32)}, {}, 0.5, 1, 2)
    nothing = Contribution({}, {}, 0.0, 0, 0)
    assert (nothing + some) is some
    assert (some + nothing) is some


def test_blocks_of_a_worker_with_all_shards_are_one(plan: Plan, partition: Partition) -> None:
    worker = Worker(plan, examples(), LocalLink(partition), index=0, shards=range(2), fence=1)
    worker.load(partition.weights().parameters)
    [(block, contribution)] = worker.compute(0)
    assert block == Block(0, 2)
    assert contribution.num_examples == 16
