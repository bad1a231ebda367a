"""Which columns a job needs: told when it is submitted, by name, with what the dataset has and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chainrule.engine import graph, io
from chainrule.server.architecture import Builtin, GraphArchitecture
from chainrule.server.blobs import BlobStore
from chainrule.server.errors import InvalidRequestError
from chainrule.server.jobs.checks import check_config
from chainrule.server.jobs.column_checks import example_of_inputs
from chainrule.server.records import JobState
from chainrule.server.store import Store
from chainrule.server.training.augmentation import Augmentation
from chainrule.server.training.config import Loss, MetricSpec, TrainingConfig, Validation
from tests import graphs
from tests.server.conftest import refusal
from tests.server.jobs.submitting import CONFIG, Catalogs

IMAGES: dict[str, Any] = {
    "inputs": np.zeros((10, 1, 8, 8), np.float32),
    "targets": np.arange(10),
    "kinds": np.arange(10) % 3,
    "high": np.arange(10) + 1,
    "holes": np.where(np.arange(10) == 4, -100, 1),
    "soft": np.zeros((10, 10), np.float32),
    "weights": np.ones(10, np.float32),
    "counts": np.arange(10),
    "wrong": np.where(np.arange(10) == 7, -0.5, 1).astype(np.float32),
    "none": np.zeros(10, np.float32),
}
TOKENS: dict[str, Any] = {
    "ids": np.arange(50).reshape(10, 5) % graphs.TOKENS,
    "mask": np.ones((10, 5), np.float32),
    "targets": np.arange(10) % 3,
}


@pytest.fixture
def catalogs(store: Store, blobs: BlobStore) -> Catalogs:
    return Catalogs(store, blobs)


def dataset(catalogs: Catalogs, name: str, columns: Mapping[str, Any]) -> str:
    digest = catalogs.blobs.put(io.save(columns))
    return catalogs.datasets.create(name, digest=digest, tenant="default").name


def network(catalogs: Catalogs) -> str:
    content, weights = graph.split(graphs.two_inputs())
    digest = catalogs.blobs.put(content)
    return catalogs.models.create(
        "two",
        architecture=GraphArchitecture(digest),
        weights_digest=catalogs.blobs.put(io.save(weights)),
        init_seed=0,
        tenant="default",
    ).name


def refused(catalogs: Catalogs, config: TrainingConfig = CONFIG, **fields: Any) -> tuple[str, str]:
    with pytest.raises(InvalidRequestError) as caught:
        catalogs.submit(config=config, **fields)
    found = refusal(caught)
    return found.field, found.description


# --- losses and metrics ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {"losses": (Loss(target="kinds"),)},
        {"losses": (Loss(example_weight="weights"), Loss("mse", target="soft", example_weight="counts"))},
        {"losses": (Loss(target="holes", ignore_index=-100),)},
        {"losses": (Loss(target="high", ignore_index=10),)},
        {"metrics": (MetricSpec("f1", target="kinds"), MetricSpec("mae", target="soft"))},
        {"losses": (Loss("mse", target="soft"), Loss()), "augmentation": Augmentation(mixup=0.5)},
    ],
)
def test_losses_and_metrics_of_other_columns_are_taken(catalogs: Catalogs, config: dict[str, Any]) -> None:
    assert catalogs.submit(dataset=dataset(catalogs, "i", IMAGES), config=replace(CONFIG, **config))


@pytest.mark.parametrize(
    ("config", "field", "description"),
    [
        (
            {"losses": (Loss(target="kind"),)},
            "losses[0].target",
            'is \'kind\', but "datasets/i" has "inputs", "targets", "counts", "high", "holes", "kinds", "none", '
            '"soft", "weights" and "wrong"; name one of these, or make a dataset with it: columns={\'kind\': …}',
        ),
        ({"losses": (Loss(), Loss(example_weight="w"))}, "losses[1].example_weight", "is 'w', but \"datasets/i\" has"),
        ({"metrics": (MetricSpec("f1", target="kind"),)}, "metrics[0].target", "is 'kind', but \"datasets/i\" has"),
        (
            {"losses": (Loss(example_weight="soft"),)},
            "losses[0].example_weight",
            'has values of shape (N, 10) in "datasets/i"; a weight for each example is (N,)',
        ),
        (
            {"losses": (Loss(example_weight="wrong"),)},
            "losses[0].example_weight",
            "is 'wrong', and -0.5 of example 7 of \"datasets/i\"; weights are from 0",
        ),
        ({"losses": (Loss(example_weight="none"),)}, "losses[0].example_weight", "which is 0 for all examples"),
        (
            {"losses": (Loss(target="holes"),)},
            "losses[0].target",
            "is 'holes', and -100 of example 4 of \"datasets/i\"; labels are from 0: correct it, or set",
        ),
        (
            {"losses": (Loss(target="high"),)},
            "losses[0].name",
            '"datasets/i" has the label 10 in "high", but "models/m" tells 10 classes apart',
        ),
        (
            {"metrics": (MetricSpec("perplexity", target="high"),)},
            "metrics[0].target",
            'the values of "high" of "datasets/i" have the label 10, but "models/m" tells 10 classes apart (0 to 9); ',
        ),
        ({"metrics": (MetricSpec("f1", target="holes"),)}, "metrics[0].target", "have the label -100, but"),
        (
            {"losses": (Loss("mse", target="kinds"),)},
            "losses[0].name",
            'the values of "kinds" of "datasets/i" (N,); use another model',
        ),
        (
            {"losses": (Loss(target="weights"),)},
            "losses[0].name",
            'the values of "weights" of "datasets/i" are float32',
        ),
    ],
)
def test_a_column_that_a_loss_or_metric_cannot_use_is_told_with_the_remedy(
    catalogs: Catalogs, config: dict[str, Any], field: str, description: str
) -> None:
    found = refused(catalogs, replace(CONFIG, **config), dataset=dataset(catalogs, "i", IMAGES))
    assert found[0] == f"job.config.{field}"
    assert description in found[1]


def test_a_dataset_needs_no_targets_if_the_loss_says_what_it_compares_with(catalogs: Catalogs) -> None:
    name = dataset(catalogs, "n", {"inputs": np.zeros((10, 16), np.float32), "kinds": IMAGES["kinds"]})
    mlp = Builtin("mlp", {"in_features": 16, "hidden": [4], "num_classes": 16})
    model = catalogs.models.create("auto", architecture=mlp, weights_digest="", init_seed=0, tenant="default").name
    assert refused(catalogs, model=model, dataset=name) == (
        "job.dataset",
        '"datasets/n" has "inputs" and "kinds", but no column \'targets\', which the loss compares with where none is '
        'said; say which, as loss={"target": …}',
    )
    for losses in ((Loss(target="kinds"),), (Loss("mse", target="inputs"),)):
        assert catalogs.submit(model=model, dataset=name, config=replace(CONFIG, losses=losses))


def test_the_validation_dataset_has_the_columns_too(catalogs: Catalogs) -> None:
    name = dataset(catalogs, "i", IMAGES)
    config = replace(CONFIG, losses=(Loss(target="kinds", example_weight="weights"),))
    usual = {column: IMAGES[column] for column in ("inputs", "targets", "kinds")}
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        (usual, 'has "inputs", "targets" and "kinds", but no column \'weights\', which the job reads; evaluate on'),
        ({**usual, "weights": np.ones((10, 2), np.float32)}, 'has values of "weights" of shape (N, 2), but'),
        ({**usual, "weights": IMAGES["wrong"]}, "and -0.5 of example 7 of"),
        ({**IMAGES, "kinds": np.zeros(10, np.float32)}, 'the values of "kinds" of'),
    )
    for number, (other, said) in enumerate(cases):
        second = dataset(catalogs, f"v{number}", other)
        field, description = refused(catalogs, replace(config, validation=Validation(second)), dataset=name)
        assert field == "job.config.validation.dataset"
        assert said in description
    same = dataset(catalogs, "same", {column: a for column, a in IMAGES.items() if column != "soft"})
    assert catalogs.submit(config=replace(config, validation=Validation(same)), dataset=name)[0] is JobState.QUEUED


# --- inputs ----------------------------------------------------------------------------------------------------

BY_KIND = replace(CONFIG, losses=(Loss(output="kind"),))


def test_a_network_of_several_inputs_takes_the_columns_of_their_names(catalogs: Catalogs) -> None:
    model, name = network(catalogs), dataset(catalogs, "t", TOKENS)
    assert catalogs.submit(model=model, dataset=name, config=BY_KIND)
    renamed = {**TOKENS, "tokens": TOKENS["ids"]}
    del renamed["ids"]
    other = dataset(catalogs, "renamed", renamed)
    assert catalogs.submit(model=model, dataset=other, config=replace(BY_KIND, inputs={"ids": "tokens"}))
    field, description = refused(catalogs, BY_KIND, model=model, dataset=other)
    assert field == "job.dataset"
    assert description == (
        '"datasets/renamed" has "targets", "mask" and "tokens", but no column \'ids\', which "models/two" takes as its '
        "input \"ids\"; say which column it takes with inputs={'ids': …}, or make a dataset with this one"
    )


@pytest.mark.parametrize(
    ("columns", "inputs", "field", "description"),
    [
        ({}, {"ids": "tokens"}, "job.config.inputs", "but no column 'tokens', which \"models/two\" takes as its input"),
        ({}, {"x": "ids"}, "job.config.inputs", 'names \'x\', but "models/two" takes "ids", "mask"; name one of these'),
        ({"mask": np.ones((10, 4), np.float32)}, {}, "job.dataset", "'mask' of shape [4] of \"datasets/t\" do not fit"),
        ({"mask": np.ones((10, 5), np.int64)}, {}, "job.dataset", 'input "mask" is of float32; got int64'),
        ({"ids": TOKENS["ids"].astype(np.float32)}, {}, "job.dataset", 'input "ids" is of int64; got float32'),
        ({"ids": TOKENS["ids"] + 5}, {}, "job.dataset", "do not fit"),
        ({"ids": TOKENS["ids"] - 30}, {}, "job.dataset", "do not fit"),
    ],
)
def test_inputs_that_do_not_fit_are_told_one_by_one(
    catalogs: Catalogs, columns: dict[str, Any], inputs: dict[str, str], field: str, description: str
) -> None:
    model, name = network(catalogs), dataset(catalogs, "t", {**TOKENS, **columns})
    found = refused(catalogs, replace(BY_KIND, inputs=inputs), model=model, dataset=name)
    assert found[0] == field
    assert description in found[1]


def test_a_mask_of_the_example_leaves_nothing_out(catalogs: Catalogs) -> None:
    columns = {"mask": np.tile([1.0, 0.0], 25).reshape(10, 5).astype(np.float32), "ids": TOKENS["ids"]}
    found = catalogs.datasets.get(dataset(catalogs, "t", columns), tenant="default")
    mask, ids = example_of_inputs(found, ("mask", "ids"))
    assert (mask.dtype.name, mask.tolist()) == ("float32", [[1, 1, 1, 1, 1]])
    assert (ids.dtype.name, ids.tolist()) == ("int64", [[11, 11, 11, 11, 0]])


def test_whole_numbers_are_not_mixed(catalogs: Catalogs) -> None:
    model, name = network(catalogs), dataset(catalogs, "t", TOKENS)
    mixed = replace(BY_KIND, inputs={"ids": "ids"}, augmentation=Augmentation(mixup=0.5))
    assert "float32" in refused(catalogs, mixed, model=model, dataset=name)[1]
    floats = replace(mixed, inputs={"mask": "ids", "ids": "mask"})
    assert "mixup" in refused(catalogs, floats, model=model, dataset=name)[0]


def test_names_of_inputs_are_short() -> None:
    [violation] = check_config(replace(CONFIG, inputs={"x": "y" * 129}))
    assert violation.field == "job.config.inputs"
    [violation] = check_config(replace(CONFIG, inputs={f"x{i}": "y" for i in range(65)}))
    assert "has 65 inputs" in violation.description


def test_a_family_takes_another_column_if_that_is_said(catalogs: Catalogs) -> None:
    name = dataset(catalogs, "i", {"pixels": IMAGES["inputs"], "targets": IMAGES["targets"]})
    assert "but no column 'inputs', which \"models/m\" takes" in refused(catalogs, dataset=name)[1]
    assert catalogs.submit(dataset=name, config=replace(CONFIG, inputs={"inputs": "pixels"}))


def test_what_another_dataset_has_against_a_loss_names_the_loss(catalogs: Catalogs) -> None:
    dataset(catalogs, "i", IMAGES)
    other = dataset(catalogs, "held-out", {**IMAGES, "weights": IMAGES["wrong"]})
    config = replace(CONFIG, losses=(Loss(example_weight="weights"),), validation=Validation(dataset=other))
    with pytest.raises(
        InvalidRequestError, match=r'which is \'weights\', and -0.5 of example 7 of "datasets/h'
    ) as caught:
        catalogs.submit(dataset="datasets/i", config=config)
    assert refusal(caught).field == "job.config.validation.dataset"
    assert refusal(caught).description.startswith("does not go with the example_weight of losses[0], which")


def test_metrics_are_tried_on_more_than_one_example(catalogs: Catalogs) -> None:
    """Of one example, shapes may go together by chance."""
    dataset(catalogs, "i", {**IMAGES, "numbers": np.zeros(10, np.float32)})
    for spec in (MetricSpec("perplexity", target="inputs"), MetricSpec("top_k", k=2, target="numbers")):
        config = replace(CONFIG, metrics=(spec,))
        with pytest.raises(InvalidRequestError) as caught:
            catalogs.submit(dataset="datasets/i", config=config)
        assert refusal(caught).field.startswith("job.config.metrics[0]")


def test_an_output_of_numbers_may_be_measured_with_labels_of_another_column(catalogs: Catalogs) -> None:
    """As where a network learns what another one gives, and is measured by what is right."""
    dataset(catalogs, "i", IMAGES)
    losses = (Loss("mse", target="soft"),)
    labels, same = (MetricSpec("accuracy"), MetricSpec("accuracy", target="soft"))
    assert catalogs.submit(dataset="datasets/i", config=replace(CONFIG, losses=losses, metrics=(labels,)))[1]
    with pytest.raises(InvalidRequestError, match='"accuracy" is of classes or labels, but "mse"'):
        catalogs.submit(dataset="datasets/i", config=replace(CONFIG, losses=losses, metrics=(same,)))


def test_the_highest_label_below_one_that_is_ignored_must_have_an_output(catalogs: Catalogs) -> None:
    dataset(catalogs, "i", {**IMAGES, "kinds": np.arange(10) % 3 + 9})
    config = replace(CONFIG, losses=(Loss(target="kinds", ignore_index=11),))
    with pytest.raises(InvalidRequestError, match=r'has the label 10 in "kinds", .* tells 10 classes apart') as caught:
        catalogs.submit(dataset="datasets/i", config=config)
    assert refusal(caught).field == "job.config.losses[0].name"
