"""The recipe: groups of parameters, accumulation, the average of the weights and bfloat16, and one digest with all."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.server.architecture import Builtin
from chainrule.server.training import faults, policies
from chainrule.server.training.augmentation import (
    Augmentation,
    ColorJitter,
    Cutout,
    Normalize,
    RandomCrop,
    RandomFlip,
)
from chainrule.server.training.compute import Computation
from chainrule.server.training.config import Adam, Loss, MetricSpec, ParameterGroup, Schedule, Sgd, Validation
from chainrule.server.training.examples import Examples
from chainrule.server.training.plan import AVERAGED, Plan
from chainrule.server.training.reduction import Block, blocks_of
from chainrule.server.training.state import AVERAGE, Arrays, TrainingState
from tests.server.training.bench import TINY, Bench, make_partition, random_results, tiny_images, tiny_plan
from tests.server.training.runs import initial_state, run, train
from tests.server.training.test_attempt import IN_THREADS

MOMENTUM = Sgd(lr=0.05, momentum=0.9, weight_decay=1e-2)
GROUPS = (
    ParameterGroup(("*.bias", "bn?.*"), weight_decay=0.0),
    ParameterGroup(("fc.*",), lr=0.2, momentum=0.5),
)
ADAM_GROUPS = (
    ParameterGroup(("*.bias", "bn?.*"), weight_decay=0.0),
    ParameterGroup(("fc.*",), lr=0.003, beta1=0.8, eps=1e-6),
)
IMAGES = Augmentation(
    (
        RandomCrop(4, 4, padding=1),
        RandomFlip(),
        RandomFlip(0.3, vertical=True),
        ColorJitter(brightness=0.3),
        Normalize((0.1,), (0.5,)),
        Cutout(2, 0.5),
    )
)
WEIGHTS = tuple(1.0 + number / 10 for number in range(10))
RECIPES: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": Adam(lr=0.01, weight_decay=0.05)},
    "adamw": {"optimizer": Adam(lr=0.01, weight_decay=0.05, decoupled=True)},
    "schedule": {"schedule": Schedule(warmup_steps=2, decay="cosine")},
    "clipping": {"clip_norm": 0.5},
    "smoothing": {"losses": (Loss(label_smoothing=0.1),)},
    "class weights": {"losses": (Loss(class_weights=WEIGHTS),)},
    "groups": {"optimizer": MOMENTUM, "parameter_groups": GROUPS},
    "accumulation": {"batch_size": 32, "accumulate": 4},
    "average": {"ema_decay": 0.9},
    "bfloat16": {"precision": "bfloat16"},
    "augmentation": {"augmentation": IMAGES},
    "mixing": {"augmentation": Augmentation(mixup=0.4)},
    "columns": {
        "losses": (Loss(example_weight="weights"), Loss("mse", target="soft", weight=0.5, example_weight="weights")),
        "metrics": (MetricSpec("accuracy"), MetricSpec("mae", target="soft")),
        "augmentation": Augmentation(mixup=0.4),
    },
    "all": {
        "augmentation": replace(IMAGES, mixup=0.4),
        "losses": (Loss(label_smoothing=0.1, class_weights=WEIGHTS),),
        "batch_size": 32,
        "optimizer": Adam(lr=0.01, weight_decay=0.05, decoupled=True),
        "schedule": Schedule(warmup_steps=2, decay="cosine"),
        "clip_norm": 0.5,
        "parameter_groups": ADAM_GROUPS,
        "accumulate": 2,
        "ema_decay": 0.9,
        "precision": "bfloat16",
    },
}


def plan_of(recipe: str, num_validation: int = 10, **config: Any) -> Plan:
    """The tiny model with BatchNorm and dropout, evaluated, with a receipt of every step."""
    validation = Validation(fraction=0.2) if num_validation else Validation()
    settings = {"receipt_every_steps": 1, "max_workers": 7, "shards": 8, "validation": validation}
    plan = tiny_plan(num_validation, **{**settings, **RECIPES[recipe], **config})
    return replace(plan, architecture=Builtin("small_cnn", {**TINY, "dropout": 0.25}))


def data(plan: Plan) -> dict[str, Any]:
    validation = with_columns(tiny_images(plan.num_validation, seed=9)) if plan.num_validation else None
    return {"data": with_columns(tiny_images(plan.num_examples)), "validation": validation}


def with_columns(examples: Examples) -> Examples:
    """The same with weights, of which some are 0, and with numbers to predict for each class."""
    rng, count = np.random.default_rng(4), len(examples)
    further: Arrays = {
        "weights": rng.integers(0, 4, count) / np.float32(2),
        "soft": rng.random((count, 10), np.float32),
    }
    return Examples(examples.inputs, examples.targets, further)


def bench(plan: Plan, state: TrainingState | None = None) -> Bench:
    given = data(plan)
    return Bench(plan, examples=given["data"], validation=given["validation"], state=state)


@cache
def by_hand(recipe: str, **config: Any) -> str:
    """The digest that a partition and a computation give side by side."""
    return bench(plan_of(recipe, **config)).run().digest()


# --- same bits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("recipe", RECIPES)
async def test_any_number_of_workers_has_the_same_bits(recipe: str, workers: int) -> None:
    plan = plan_of(recipe)
    found = await run(plan, **data(plan), workers=workers, **IN_THREADS)
    assert found.digest == by_hand(recipe)
    assert sorted(found.evaluations) == [1, 2]
    assert found.incidents == []


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_part_of_the_recipe_changes_the_digest(recipe: str) -> None:
    """Else the comparisons above would say nothing."""
    undone: dict[str, dict[str, Any]] = {
        "adamw": {"optimizer": Adam(lr=0.01, weight_decay=0.05)},
        "schedule": {"schedule": Schedule()},
        "clipping": {"clip_norm": 0.0},
        "smoothing": {"losses": ()},
        "class weights": {"losses": ()},
        "groups": {"parameter_groups": ()},
        "accumulation": {"accumulate": 1},
        "average": {"ema_decay": 0.0},
        "bfloat16": {"precision": "float32"},
        "augmentation": {"augmentation": Augmentation()},
        "mixing": {"augmentation": Augmentation()},
        "columns": {"losses": ()},
    }
    if recipe == "adam":  # which has groups in "all" that SGD cannot have
        undone = {"adam": {"optimizer": Sgd(lr=0.01, weight_decay=0.05)}}
    for change in [undone[recipe]] if recipe in undone else undone.values():
        assert bench(plan_of(recipe, **change)).run().digest() != by_hand(recipe), change


@pytest.mark.parametrize("links", ["memory", "tls"])
async def test_partitions_and_links_do_not_matter(links: str) -> None:
    plan = plan_of("all", clip_norm=0.0, partitions=3)
    found = await run(plan, **data(plan), workers=2, links=links, **IN_THREADS)
    assert found.digest == by_hand("all", clip_norm=0.0)
    assert found.evaluations == (await run(plan, **data(plan), workers=1, **IN_THREADS)).evaluations


async def test_audits_change_nothing() -> None:
    plan = plan_of("all", audit_fraction=0.5)
    found = await run(plan, **data(plan), workers=3, **IN_THREADS)
    assert found.digest == by_hand("all")
    assert found.incidents == []


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_who_begins_from_a_state_goes_on_with_the_same_bits(recipe: str, steps: int) -> None:
    first = bench(plan_of(recipe))
    while first.partitions[0].step < steps and not first.partitions[0].finished:
        first.advance()
    assert bench(first.plan, first.state).run().digest() == by_hand(recipe)


async def test_a_job_goes_on_after_a_pause_with_the_same_bits() -> None:
    plan = plan_of("all", epochs=30)

    async def pause(found: Any) -> None:
        await found.until_step(3)
        await found.coordinator.pause()

    found = await train(plan, **data(plan), workers=2, meddle=pause, **IN_THREADS)
    assert found.attempts == 2
    assert found.digest == by_hand("all", epochs=30)


async def test_what_fails_once_is_computed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "FIRST_DELAY_S", 0.0)
    monkeypatch.setattr(faults, "_faults", [{"point": "worker.compute", "lease": 1, "step": 2, "action": "raise"}])
    plan = plan_of("all")
    found = await run(plan, **data(plan), workers=2, **IN_THREADS)
    assert found.digest == by_hand("all")
    assert found.incidents_of("recovery")


# --- accumulation ----------------------------------------------------------------------------------------------

LINEAR = {"in_features": 16, "hidden": [8], "num_classes": 10}


def without_batch_norm(**config: Any) -> Plan:
    plan = tiny_plan(epochs=1, batch_size=16, shards=2, **config)
    return replace(plan, architecture=Builtin("mlp", LINEAR))


def test_in_pieces_a_step_is_the_same_up_to_rounding() -> None:
    found = [
        Bench(without_batch_norm(accumulate=pieces), examples=tiny_images()).run().parameters for pieces in (1, 3, 8)
    ]
    for name, array in found[0].items():
        for other in found[1:]:
            np.testing.assert_allclose(other[name], array, rtol=2e-5, atol=2e-7)


def test_pieces_are_added_in_their_order() -> None:
    plan = without_batch_norm(accumulate=3, optimizer=Sgd(lr=1.0))
    plan = replace(plan, config=replace(plan.config, shards=1))
    pieces = np.array_split(plan.batch(0), 3)
    [[result]] = [Bench(plan, examples=tiny_images()).compute(block) for block in _whole(1)]
    bench = Bench(plan, examples=tiny_images())
    total: Arrays = {}
    for piece in pieces:
        for name, gradient in _gradients(bench.computation, plan, piece).items():
            total[name] = total[name] + gradient if name in total else gradient
    [layout] = bench.layout.partitions
    for name, gradient in total.items():
        assert layout.parameters[name].view(result.memory).tobytes() == gradient.tobytes(), name


def test_batch_statistics_of_pieces_are_weighted_by_their_examples() -> None:
    plan = tiny_plan(shards=1, accumulate=3)
    [result] = Bench(plan).compute(*_whole(1))
    [layout] = Bench(plan).layout.partitions
    model = plan.architecture.build()
    model.load_state_dict({name: cr.from_numpy(a.copy()) for name, a in initial_state(plan).weights().items()})
    expected: Arrays = {}
    examples = tiny_images()
    for piece in np.array_split(plan.batch(0), 3):
        with cr.nn.collect_batch_statistics(model) as found:
            model(cr.from_numpy(examples.inputs[piece]))
        for name, value in found.items():
            expected[name] = expected.get(name, 0) + value * len(piece) / 16
    for name, value in expected.items():
        np.testing.assert_allclose(layout.statistics[name].view(result.memory), value, rtol=1e-5)


def test_a_ragged_batch_has_fewer_pieces() -> None:
    plan = tiny_plan(shards=4, accumulate=4)  # its last batch has 8 examples, 2 a shard
    assert Bench(plan).run().step == plan.total_steps


def test_a_piece_has_a_piece_of_the_examples() -> None:
    seen = []
    plan = tiny_plan(shards=2, accumulate=4)
    bench = Bench(plan)
    forward = bench.computation.model.forward

    def watched(x: cr.Tensor) -> cr.Tensor:
        seen.append(len(x))
        return forward(x)  # type: ignore[no-any-return]

    bench.computation.model.forward = watched  # type: ignore[method-assign]
    bench.advance()
    assert seen == [2] * 8


def _whole(shards: int) -> list[Block]:
    return blocks_of(range(shards))


def _gradients(computation: Computation, plan: Plan, piece: Any) -> Arrays:
    """Of some examples, weighted by their share in the batch, with the engine alone."""
    model = plan.architecture.build()
    model.load_state_dict({name: cr.from_numpy(a.copy()) for name, a in initial_state(plan).weights().items()})
    examples = tiny_images()
    loss = cr.nn.functional.cross_entropy(
        model(cr.from_numpy(examples.inputs[piece])), cr.from_numpy(examples.targets[piece])
    )
    loss.backward(cr.tensor(len(piece) / plan.config.batch_size))
    return {name: parameter.grad.data for name, parameter in model.named_parameters() if parameter.grad is not None}


# --- the average -----------------------------------------------------------------------------------------------


def test_the_average_follows_the_weights() -> None:
    plan = plan_of("average")
    found = bench(plan)
    expected: Arrays = {}
    while not found.partitions[0].finished:
        was = found.state.step
        found.advance()
        state = found.state
        if state.step > was:
            for name, w in state.parameters.items():
                a = expected.get(name, w)
                expected[name] = a + np.float32(1.0 - 0.9) * (w - a)
    assert set(state.slots[AVERAGE]) == set(state.parameters)
    for name, a in expected.items():
        np.testing.assert_allclose(state.slots[AVERAGE][name], a, rtol=1e-6, atol=1e-8)
        assert not np.array_equal(a, state.parameters[name])
        assert state.weights()[name] is state.slots[AVERAGE][name]


def test_it_is_what_is_evaluated() -> None:
    plan = plan_of("average")
    found = bench(plan)
    while not found.tick.evaluates:
        found.advance()
    state = found.state
    found.advance()
    [evaluation] = found.partitions[0].evaluations
    model = plan.architecture.build()
    examples = data(plan)["validation"]
    losses = {}
    for kind, weights in {"average": state.weights(), "plain": {**state.parameters, **state.buffers}}.items():
        model.load_state_dict({name: cr.from_numpy(np.array(a)) for name, a in weights.items()})
        losses[kind] = _loss(model.eval(), examples)
    assert evaluation.loss == pytest.approx(losses["average"], rel=1e-5)
    assert abs(evaluation.loss - losses["plain"]) > 1e-4


def _loss(model: Any, examples: Examples) -> float:
    with cr.no_grad():
        logits = model(cr.from_numpy(examples.inputs))
    return float(cr.nn.functional.cross_entropy(logits, cr.from_numpy(examples.targets)).item())


def test_a_plain_job_has_no_memory_for_it() -> None:
    assert len(make_partition(tiny_plan()).weights.moving) == 2
    assert len(make_partition(tiny_plan(ema_decay=0.5)).weights.moving) == 3


def test_the_average_counts_while_it_is_evaluated_only() -> None:
    found = bench(plan_of("average"))
    weights = found.partitions[0].weights
    while not found.tick.evaluates:
        assert not weights.holds(found.tick.step + AVERAGED)
        found.advance()
    step = found.tick.step
    assert found.partitions[0].version == step + AVERAGED
    assert weights.holds(step + AVERAGED)
    assert weights.holds(step)
    found.advance()
    assert found.partitions[0].version == step
    found.advance()
    assert not weights.holds(step + AVERAGED)


def test_before_the_first_update_the_weights_themselves_are_evaluated() -> None:
    plan = plan_of("average", non_finite="skip", epochs=1)
    broken = tiny_images(plan.num_examples)
    broken.inputs[:] = np.nan
    found = Bench(plan, examples=broken, validation=tiny_images(10, seed=9))
    while not found.tick.evaluates:
        found.advance()
    assert (found.state.updates, found.state.slots) == (0, {})
    averaged, now = found.partitions[0].weights.moving[2], found.partitions[0].weights.arrays(found.tick.step)
    for name, array in now.items():
        assert averaged[name].tobytes() == array.tobytes(), name


def test_frozen_parameters_have_no_average() -> None:
    partition = make_partition(tiny_plan(ema_decay=0.5, trainable=("fc.*",)))
    for result in random_results(partition.layout, 4):
        result.push(partition)
    state = partition.state_now()
    assert set(state.slots[AVERAGE]) == {"fc.weight", "fc.bias"}
    assert set(state.weights()) == set(initial_state(partition.plan).weights())


# --- precision -------------------------------------------------------------------------------------------------


def test_weights_gradients_and_state_stay_float32() -> None:
    state = bench(plan_of("all")).run()
    arrays = [*state.parameters.values(), *(a for slot in state.slots.values() for a in slot.values())]
    assert {array.dtype.name for array in arrays} == {"float32"}


def test_with_bfloat16_a_gradient_is_nearly_that_of_float32() -> None:
    found = []
    for precision in ("float32", "bfloat16"):
        plan = without_batch_norm(precision=precision)
        found.append(_flat(_first_gradients(plan)))
    assert not np.array_equal(found[0], found[1])
    assert np.linalg.norm(found[1] - found[0]) < 0.02 * np.linalg.norm(found[0])


@pytest.mark.torch
def test_gradients_of_bfloat16_are_those_of_pytorchs_autocast() -> None:
    torch = pytest.importorskip("torch")
    plan = tiny_plan(shards=1, precision="bfloat16")
    model = torch.nn.ModuleDict(
        {
            "conv1": torch.nn.Conv2d(1, 2, 3, padding=1),
            "bn1": torch.nn.BatchNorm2d(2),
            "conv2": torch.nn.Conv2d(2, 4, 3, padding=1),
            "bn2": torch.nn.BatchNorm2d(4),
            "fc": torch.nn.Linear(4, 10),
        }
    )
    model.load_state_dict({name: torch.tensor(a) for name, a in initial_state(plan).weights().items()})
    examples, batch = tiny_images(), plan.batch(0)
    with torch.autocast("cpu", torch.bfloat16):
        x = torch.tensor(examples.inputs[batch])
        for layer in ("1", "2"):
            x = torch.relu(model[f"bn{layer}"](model[f"conv{layer}"](x)))
            x = torch.nn.functional.max_pool2d(x, 2)
        loss = torch.nn.functional.cross_entropy(model["fc"](x.flatten(1)), torch.tensor(examples.targets[batch]))
    loss.backward()
    theirs = _flat({name: parameter.grad.numpy() for name, parameter in model.named_parameters()})
    ours = _flat(_first_gradients(plan))
    assert np.linalg.norm(ours - theirs) < 0.02 * np.linalg.norm(theirs)


def _first_gradients(plan: Plan) -> Arrays:
    """Of the first step, shard by shard added up."""
    found = Bench(plan, examples=tiny_images())
    [layout] = found.layout.partitions
    [block] = _whole(plan.config.shards)
    [result] = found.compute(block)
    return {name: place.view(result.memory).copy() for name, place in layout.parameters.items()}


def _flat(arrays: Arrays) -> Any:
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays)])


# --- with staleness --------------------------------------------------------------------------------------------


async def test_groups_and_accumulation_go_with_staleness() -> None:
    recipe: dict[str, Any] = {"optimizer": MOMENTUM, "parameter_groups": GROUPS, "accumulate": 2}
    plan = tiny_plan(staleness=2, exact=False, max_workers=3, **recipe)
    found = await run(plan, data=tiny_images(), workers=3, **IN_THREADS)
    assert found.steps == list(range(1, plan.total_steps + 1))
    assert found.state.updates == plan.total_steps * plan.config.shards


def test_without_waiting_a_group_has_its_rate_too() -> None:
    plan = tiny_plan(staleness=1, exact=False, parameter_groups=(ParameterGroup(("fc.*",), lr=1e-9),))
    partition = make_partition(plan)
    before = initial_state(plan).parameters
    for result in random_results(partition.layout, 4):
        result.push(partition)
    after = partition.state_now().parameters
    moved = {name: float(np.abs(after[name] - before[name]).max()) for name in before}
    assert max(moved["fc.weight"], moved["fc.bias"]) < 1e-6 < min(moved["conv1.weight"], moved["bn1.bias"])


# --- as PyTorch does -------------------------------------------------------------------------------------------

SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": MOMENTUM, "parameter_groups": GROUPS},
    "sgd, momentum in a group only": {
        "optimizer": Sgd(lr=0.1),
        "parameter_groups": (ParameterGroup(("fc.*",), momentum=0.9, nesterov=True, weight_decay=0.1),),
    },
    "adamw": {
        "optimizer": Adam(lr=0.01, weight_decay=0.05, decoupled=True),
        "parameter_groups": ADAM_GROUPS,
        "schedule": Schedule(warmup_steps=2, decay="linear"),
    },
}


@pytest.mark.torch
@pytest.mark.parametrize("settings", SETTINGS)
def test_groups_and_the_average_are_those_of_pytorch(settings: str) -> None:
    torch = pytest.importorskip("torch")
    plan = tiny_plan(shards=1, ema_decay=0.8, **SETTINGS[settings])
    partition, config = make_partition(plan), plan.config
    layout = partition.layout
    module = torch.nn.ParameterDict()
    names = {name: name.replace(".", "/") for name in layout.parameters}
    for name, array in initial_state(plan).parameters.items():
        module[names[name]] = torch.nn.Parameter(torch.tensor(array))
    optimizer = _torch_optimizer(torch, plan, {name: module[names[name]] for name in names})
    factors = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: config.schedule.factor(s, plan.total_steps))
    averaged = torch.optim.swa_utils.AveragedModel(
        module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.ema_decay)
    )
    for number in range(plan.total_steps):
        [result] = random_results(layout, 1, seed=number)
        for name, place in layout.parameters.items():
            module[names[name]].grad = torch.tensor(place.view(result.memory).copy())
        optimizer.step()
        factors.step()
        averaged.update_parameters(module)
        result.push(partition)
    state = partition.state_now()
    for name, own in names.items():
        np.testing.assert_allclose(state.parameters[name], module[own].detach().numpy(), rtol=1e-6, atol=1e-6)
        theirs = averaged.module[own].detach().numpy()
        np.testing.assert_allclose(state.slots[AVERAGE][name], theirs, rtol=1e-6, atol=1e-6)


def _torch_optimizer(torch: Any, plan: Plan, parameters: dict[str, Any]) -> Any:
    groups = []
    for name, parameter in parameters.items():
        found = plan.config.optimizer_of(name)
        common = {"params": [parameter], "lr": found.lr, "weight_decay": found.weight_decay}
        if isinstance(found, Sgd):
            own: dict[str, Any] = {"momentum": found.momentum, "dampening": found.dampening, "nesterov": found.nesterov}
        else:
            own = {"betas": (found.beta1, found.beta2), "eps": found.eps}
        groups.append({**common, **own})
    if isinstance(plan.config.optimizer, Sgd):
        return torch.optim.SGD(groups, lr=plan.config.optimizer.lr)
    return torch.optim.AdamW(groups) if plan.config.optimizer.decoupled else torch.optim.Adam(groups)
