"""What a model is evaluated on: a share of the dataset, or a second one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from chainrule.server.architecture import Builtin
from chainrule.server.errors import (
    InvalidRequestError,
    NotFoundError,
)
from chainrule.server.jobs.submission import Submission, num_kept_back
from chainrule.server.records import JobState
from chainrule.server.training.augmentation import Augmentation, Normalize, Resize
from chainrule.server.training.config import Validation
from tests.server.conftest import refusal
from tests.server.jobs.submitting import CONFIG, Catalogs

TOKENS = np.arange(30).reshape(5, 6) % 16


@pytest.mark.parametrize(
    ("num_examples", "fraction", "kept_back"),
    [(10, 0.0, 0), (10, 0.2, 2), (10, 0.01, 1), (10, 0.26, 3), (3, 0.9, 2), (2, 0.9, 1), (1000, 0.9, 900)],
)
def test_a_share_of_the_examples_is_kept_back_but_not_all(num_examples: int, fraction: float, kept_back: int) -> None:
    assert num_kept_back(num_examples, fraction) == kept_back


def test_what_is_kept_back_takes_no_steps(catalogs: Catalogs) -> None:
    config = replace(CONFIG, validation=Validation(fraction=0.2))
    job, _ = catalogs.submissions.submit(Submission("models/m", "datasets/d", config), cluster_cpus=4)
    assert job.progress.total_steps == 3 * 2  # 3 epochs of 8 examples, 4 a step


def test_a_single_example_cannot_be_split(catalogs: Catalogs) -> None:
    dataset = catalogs.create_dataset("one", (1, 8, 8), count=1)
    with pytest.raises(InvalidRequestError, match=r'is 0\.5, but "datasets/one" has 1 example') as caught:
        catalogs.submit(dataset=dataset, config=replace(CONFIG, validation=Validation(fraction=0.5)))
    assert refusal(caught).field == "job.config.validation.fraction"


def test_a_second_dataset_must_be_there_and_look_like_the_first(catalogs: Catalogs) -> None:
    def submit(dataset: str) -> tuple[JobState, bool]:
        return catalogs.submit(config=replace(CONFIG, validation=Validation(dataset=dataset)))

    assert submit(catalogs.create_dataset("v", (1, 8, 8), count=3)) == (JobState.QUEUED, True)
    with pytest.raises(NotFoundError, match="datasets/x"):
        submit("datasets/x")
    for name, message in (
        ("v", "is no name in datasets"),
        (catalogs.create_dataset("wide", (1, 8, 16)), r'"datasets/wide" has inputs of shape \(N, 1, 8, 16\), but "dat'),
        (catalogs.create_dataset("other", (1, 8, 8), label=10), "has the label 10"),
    ):
        with pytest.raises(InvalidRequestError, match=message) as caught:
            submit(name)
        assert refusal(caught).field == "job.config.validation.dataset"


def test_tokens_and_features_are_not_evaluated_on_each_other(catalogs: Catalogs) -> None:
    catalogs.models.create(
        "mlp", architecture=Builtin("mlp", {"in_features": 6}), weights_digest="", init_seed=0, tenant="default"
    )
    features = catalogs.create_dataset("features", (6,))
    tokens = catalogs.create("tokens", TOKENS, TOKENS[:, 0])
    with pytest.raises(InvalidRequestError, match=r"are tokens, but those of .* are float32 features") as caught:
        catalogs.submit(
            model="models/mlp", dataset=features, config=replace(CONFIG, validation=Validation(dataset=tokens))
        )
    assert refusal(caught).field == "job.config.validation.dataset"


def test_images_that_are_evaluated_must_go_with_what_is_done_to_all_of_them(catalogs: Catalogs) -> None:
    catalogs.create_dataset("flat", (64,))
    catalogs.create_dataset("coloured", (3, 4, 4))
    catalogs.create_dataset("small", (1, 4, 4))
    both = Augmentation((Resize(8, 8), Normalize((0.5,), (0.5,))))

    def submit(dataset: str) -> tuple[JobState, bool]:
        return catalogs.submit(config=replace(CONFIG, augmentation=both, validation=Validation(dataset=dataset)))

    assert submit("datasets/small") == (JobState.QUEUED, True)
    for name, said in (
        ("datasets/flat", r'"datasets/flat" does not go with what the job does to images: .* float32 of shape \[64\]'),
        ("datasets/coloured", r"images: augmentation.transforms\[1\].mean has 1 values; images have 3 channels"),
    ):
        with pytest.raises(InvalidRequestError, match=said) as caught:
            submit(name)
        assert refusal(caught).field == "job.config.validation.dataset"
