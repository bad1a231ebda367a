"""What makes a job worth queueing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chainrule.engine import io
from chainrule.server.blobs import BlobStore
from chainrule.server.datasets import DatasetCatalog
from chainrule.server.errors import (
    AlreadyExistsError,
    DamagedBlobError,
    IllegalStateError,
    InvalidRequestError,
    NotFoundError,
)
from chainrule.server.jobs.submission import Submission, Submissions, check_config
from chainrule.server.models import ModelCatalog
from chainrule.server.records import JobState
from chainrule.server.store import Store
from chainrule.server.training.plan import Sgd, TrainingConfig
from tests.server.conftest import refusal

CONFIG = TrainingConfig(epochs=3, batch_size=4, shards=4, workers=2)


class Catalogs:
    """Submissions to a store that has the model "models/m" and the dataset "datasets/d"."""

    def __init__(self, store: Store, blobs: BlobStore) -> None:
        self.blobs = blobs
        self.models = ModelCatalog(store, blobs)
        self.datasets = DatasetCatalog(store, blobs)
        self.submissions = Submissions(store, self.models, self.datasets)
        self.models.create("m", family="small_cnn", config={"width": 2}, weights_digest="", init_seed=0)
        self.create_dataset("d", (1, 8, 8))

    def create_dataset(self, dataset_id: str, shape: tuple[int, ...], label: int = 9) -> str:
        tensors = {"inputs": np.zeros((10, *shape), np.float32), "targets": np.full(10, label)}
        return self.datasets.create(dataset_id, digest=self.blobs.put(io.save(tensors))).name

    def submit(self, cpus: float = 4, **fields: Any) -> tuple[JobState, bool]:
        submission = Submission(**{"model": "models/m", "dataset": "datasets/d", "config": CONFIG, **fields})
        job, new = self.submissions.submit(submission, cluster_cpus=cpus)
        return job.state, new


@pytest.fixture
def catalogs(store: Store, blobs: BlobStore) -> Catalogs:
    return Catalogs(store, blobs)


# --- the configuration -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        TrainingConfig(),
        CONFIG,
        replace(CONFIG, optimizer=Sgd(lr=1e-9, momentum=0.9, nesterov=True)),
        replace(CONFIG, optimizer=Sgd(lr=10, dampening=0.5, weight_decay=0.1)),
        replace(CONFIG, seed=2**64 - 1),
    ],
)
def test_a_configuration_that_can_be_run_is_taken(config: TrainingConfig) -> None:
    assert check_config(config) == []


@pytest.mark.parametrize(
    ("changed", "field", "description"),
    [
        ({"epochs": 0}, "epochs", "is 0; use 1 to 1,000,000"),
        ({"epochs": 1_000_001}, "epochs", "is 1000001; use 1 to 1,000,000"),
        ({"shards": 0, "workers": 0}, "shards", "is 0; use 1 to 65,536"),
        ({"batch_size": 10**6, "shards": 65_537}, "shards", "is 65537; use 1 to 65,536"),
        ({"shards": 5}, "shards", "is 5, more than batch_size 4"),
        ({"workers": 5}, "workers", "is 5; use 1 to shards (4)"),
        ({"workers": 0}, "workers", "is 0; use 1 to shards (4)"),
        ({"optimizer": Sgd(lr=0)}, "sgd.lr", "is 0; use a number above 0"),
        ({"optimizer": Sgd(lr=math.nan)}, "sgd.lr", "is nan; use a number above 0"),
        ({"optimizer": Sgd(momentum=-0.1)}, "sgd.momentum", "is -0.1; use 0 or more"),
        ({"optimizer": Sgd(dampening=math.inf)}, "sgd.dampening", "is inf; use a finite number"),
        ({"optimizer": Sgd(weight_decay=-1)}, "sgd.weight_decay", "is -1; use 0 or more"),
        ({"optimizer": Sgd(nesterov=True)}, "sgd.nesterov", "needs momentum above 0"),
        ({"optimizer": Sgd(nesterov=True, momentum=0.9, dampening=0.1)}, "sgd.nesterov", "needs momentum above 0"),
    ],
)
def test_a_field_that_is_wrong_is_named(changed: dict[str, Any], field: str, description: str) -> None:
    violation = check_config(replace(CONFIG, **changed))[0]
    assert violation.field == f"job.config.{field}"
    assert violation.description.startswith(description)


def test_all_fields_that_are_wrong_are_named() -> None:
    wrong = TrainingConfig(epochs=-1, batch_size=0, shards=-1, workers=-1, optimizer=Sgd(lr=-1, momentum=-1))
    fields = {violation.field.removeprefix("job.config.") for violation in check_config(wrong)}
    assert fields == {"epochs", "batch_size", "shards", "workers", "sgd.lr", "sgd.momentum"}


# --- the model on the data -------------------------------------------------------------------------------------


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
    dataset = catalogs.create_dataset("other", shape)
    with pytest.raises(InvalidRequestError, match=r'of "datasets/other" do not fit "models/m": .* got \(1') as caught:
        catalogs.submit(dataset=dataset)
    assert refusal(caught).field == "job.dataset"


def test_a_label_that_the_model_does_not_know_is_refused(catalogs: Catalogs) -> None:
    dataset = catalogs.create_dataset("other", (1, 8, 8), label=10)
    with pytest.raises(InvalidRequestError, match=r"has the label 10, but .* tells 10 classes apart"):
        catalogs.submit(dataset=dataset)


def test_a_model_whose_weights_are_damaged_is_refused(catalogs: Catalogs) -> None:
    digest = catalogs.models.get("models/m").weights_digest
    path = catalogs.blobs.path(digest)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(DamagedBlobError, match="upload it again with WriteBlob"):
        catalogs.submit()
    catalogs.blobs.put(content)
    assert catalogs.submit() == (JobState.QUEUED, True)


# --- the rest --------------------------------------------------------------------------------------------------


def test_more_workers_than_cpus_are_refused(catalogs: Catalogs) -> None:
    with pytest.raises(IllegalStateError, match="workers is 2, but the cluster has 1 CPUs"):
        catalogs.submit(cpus=1)


def test_a_repeated_request_answers_with_its_job(catalogs: Catalogs) -> None:
    assert catalogs.submit(request_id="r") == (JobState.QUEUED, True)
    assert catalogs.submit(request_id="r") == (JobState.QUEUED, False)
    with pytest.raises(AlreadyExistsError, match='request_id "r" has already made'):
        catalogs.submit(request_id="r", config=replace(CONFIG, epochs=4))


def test_a_request_id_that_is_too_long_is_refused(catalogs: Catalogs) -> None:
    with pytest.raises(InvalidRequestError, match="request_id: it has 129 characters; use at most 128"):
        catalogs.submit(request_id="r" * 129)
