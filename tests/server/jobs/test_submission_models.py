"""Whether a model can be trained on a dataset: inputs, labels and tokens, and what is named of its parameters."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from chainrule.server.errors import (
    InvalidRequestError,
    NotFoundError,
)
from chainrule.server.jobs.submission import Submission
from chainrule.server.records import JobState
from chainrule.server.training.config import Loss
from chainrule.server.training.config import ParameterGroup as Group
from tests import graphs
from tests.server.conftest import refusal
from tests.server.jobs.submitting import CONFIG, Catalogs


def test_a_job_that_can_be_run_is_queued(catalogs: Catalogs) -> None:
    assert catalogs.submit() == (JobState.QUEUED, True)
    job, _ = catalogs.submissions.submit(Submission("models/m", "datasets/d", CONFIG), cluster_cpus=4)
    assert (job.model, job.dataset, job.config) == ("models/m", "datasets/d", CONFIG)
    assert job.progress.total_steps == 3 * 3  # 3 epochs of 10 examples, 4 a step


@pytest.mark.parametrize("name", ["", "m", "jobs/m"])
@pytest.mark.parametrize("field", ["model", "dataset"])
def test_a_name_of_something_else_is_refused_in_its_field(catalogs: Catalogs, field: str, name: str) -> None:
    with pytest.raises(InvalidRequestError, match="is no name in") as caught:
        catalogs.submit(4, **{field: name})
    assert refusal(caught).field == f"job.{field}"


@pytest.mark.parametrize(("field", "name"), [("model", "models/x"), ("dataset", "datasets/x")])
def test_a_model_or_dataset_that_is_not_there_is_not_found(catalogs: Catalogs, field: str, name: str) -> None:
    with pytest.raises(NotFoundError, match=name):
        catalogs.submit(4, **{field: name})


@pytest.mark.parametrize("shape", [(), (64,), (8, 8), (3, 8, 8), (1, 4, 16), (1, 9, 9), (1, 1, 8, 8), (1, 3000, 3000)])
def test_inputs_that_the_model_does_not_take_are_refused(catalogs: Catalogs, shape: tuple[int, ...]) -> None:
    dataset = catalogs.create_dataset("other", shape, count=1)
    with pytest.raises(InvalidRequestError, match=r'of "datasets/other" do not fit "models/m": .* got \(1') as caught:
        catalogs.submit(dataset=dataset)
    assert refusal(caught).field == "job.dataset"


def test_a_label_that_the_model_does_not_know_is_refused(catalogs: Catalogs) -> None:
    dataset = catalogs.create_dataset("other", (1, 8, 8), label=10)
    with pytest.raises(InvalidRequestError, match=r"has the label 10, but .* tells 10 classes apart"):
        catalogs.submit(dataset=dataset)


@pytest.mark.parametrize("pattern", ["conv1.weight", "conv*", "*.bias", "f[a-d].*"])
def test_what_is_trained_is_named_by_patterns(catalogs: Catalogs, pattern: str) -> None:
    assert catalogs.submit(config=replace(CONFIG, trainable=(pattern,))) == (JobState.QUEUED, True)


def test_a_pattern_that_names_no_parameter_is_refused(catalogs: Catalogs) -> None:
    config = replace(CONFIG, trainable=("fc.*", "fd.*", "bn1.running_mean"))
    with pytest.raises(InvalidRequestError, match=r"'fd\.\*' matches no parameter of \"models/m\"; its") as caught:
        catalogs.submit(config=config)
    fields = [violation.field for violation in caught.value.violations]
    assert fields == ["job.config.trainable[1]", "job.config.trainable[2]"]


def test_groups_of_parameters_are_named_by_patterns(catalogs: Catalogs) -> None:
    groups = (Group(("*.bias", "bn?.*"), weight_decay=0.0), Group(("fc.*",), lr=1.0), Group(("*",), momentum=0.5))
    assert catalogs.submit(config=replace(CONFIG, parameter_groups=groups)) == (JobState.QUEUED, True)
    job, _ = catalogs.submissions.submit(
        Submission("models/m", "datasets/d", replace(CONFIG, parameter_groups=groups)), cluster_cpus=4
    )
    assert job.config.parameter_groups == groups  # from the store


def test_a_group_that_names_no_parameter_is_refused(catalogs: Catalogs) -> None:
    config = replace(CONFIG, parameter_groups=(Group(("fc.*",), lr=1.0), Group(("*.bias", "fd.*"), lr=2.0)))
    with pytest.raises(
        InvalidRequestError, match=r"'fd\.\*' matches no parameter of \"models/m\"; its .*'conv1"
    ) as caught:
        catalogs.submit(config=config)
    assert refusal(caught).field == "job.config.parameter_groups[1].patterns[1]"


def test_a_group_behind_one_that_takes_all_of_it_is_refused(catalogs: Catalogs) -> None:
    config = replace(CONFIG, parameter_groups=(Group(("*",), lr=1.0), Group(("*.bias",), weight_decay=0.0)))
    with pytest.raises(InvalidRequestError, match="matches only parameters that are of groups before it") as caught:
        catalogs.submit(config=config)
    assert refusal(caught).field == "job.config.parameter_groups[1].patterns"


# --- tokens ----------------------------------------------------------------------------------------------------


TOKENS = np.arange(30).reshape(5, 6) % 16


def test_a_model_of_tokens_is_trained_on_tokens(catalogs: Catalogs) -> None:
    dataset = catalogs.create("tokens", TOKENS, (TOKENS + 1) % 16)
    assert catalogs.submit(model=catalogs.create_gpt(), dataset=dataset) == (JobState.QUEUED, True)


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (TOKENS + 1, TOKENS, r"inputs of shape \[6\] .* do not fit .*16"),
        (np.tile(TOKENS, 2), np.tile(TOKENS, 2), r"inputs of shape \[12\] .* do not fit .* at most 8"),
        (TOKENS, TOKENS + 1, r"has the label 16, but .* tells 16 classes apart"),
        (
            TOKENS,
            TOKENS[:, 0],
            r"targets of shape \(N,\), which go with outputs of shape \(N, classes\), but those of ",
        ),
    ],
)
def test_tokens_that_do_not_fit_the_model_are_refused(
    catalogs: Catalogs, inputs: np.ndarray, targets: np.ndarray, message: str
) -> None:
    dataset = catalogs.create("tokens", inputs, targets)
    with pytest.raises(InvalidRequestError, match=message) as caught:
        catalogs.submit(model=catalogs.create_gpt(), dataset=dataset)
    assert refusal(caught).field == "job.dataset"


def test_features_are_no_tokens(catalogs: Catalogs) -> None:
    dataset = catalogs.create_dataset("features", (6,))
    with pytest.raises(InvalidRequestError, match="do not fit"):
        catalogs.submit(model=catalogs.create_gpt(), dataset=dataset)


# --- graphs ----------------------------------------------------------------------------------------------------


def test_a_graph_is_tried_on_the_dataset(catalogs: Catalogs) -> None:
    model = catalogs.create_graph(graphs.small_onnx())
    fits = catalogs.create_dataset("fits", (graphs.FEATURES,))
    config = replace(CONFIG, shards=2, batch_size=5)  # its BatchNorm needs two examples in each shard
    assert catalogs.submit(model=model, dataset=fits, config=config) == (JobState.QUEUED, True)
    config = replace(config, trainable=("fc2.*",))
    assert catalogs.submit(model=model, dataset=fits, config=config) == (JobState.QUEUED, True)


def test_inputs_that_a_graph_does_not_take_are_refused_with_those_that_it_declares(catalogs: Catalogs) -> None:
    model = catalogs.create_graph(graphs.small_onnx())
    wide = catalogs.create_dataset("wide", (graphs.FEATURES + 1,))
    with pytest.raises(
        InvalidRequestError, match=r'do not fit "models/g", which takes "x" of float32 \(N, 8\)'
    ) as error:
        catalogs.submit(model=model, dataset=wide)
    assert refusal(error).field == "job.dataset"
    labels = catalogs.create_dataset("labels", (graphs.FEATURES,), label=10)
    with pytest.raises(InvalidRequestError, match=r"has the label 10, but .* tells 10 classes apart"):
        catalogs.submit(model=model, dataset=labels)


def test_a_loss_names_one_of_the_outputs_of_a_graph(catalogs: Catalogs) -> None:
    model, dataset = catalogs.create_graph(graphs.two_outputs()), catalogs.create_dataset("pairs", (2,), label=1)
    assert catalogs.submit(model=model, dataset=dataset, config=replace(CONFIG, losses=(Loss(output="z"),)))
    with pytest.raises(
        InvalidRequestError, match=r'is "q", which is no output; name one of y, z, the outputs of "models/'
    ) as error:
        catalogs.submit(model=model, dataset=dataset, config=replace(CONFIG, losses=(Loss(output="q"),)))
    assert refusal(error).field == "job.config.losses[0].output"


def test_a_graph_that_inflates_its_input_is_refused_before_it_does(catalogs: Catalogs) -> None:
    dataset = catalogs.create_dataset("thin", (2, 1), label=2)
    assert catalogs.submit(model=catalogs.create_graph(graphs.inflating(100)), dataset=dataset)[1]
    for elements in (10**8, 10**12, 2**62):
        model = catalogs.create_graph(graphs.inflating(elements), f"g{elements}")
        tracemalloc.start()
        try:
            with pytest.raises(InvalidRequestError, match="blow up") as error:
                catalogs.submit(model=model, dataset=dataset)
            assert tracemalloc.get_traced_memory()[1] < 2**26
        finally:
            tracemalloc.stop()
        assert refusal(error).field == "job.dataset"
