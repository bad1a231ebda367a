"""What a worker computes: the bits of plain training, whatever the blocks, and the same for the same shard."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import models, nn, optim
from chainrule.engine.nn import functional as F
from chainrule.server.architecture import Builtin
from chainrule.server.training import compute, layout
from chainrule.server.training.config import Adam, Sgd, TrainingConfig
from chainrule.server.training.contributions import HEAD, WHOLE, Measured
from chainrule.server.training.examples import Examples
from chainrule.server.training.plan import Plan
from chainrule.server.training.reduction import Block, root, tree_sum
from tests.server.training.bench import TINY, Bench, Result, make_weights, push_memory, tiny_images, tiny_plan
from tests.server.training.runs import initial_state

GPT: dict[str, object] = {"vocab_size": 13, "context": 6, "dim": 8, "heads": 2, "layers": 1}


def gpt_plan(**config: Any) -> Plan:
    settings = {"batch_size": 4, "shards": 1, "optimizer": Adam(lr=0.01), **config}
    return Plan(Builtin("gpt", GPT), 10, 0, TrainingConfig(**settings))


def sequences(count: int = 10) -> Examples:
    tokens = np.random.default_rng(0).integers(0, 13, size=(count, 7))
    return Examples(tokens[:, :-1].copy(), tokens[:, 1:].copy())


def set_weights(model: nn.Module, plan: Plan) -> None:
    """Those of the beginning; tied ones have one name in them and several in the model."""
    missing, unexpected = model.load_state_dict(
        {name: cr.tensor(array) for name, array in initial_state(plan).weights().items()}, strict=False
    )
    assert not unexpected
    assert set(missing) <= {"head.weight"}


def plain(plan: Plan, examples: Examples, optimizer: type[optim.Optimizer], **settings: Any) -> dict[str, Any]:
    """The weights after an ordinary loop with the engine alone."""
    model = plan.architecture.build()
    set_weights(model, plan)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(layout.is_trained(name, plan.config.trainable))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    stepper = optimizer(trained, **settings)
    for step in range(plan.total_steps):
        batch = plan.batch(step)
        logits = model(cr.from_numpy(examples.inputs[batch]))
        targets = cr.from_numpy(examples.targets[batch].reshape(-1))
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets)
        stepper.zero_grad()
        loss.backward()
        stepper.step()
    return {name: tensor.data for name, tensor in model.state_dict().items()}


def assert_same_bits(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].tobytes() == array.tobytes(), name


def summed(results: list[Result], block: Block) -> bytes:
    """The sum of single shards in the tree."""
    values = {result.block: np.frombuffer(result.memory, np.float32) for result in results}
    return tree_sum(values, block, np.add).tobytes()


# --- one shard -------------------------------------------------------------------------------------------------


def test_one_shard_has_the_bits_of_plain_training_with_batch_norm() -> None:
    plan = tiny_plan(shards=1)
    found = Bench(plan).run().weights()
    assert_same_bits(found, plain(plan, tiny_images(), optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-4))
    assert int(found["bn1.num_batches_tracked"]) == plan.total_steps


def test_one_shard_of_tokens_has_the_bits_of_plain_training_with_tied_weights() -> None:
    plan = gpt_plan(epochs=2)
    model = models.build("gpt", GPT)
    names = [name for name, _ in model.named_parameters()]
    assert set(model.state_dict()) - set(names) == {"head.weight"}
    found = Bench(plan, examples=sequences()).run().parameters
    expected = plain(plan, sequences(), optim.Adam, lr=0.01)
    assert_same_bits(found, {name: expected[name] for name in names})


def test_frozen_parameters_stay_and_the_others_have_the_bits_of_plain_training() -> None:
    plan = tiny_plan(shards=1, trainable=("fc.*", "bn2.*"), optimizer=Sgd(lr=0.1))
    found = Bench(plan).run()
    assert_same_bits(found.weights(), plain(plan, tiny_images(), optim.SGD, lr=0.1))
    before = initial_state(plan).parameters
    changed = {name for name, array in found.parameters.items() if array.tobytes() != before[name].tobytes()}
    assert changed == {"fc.weight", "fc.bias", "bn2.weight", "bn2.bias"}


def test_what_was_measured_is_that_of_the_shard() -> None:
    bench = Bench(tiny_plan(shards=1))
    [result] = bench.compute(Block(0))
    model = models.build("small_cnn", TINY)
    set_weights(model, bench.plan)
    batch, data = bench.plan.batch(0), tiny_images()
    logits = model(cr.from_numpy(data.inputs[batch]))
    loss = F.cross_entropy(logits, cr.from_numpy(data.targets[batch]))
    right = int((logits.data.argmax(axis=1) == data.targets[batch]).sum())
    assert result.measured == Measured(float(loss.item()), right, 16)


def test_every_token_is_a_prediction() -> None:
    [result] = Bench(gpt_plan(), examples=sequences()).compute(Block(0))
    assert result.measured.num_predictions == 4 * 6


# --- blocks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shards", "block"), [(4, Block(0, 2)), (4, Block(2, 2)), (4, Block(0, 4)), (8, Block(0, 8))])
def test_a_block_is_the_sum_of_its_shards_in_the_tree(shards: int, block: Block) -> None:
    bench = Bench(tiny_plan(shards=shards))
    singles = [bench.compute(Block(shard))[0] for shard in range(block.start, block.start + block.size)]
    [together] = bench.compute(block)
    assert bytes(together.memory) == summed(singles, block)
    measured = tree_sum({single.block: single.measured for single in singles}, block, Measured.__add__)
    assert together.measured == measured


def test_a_block_of_tokens_is_the_sum_of_its_shards_in_the_tree() -> None:
    bench = Bench(gpt_plan(shards=4), examples=sequences())
    singles = [bench.compute(Block(shard))[0] for shard in range(4)]
    [together] = bench.compute(Block(0, 4))
    assert bytes(together.memory) == summed(singles, root(4))


def test_memory_that_was_used_before_makes_no_difference() -> None:
    bench = Bench(tiny_plan())
    memory = push_memory(bench.layout.partitions[0])
    memory[:] = b"\x7f" * len(memory)
    sink = bench.computation.sink([memory])
    [fresh] = bench.compute(Block(0, 4))
    for _ in range(2):
        bench.computation.load(0)
        bench.computation.block(bench.tick, Block(0, 4), sink, lambda *_: None)
        for name, array in layout.views(bench.layout.partitions[0].parameters, fresh.memory).items():
            assert sink.gradients[name].tobytes() == array.tobytes(), name
        for name, array in layout.views(bench.layout.partitions[0].statistics, fresh.memory).items():
            assert sink.statistics[name].tobytes() == array.tobytes(), name


def test_a_shard_counts_by_its_share_of_the_global_batch() -> None:
    """The last batch of 8 examples in 3 shards: 3, 3 and 2."""
    bench = Bench(tiny_plan(shards=3))
    tick = bench.plan.tick(2)
    bench.partitions[0].weights.versions[:] = (2, 3)
    for region in (0, 1):
        for name, array in bench.partitions[0].weights.moving[region].items():
            array[...] = initial_state(bench.plan).weights()[name]
    results = [bench.compute(Block(shard), tick=tick)[0] for shard in range(3)]
    assert [result.measured.num_predictions for result in results] == [3, 3, 2]
    whole = Bench(tiny_plan(shards=1))
    model = whole.computation.model
    set_weights(model, bench.plan)
    for result, indices in zip(results, bench.plan.shards(2), strict=True):
        for parameter in model.parameters():
            parameter.grad = None
        plain_model = models.build("small_cnn", TINY)
        plain_model.load_state_dict(model.state_dict())
        data = tiny_images()
        loss = F.cross_entropy(plain_model(cr.from_numpy(data.inputs[indices])), cr.from_numpy(data.targets[indices]))
        share = len(indices) / 8
        assert result.measured.loss == float(loss.item()) * share
        (loss * share).backward()
        gradient = plain_model.get_parameter("fc.weight").grad
        assert gradient is not None
        seen = bench.layout.partitions[0].parameters["fc.weight"].view(result.memory)
        np.testing.assert_allclose(seen, gradient.data, rtol=1e-5, atol=1e-7)


# --- parts -----------------------------------------------------------------------------------------------------


def parts_sent(bench: Bench, block: Block) -> list[tuple[int, int]]:
    sent: list[tuple[int, int]] = []
    memories = [push_memory(part) for part in bench.layout.partitions]
    bench.computation.load(0)
    bench.computation.block(
        bench.tick, block, bench.computation.sink(memories), lambda partition, part, _: sent.append((partition, part))
    )
    return sent


def test_what_is_small_is_sent_at_once() -> None:
    assert parts_sent(Bench(tiny_plan()), Block(0, 2)) == [(0, WHOLE)]


def test_heads_go_first_and_then_each_bucket_as_its_gradients_are_final(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "BUCKET_BYTES", 300)
    bench = Bench(tiny_plan())
    [part] = bench.layout.partitions
    assert len(part.buckets) > 2
    assert parts_sent(bench, Block(0, 4)) == [(0, HEAD), *((0, bucket) for bucket in range(len(part.buckets)))]


def test_every_partition_has_its_head_and_its_buckets() -> None:
    bench = Bench(tiny_plan(partitions=3))
    sent = parts_sent(bench, Block(0))
    assert sent[:3] == [(0, HEAD), (1, HEAD), (2, HEAD)]
    assert sorted(sent[3:]) == [(0, 0), (1, 0), (2, 0)]


def test_a_bucket_is_final_when_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "BUCKET_BYTES", 300)
    bench = Bench(tiny_plan())
    [part] = bench.layout.partitions
    memory = push_memory(part)
    seen: dict[int, bytes] = {}

    def send(_: int, number: int, measured: Measured) -> None:
        if number != HEAD:
            seen[number] = part.buckets[number].view(memory).tobytes()

    bench.computation.load(0)
    bench.computation.block(bench.tick, Block(0, 2), bench.computation.sink([memory]), send)
    assert seen == {number: bucket.view(memory).tobytes() for number, bucket in enumerate(part.buckets)}


def test_partitions_do_not_change_the_gradients() -> None:
    one, three = Bench(tiny_plan()), Bench(tiny_plan(partitions=3))
    [whole] = one.compute(Block(0, 4))
    expected = layout.views(one.layout.partitions[0].parameters, whole.memory)
    found: dict[str, Any] = {}
    for part, result in zip(three.layout.partitions, three.compute(Block(0, 4)), strict=True):
        found |= layout.views(part.parameters, result.memory)
        assert result.measured == whole.measured
    assert_same_bits({name: found[name] for name in expected}, expected)


class Sometimes(nn.Module):
    """A layer that its forward leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 10)
        self.unused = nn.Linear(2, 3)

    def forward(self, x: cr.Tensor) -> cr.Tensor:
        logits: cr.Tensor = self.fc(x.flatten(1))
        return logits


def test_a_parameter_that_is_not_used_has_a_gradient_of_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "build", lambda *_, **__: Sometimes())
    plan = tiny_plan()
    computation = compute.Computation(plan, tiny_images())
    [part] = computation.layout.partitions
    memory = push_memory(part)
    memory[:] = b"\x7f" * len(memory)
    weights = make_weights(part)
    weights.versions[0] = 0
    computation.attach([weights])
    computation.load(0)
    sent: list[int] = []
    computation.block(plan.tick(0), Block(0, 2), computation.sink([memory]), lambda _, part, __: sent.append(part))
    assert sent == [WHOLE]
    gradients = layout.views(part.parameters, memory)
    assert not gradients["unused.weight"].any()
    assert not gradients["unused.bias"].any()
    assert gradients["fc.weight"].any()


# --- draws -----------------------------------------------------------------------------------------------------


def dropping(**config: Any) -> Bench:
    plan = tiny_plan(**config)
    family = {**TINY, "dropout": 0.5}
    return Bench(Plan(Builtin("small_cnn", family), plan.num_examples, 0, plan.config))


def dropped(bench: Bench, shard: int, step: int = 0) -> bytes:
    """The gradients of a shard, with the weights of the beginning."""
    bench.partitions[0].weights.versions[:] = (step, step) if step % 2 == 0 else (step - 1, step)
    for name, array in bench.partitions[0].weights.moving[step % 2].items():
        array[...] = initial_state(bench.plan).weights()[name]
    return bytes(bench.compute(Block(shard), tick=bench.plan.tick(step))[0].memory)


def test_a_shard_computed_twice_has_the_same_bits_whatever_was_drawn_between() -> None:
    one, other = dropping(), dropping()
    first = dropped(one, 2)
    cr.manual_seed(17)
    cr.rand(5)
    dropped(other, 1)
    assert dropped(other, 2) == first


def test_dropout_depends_on_seed_step_and_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a dataset of one image, nothing else differs."""
    image = tiny_images(1)
    same = Examples(np.repeat(image.inputs, 40, axis=0), np.repeat(image.targets, 40))
    found = []
    for seed, step, shard in itertools.product((1, 2), (0, 1), (0, 1)):
        plan = tiny_plan(seed=seed)
        bench = Bench(Plan(Builtin("small_cnn", {**TINY, "dropout": 0.5}), 40, 0, plan.config), examples=same)
        found.append(dropped(bench, shard, step))
    assert len(set(found)) == 8
    without = Bench(tiny_plan(), examples=same)
    assert dropped(without, 0) == dropped(without, 1)


def test_dropout_in_a_block_is_that_of_its_shards() -> None:
    bench = dropping()
    singles = [bench.compute(Block(shard))[0] for shard in range(4)]
    [together] = bench.compute(Block(0, 4))
    assert bytes(together.memory) == summed(singles, root(4))


# --- evaluation ------------------------------------------------------------------------------------------------


def validated(count: int, **config: Any) -> Bench:
    return Bench(tiny_plan(num_validation=count, **config), validation=tiny_images(count, seed=5))


def evaluation(bench: Bench, block: Block) -> Measured:
    """Of the weights of the beginning."""
    bench.partitions[0].weights.versions[1] = 3
    for name, array in bench.partitions[0].weights.moving[1].items():
        array[...] = initial_state(bench.plan).weights()[name]
    [result] = bench.compute(block, tick=bench.plan.tick(3))
    assert not any(result.memory)
    return result.measured


def test_an_evaluation_is_the_mean_over_the_validation_examples_with_running_statistics() -> None:
    bench = validated(23, shards=1, batch_size=16)
    found = evaluation(bench, Block(0))
    model = models.build("small_cnn", TINY)
    set_weights(model, bench.plan)
    model.eval()
    data = tiny_images(23, seed=5)
    logits = model(cr.from_numpy(data.inputs))
    assert found.loss == pytest.approx(float(F.cross_entropy(logits, cr.from_numpy(data.targets)).item()), rel=1e-6)
    assert found.num_correct == int((logits.data.argmax(axis=1) == data.targets).sum())
    assert found.num_predictions == 23


def test_a_blocks_evaluation_is_that_of_its_shards_in_the_tree() -> None:
    bench = validated(30, shards=8)
    singles = {Block(shard): evaluation(bench, Block(shard)) for shard in range(8)}
    assert [measured.num_predictions for measured in singles.values()] == [4, 4, 4, 4, 4, 4, 3, 3]
    assert evaluation(bench, Block(0, 8)) == tree_sum(singles, Block(0, 8), Measured.__add__)
    assert evaluation(bench, Block(4, 2)) == tree_sum(singles, Block(4, 2), Measured.__add__)


def test_after_an_evaluation_training_goes_on_as_before() -> None:
    disturbed, plain_ = validated(9), validated(9)
    evaluation(disturbed, Block(0, 4))
    for bench in (disturbed, plain_):
        bench.partitions[0].weights.versions[:] = (0, -1)
    assert bytes(disturbed.compute(Block(0))[0].memory) == bytes(plain_.compute(Block(0))[0].memory)


# --- weights ---------------------------------------------------------------------------------------------------


def test_weights_are_read_where_they_lie_and_cannot_be_written() -> None:
    bench = Bench(tiny_plan(trainable=("fc.*",)))
    weights = bench.partitions[0].weights
    bench.computation.load(0)
    parameter = bench.computation.model.get_parameter("fc.weight")
    assert np.shares_memory(parameter.data, weights.moving[0]["fc.weight"])
    assert not parameter.data.flags.writeable
    assert np.shares_memory(
        bench.computation.model.get_parameter("conv1.weight").data, weights.constants["conv1.weight"]
    )
    bench.computation.load(1)
    assert np.shares_memory(parameter.data, weights.moving[1]["fc.weight"])


def test_it_knows_whether_the_weights_of_a_step_are_still_there() -> None:
    bench = Bench(tiny_plan(partitions=2))
    assert bench.computation.holds(0)
    bench.partitions[1].weights.versions[0] = 2
    assert not bench.computation.holds(0)
