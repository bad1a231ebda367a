"""The promise, without Ray: what is trained does not depend on who computes which part of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import Generator, models, nn, optim
from chainrule.server.training import checkpoint
from chainrule.server.training.checkpoint import Manifest
from chainrule.server.training.worker import Worker
from tests.server.training.in_process import (
    LocalLink,
    digest,
    examples,
    initial_state,
    make_partition,
    small_plan,
    train,
)


def trained_digest(*, shards: int, workers: int, arrival_seed: int = 0) -> str:
    plan = small_plan(shards=shards, workers=workers)
    return digest(train(plan, initial_state(plan), examples(), arrival_seed=arrival_seed).state_now())


@pytest.mark.parametrize("shards", [3, 4])
def test_weights_momentum_and_statistics_do_not_depend_on_the_number_of_workers(shards: int) -> None:
    digests = {trained_digest(shards=shards, workers=workers) for workers in range(1, shards + 1)}
    assert len(digests) == 1


def test_nor_on_the_order_of_arrival() -> None:
    digests = {trained_digest(shards=4, workers=4, arrival_seed=seed) for seed in range(4)}
    assert len(digests) == 1


def test_they_do_depend_on_the_number_of_shards() -> None:
    assert trained_digest(shards=2, workers=1) != trained_digest(shards=4, workers=1)


def test_a_batch_smaller_than_the_shards_leaves_some_empty() -> None:
    plan = small_plan(shards=16, workers=1, batch_size=16)  # the last batch has 2 examples for 16 shards
    assert [len(shard) for shard in plan.shards(3)] == [1, 1] + [0] * 14
    assert trained_digest(shards=16, workers=1) == trained_digest(shards=16, workers=5)


def test_training_from_a_checkpoint_gives_what_training_in_one_go_gives() -> None:
    one_epoch = small_plan(workers=2, epochs=1)
    snapshot = train(one_epoch, initial_state(one_epoch), examples()).snapshot
    assert snapshot is not None
    content = checkpoint.pack(snapshot)
    manifest = Manifest("jobs/j", 1, snapshot.step, cr.io.digest(content), len(content))
    plan = small_plan(workers=2)
    resumed = train(plan, checkpoint.unpack(content, manifest), examples())
    straight = train(plan, initial_state(plan), examples())
    assert digest(resumed.state_now()) == digest(straight.state_now())


def test_one_shard_trains_like_plain_local_code() -> None:
    """The same bits as a loop anybody would write with `optim.SGD`."""
    plan = small_plan(shards=1)
    state = initial_state(plan)
    data = examples()
    server_state = train(plan, state, data).state_now()

    model = models.build(plan.family, plan.family_config, generator=Generator(1))
    sgd = plan.config.optimizer
    optimizer = optim.SGD(model.parameters(), lr=sgd.lr, momentum=sgd.momentum, weight_decay=sgd.weight_decay)
    loss_function = nn.CrossEntropyLoss()
    for epoch in range(plan.config.epochs):
        order = cr.data.epoch_order(plan.num_examples, seed=plan.config.seed, epoch=epoch)
        for start in range(0, plan.num_examples, plan.config.batch_size):
            batch = order[start : start + plan.config.batch_size]
            optimizer.zero_grad()
            logits = model(cr.from_numpy(data.inputs[batch]))
            loss_function(logits, cr.from_numpy(data.targets[batch])).backward()
            optimizer.step()

    local = {name: value.data for name, value in model.state_dict().items()}
    trained = server_state.weights()
    assert set(local) == set(trained)
    for name, value in local.items():
        np.testing.assert_array_equal(trained[name], value, err_msg=name)
        assert trained[name].dtype == value.dtype, name


@dataclass(frozen=True)
class NoisyConfig:
    """The settings of a network that draws random numbers while training."""

    dropout: float = 0.5
    num_parameters: int = 64 * 10 + 10


def make_noisy(config: NoisyConfig) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Dropout(config.dropout), nn.Linear(64, 10))


def test_what_dropout_draws_depends_on_neither_workers_nor_arrival_but_on_step_and_shard() -> None:
    models.registry.register("noisy", "for this test", NoisyConfig, make_noisy)
    try:
        digests = set()
        for workers in (1, 2, 4):
            plan = replace(small_plan(workers=workers), family="noisy", family_config={})
            digests.add(digest(train(plan, initial_state(plan), examples(), arrival_seed=workers).state_now()))
        assert len(digests) == 1
        ones = np.ones((8, 1, 8, 8), np.float32)
        worker = Worker(plan, examples(), LocalLink(make_partition(plan, initial_state(plan))), index=0,
                        shards=range(4), fence=1)  # fmt: skip
        masks = set()
        for step in (0, 1):
            for shard in (0, 1):
                with cr.random.using(worker._draws(step, shard)):
                    masks.add(nn.functional.dropout(cr.from_numpy(ones)).numpy().tobytes())
        assert len(masks) == 4
    finally:
        models.registry._families.pop("noisy")
        models.registry._makers.pop("noisy")


def test_the_loss_falls_and_counts_add_up() -> None:
    plan = small_plan(workers=2, epochs=8)
    partition = train(plan, initial_state(plan), examples())
    epochs = [[metric.loss for metric in partition.metrics if metric.epoch == epoch] for epoch in (1, 8)]
    assert np.mean(epochs[1]) < 0.8 * np.mean(epochs[0])
    assert [metric.num_examples for metric in partition.metrics[:4]] == [16, 16, 16, 2]
    assert [metric.step for metric in partition.metrics] == list(range(1, plan.total_steps + 1))
    assert {metric.epoch for metric in partition.metrics} == set(range(1, 9))
