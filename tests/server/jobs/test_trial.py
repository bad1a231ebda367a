"""What a model is tried with before its job is queued, besides one example: pieces of one, several, gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import helper

import chainrule.engine as cr
from chainrule.engine import graph, nn
from chainrule.server.architecture import Builtin
from chainrule.server.errors import InvalidRequestError
from chainrule.server.jobs.trial import smallest_piece
from chainrule.server.records import JobState
from chainrule.server.training.config import Loss, TrainingConfig, Validation
from chainrule.server.training.plan import Plan
from tests import graphs
from tests.server.conftest import refusal
from tests.server.jobs.submitting import Catalogs

CONFIG = TrainingConfig(batch_size=4)
FEATURES = 4


class Normalized(nn.Module):
    """BatchNorm over single numbers, which needs two examples."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.bn, self.fc2 = nn.Linear(FEATURES, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)

    def forward(self, x: cr.Tensor) -> Any:
        return self.fc2(self.bn(self.fc1(x)))


class Heads(nn.Module):
    """Two outputs that share nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(FEATURES, 2), nn.Linear(FEATURES, 2)

    def forward(self, x: cr.Tensor) -> Any:
        return self.one(x), self.other(x)


def normalized(catalogs: Catalogs) -> str:
    return catalogs.create_graph(graph.export(Normalized(), cr.randn(3, FEATURES)))


def rows(catalogs: Catalogs, count: int) -> str:
    return catalogs.create_dataset(f"rows{count}", (FEATURES,), label=1, count=count)


# --- pieces of one example -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "shards", "accumulate", "smallest"),
    [
        (8, 4, 1, 1, 4),
        (9, 4, 1, 1, 1),
        (10, 4, 2, 1, 1),
        (10, 4, 1, 2, 1),
        (11, 4, 1, 2, 1),
        (3, 64, 1, 1, 3),
        (3, 64, 8, 1, 1),  # the shards behind the third are empty
        (64, 32, 4, 4, 2),
        (64, 31, 4, 4, 1),
    ],
)
def test_the_smallest_piece_is_that_of_the_smallest_shard_of_any_batch(
    num_examples: int, batch_size: int, shards: int, accumulate: int, smallest: int
) -> None:
    config = TrainingConfig(batch_size=batch_size, shards=shards, accumulate=accumulate)
    plan = Plan(Builtin("mlp", {}), num_examples, config=config)
    assert smallest_piece(plan) == smallest
    of_steps = [len(shard) for step in range(plan.steps_per_epoch) for shard in plan.shards(step) if len(shard)]
    assert smallest == min(max(1, size // accumulate) for size in of_steps)


@pytest.mark.parametrize(
    ("count", "config", "field", "description"),
    [
        (
            9,
            {},
            "batch_size",
            'is 4: of the 9 examples of "datasets/rows9", 1 is left for the last batch, and "models/',
        ),
        (9, {}, "batch_size", "as 5, or fewer shards or pieces, so that each has 2"),
        (10, {"shards": 2}, "batch_size", "2 are left for the last batch; in 2 shards, some have one example"),
        (8, {"shards": 4}, "shards", "is 4: of a batch of 4 in 4 shards, some have one example"),
        (8, {"accumulate": 4}, "accumulate", "is 4: of a batch of 4 in 4 pieces, some have one example"),
        (8, {"batch_size": 1}, "batch_size", 'is 1, and "models/g" cannot be trained on a single one: node "bn'),
        (
            11,
            {"validation": Validation(fraction=0.2)},
            "batch_size",
            'of the 11 examples of "datasets/rows11" less the 2 kept back, 1 is left',
        ),
    ],
)
def test_a_model_that_needs_two_examples_is_not_trained_on_one(
    catalogs: Catalogs, count: int, config: dict[str, Any], field: str, description: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        catalogs.submit(model=normalized(catalogs), dataset=rows(catalogs, count), config=replace(CONFIG, **config))
    assert refusal(caught).field == f"job.config.{field}"
    assert description in refusal(caught).description
    assert "Expected more than 1 value per channel" in refusal(caught).description


@pytest.mark.parametrize(("count", "config"), [(8, {}), (10, {}), (3, {}), (8, {"shards": 2}), (9, {"batch_size": 5})])
def test_a_model_that_needs_two_examples_is_trained_on_two(
    catalogs: Catalogs, count: int, config: dict[str, Any]
) -> None:
    submitted = catalogs.submit(
        model=normalized(catalogs), dataset=rows(catalogs, count), config=replace(CONFIG, **config)
    )
    assert submitted == (JobState.QUEUED, True)


def test_batchnorm_of_images_is_trained_on_one(catalogs: Catalogs) -> None:
    assert catalogs.submit(config=replace(CONFIG, shards=4)) == (JobState.QUEUED, True)


# --- several examples ------------------------------------------------------------------------------------------


def reduced(content: list[Any], weights: dict[str, np.ndarray]) -> bytes:
    return graphs.model_of(content, weights, inputs={"x": ["n", FEATURES]}, outputs={"y": ["n", 2]})


WEIGHT = np.ones((FEATURES, 2), np.float32)
MIXED = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("ReduceMean", ["h"], ["y"], axes=[0])]
FIXED = [helper.make_node("Reshape", ["x", "size"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]


@pytest.mark.parametrize(
    ("nodes", "weights", "description"),
    [
        (MIXED, {}, "gives outputs of shape [1, 2] for 2 examples, which need one each; export it with a batch of any"),
        (FIXED, {"size": np.array([1, FEATURES])}, "takes one example, but not 2 at once: node"),
    ],
)
def test_a_graph_that_takes_one_example_only_is_refused(
    catalogs: Catalogs, nodes: list[Any], weights: dict[str, np.ndarray], description: str
) -> None:
    model = catalogs.create_graph(reduced(nodes, {"w": WEIGHT, **weights}))
    with pytest.raises(InvalidRequestError) as caught:
        catalogs.submit(model=model, dataset=rows(catalogs, 8))
    assert refusal(caught).field == "job.model"
    assert description in refusal(caught).description


# --- gradients -------------------------------------------------------------------------------------------------


def test_a_loss_depends_on_what_is_trained(catalogs: Catalogs) -> None:
    model = catalogs.create_graph(graph.export(Heads(), cr.randn(3, FEATURES)))
    for trainable in ("one.*", "*"):
        config = replace(CONFIG, trainable=(trainable,))
        assert catalogs.submit(model=model, dataset=rows(catalogs, 8), config=config)[0] is JobState.QUEUED
    for losses in ((), (Loss(output="0"),)):
        config = replace(CONFIG, trainable=("other.*",), losses=losses)
        with pytest.raises(
            InvalidRequestError, match=r"it depends on none of the .* trained, \['other.weight', 'other.bias'\]"
        ) as caught:
            catalogs.submit(model=model, dataset=rows(catalogs, 8), config=config)
        assert refusal(caught).field == "job.config.trainable"
    config = replace(CONFIG, trainable=("other.*",), losses=(Loss(output="1"),))
    assert catalogs.submit(model=model, dataset=rows(catalogs, 8), config=config)[0] is JobState.QUEUED
