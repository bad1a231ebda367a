"""Columns of a dataset: what is read of them, what they are for, and networks that take several."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule.engine import graph, io
from chainrule.server.architecture import Builtin, GraphArchitecture
from chainrule.server.training.augmentation import Augmentation, Normalize
from chainrule.server.training.compute import Computation
from chainrule.server.training.config import Loss, MetricSpec, Sgd, TrainingConfig
from chainrule.server.training.errors import DatasetError
from chainrule.server.training.examples import Examples, ExampleSource, parts
from chainrule.server.training.plan import Indices, Plan
from chainrule.server.training.reading import Reader, input_columns
from chainrule.server.training.state import Arrays, TrainingState
from tests import graphs
from tests.server.training.bench import Bench, tiny_images, tiny_plan
from tests.server.training.chunked import cut
from tests.server.training.runs import initial_state, run
from tests.server.training.test_attempt import IN_THREADS
from tests.server.training.test_recipe import with_columns

WEIGHTED = (
    Loss(target="kinds", output="kind", example_weight="weights"),
    Loss("mse", target="scores", output="score", weight=0.5, example_weight="weights"),
)


def token_data(count: int = 40) -> Examples:
    """What `graphs.two_inputs` takes, with two targets and weights."""
    rng = np.random.default_rng(1)
    return Examples(
        further={
            "ids": rng.integers(0, graphs.TOKENS, (count, graphs.LENGTH)),
            "mask": rng.integers(0, 2, (count, graphs.LENGTH)).astype(np.float32),
            "kinds": rng.integers(0, 3, count),
            "scores": rng.normal(size=count).astype(np.float32),
            "weights": rng.integers(0, 3, count).astype(np.float32),
            "unused": np.zeros((count, 100), np.float32),
        }
    )


def token_plan(**config: Any) -> tuple[Plan, TrainingState]:
    content, weights = graph.split(graphs.two_inputs())
    settings = {"max_workers": 4, "receipt_every_steps": 1, "losses": WEIGHTED, **config}
    plan = replace(tiny_plan(**settings), architecture=GraphArchitecture(io.digest(content), content))
    module = graph.load(graphs.two_inputs())
    state = TrainingState(0, {name: np.array(p.data) for name, p in module.named_parameters()}, {})
    assert weights.keys() == state.parameters.keys()
    return plan, state


# --- what is read ----------------------------------------------------------------------------------------------


class Watched(Examples):
    """Examples that keep what was asked of them."""

    asked: list[Collection[str] | None]

    def __init__(self, examples: Examples) -> None:
        super().__init__(further=examples.columns)
        object.__setattr__(self, "asked", [])

    def read(self, indices: Indices, columns: Collection[str] | None = None) -> Arrays:
        self.asked.append(columns)
        return super().read(indices, columns)


def test_nothing_is_read_but_what_the_job_needs() -> None:
    plan, _ = token_plan()
    watched = Watched(token_data())
    reader = Reader(plan, watched, inputs=("ids", "mask"))
    lot = reader.shard(0, 0)
    assert [array.shape for array in lot.inputs] == [(4, 5), (4, 5)]
    assert set(lot.targets) == {"kinds", "weights", "scores"}
    assert set(reader.targets(0)) == {"kinds", "weights", "scores"}
    assert watched.asked == [("ids", "mask", "kinds", "weights", "scores"), ("kinds", "weights", "scores")]


@pytest.mark.parametrize("chunked", [False, True])
def test_columns_are_read_by_name_from_memory_and_from_files(chunked: bool, tmp_path: Path) -> None:
    data = token_data(10)
    source: ExampleSource = cut(data, tmp_path, rows=3) if chunked else data
    rows = np.array([7, 0, 3])
    for columns in (None, ("mask", "kinds")):
        found = source.read(rows, columns)
        assert set(found) == set(data.columns if columns is None else columns)
        assert all(np.array_equal(array, data.columns[name][rows]) for name, array in found.items())
    with pytest.raises(DatasetError, match='no column "labels"; it has ids, mask'):
        source.read(rows, ("ids", "labels"))
    for seed in (0, 5):
        train, kept = parts(source, 4, seed)
        assert kept is not None
        assert (len(train), len(kept)) == (6, 4)
        together = np.concatenate([part.read(np.arange(len(part)), ("scores",))["scores"] for part in (train, kept)])
        assert sorted(together) == sorted(data.columns["scores"])


def test_a_network_takes_the_columns_of_its_names_unless_others_are_said() -> None:
    module = graph.load(graphs.two_inputs())
    assert input_columns(module, TrainingConfig()) == ("ids", "mask")
    assert input_columns(module, TrainingConfig(inputs={"mask": "other"})) == ("ids", "other")
    one = graph.load(graphs.small_onnx())
    family = Builtin("mlp", {"in_features": 2, "hidden": [2], "num_classes": 2}).build()
    for single in (one, family):
        assert input_columns(single, TrainingConfig()) == ("inputs",)
        assert input_columns(single, TrainingConfig(inputs={"x": "pixels"})) == ("pixels",)


def test_the_first_input_is_augmented_and_all_are_mixed() -> None:
    images = tiny_images(16)
    data = Examples(further={"a": images.inputs, "inputs": images.inputs, "targets": images.targets})
    plan = tiny_plan(augmentation=Augmentation((Normalize((1.0,), (2.0,)),)))
    plan = replace(plan, num_examples=16)
    normal, plain = Reader(plan, data, inputs=("a", "inputs")).shard(0, 0).inputs
    np.testing.assert_allclose(normal, (plain - 1) / 2, rtol=1e-6)
    mixed = replace(plan, config=replace(plan.config, augmentation=Augmentation(mixup=0.5)))
    lot = Reader(mixed, data, inputs=("a", "inputs")).shard(0, 0)
    assert np.array_equal(lot.inputs[0], lot.inputs[1])
    assert not np.array_equal(lot.inputs[0], plain)


def test_a_network_may_write_to_what_it_takes() -> None:
    """As one that begins with an activation in place: neither a target nor another input changes with it."""
    data = tiny_images(16)
    plan = tiny_plan(losses=(Loss("mse", target="inputs"),))
    lot = Reader(replace(plan, num_examples=16), data, inputs=("inputs", "inputs")).shard(0, 0)
    first, second = lot.inputs
    assert np.array_equal(first, lot.targets["inputs"])
    first[:] = 0
    second[:] = 1
    assert not np.array_equal(lot.targets["inputs"], first)
    assert not np.array_equal(lot.targets["inputs"], second)
    assert np.count_nonzero(first) == 0


# --- what it is for --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3])
async def test_two_inputs_two_targets_and_weights_have_the_same_bits(workers: int) -> None:
    plan, state = token_plan(metrics=(MetricSpec("accuracy", output="kind", target="kinds"),))
    data = token_data()
    found = await run(plan, data=data, state=state, workers=workers, **IN_THREADS)
    assert found.digest == Bench(plan, examples=data, state=state).run().digest()
    other = replace(
        plan, config=replace(plan.config, losses=tuple(replace(loss, example_weight="") for loss in WEIGHTED))
    )
    assert found.digest != Bench(other, examples=data, state=state).run().digest()


async def test_where_the_columns_lie_does_not_matter(tmp_path: Path) -> None:
    plan, state = token_plan()
    data: Any = cut(token_data(), tmp_path, rows=7)
    found = await run(plan, data=data, state=state, workers=2, **IN_THREADS)
    assert found.digest == Bench(plan, examples=token_data(), state=state).run().digest()


@pytest.mark.parametrize("workers", [1, 3])
async def test_an_evaluation_of_which_nothing_counts_is_not_the_best(workers: int) -> None:
    """A share that is kept back may have the weight 0 alone; a loss of 0 would be a perfect one."""
    plan = tiny_plan(num_validation=20, losses=(Loss(example_weight="weights"),))
    validation = with_columns(tiny_images(20, seed=9))
    nothing = Examples(further={**validation.columns, "weights": np.zeros(20, np.float32)})
    data = with_columns(tiny_images())
    for examples, counts in ((validation, True), (nothing, False)):
        found = await run(plan, data=data, validation=examples, workers=workers, **IN_THREADS)
        assert [bool(np.isfinite(loss)) for loss, _ in found.evaluations.values()] == [counts] * 2


@pytest.mark.torch
@pytest.mark.parametrize("shards", [1, 4])
def test_steps_with_weights_of_examples_are_those_of_pytorch(shards: int) -> None:
    torch = pytest.importorskip("torch")
    losses = (Loss(example_weight="weights"), Loss("mse", target="soft", weight=0.5))
    plan = tiny_plan(shards=shards, losses=losses, optimizer=Sgd(lr=0.5), epochs=1)
    plan = replace(plan, architecture=Builtin("mlp", {"in_features": 16, "hidden": [8], "num_classes": 10}))
    data, state = with_columns(tiny_images()), initial_state(plan)
    ours = Bench(plan, examples=data, state=state).run().parameters
    linear = [name.removesuffix(".weight") for name in state.parameters if name.endswith(".weight")]
    theirs = {name: torch.tensor(array, requires_grad=True) for name, array in state.parameters.items()}
    columns = {name: torch.tensor(array) for name, array in data.columns.items()}
    for step in range(plan.total_steps):
        batch = torch.tensor(plan.batch(step))
        x = columns["inputs"][batch].flatten(1)
        for number, name in enumerate(linear):
            x = x @ theirs[f"{name}.weight"].T + theirs[f"{name}.bias"]
            x = torch.relu(x) if number < len(linear) - 1 else x
        w = columns["weights"][batch]
        entropy = torch.nn.functional.cross_entropy(x, columns["targets"][batch], reduction="none")
        loss = (entropy * w).sum() / w.sum() + 0.5 * ((x - columns["soft"][batch]) ** 2).mean()
        gradients = torch.autograd.grad(loss, list(theirs.values()))
        with torch.no_grad():
            for parameter, gradient in zip(theirs.values(), gradients, strict=True):
                parameter -= 0.5 * gradient
    for name, array in ours.items():
        np.testing.assert_allclose(array, theirs[name].detach().numpy(), rtol=2e-5, atol=2e-6)


def test_a_dataset_without_weights_is_computed_as_before() -> None:
    """An example of weight 1 counts as one without a weight, up to rounding."""
    data = tiny_images()
    ones = Examples(data.inputs, data.targets, {"w": np.ones(len(data), np.float32)})
    plan = tiny_plan()
    weighted = replace(plan, config=replace(plan.config, losses=(Loss(example_weight="w"),)))
    found = [Bench(p, examples=ones).run().parameters for p in (plan, weighted)]
    for name, array in found[0].items():
        np.testing.assert_allclose(found[1][name], array, rtol=1e-5, atol=1e-6)


def test_a_graph_is_given_its_inputs_in_its_own_order() -> None:
    plan, _ = token_plan(inputs={"ids": "tokens"})
    data = token_data()
    renamed = Examples(further={"tokens" if name == "ids" else name: a for name, a in data.columns.items()})
    computation = Computation(plan, renamed)
    assert computation._reader._inputs == ("tokens", "mask")
