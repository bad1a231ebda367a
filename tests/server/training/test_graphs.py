"""Training runs of graphs: the same bits, however they are put together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chainrule.engine import Generator, graph, io
from chainrule.server.architecture import Builtin, GraphArchitecture
from chainrule.server.training.config import Loss, MetricSpec
from chainrule.server.training.events import Finished
from chainrule.server.training.examples import Examples
from chainrule.server.training.plan import Plan
from chainrule.server.training.state import TrainingState
from tests import graphs
from tests.server.training.bench import TINY, Bench, tiny_images, tiny_plan
from tests.server.training.runs import initial_state, run
from tests.server.training.test_attempt import IN_THREADS


def plan_of(num_validation: int = 0, **config: Any) -> Plan:
    """The small graph, with BatchNorm; a receipt of every step."""
    plan = tiny_plan(num_validation, **{"receipt_every_steps": 1, "max_workers": 4, **config})
    content, _ = graph.split(graphs.small_onnx())
    return replace(plan, architecture=GraphArchitecture(io.digest(content), content))


def data(plan: Plan) -> Examples:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(plan.num_examples, graphs.FEATURES)).astype(np.float32)
    return Examples(inputs, rng.integers(0, graphs.CLASSES, size=plan.num_examples))


def first_state(plan: Plan) -> TrainingState:
    """The weights of the file."""
    module = graph.load(graphs.small_onnx())
    assert dict(plan.architecture.build().named_parameters()).keys() == dict(module.named_parameters()).keys()
    parameters = {name: value.data.copy() for name, value in module.named_parameters()}
    return TrainingState(0, parameters, {name: np.array(value.data) for name, value in module.named_buffers()})


@pytest.mark.parametrize("workers", [1, 2, 3])
async def test_any_number_of_workers_has_the_same_bits(workers: int) -> None:
    plan = plan_of()
    found = await run(plan, data=data(plan), state=first_state(plan), workers=workers, **IN_THREADS)
    assert found.last == Finished(6)
    assert found.digest == Bench(plan, examples=data(plan), state=first_state(plan)).run().digest()
    assert int(found.state.buffers["bn.num_batches_tracked"]) == 6
    assert not np.array_equal(found.state.buffers["bn.running_mean"], first_state(plan).buffers["bn.running_mean"])


async def test_partitions_do_not_matter() -> None:
    one = await run(plan_of(), data=data(plan_of()), state=first_state(plan_of()), workers=2, **IN_THREADS)
    plan = plan_of(partitions=3)
    three = await run(plan, data=data(plan), state=first_state(plan), workers=2, **IN_THREADS)
    assert three.digest == one.digest


async def test_the_graph_of_a_family_is_trained_to_the_same_bits() -> None:
    family = tiny_plan(max_workers=2)
    family = replace(family, architecture=Builtin("small_cnn", {**TINY, "dropout": 0.25}))
    module = family.architecture.build(Generator(1))
    content, weights = graph.split(graph.export(module, tiny_images(2).inputs))
    assert weights.keys() == module.state_dict().keys()
    as_graph = replace(family, architecture=GraphArchitecture(io.digest(content), content))
    digests = [
        (await run(plan, data=tiny_images(), state=initial_state(family), workers=2, **IN_THREADS)).digest
        for plan in (family, as_graph)
    ]
    assert digests[0] == digests[1]


async def test_each_loss_is_of_the_output_that_it_names() -> None:
    content, weights = graph.split(graphs.two_outputs())
    plan = tiny_plan(max_workers=3, losses=(Loss(output="y"),), metrics=(MetricSpec("accuracy", output="z"),))
    plan = replace(plan, architecture=GraphArchitecture(io.digest(content), content))
    inputs = np.random.default_rng(0).normal(size=(plan.num_examples, 2)).astype(np.float32)
    examples = Examples(inputs, (inputs[:, 0] > inputs[:, 1]).astype(np.int64))
    state = TrainingState(0, dict(weights), {})
    found = [await run(plan, data=examples, state=state, workers=workers, **IN_THREADS) for workers in (1, 3)]
    assert found[0].digest == found[1].digest
    assert not np.array_equal(found[0].state.parameters["w"], weights["w"])
    other = replace(plan, config=replace(plan.config, losses=(Loss(output="z"),)))
    assert (await run(other, data=examples, state=state, **IN_THREADS)).digest != found[0].digest
